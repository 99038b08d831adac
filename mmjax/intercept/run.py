"""One run of an `apply` under interception: which modules are called, and where values are read and replaced."""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import tracers
from flax.core.scope import Scope

from mmjax.intercept.call import Call
from mmjax.intercept.levels import Level
from mmjax.intercept.patterns import address, port
from mmjax.intercept.scopes import COLLECTION, OpenRoot, is_jitted, is_lifted, look_up, take

_ORDER = "intercept first, transform then: jax.jit(tap(model.apply, ...))"
_INDEX = "mmjax.layer"

Path = tuple[str, ...]

# The runs under way, outermost first; a run that is not among them is paused.
_active: ContextVar[tuple["Run", ...]] = ContextVar("active", default=())
# The place of the branch that is being called: path in the whole model, and the scope of its site.
_branch: ContextVar[tuple[Path, Scope | None]] = ContextVar("branch", default=((), None))
_BRANCH = "adapter"


@contextlib.contextmanager
def paused() -> Generator[None, None, None]:
    """Pauses the runs under way."""
    token = _active.set(())
    try:
        yield
    finally:
        _active.reset(token)


def under_way() -> tuple["Run", ...]:
    """The runs under way, outermost first."""
    return _active.get()


class LayerNeededError(BaseException):
    """An edit wants the index of a layer, for which the depth of its stack must be known beforehand."""

    def __init__(self, run: "Run"):
        super().__init__()
        self.run = run


class _Frame:
    """A call under way.

    Attributes:
      path: where the module is in the whole model.
      is_whole: False for a part of its caller: `super()`, a module that shares its scope.
      root, trace: root scope and JAX trace.
      children: the calls made from inside, those of the same trace.
      published: where lifted transformations inside have left values.
    """

    def __init__(self, path: Path, method: str, root: Scope, trace: Any, caller: "_Frame | None"):
        self.path, self.method, self.root, self.trace = path, method, root, trace
        self.is_whole = caller is None or (caller.path, caller.method) != (path, method)
        self.children: dict[str, Call] = {}
        self.published: dict[Path, None] = {}


