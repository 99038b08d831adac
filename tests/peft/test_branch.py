import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax import peft
from mmjax.intercept import tap
from tests.intercept.toys import HIDDEN, KINDS, LAYERS, STACKED, WIDTH, Model, inputs, layer_values, variables


class Down(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.Dense(WIDTH, name="down")(x)


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_starts_from_a_key_of_its_own(kind):
    adapter = peft.make_adapter("down", {"encoder/*/mlp": Down()})
    tree = adapter.init(jax.random.key(0), Model(kind).apply, variables(kind), inputs())
    flat = {path: leaf["mlp"]["down"]["kernel"] for path, leaf in tree["encoder"].items()}
    kernels = flat["blocks"] if kind in STACKED else np.stack(list(flat.values()))
    assert kernels.shape == (LAYERS, WIDTH, WIDTH)
    assert len({kernel.tobytes() for kernel in map(np.asarray, kernels)}) == LAYERS


def test_a_branch_starts_from_the_parameters_of_its_own_layer():
    def init(rng, target, base):
        assert target.stack == (LAYERS,)
        assert target.args[0].shape == (2, HIDDEN)
        assert isinstance(target.module, nn.Dense)
        return {"norm": jnp.linalg.norm(base["kernel"])}

    branch = peft.Branch(init, lambda params, value, call: value / params["norm"])
    adapter = peft.make_adapter("unit", {"**/fc2": branch})
    tree = adapter.init(jax.random.key(0), Model("scan").apply, variables("scan"), inputs())
    kernels = variables("scan")["params"]["encoder"]["blocks"]["mlp"]["fc2"]["kernel"]
    norms = np.linalg.norm(kernels.reshape(LAYERS, -1), axis=1)
    np.testing.assert_allclose(tree["encoder"]["blocks"]["mlp"]["fc2"]["norm"], norms, rtol=1e-6)


def test_the_first_pattern_that_matches_claims_an_address():
    def scaled(name):
        return peft.Branch(
            lambda rng, target, base: {name: jnp.ones(())}, lambda params, value, call: params[name] * value
        )

    adapter = peft.make_adapter("scaled", {"encoder/block_1/mlp": scaled("one"), "**/mlp": scaled("other")})
    tree = adapter.init(jax.random.key(0), Model("unrolled").apply, variables("unrolled"), inputs())
    found = {name: list(block["mlp"]) for name, block in tree["encoder"].items()}
    assert found == {"block_0": ["other"], "block_1": ["one"], "block_2": ["other"]}
    adapter.wrap(Model("unrolled").apply)(variables("unrolled"), tree, inputs())


def test_parameters_that_no_pattern_is_about_are_refused():
    """As of an adapter with more targets: silently they would do nothing."""
    down = Down().init(jax.random.key(0), inputs())["params"]
    layers = {f"block_{i}": {"mlp": down} for i in range(LAYERS)}
    adapter = peft.make_adapter("down", {"encoder/*/mlp": Down()})
    f = adapter.wrap(Model("unrolled").apply)
    f(variables("unrolled"), {"encoder": layers}, inputs())
    with pytest.raises(ValueError, match="down: no pattern is about 'head/down/kernel' of the adapter"):
        f(variables("unrolled"), {"encoder": layers, "head": down}, inputs())


def test_branches_at_one_module_have_different_names():
    with pytest.raises(ValueError, match="down: two branches have 'encoder/blocks/mlp/down/bias'"):
        peft.make_adapter("down", {"**/mlp": Down(), "**/mlp:in": Down()}).init(
            jax.random.key(0), Model("scan").apply, variables("scan"), inputs()
        )


def test_arrays_of_the_example_may_be_shapes():
    adapter = peft.make_adapter("down", {"**/mlp": Down()})
    shapes = jax.ShapeDtypeStruct((2, WIDTH), jnp.float32)
    f = lambda params: adapter.init(jax.random.key(0), Model("scan").apply, params, shapes)  # noqa: E731
    assert jax.eval_shape(f, variables("scan"))["encoder"]["blocks"]["mlp"]["down"]["bias"].shape == (LAYERS, WIDTH)


def test_the_report_counts_layers_and_kernels():
    for kind in ("unrolled", "scan"):
        adapter = peft.chain(peft.unfreeze("**/bias"), peft.lora(["**/fc1", "head"], rank=1))
        report = peft.describe_adapter(adapter, Model(kind).apply, variables(kind), inputs())
        assert (report.adapted, report.kernels) == (LAYERS + 1, 2 * LAYERS + 1)
        assert report.own_parameters == LAYERS * (4 + 5 + 5 + 4) + (4 + 2) + 2
        assert report.matches.counts == {"**/fc1": 1 if kind == "scan" else LAYERS, "head": 1}
    with pytest.raises(ValueError, match="frozen: nothing trains"):
        peft.describe_adapter(peft.frozen(), Model("scan").apply, variables("scan"), inputs())


def test_tapped_layers_see_the_branch():
    adapter = peft.make_adapter("off", {"**/mlp": nn.Dense(WIDTH, kernel_init=nn.initializers.zeros)})
    tree = adapter.init(jax.random.key(0), Model("scan").apply, variables("scan"), inputs())
    _, values = tap(adapter.wrap(Model("scan").apply), ["**/mlp", "**/adapter"])(variables("scan"), tree, inputs())
    assert not layer_values("scan", values, "mlp").any()
    assert values["encoder/blocks/mlp/adapter"].shape == (LAYERS, 2, WIDTH)
