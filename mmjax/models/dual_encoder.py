"""An image and a text tower, with heads on top of them and a learned scale."""

import math
from typing import Any, NamedTuple

import jax
from flax import linen as nn


class DualEncoderOutput(NamedTuple):
    """Result of a `DualEncoder`.

    Attributes:
      image_embeds: `[B, D]`, not normalised, after the head; None without images.
      text_embeds: `[B, D]`, not normalised, after the head; None without texts.
      log_scale: scalar, the logarithm of the multiplier of the cosine similarities; None with one tower alone.
      bias: scalar added to the scaled similarities; None without a bias.
    """

    image_embeds: jax.Array | None
    text_embeds: jax.Array | None
    log_scale: jax.Array | None
    bias: jax.Array | None


class DualEncoder(nn.Module):
    """An image and a text tower that embed into one space; logits are `exp(log_scale) cos(image, text) + bias`.

    Either tower may be absent; what is left then embeds one modality, and has neither scale nor bias.

    Parameters, as far as they are there: `image/...`, `text/...`, `image_head/...`, `text_head/...`, `log_scale`, and
    `bias` with `use_bias`; the last two are float32 scalars.

    Attributes:
      image: module `(images, deterministic=) -> (embeds, intermediates)`, e.g. `VisionTransformer`; None = no images.
      text: module `(token_ids, text_mask=, deterministic=) -> (embeds, intermediates)`, e.g. `TextTransformer`; None =
        no texts.
      image_head, text_head: module `embeds -> embeds` on top of that tower, e.g. `MlpProjector`; None = the identity.
      init_scale: initial multiplier; CLIP 1/0.07, SigLIP 10.
      use_bias: whether the logits have a bias, as in SigLIP.
      init_bias: its initial value.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, figure 3.
      Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, section 3.2 (bias).
    """

    image: nn.Module | None = None
    text: nn.Module | None = None
    image_head: nn.Module | None = None
    text_head: nn.Module | None = None
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
        image_features: jax.Array | None = None,
        text_features: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[DualEncoderOutput, dict[str, dict[str, Any]]]:
        """Embeds images, texts, or both; initialise with all that the model has towers for.

        Args:
          images: `[B, H, W, 3]` floating, normalised.
          token_ids: `[B, T]` integers.
          text_mask: bool `[B, T]`, False = padding.
          image_features: `[B, Di]`, what the image tower gives, in place of images: only its head runs.
          text_features: `[B, Dt]`, what the text tower gives, in place of token ids.
          deterministic: whether dropout is off; otherwise the call needs a "dropout" rng.

        Returns:
          The output, and the towers' intermediates under "image" and "text", with `embeds`, what the tower gives to its
          head, among them.

        Raises:
          ValueError: there is nothing to embed, an input comes twice, or the model has no tower for one.
        """
        towers: dict[str, Any] = {"image": (self.image, self.image_head), "text": (self.text, self.text_head)}
        inputs = {"image": (images, image_features), "text": (token_ids, text_features)}
        calls = {"image": {}, "text": {"text_mask": text_mask}}
        _check(towers, inputs)
        embeds, intermediates = {}, {}
        for name, (raw, features) in inputs.items():
            tower, head = towers[name]
            if raw is not None:
                features, found = tower(raw, deterministic=deterministic, **calls[name])
                intermediates[name] = {**found, "embeds": features}
            embeds[name] = features if head is None or features is None else head(features)
        log_scale = bias = None
        if self.image is not None and self.text is not None:
            log_scale = self.param("log_scale", nn.initializers.constant(math.log(self.init_scale)), ())
            bias = self.param("bias", nn.initializers.constant(self.init_bias), ()) if self.use_bias else None
        return DualEncoderOutput(embeds["image"], embeds["text"], log_scale, bias), intermediates


def without_heads(model: DualEncoder) -> DualEncoder:
    """The towers of a model alone: they embed what its heads are given, and its parameters hold theirs."""
    return model.clone(image_head=None, text_head=None)


def _check(towers: dict[str, Any], inputs: dict[str, Any]) -> None:
    if all(value is None for pair in inputs.values() for value in pair):
        raise ValueError("DualEncoder: neither images nor token_ids are given, expected at least one")
    for name, (raw, features) in inputs.items():
        if raw is not None and features is not None:
            raise ValueError(f"DualEncoder: {name}_features stand in for the {name} tower's input; give one of the two")
        if towers[name][0] is None and (raw is not None or features is not None):
            raise ValueError(f"DualEncoder: there is input for the {name} tower, but the model has none; leave it out")
