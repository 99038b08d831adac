"""What a compiled program sends between devices, read from its HLO."""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# A loop that counts from 0: `compare(element, limit), direction=LT`, and what follows that element in the next turn.
_LIMIT = re.compile(r"ROOT .* compare\(%?([\w.\-]+), %?([\w.\-]+)\), direction=LT")
_ELEMENT = r"%?{} = \S+ get-tuple-element\(.*\), index=(\d+)"
_CONSTANT = r"%?{} = \S+ constant\((\d+)\)"
_SUM = r"%?{} = \S+ add\(%?([\w.\-]+), %?([\w.\-]+)\)"
# The three ways of writing groups of devices: [groups,size]<=..., {{0,1},{2,3}}, mesh['a'=2,'b'=4] {'b'}.
_IOTA_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\].*? \{([^}]*)\}")
_PARTITIONS = re.compile(r"num_partitions=(\d+)")


class Collective(NamedTuple):
    """A collective operation of a program.

    Attributes:
      kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast".
      devices: how many exchange data with one another.
      size: bytes of its result on one device.
      count: how often it runs; in a loop of unknown length, once a turn is counted as once.
    """

    kind: str
    devices: int
    size: int
    count: int

    @property
    def sent(self) -> int:
        """Bytes that a device sends in all runs, by the algorithms that send least (rings)."""
        others = self.devices - 1
        factor = {
            "all-reduce": 2 * others / self.devices,
            "all-gather": others / self.devices,
            "all-to-all": others / self.devices,
            "reduce-scatter": others,  # the result is one part of what it adds up
        }.get(self.kind, min(others, 1))
        return round(factor * self.size) * self.count


def collective_traffic(hlo: str) -> tuple[Collective, ...]:
    """The collectives of a compiled program, equal ones as one, those that send most first.

    Args:
      hlo: `jax.jit(f).lower(...).compile().as_text()`.

    >>> hlo = '''HloModule jit_f, num_partitions=4
    ...
    ... ENTRY %main (x: f32[2,8]) -> f32[8,8] {
    ...   ROOT %all-gather = f32[8,8]{1,0} all-gather(%x), replica_groups=[1,4]<=[4], dimensions={0}
    ... }'''
    >>> collective_traffic(hlo), collective_traffic(hlo)[0].sent
    ((Collective(kind='all-gather', devices=4, size=256, count=1),), 192)
    """
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if found := _COMPUTATION.match(line):
            name = found[2]
            lines[name] = []
            entry = name if found[1] else entry
        elif name:
            lines[name].append(line)
    partitions = _PARTITIONS.search(hlo)
    counts: collections.Counter[tuple[str, int, int]] = collections.Counter()
    for kind, devices, size, count in _of(entry, lines, int(partitions[1]) if partitions else 1):
        counts[kind, devices, size] += count
    found = [Collective(*key, count) for key, count in counts.items() if key[1] > 1]
    return tuple(sorted(found, key=lambda collective: -collective.sent))


def _of(computation: str, lines: dict[str, list[str]], partitions: int, caller: str = "") -> Iterator[Collective]:
    for line in lines.get(computation, ()):
        instruction = _INSTRUCTION.match(line)
        if not instruction:
            continue
        own, result, operation, rest = instruction.groups()
        kind = operation.removesuffix("-start")
        if kind in _KINDS:
            # TPUs run a collective beside other work: the programs that start, continue and end it all show it.
            if "chain_id=" not in rest or caller.startswith("async-collective-start"):
                devices = _devices(rest, partitions)
                yield Collective(kind, devices, _result_size(result, kind, operation != kind, devices), 1)
            continue  # what it applies adds numbers
        trips = _turns(rest, lines) if operation == "while" else 1
        branches = _BRANCHES.search(rest)
        called = [name for _, name in _CALLED.findall(rest)]
        called += re.findall(r"[\w.\-]+", branches[1]) if branches else []
        for name in called:
            for collective in _of(name, lines, partitions, own):
                if name.startswith("all-reduce-scatter"):
                    # A TPU's reduce-scatter: one operation, described as a sum of which each device takes its part.
                    collective = collective._replace(kind="reduce-scatter", size=_bytes(result))
                yield collective._replace(count=collective.count * trips)


def _turns(attributes: str, lines: dict[str, list[str]]) -> int:
    """How often a loop runs, as the compiler says or else as its counter shows; once where neither does."""
    if found := _TRIPS.search(attributes):
        return int(found[1])
    called = dict(_CALLED.findall(attributes))
    condition, body = ("\n".join(lines.get(called.get(part, ""), ())) for part in ("condition", "body"))

    def defined(pattern: str, name: str, text: str) -> re.Match[str] | None:
        return re.search(pattern.format(re.escape(name)), text)

    compared = _LIMIT.search(condition)
    counter = compared and defined(_ELEMENT, compared[1], condition)
    limit = compared and defined(_CONSTANT, compared[2], condition)
    following = re.search(r"ROOT .* tuple\((.*?)\)", body)
    if not counter or not limit or not following:
        return 1
    operands = re.findall(r"%([\w.\-]+)", following[1])
    addition = defined(_SUM, operands[int(counter[1])], body)
    steps = [defined(_CONSTANT, term, body) for term in addition.groups()] if addition else []
    step = next((int(constant[1]) for constant in steps if constant), 0)
    return math.ceil(int(limit[1]) / step) if step else 1


def _devices(attributes: str, partitions: int) -> int:
    if found := _IOTA_GROUPS.search(attributes):
        return int(found[1])
    if found := _LISTED_GROUPS.search(attributes):
        return len(found[1].split(","))
    if found := _MESH_GROUPS.search(attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found[1])}
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    return partitions


def _result_size(result: str, kind: str, asynchronous: bool, devices: int) -> int:
    if not asynchronous or kind == "all-reduce":
        return _bytes(result)
    # The start of an asynchronous operation shows its operands too.
    share = {"all-gather": devices / (devices + 1), "reduce-scatter": 1 / (devices + 1)}.get(kind, 1 / 2)
    return round(_bytes(result) * share)


def _bytes(result: str) -> int:
    return sum(
        math.prod(map(int, filter(None, shape.split(",")))) * (8 if dtype == "pred" else int(bits)) // 8
        for dtype, bits, shape in _ARRAY.findall(result)
    )
