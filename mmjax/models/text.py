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
    """Text Transformer: token and position embeddings, blocks, a norm, pooling, projection.

    The defaults are CLIP's tower. Others differ in:
      SigLIP: `causal=False, attend_padding=True, pool="last", act="gelu_tanh", ln_eps=1e-6, proj_bias=True`;
      BERT: `norm_position="post", type_vocab=2, causal=False, ln_eps=1e-12, output_dim=None`, and `pool="mean"`
        (sentence-transformers), "first" or "pooler".

    Parameters, each where its setting asks for it: `token_embedding/embedding` `[V, D]`, `position_embedding`
    `[context_length, D]`, `type_embedding` `[type_vocab, D]`, `ln_embed` (post-norm) or `ln_final` (pre-norm),
    `encoder/block_{i}/...`, `pooler`, `proj/kernel` `[D, output_dim]`.

    Attributes:
      vocab_size: V.
      context_length: longest text in tokens.
      width: D.
      num_layers, num_heads, mlp_ratio, act, ln_eps, attention, scan, remat: see `Encoder`.
      output_dim: width of the embedding; None = no projection, D.
      pool: "argmax" = the token with the largest id, "eos" = the first `eos_id`, "first", "last", "mean", or "pooler" =
        `tanh(pooler(first))`; padding that `text_mask` names is passed over.
      causal: whether a token attends to earlier tokens and itself only.
      attend_padding: whether padding is text like any other, so that `text_mask` does not count; every text is then
        `context_length` tokens long.
      norm_position: "pre" = norms before the branches of a block, and one after the last; "post" = BERT's, after the
        embeddings and after each branch.
      type_vocab: number of token types (segments); 0 = tokens have no type.
      eos_id: for pool "eos".
      proj_bias: whether the projection has a bias.
      dropout_rate: of each branch of a block, and of post-norm's embeddings.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, section 2.4;
      mlfoundations/open_clip at 89fb801. BERT: Devlin et al., NAACL 2019; huggingface/transformers 5.23.0. Mean of the
      tokens: Reimers and Gurevych, "Sentence-BERT", EMNLP 2019, section 3.
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
    attend_padding: bool = False
    norm_position: str = "pre"
    type_vocab: int = 0
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
        self,
        token_ids: jax.Array,
        text_mask: jax.Array | None = None,
        deterministic: bool = True,
        *,
        type_ids: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Embeds texts.

        Args:
          token_ids: `[B, T]` integers in `[0, V)`, T at most `context_length`.
          text_mask: bool `[B, T]`, False = padding: neither attended to nor pooled, but with `attend_padding`. None =
            every token counts; padding at the end is harmless even so where the tower is causal and pools at the end
            of text.
          deterministic: whether dropout is off; if not, the call needs a "dropout" rng.
          type_ids: `[B, T]` integers in `[0, type_vocab)`; None = zeros.

        Returns:
          Embeddings `[B, output_dim]`, not normalised, and the intermediates `tokens` `[B, T, D]` (after the last
          norm), `pooled` `[B, D]` (what the projection reads), `blocks` (tuple of each block's output).

        Raises:
          ValueError: the shapes do not fit, or a setting is unknown.
          TypeError: the ids are not integers, or the mask not bool.
        """
        self._check(token_ids, text_mask, type_ids)
        if self.attend_padding:
            text_mask = None
        post = self.norm_position == "post"
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        normal = nn.initializers.normal
        embed = nn.Embed(self.vocab_size, self.width, embedding_init=normal(0.02), name="token_embedding", **dtypes)
        x = embed(token_ids)
        shape = (self.context_length, self.width)
        positions = self.param("position_embedding", normal(0.01), shape, self.param_dtype)
        x = x + positions[: x.shape[1]].astype(x.dtype)
        if self.type_vocab:
            types = self.param("type_embedding", normal(0.02), (self.type_vocab, self.width), self.param_dtype)
            x = x + (types[0] if type_ids is None else types[type_ids]).astype(x.dtype)
        if post:
            x = LayerNorm(self.ln_eps, name="ln_embed", **dtypes)(x)
            x = nn.Dropout(self.dropout_rate, deterministic=deterministic)(x)
        encoder = Encoder(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            norm_position=self.norm_position,
            dropout_rate=self.dropout_rate,
            ln_eps=self.ln_eps,
            attention=self.attention,
            scan=self.scan,
            remat=self.remat,
            name="encoder",
            **dtypes,
        )
        x, blocks = encoder(x, self._attention_mask(x.shape[1], text_mask), deterministic)
        tokens = x if post else LayerNorm(self.ln_eps, name="ln_final", **dtypes)(x)
        pooled = self._pool(tokens, token_ids, text_mask)
        if self.pool == "pooler":
            pooled = jnp.tanh(Dense(self.width, kernel_init=normal(0.02), name="pooler", **dtypes)(pooled))
        embeds = pooled
        if self.output_dim is not None:
            init = normal(self.width**-0.5)
            proj = Dense(self.output_dim, use_bias=self.proj_bias, kernel_init=init, name="proj", **dtypes)
            embeds = proj(pooled)
        return embeds, {"tokens": tokens, "pooled": pooled, "blocks": blocks}

    def _check(self, token_ids: jax.Array, text_mask: jax.Array | None, type_ids: jax.Array | None) -> None:
        check_rank("TextTransformer", rank=2, token_ids=token_ids)
        check_integer("TextTransformer", token_ids=token_ids)
        check_choice("TextTransformer", "pool", self.pool, (*TEXT_POOLS, "mean", "pooler"))
        if token_ids.shape[1] > self.context_length:
            raise ValueError(
                f"TextTransformer: token_ids have shape {token_ids.shape}, longer than context_length "
                f"{self.context_length}; truncate the texts when they are encoded, or raise context_length"
            )
        if self.attend_padding and token_ids.shape[1] < self.context_length and not self.is_initializing():
            raise ValueError(
                f"TextTransformer: token_ids have shape {token_ids.shape}, but attend_padding makes padding count; pad "
                f"every text to context_length {self.context_length}, without length buckets"
            )
        if text_mask is not None:
            check_same_shape("TextTransformer", token_ids=token_ids, text_mask=text_mask)
            if text_mask.dtype != jnp.bool_:
                raise TypeError(f"TextTransformer: text_mask has dtype {text_mask.dtype}, expected bool (True = token)")
        if type_ids is not None:
            check_same_shape("TextTransformer", token_ids=token_ids, type_ids=type_ids)
            check_integer("TextTransformer", type_ids=type_ids)
            if not self.type_vocab:
                raise ValueError("TextTransformer: type_ids are given, but type_vocab is 0; leave them out, or set it")

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
        keys, pool = token_ids, "first" if self.pool == "pooler" else self.pool
        if text_mask is None:
            return pool_text(tokens, keys, pool=pool, eos_id=self.eos_id)
        if pool in ("first", "last"):
            # The last valid position is the argmax of the positions, the first one that of the negative positions.
            keys, pool = jnp.arange(token_ids.shape[1]) * (1 if pool == "last" else -1), "argmax"
        return pool_text(tokens, jnp.where(text_mask, keys, jnp.iinfo(jnp.int32).min), pool=pool, eos_id=self.eos_id)
