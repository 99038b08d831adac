"""A model with all that is needed to use it, which every conversion takes or gives."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from mmjax.convert.errors import ConversionError
from mmjax.data import ImageSpec, Tokenizer
from mmjax.models import DualEncoder, unstack_layers
from mmjax.ops.positions import resize_positions

TOWERS = ("image", "text")


class Bundle(NamedTuple):
    """A model with all that is needed to use it.

    Attributes:
      model: both towers, or one of them, the other None.
      params: their parameters, unrolled or scanned as the towers are.
      tokenizer: of the texts; None = none is known.
      image: preprocessing of the pictures; None = none is known.
      context_length: tokens a text may have; None without a text tower.
    """

    model: DualEncoder
    params: Mapping[str, Any]
    tokenizer: Tokenizer | None = None
    image: ImageSpec | None = None
    context_length: int | None = None


def towers(model: DualEncoder) -> dict[str, Any]:
    """The towers that a model has, by name."""
    return {name: tower for name in TOWERS if (tower := getattr(model, name)) is not None}


def select_towers(bundle: Bundle, names: Sequence[str]) -> Bundle:
    """The bundle with these towers alone; one tower has neither scale nor bias.

    Raises:
      ConversionError: the model lacks one of them.
    """
    there = towers(bundle.model)
    if missing := [f"the model has no {name} tower" for name in names if name not in there]:
        raise ConversionError(f"cannot select the {' and '.join(names)} tower", missing)
    if not (dropped := [name for name in there if name not in names]):
        return bundle
    fields = [f"{name}{part}" for name in dropped for part in ("", "_head")]
    absent: dict[str, Any] = dict.fromkeys(fields)
    model = bundle.model.clone(**absent, use_bias=False)
    params = {k: v for k, v in bundle.params.items() if k not in (*fields, "log_scale", "bias")}
    if "image" in dropped:
        return Bundle(model, params, tokenizer=bundle.tokenizer, context_length=bundle.context_length)
    return Bundle(model, params, image=bundle.image)


def unroll_layers(bundle: Bundle) -> Bundle:
    """The same model with layers that are not scanned, as tables of rules address them."""
    unrolled = {name: tower.clone(scan=False) for name, tower in towers(bundle.model).items()}
    return bundle._replace(model=bundle.model.clone(**unrolled), params=unstack_layers(bundle.params))


def in_float32(bundle: Bundle) -> Bundle:
    """The same model with float32 parameters, computing in float32."""
    parts = towers(bundle.model) | {f"{name}_head": getattr(bundle.model, f"{name}_head") for name in TOWERS}
    precise = {name: part.clone(dtype=jnp.float32) for name, part in parts.items() if part is not None}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), bundle.params)
    return bundle._replace(model=bundle.model.clone(**precise), params=params)


def picture_size(bundle: Bundle) -> int:
    """The side in pixels of the pictures that the image tower is given: what they are prepared at, else its own."""
    return bundle.image.size if bundle.image is not None else _sides(bundle)[0]


def text_length(bundle: Bundle) -> int:
    """Tokens of the texts that the text tower is given."""
    return bundle.context_length or cast(Any, bundle.model.text).context_length


def parameter_shapes(bundle: Bundle) -> Mapping[str, Any]:
    """The tree of parameters that the model has, as shapes."""
    inputs = {}
    if bundle.model.image is not None:
        size = picture_size(bundle)
        inputs["images"] = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    if bundle.model.text is not None:
        inputs["token_ids"] = jax.ShapeDtypeStruct((1, 2), jnp.int32)
    return jax.eval_shape(bundle.model.init, jax.random.key(0), **inputs)["params"]


def resize_pictures(bundle: Bundle, size: int) -> Bundle:
    """The bundle for pictures of `size` pixels, its table of learned positions resampled, see `resize_positions`.

    Raises:
      ConversionError: there is no image tower, or its patches do not divide the size.
    """
    tower: Any = bundle.model.image
    if tower is None:
        raise ConversionError(f"cannot take pictures of {size} pixels", ["the model has no image tower"])
    if size % tower.patch_size:
        problem = f"{size} pixels are not divisible by the patch size {tower.patch_size}"
        raise ConversionError(f"cannot take pictures of {size} pixels", [problem])
    params = dict(bundle.params)
    if "position_embedding" in params["image"]:
        source = tuple(side // tower.patch_size for side in _sides(bundle))
        side = size // tower.patch_size
        table = jnp.asarray(params["image"]["position_embedding"])
        prefix = table.shape[0] - source[0] * source[1]
        method = tower.position_resize
        table = resize_positions(table, source=source, target=(side, side), num_prefix=prefix, method=method)
        params["image"] = {**params["image"], "position_embedding": table}
    model = bundle.model.clone(image=tower.clone(image_size=size))
    return bundle._replace(model=model, params=params, image=bundle.image and bundle.image.at(size))


def shorten_texts(bundle: Bundle, length: int) -> Bundle:
    """The bundle for texts of at most `length` tokens; longer ones will be cut.

    Raises:
      ConversionError: there is no text tower, or it takes no texts of that length.
    """
    if bundle.model.text is None:
        raise ConversionError(f"cannot take texts of {length} tokens", ["the model has no text tower"])
    most = cast(Any, bundle.model.text).context_length
    if not 2 <= length <= most:
        raise ConversionError(f"cannot take texts of {length} tokens", [f"the text tower takes from 2 to {most}"])
    return bundle._replace(context_length=length)


def _sides(bundle: Bundle) -> tuple[int, int]:
    """Height and width that the table of positions is made for."""
    tower: Any = bundle.model.image
    size = tower.image_size
    if size is None:
        size = bundle.image.size if bundle.image is not None else tower.patch_size
    return (size, size) if isinstance(size, int) else size
