"""What `tap` refuses."""

import re

import jax
import pytest
from flax import linen as nn

from mmjax.intercept import tap
from mmjax.paths import NoMatchError
from tests.intercept.toys import WIDTH, Layer, Mlp, Model, inputs, variables


@pytest.mark.parametrize("kind", ["unrolled", "scan"])
def test_a_pattern_without_match_names_the_nearest_paths(kind):
    nearest = {"unrolled": "encoder/block_2/mlp", "scan": "encoder/blocks/mlp"}[kind]
    with pytest.raises(NoMatchError, match=re.escape(f"'encoder/block_3/mlp': did you mean '{nearest}'")):
        tap(Model(kind).apply, ["head", "encoder/block_3/mlp"])(variables(kind), inputs())


def test_all_arguments_cannot_be_tapped():
    with pytest.raises(ValueError, match="tap: 'head:args' asks for all arguments"):
        tap(Model("unrolled").apply, "head:args")


def test_matching_is_by_what_was_called_not_by_parameters():
    class Unused(nn.Module):
        @nn.compact
        def __call__(self, x, skip=False):
            return x if skip else nn.Dense(WIDTH, name="dense")(x)

    params = Unused().init(jax.random.key(0), inputs())
    with pytest.raises(NoMatchError, match="none of 0 paths"):
        tap(Unused().apply, "dense")(params, inputs(), skip=True)


@pytest.mark.parametrize(
    "transform",
    [jax.jit, jax.checkpoint, lambda f: jax.vmap(f, in_axes=(None, 0))],
    ids=["jit", "checkpoint", "vmap"],
)
def test_a_transformed_apply_is_refused(transform):
    with pytest.raises(ValueError, match=r"intercept first, transform then: jax\.jit\(tap"):
        tap(transform(Model("unrolled").apply), "head")(variables("unrolled"), inputs())


def test_an_apply_that_answers_from_its_cache_is_refused():
    jitted, params, x = jax.jit(Model("unrolled").apply), variables("unrolled"), inputs()
    jitted(params, x)
    with pytest.raises(ValueError, match="called no Linen module"):
        tap(jitted, "head")(params, x)


class Rematted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat(Layer)(name="inner")(x, None)[0]


class Uncarried(nn.Module):
    lift: str

    @nn.compact
    def __call__(self, x):
        match self.lift:
            case "scan":
                stack = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
                return stack(name="layers")(x, None)[0]
            case "remat":
                return nn.remat(Layer, variables="params")(name="layers")(x, None)[0]
            case "vmap":
                layer = Layer(name="layers")
                layer(x, None)
                return jax.vmap(lambda x: layer(x, None)[0])(x)
            case "remat in vmap":
                layer = Rematted(name="layers")
                layer(x)
                return jax.vmap(layer)(x)
            case "jit":
                return nn.jit(Layer)(name="layers")(x, None)[0]


@pytest.mark.parametrize(
    ("lift", "message"),
    [
        (
            "scan",
            r"inside scan\(layers\), which does not carry .* nn.scan needs variable_axes={..., 'intermediates': 0}",
        ),
        ("remat", r"inside remat\(layers\), which does not carry the collection 'intermediates'"),
        ("vmap", "inside a transformation of plain JAX"),
        ("remat in vmap", "inside a transformation of plain JAX"),
        ("jit", r"jit\(layers\): nn.jit caches its calls"),
    ],
)
def test_a_value_that_cannot_get_out_is_an_error(lift, message):
    model, x = Uncarried(lift), inputs()
    params = model.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=message):
        tap(model.apply, "layers/**/dense")(params, x)


@pytest.mark.parametrize("mutable", [False, ["intermediates"]], ids=str)
def test_a_model_lifted_as_a_whole_is_refused(mutable):
    model, x = nn.remat(Mlp)(), inputs()
    params = model.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"inside remat\(\), which no module calls"):
        tap(model.apply, "fc1")(params, x, mutable=mutable)
