"""The text tower."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_choice, check_integer, check_rank, check_same_shape
from mmjax.models.encoder import Encoder
from mmjax.models.layers import Dense, LayerNorm
from mmjax.ops.pooling import TEXT_POOLS, pool_text


class TextTransformer(nn.Module):
    """Text Transformer: token and position embeddings, pre-norm blocks, a final norm, pooling, projection.

    The defaults are CLIP's tower. SigLIP differs in
    `causal=False, pool="last", act="gelu_tanh", ln_eps=1e-6, proj_bias=True`.

    Parameters: `token_embedding/embedding` `[V, D]`, `position_embedding` `[context_length, D]`,
    `encoder/block_{i}/...`, `ln_final`, `proj/kernel` `[D, output_dim]`.

    Attributes:
      vocab_size: V.
      context_length: longest text in tokens.
      width: D.
      num_layers, num_heads, mlp_ratio, act, dropout_rate, ln_eps, attention, scan, remat: see `Encoder`.
      output_dim: width of the embedding; None = no projection, D.
      pool: "argmax" = the token with the largest id, "eos" = the first `eos_id`, "first", "last", "mean"; padding that
        `text_mask` names is passed over.
      causal: whether a token attends to earlier tokens and itself only.
      eos_id: for pool "eos".
      proj_bias: whether the projection has a bias.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, section 2.4;
      mlfoundations/open_clip at 89fb801.
    """

    vocab_size: int
    context_length: int
    width: int
    num_layers: int
    num_heads: int
    output_dim: int | None
    mlp_ratio: float = 4.0
    act: str = "gelu"
    pool: str = "argmax"
    causal: bool = True
    eos_id: int | None = None
    proj_bias: bool = False
    dropout_rate: float = 0.0
    ln_eps: float = 1e-5
    attention: str = "einsum"
    scan: bool = False
    remat: str = "none"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, token_ids: jax.Array, text_mask: jax.Array | None = None, deterministic: bool = True
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Embeds texts.

        Args:
          token_ids: `[B, T]` integers in `[0, V)`, T at most `context_length`.
          text_mask: bool `[B, T]`, False = padding: neither attended to nor pooled. None = every token counts; padding
            at the end is harmless even so where the tower is causal and pools at the end of text.
          deterministic: whether dropout is off; if not, the call needs a "dropout" rng.

        Returns:
          Embeddings `[B, output_dim]`, not normalised, and the intermediates `tokens` `[B, T, D]` (after the final
          norm), `pooled` `[B, D]` (what the projection reads), `blocks` (tuple of each block's output).

        Raises:
          ValueError: the shapes do not fit, or a setting is unknown.
          TypeError: the ids are not integers, or the mask not bool.
        """
        self._check(token_ids, text_mask)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normal = nn.initializers.normal
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=normal(0.02), name="token_embedding", **dtypes)
        x = embed(token_ids)
        shape = (self.context_length, self.width)
        positions = self.param("position_embedding", normal(0.01), shape, self.param_dtype)
        x = x + positions[: x.shape[1]].astype(x.dtype)
        encoder = Encoder(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            dropout_rate=self.dropout_rate,
            ln_eps=self.ln_eps,
            attention=self.attention,
            scan=self.scan,
            remat=self.remat,
            name="encoder",
            **dtypes,
        )
        x, blocks = encoder(x, self._attention_mask(x.shape[1], text_mask), deterministic)
        tokens = LayerNorm(self.ln_eps, name="ln_final", **dtypes)(x)
        embeds = pooled = self._pool(tokens, token_ids, text_mask)
        if self.output_dim is not None:
            init = normal(self.width**-0.5)
            proj = Dense(self.output_dim, use_bias=self.proj_bias, kernel_init=init, name="proj", **dtypes)
            embeds = proj(pooled)
        return embeds, {"tokens": tokens, "pooled": pooled, "blocks": blocks}

    def _check(self, token_ids: jax.Array, text_mask: jax.Array | None) -> None:
        check_rank("TextTransformer", rank=2, token_ids=token_ids)
        check_integer("TextTransformer", token_ids=token_ids)
        check_choice("TextTransformer", "pool", self.pool, (*TEXT_POOLS, "mean"))
        if token_ids.shape[1] > self.context_length:
            raise ValueError(
                f"TextTransformer: token_ids have shape {token_ids.shape}, longer than context_length "
                f"{self.context_length}; truncate the texts when they are encoded, or raise context_length"
            )
        if text_mask is not None:
            check_same_shape("TextTransformer", token_ids=token_ids, text_mask=text_mask)
            if text_mask.dtype != jnp.bool_:
                raise TypeError(f"TextTransformer: text_mask has dtype {text_mask.dtype}, expected bool (True = token)")

    def _attention_mask(self, length: int, text_mask: jax.Array | None) -> jax.Array | None:
        causal = jnp.tril(jnp.ones((1, 1, length, length), bool)) if self.causal else None
        if text_mask is None:
            return causal
        valid = text_mask[:, None, None, :]
        return valid if causal is None else valid & causal

    def _pool(self, tokens: jax.Array, token_ids: jax.Array, text_mask: jax.Array | None) -> jax.Array:
        if self.pool == "mean":
            valid = jnp.ones(token_ids.shape, bool) if text_mask is None else text_mask
            total = jnp.sum(tokens.astype(jnp.float32), axis=1, where=valid[:, :, None])
            return (total / jnp.maximum(jnp.sum(valid, axis=1, keepdims=True), 1)).astype(tokens.dtype)
        if text_mask is None:
            return pool_text(tokens, token_ids, pool=self.pool, eos_id=self.eos_id)
        keys, pool = token_ids, self.pool
        if pool in ("first", "last"):
            # The last valid position is the argmax of the positions, the first one that of the negative positions.
            keys, pool = jnp.arange(token_ids.shape[1]) * (1 if pool == "last" else -1), "argmax"
        return pool_text(tokens, jnp.where(text_mask, keys, jnp.iinfo(jnp.int32).min), pool=pool, eos_id=self.eos_id)
