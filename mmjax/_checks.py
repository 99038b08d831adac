"""Entry checks of public functions: an error names the function, the argument, what was found, what was expected."""

from typing import Any

import jax.numpy as jnp


def check_rank(function: str, *, rank: int, **arrays: Any) -> None:
    """Raises ValueError unless every array has `rank` axes.

    >>> check_rank("clip_loss", rank=2, image_embeds=jnp.ones((2, 3)))
    """
    for name, array in arrays.items():
        found = jnp.ndim(array)
        if found != rank:
            raise ValueError(f"{function}: {name} has shape {jnp.shape(array)}, expected {rank} axes, found {found}")


def check_same_shape(function: str, **arrays: Any) -> None:
    """Raises ValueError unless all arrays have one shape."""
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"{function}: expected equal shapes, found {listing}")


def check_same_axis(function: str, *, axis: int, **arrays: Any) -> None:
    """Raises ValueError unless all arrays have one length along `axis`."""
    lengths = {name: jnp.shape(array)[axis] for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} {jnp.shape(array)}" for name, array in arrays.items())
        raise ValueError(f"{function}: expected equal lengths along axis {axis}, found {listing}")


def check_integer(function: str, **arrays: Any) -> None:
    """Raises TypeError unless every array holds integers."""
    for name, array in arrays.items():
        dtype = jnp.asarray(array).dtype
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(f"{function}: {name} has dtype {dtype}, expected integers")


def check_choice(function: str, name: str, value: Any, choices: Any) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{function}: {name} is {value!r}, expected one of {', '.join(map(repr, choices))}")
