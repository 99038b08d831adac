"""Two towers with a learned scale."""

import math
from typing import Any, NamedTuple

import jax
from flax import linen as nn


class DualEncoderOutput(NamedTuple):
    """Result of a `DualEncoder`.

    Attributes:
      image_embeds: `[B, D]`, not normalised; None without images.
      text_embeds: `[B, D]`, not normalised; None without texts.
      log_scale: scalar, the logarithm of the multiplier of the cosine similarities.
      bias: scalar added to the scaled similarities; None without a bias.
    """

    image_embeds: jax.Array | None
    text_embeds: jax.Array | None
    log_scale: jax.Array
    bias: jax.Array | None


class DualEncoder(nn.Module):
    """An image and a text tower that embed into one space; logits are `exp(log_scale) cos(image, text) + bias`.

    Parameters `image/...`, `text/...`, `log_scale`, and `bias` with `use_bias`; the last two are float32 scalars.

    Attributes:
      image: module `(images, deterministic=) -> (embeds, intermediates)`, e.g. `VisionTransformer`.
      text: module `(token_ids, text_mask=, deterministic=) -> (embeds, intermediates)`, e.g. `TextTransformer`.
      init_scale: initial multiplier; CLIP 1/0.07, SigLIP 10.
      use_bias: whether the logits have a bias, as in SigLIP.
      init_bias: its initial value.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, figure 3.
      Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2 (bias).
    """

    image: nn.Module
    text: nn.Module
    init_scale: float = 1 / 0.07
    use_bias: bool = False
    init_bias: float = -10.0

    @nn.compact
    def __call__(
        self,
        images: jax.Array | None = None,
        token_ids: jax.Array | None = None,
        *,
        text_mask: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[DualEncoderOutput, dict[str, dict[str, Any]]]:
        """Embeds images, texts, or both; initialise with both.

        Args:
          images: `[B, H, W, 3]` floating, normalised.
          token_ids: `[B, T]` integers.
          text_mask: bool `[B, T]`, False = padding.
          deterministic: whether dropout is off; otherwise the call needs a "dropout" rng.

        Returns:
          The output, and the towers' intermediates under "image" and "text".

        Raises:
          ValueError: neither images nor texts are given.
        """
        if images is None and token_ids is None:
            raise ValueError("DualEncoder: neither images nor token_ids are given, expected at least one")
        image_embeds = text_embeds = None
        intermediates = {}
        if images is not None:
            image_embeds, intermediates["image"] = self.image(images, deterministic=deterministic)
        if token_ids is not None:
            text_embeds, intermediates["text"] = self.text(token_ids, text_mask=text_mask, deterministic=deterministic)
        log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.init_scale)), ())
        bias = self.param("bias", nn.initializers.constant(self.init_bias), ()) if self.use_bias else None
        return DualEncoderOutput(image_embeds, text_embeds, log_scale, bias), intermediates
