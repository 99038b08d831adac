"""Images as patches."""

import jax

from mmjax._checks import check_rank


def patchify(images: jax.Array, *, patch_size: int) -> jax.Array:
    """Images cut into flat square patches: patches row by row, and inside a patch row, column, channel.

    Args:
      images: `[B, H, W, C]`, H and W divisible by `patch_size`.
      patch_size: p, the side of a patch in pixels.

    Returns:
      `[B, (H / p) * (W / p), p * p * C]`.

    Raises:
      ValueError: `images` has not four axes, or its sides are not divisible by `patch_size`.

    >>> images = jax.numpy.arange(16).reshape(1, 4, 4, 1)
    >>> patchify(images, patch_size=2)[0, 1].tolist()
    [2, 3, 6, 7]

    Reference:
      Bai et al., "Masked Autoencoders Enable Efficient Knowledge Distillers", CVPR 2023; UCSC-VLAA/DMAE at a0f4959.
    """
    check_rank("patchify", rank=4, images=images)
    batch, height, width, channels = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"patchify: images of {height} x {width} pixels are not divisible by patch_size {patch_size}; "
            "resize or crop them"
        )
    rows, columns = height // patch_size, width // patch_size
    cells = images.reshape(batch, rows, patch_size, columns, patch_size, channels).swapaxes(2, 3)
    return cells.reshape(batch, rows * columns, patch_size * patch_size * channels)
