"""The image tower."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from mmjax._checks import check_choice, check_rank
from mmjax.models.encoder import Encoder
from mmjax.models.layers import Dense, LayerNorm, PatchEmbed
from mmjax.models.pooling import MapHead
from mmjax.ops.positions import RESIZE_METHODS, resize_positions, sincos_position_2d
from mmjax.ops.token_dropping import drop_tokens


class VisionTransformer(nn.Module):
    """Vision Transformer: patches, positions, pre-norm blocks, a final norm, pooling, projection.

    The defaults are CLIP's tower. Others differ in:
      SigLIP: `class_token=False, pool="map", pre_norm=False, patch_bias=True, act="gelu_tanh", ln_eps=1e-6,
        output_dim=None`;
      DINOv2: `pre_norm=False, patch_bias=True, layer_scale=1e-5, ln_eps=1e-6, output_dim=None`, and
        `position_resize="bicubic"`, or `num_registers=4` where it has registers.

    Parameters, each where its setting asks for it: `patch_embed/kernel` `[p, p, 3, D]`, `class_embedding` `[D]`,
    `position_embedding` `[1 + N, D]`, `register_embedding` `[R, D]`, `ln_pre`, `encoder/block_{i}/...`, `ln_post`,
    `attn_pool/...`, `pooler`, `proj/kernel` `[D, output_dim]`.

    Attributes:
      patch_size: side p of a patch in pixels.
      width: D.
      num_layers, num_heads, mlp_ratio, act, layer_scale, dropout_rate, ln_eps, attention, scan, remat: see `Encoder`.
      output_dim: width of the embedding; None = no projection, D.
      pool: "tok" = class token, "pooler" = `tanh(pooler(class token))`, "avg" = mean of the patches, "map" = `MapHead`
        of the patches, "none" = all patches.
      class_token: whether a class token stands in front of the patches.
      num_registers: R, tokens without position between the class token and the patches.
      position: "learned", or "sincos" = the fixed table of `sincos_position_2d`, zero for the class token.
      image_size: side or (height, width) in pixels that the learned table is made for; it is resized for images of
        another size. None = the size of the images at initialisation, and no other.
      position_resize: how it is resized, "bicubic_antialias" or "bicubic", see `resize_positions`.
      pre_norm: whether `ln_pre` stands before the blocks.
      patch_bias, proj_bias: whether the patch embedding, the projection have a bias.
      patch_dropout: share of the patches that training leaves out, in [0, 1): another choice for each example and step,
        round((1 - patch_dropout) N) stay and cost; class token and registers always do.
      dtype: of the computation (softmax and norms are float32); None = that of the inputs and parameters.
      param_dtype: of the parameters.

    Reference:
      Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, section 3.1; Radford et al., "Learning
      Transferable Visual Models From Natural Language Supervision", ICML 2021; mlfoundations/open_clip at 89fb801.
      Attention pooling: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023. Registers: Darcet et
      al., "Vision Transformers Need Registers", ICLR 2024. Dropped patches: Li et al., "Scaling Language-Image
      Pre-training via Masking" (FLIP), CVPR 2023.
    """

    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    output_dim: int | None
    mlp_ratio: float = 4.0
    pool: str = "tok"
    act: str = "gelu"
    class_token: bool = True
    num_registers: int = 0
    position: str = "learned"
    image_size: int | tuple[int, int] | None = None
    position_resize: str = "bicubic_antialias"
    pre_norm: bool = True
    patch_bias: bool = False
    proj_bias: bool = False
    layer_scale: float | None = None
    patch_dropout: float = 0.0
    dropout_rate: float = 0.0
    ln_eps: float = 1e-5
    attention: str = "einsum"
    scan: bool = False
    remat: str = "none"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, deterministic: bool = True) -> tuple[jax.Array, dict[str, Any]]:
        """Embeds images.

        Args:
          images: `[B, H, W, 3]` floating, normalised; H and W divisible by `patch_size`.
          deterministic: whether dropout, of patches too, is off; if not, the call needs a "dropout" rng.

        Returns:
          Embeddings `[B, output_dim]`, not normalised (`[B, N, output_dim]` for pool "none"), and the intermediates
          `tokens` `[B, N, D]` (patches after the final norm; where some are dropped, the others), `prefix`
          `[B, 0 to 1 + R, D]` (class token and registers after it), `pooled` (what the projection reads), `blocks`
          (tuple of each block's output, all tokens).

        Raises:
          ValueError: the shape of the images does not fit, or a setting is unknown.
          TypeError: the images are not floating.
        """
        self._check(images)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        patch = (self.patch_size, self.patch_size)
        x = PatchEmbed(self.width, patch, patch, use_bias=self.patch_bias, name="patch_embed", **dtypes)(images)
        x = self._assemble(x.reshape(x.shape[0], -1, self.width), grid=(x.shape[1], x.shape[2]))
        if self.patch_dropout and not deterministic:
            x = self._drop_patches(x)
        if self.pre_norm:
            x = LayerNorm(self.ln_eps, name="ln_pre", **dtypes)(x)
        encoder = Encoder(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            act=self.act,
            layer_scale=self.layer_scale,
            dropout_rate=self.dropout_rate,
            ln_eps=self.ln_eps,
            attention=self.attention,
            scan=self.scan,
            remat=self.remat,
            name="encoder",
            **dtypes,
        )
        x, blocks = encoder(x, deterministic=deterministic)
        x = LayerNorm(self.ln_eps, name="ln_post", **dtypes)(x)
        num_prefix = self.class_token + self.num_registers
        prefix, tokens = x[:, :num_prefix], x[:, num_prefix:]
        embeds = pooled = self._pool(prefix, tokens)
        if self.output_dim is not None:
            init = nn.initializers.normal(self.width**-0.5)
            proj = Dense(self.output_dim, use_bias=self.proj_bias, kernel_init=init, name="proj", **dtypes)
            embeds = proj(pooled)
        return embeds, {"tokens": tokens, "prefix": prefix, "pooled": pooled, "blocks": blocks}

    def _check(self, images: jax.Array) -> None:
        check_rank("VisionTransformer", rank=4, images=images)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise TypeError(
                f"VisionTransformer: images have dtype {images.dtype}, expected floating numbers; normalise them first"
            )
        _, height, width, channels = images.shape
        if channels != 3:
            raise ValueError(f"VisionTransformer: images have shape {images.shape}, expected [B, H, W, 3]")
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"VisionTransformer: images of {height} x {width} pixels are not divisible by patch_size "
                f"{self.patch_size}; resize or crop them"
            )
        check_choice("VisionTransformer", "pool", self.pool, ("tok", "pooler", "avg", "map", "none"))
        check_choice("VisionTransformer", "position", self.position, ("learned", "sincos"))
        check_choice("VisionTransformer", "position_resize", self.position_resize, RESIZE_METHODS)
        if not 0 <= self.patch_dropout < 1:
            raise ValueError(f"VisionTransformer: patch_dropout is {self.patch_dropout}, expected a share in [0, 1)")
        if self.pool in ("tok", "pooler") and not self.class_token:
            raise ValueError(f"VisionTransformer: pool {self.pool!r} reads the class token, but class_token is False")

    def _assemble(self, x: jax.Array, *, grid: tuple[int, int]) -> jax.Array:
        """Patches `[B, N, D]` -> `[B, 1 + R + N, D]`: class token, registers, patches, with positions."""
        init = nn.initializers.normal(self.width**-0.5)

        def prepend(embedding: jax.Array, x: jax.Array) -> jax.Array:
            embedding = jnp.broadcast_to(embedding.astype(x.dtype), (x.shape[0], *embedding.shape))
            return jnp.concatenate([embedding, x], axis=1)

        if self.class_token:
            x = prepend(self.param("class_embedding", init, (self.width,), self.param_dtype)[None], x)
        x = x + self._positions(grid).astype(x.dtype)
        if self.num_registers:
            shape = (self.num_registers, self.width)
            registers = self.param("register_embedding", init, shape, self.param_dtype)
            patches = prepend(registers, x[:, self.class_token :])
            x = jnp.concatenate([x[:, : self.class_token], patches], axis=1)
        return x

    def _drop_patches(self, x: jax.Array) -> jax.Array:
        """`[B, 1 + R + N, D]` with some of the N patches of each example."""
        num_prefix = self.class_token + self.num_registers
        num_kept = max(1, round((1 - self.patch_dropout) * (x.shape[1] - num_prefix)))
        patches, _ = drop_tokens(self.make_rng("dropout"), x[:, num_prefix:], num_kept=num_kept)
        return jnp.concatenate([x[:, :num_prefix], patches], axis=1)

    def _positions(self, grid: tuple[int, int]) -> jax.Array:
        """The table `[class_token + N, D]` of a grid of patches."""
        num_prefix = int(self.class_token)
        if self.position == "sincos":
            # With the sides exchanged the formula counts rows first, on oblong grids too.
            table = sincos_position_2d(grid[1], grid[0], self.width)
            return jnp.pad(table, ((num_prefix, 0), (0, 0)))
        source = self._table_grid() or grid
        shape = (num_prefix + source[0] * source[1], self.width)
        if self.image_size is None and self.has_variable("params", "position_embedding"):
            rows = self.get_variable("params", "position_embedding").shape[0]
            if rows != shape[0]:
                raise ValueError(
                    f"VisionTransformer: images have {grid[0]} x {grid[1]} patches, but position_embedding has {rows} "
                    "rows; set image_size to the size that the table was made for, and it is resized"
                )
        init = nn.initializers.normal(self.width**-0.5)
        table = self.param("position_embedding", init, shape, self.param_dtype)
        return resize_positions(table, source=source, target=grid, num_prefix=num_prefix, method=self.position_resize)

    def _table_grid(self) -> tuple[int, int] | None:
        """The grid that `image_size` gives."""
        if self.image_size is None:
            return None
        size = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        if any(side % self.patch_size for side in size):
            raise ValueError(f"VisionTransformer: image_size {size} is not divisible by patch_size {self.patch_size}")
        return size[0] // self.patch_size, size[1] // self.patch_size

    def _pool(self, prefix: jax.Array, tokens: jax.Array) -> jax.Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.pool == "tok":
            return prefix[:, 0]
        if self.pool == "pooler":
            init = nn.initializers.normal(0.02)
            return jnp.tanh(Dense(self.width, kernel_init=init, name="pooler", **dtypes)(prefix[:, 0]))
        if self.pool == "avg":
            return jnp.mean(tokens, axis=1, dtype=jnp.float32).astype(tokens.dtype)
        if self.pool == "map":
            settings = {
                "mlp_ratio": self.mlp_ratio,
                "act": self.act,
                "ln_eps": self.ln_eps,
                "attention": self.attention,
            }
            return MapHead(self.num_heads, name="attn_pool", **settings, **dtypes)(tokens)
        return tokens
