"""What a compiled program sends between devices, read from its HLO."""

import collections
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
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


def _of(computation: str, lines: dict[str, list[str]], partitions: int) -> Iterator[Collective]:
    for line in lines.get(computation, ()):
        instruction = _INSTRUCTION.match(line)
        if not instruction:
            continue
        result, operation, rest = instruction.groups()
        kind = operation.removesuffix("-start")
        if kind in _KINDS:
            devices = _devices(rest, partitions)
            yield Collective(kind, devices, _result_size(result, kind, operation != kind, devices), 1)
            continue  # what it applies adds numbers
        trips = int(found[1]) if operation == "while" and (found := _TRIPS.search(rest)) else 1
        branches = _BRANCHES.search(rest)
        called = [name for _, name in _CALLED.findall(rest)]
        called += re.findall(r"[\w.\-]+", branches[1]) if branches else []
        for name in called:
            yield from (c._replace(count=c.count * trips) for c in _of(name, lines, partitions))


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
    size = 0
    for dtype, bits, shape in _ARRAY.findall(result):
        size += math.prod(map(int, filter(None, shape.split(",")))) * (8 if dtype == "pred" else int(bits)) // 8
    if not asynchronous or kind == "all-reduce":
        return size
    # The start of an asynchronous operation shows its operands too.
    share = {"all-gather": devices / (devices + 1), "reduce-scatter": 1 / (devices + 1)}.get(kind, 1 / 2)
    return round(size * share)
