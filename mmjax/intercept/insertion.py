"""Adding branches with parameters of their own to a model."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mmjax.intercept.call import Call
from mmjax.intercept.patterns import matches_address, matches_path, path_of
from mmjax.intercept.replacing import replacing
from mmjax.intercept.run import Run
from mmjax.paths import NoMatchError, flatten, match, suggestion

Branch = nn.Module | Callable[[Any, Any, Call], Any]


def insert(apply: Callable[..., Any], branches: Mapping[str, Branch], params: Mapping[str, Any]) -> Callable[..., Any]:
    """`apply` with branches inside that have parameters of their own.

    At each address (see `tap`) that a pattern matches, `branch(params of the site, value, call)` returns what takes
    the place of `value`; a branch that is a module, `module.apply({"params": params of the site}, value)`. The site of
    an address is the path of its module, and its parameters are the subtree of `params` at that path: where the model
    has `encoder/block_3/mlp/fc1/kernel`, a branch at `encoder/block_3/mlp` has `encoder/block_3/mlp/down/kernel`. In a
    stack of layers (`nn.scan`) their leaves have its axis in front, as the model's own, and a branch sees one layer.

    The result may be jitted, differentiated, mapped, tapped, edited and inserted into again. The gradient with respect
    to `params` is that of the branches alone. Modules of a branch can be tapped at `<site>/adapter/...`.

    Args:
      apply: a function that calls Linen modules, `model.apply` or a closure over it; itself not jitted or mapped.
      branches: pattern of addresses -> branch; those that match one address act in their order.
      params: nested dict of the branches' parameters. Sites that are not called do nothing.

    Returns:
      A function of the same arguments that returns what `apply` returns.

    Raises:
      NoMatchError: a pattern matches no site of `params`; or, at the call, a module that has no parameters there.
      ValueError: at the call, if `apply` is transformed, or a stack does not carry the collection `intermediates`.

    >>> import jax, jax.numpy as jnp
    >>> model = nn.Sequential([nn.Dense(3), nn.Dense(2)])
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> gated = lambda gate: insert(model.apply, {"*": lambda params, value, call: params["gate"] * value}, gate)
    >>> gate = {"layers_0": {"gate": jnp.ones(3)}, "layers_1": {"gate": jnp.zeros(2)}}
    >>> bool(gated(gate)(variables, jnp.ones((1, 4))).any())
    False
    >>> sorted(jax.grad(lambda gate: gated(gate)(variables, jnp.ones((1, 4))).sum())(gate)["layers_1"])
    ['gate']
    """
    nodes = nodes_of(params)
    globs = {pattern: path_of(pattern) for pattern in branches}
    match(nodes, [glob for glob in globs.values() if glob])
    given = {site: node for site, node in nodes.items() if any(matches_path(site, glob) for glob in globs.values())}

    def visit(run: Run, address: str, value: Any, call: Call) -> Any:
        for pattern, branch in branches.items():
            if not matches_address(address, pattern):
                continue
            own = run.given(call)
            if own is None:
                if run.in_branch:
                    continue
                near = suggestion(call.path, nodes)
                raise NoMatchError(f"{pattern!r} matches {address!r}, for which there are no parameters: {near}")
            value = call.apply(branch, own, value) if isinstance(branch, nn.Module) else branch(own, value, call)
        return value

    return replacing(apply, visit, patterns=branches, given=given)


def nodes_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Every subtree that holds a leaf, by path; "" is the whole.

    >>> list(nodes_of({"encoder": {"mlp": {"gate": 1.0}, "empty": {}}}))
    ['', 'encoder', 'encoder/mlp']
    """
    nodes: dict[str, Any] = {}
    for path in flatten(params):
        node, names = params, path.split("/")
        for depth, name in enumerate(names):
            nodes["/".join(names[:depth])] = node
            node = node[name]
    return nodes