class Run:
    """Calls an `apply` once and shows `visit` the values inside.

    Attributes:
      visited: for each port, the paths of the modules called, in order.
      absent: path of each place that has no value here -> why, from its method `absent` (`mmjax.models.Site`).
      focus: path of the module that paths are relative to; what lies outside of it is not seen.
    """

    def __init__(
        self,
        visit: Callable[["Run", str, Any, Call], Any],
        *,
        methods: Iterable[str],
        writable: bool = False,
        stacks: Mapping[str, tuple[int, ...]] | None = None,
        given: Mapping[str, Any] | None = None,
    ):
        """Prepares a run, which must start at once.

        Args:
          visit: `visit(run, address, value, call)` returns what takes the place of `value`.
          methods: names of the methods to visit.
          writable: whether values will be kept.
          stacks: site of each lifted transformation -> shape of its stack, () where nothing is stacked; None = unknown.
          given: path of a module -> values that its calls are given; what is stacked as the module's parameters are
            arrives layer by layer.
        """
        self.visited: dict[str, dict[str, None]] = {}
        self.absent: dict[str, str] = {}
        self.focus: Path = ()
        self._visit = visit
        self._methods = frozenset(methods)
        self._writable = writable
        self._stacks = stacks
        self._given = given or {}
        self._number = -1
        self._roots: list[OpenRoot] = []
        self._frames: list[_Frame] = []
        self._levels = [Level(tracers.current_trace())]
        # Nested runs share the scopes. The name tells them apart, and must be the same in every process.
        self._name = f"mmjax.run{len(_active.get())}"

    def __call__(self, apply: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the output of `apply`."""
        around = _active.get()
        kept = [dict(run.kept) for run in around]
        token = _active.set((*around, self))
        try:
            with nn.intercept_methods(self._intercept):
                output = apply(*args, **kwargs)
        except LayerNeededError:
            # The runs around will see all of this attempt again.
            for run, values in zip(around, kept, strict=True):
                run._levels[-1].values = values
            raise
        finally:
            _active.reset(token)
        if self._number < 0:
            raise ValueError(f"apply called no Linen module; if it answers from a cache, {_ORDER}")
        return output

    @property
    def kept(self) -> Mapping[str, tuple[Any, ...]]:
        """The values kept under each name so far, in the order of the calls."""
        return self._levels[-1].values

    def keep(self, name: str, value: Any) -> None:
        """Keeps a value to the end of the run, through lifted transformations, which may stack it."""
        self._keep({name: (value,)})

    def given(self, call: Call) -> Any:
        """What the call being visited is given; None if that is nothing."""
        if call.path not in self._given:
            return None
        scope = call.module.scope
        found = None if scope is None else scope.get_variable(COLLECTION, self._given_name)
        if found is None:
            raise ValueError(f"insert: {call.path!r} is inside {self._levels[-1].obstacle}")
        return found

    def call_branch(self, module: nn.Module, params: Any, inputs: tuple[Any, ...], call: Call) -> Any:
        """See `Call.apply`."""
        token = _branch.set(((*_branch.get()[0], *call.module.path, _BRANCH), call.module.scope))
        try:
            return module.apply({"params": params}, *inputs)
        finally:
            _branch.reset(token)

    def find_layer(self) -> jax.Array | None:
        """See `Call.layer`."""
        level = self._lifted_level()
        if level is None or level.exit is None:
            return None
        if self._stacks is None:
            raise LayerNeededError(self)
        if level.site not in self._stacks:
            raise ValueError(f"call.layer is asked for inside {level.obstacle}")
        return level.exit.get_variable(COLLECTION, _INDEX)

    def measure_stack(self) -> None:
        """Keeps a scalar for the lifted transformation around the call being visited; it comes out stacked."""
        level = self._levels[-1]
        if level.carries and not level.branch:
            level.values.setdefault(level.site, (jnp.zeros((), jnp.int32),))

    @property
    def in_branch(self) -> bool:
        """Whether the call being visited is made by a branch."""
        return bool(_branch.get()[0])

    @property
    def lifted_site(self) -> str | None:
        """Site of the lifted transformation around the call being visited; None outside."""
        level = self._lifted_level()
        return level.site if level else None

    def _lifted_level(self) -> Level | None:
        levels = (level for level in reversed(self._levels) if level.exit is not None and not level.branch)
        return next(levels, None)

    def _keep(self, values: Mapping[str, tuple[Any, ...]]) -> None:
        level = self._levels[-1]
        if level is not self._levels[0] and not level.carries:
            raise ValueError(f"tap: {', '.join(map(repr, values))} is inside {level.obstacle}")
        level.add(values)

    def _intercept(
        self,
        next_fun: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        module, method = context.module, context.method_name
        if self not in _active.get() or module.scope is None:
            return next_fun(*args, **kwargs)
        with self._enter(module, method, module.scope.root) as frame:
            if frame.path[: len(self.focus)] != self.focus:
                return next_fun(*args, **kwargs)
            path = "/".join(frame.path[len(self.focus) :])
            if method == "absent":
                self.absent[path] = args[0]
            if not frame.is_whole or method not in self._methods:
                return next_fun(*args, **kwargs)
            self._check_visible(module.scope.root)
            call = Call(path, module, args, kwargs, frame.children, self)
            args, kwargs = self._see(port(method, "args"), (args, kwargs), call)
            call = dataclasses.replace(call, args=args, kwargs=kwargs)
            if args:
                args = (self._see(port(method, "in"), args[0], call), *args[1:])
            elif kwargs:
                name = next(iter(kwargs))
                kwargs = {**kwargs, name: self._see(port(method, "in"), kwargs[name], call)}
            call = dataclasses.replace(call, args=args, kwargs=kwargs)
            self._tell_caller(frame, call)
            return self._see(port(method), next_fun(*args, **kwargs), call)

    def _tell_caller(self, frame: _Frame, call: Call) -> None:
        # Arguments of another trace would outlive it.
        if len(self._frames) > 1 and self._levels[-1].trace == self._frames[-2].trace:
            caller = self._frames[-2]
            inside = frame.path[: len(caller.path)] == caller.path
            caller.children["/".join(frame.path[len(caller.path) :] if inside else frame.path)] = call

    def _see(self, port: str, value: Any, call: Call) -> Any:
        if not call.path and port != "args":
            return value  # Of the model as a whole: what `apply` takes and returns.
        self.visited.setdefault(port, {})[call.path] = None
        return self._visit(self, address(call.path, port), value, call)

    def _check_visible(self, root: Scope) -> None:
        level = self._levels[-1]
        if level.outermost and level.exit is None:
            raise ValueError(
                "apply calls its module inside jit, vmap, grad or checkpoint, which may cache the call and lets no "
                f"value out; {_ORDER}"
            )
        if is_jitted(root):
            where = "/".join(root.debug_path)
            raise ValueError(f"{where}: nn.jit caches its calls; leave it out, and jax.jit the whole")

    @contextlib.contextmanager
    def _enter(self, module: nn.Module, method: str, root: Scope) -> Generator[_Frame, None, None]:
        """A call under way."""
        caller = self._frames[-1] if self._frames else None
        self._number += caller is None
        branch, _ = _branch.get()
        trace = tracers.current_trace()
        frame = _Frame((*branch, *module.path), method, root, trace, caller)
        level = None
        if trace != self._levels[-1].trace:
            exit = root if is_lifted(root) else None
            level = Level(trace, exit=exit, outermost=caller is None, number=self._number, branch=branch)
            self._levels.append(level)
        self._frames.append(frame)
        opened = self._open(module, root)
        try:
            yield frame
            for path in frame.published:
                self._keep(take(root, path, self._name))
            if level is not None and level.values and caller is not None:
                caller.published[level.carry_out(self._name)] = None
        finally:
            if opened is not None:
                self._roots.remove(opened)
                opened.close()
            # What it refers to is of a trace that may end here, and refers back to it.
            self._frames.pop().children.clear()
            if level is not None:
                self._levels.pop()

    def _open(self, module: nn.Module, root: Scope) -> OpenRoot | None:
        """Opens the scopes of `module`; returns the root if it is opened by this."""
        if is_lifted(root):
            return None
        known = next((known for known in self._roots if known.root == root), None)
        if known is not None:
            known.open(module)
            return None
        opened = OpenRoot(root, writable=self._writable, given=self._values_given())
        opened.open(module)
        self._roots.append(opened)
        return opened

    def _values_given(self) -> dict[Path, dict[str, Any]]:
        """What goes into a root scope: at the scope of each module what it is given, which lifted transformations
        around it slice, and at theirs the indices of the layers, shaped like their stack."""
        values: dict[Path, dict[str, Any]] = {}
        branch, scope = _branch.get()
        for site, tree in self._given.items():
            path = (*self.focus, *(site.split("/") if site else ()))
            if path[: len(branch)] == branch:
                path = path[len(branch) :]
                # Into a branch it goes as it has come to the site of the branch, sliced.
                found = tree if scope is None else look_up(scope, (_BRANCH, *path), self._given_name)
                # Flax writes into the dicts of mutable collections.
                values.setdefault(path, {})[self._given_name] = jax.tree.map(lambda leaf: leaf, found)
        for site, shape in (self._stacks or {}).items():
            number, *path = site.split("/")
            if shape and int(number) == self._number and not branch:
                indices = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
                values.setdefault(tuple(path), {})[_INDEX] = indices
        return values

    @property
    def _given_name(self) -> str:
        return f"{self._name}.given"
