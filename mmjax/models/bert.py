"""BERT, as a stack of post-norm layers over word, type and position embeddings."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_integer, check_rank, check_same_shape
from mmjax.models.layers import Dense, LayerNorm
from mmjax.models.post_norm import PostNormLayer


class BertEncoder(nn.Module):
    """BERT: `x = LN(word + type + position)`, post-norm layers, and `pooled = tanh(Dense(x[:, 0]))`.

    This is the authors' tree, for the systems that are built of it. The text tower of a dual encoder is
    `TextTransformer(norm_position="post", type_vocab=2, ...)`, which computes the same.

    Parameters `word_embeddings/embedding` `[V, D]`, `type_embeddings/embedding`, `position_embeddings/embedding`,
    `ln_embeddings`, `block_{i}/...` as in `PostNormLayer`, `pooler/kernel` `[D, D]`.

    Attributes:
      vocab_size: V.
      features: D.
      num_layers: number of layers.
      num_heads, mlp_dim, act, attention, dtype, param_dtype: see `PostNormLayer`; the authors' GELU is the tanh form.
      max_positions: longest text in tokens.
      type_vocab: number of token types (segments).
      dropout_rate: of the embeddings and of each branch.
      ln_eps: of the layer norms.

    Reference:
      Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", NAACL 2019;
      google-research/bert at eedf571, `modeling.py`.
    """

    vocab_size: int
    features: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    max_positions: int
    type_vocab: int = 2
    act: str = "gelu_tanh"
    dropout_rate: float = 0.0
    ln_eps: float = 1e-12
    attention: str = "einsum"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        token_ids: jax.Array,
        mask: jax.Array | None = None,
        type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> dict[str, jax.Array]:
        """Encodes texts.

        Args:
          token_ids: `[B, T]` integers in `[0, V)`, T at most `max_positions`.
          mask: bool `[B, T]`, False = padding, which is not attended to; None = every token counts.
          type_ids: `[B, T]` integers in `[0, type_vocab)`; None = zeros.
          deterministic: whether dropout is off.

        Returns:
          `tokens` `[B, T, D]` and `pooled` `[B, D]`.

        Raises:
          ValueError: the shapes do not fit.
          TypeError: the ids are not integers.
        """
        type_ids = jnp.zeros_like(token_ids) if type_ids is None else type_ids
        mask = jnp.ones(token_ids.shape, bool) if mask is None else mask
        check_rank("BertEncoder", rank=2, token_ids=token_ids)
        check_same_shape("BertEncoder", token_ids=token_ids, mask=mask, type_ids=type_ids)
        check_integer("BertEncoder", token_ids=token_ids, type_ids=type_ids)
        length = token_ids.shape[1]
        if length > self.max_positions:
            raise ValueError(f"BertEncoder: texts have {length} tokens, more than max_positions {self.max_positions}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.truncated_normal(0.02)
        embed = functools.partial(nn.Embed, features=self.features, embedding_init=init, **dtypes)
        x = embed(self.vocab_size, name="word_embeddings")(token_ids)
        x = x + embed(self.type_vocab, name="type_embeddings")(type_ids)
        x = x + embed(self.max_positions, name="position_embeddings")(jnp.arange(length))
        x = LayerNorm(self.ln_eps, name="ln_embeddings", **dtypes)(x)
        x = nn.Dropout(self.dropout_rate, deterministic=deterministic)(x)
        layer = functools.partial(
            PostNormLayer,
            self.num_heads,
            self.mlp_dim,
            act=self.act,
            dropout_rate=self.dropout_rate,
            ln_eps=self.ln_eps,
            attention=self.attention,
            **dtypes,
        )
        for i in range(self.num_layers):
            x = layer(name=f"block_{i}")(x, mask, deterministic)
        pooler = Dense(self.features, kernel_init=init, name="pooler", **dtypes)
        return {"tokens": x, "pooled": jnp.tanh(pooler(x[:, 0]))}
