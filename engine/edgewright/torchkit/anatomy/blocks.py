"""Finds the blocks of a network: modules of one class that follow one another, seen in one run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from edgewright.torchkit.anatomy.trace import Call, Trace

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
FEWEST_CONVOLUTIONS = 3


@dataclass(frozen=True)
class Span:
    """A block as it ran: from the start of its `first` call to the end of its `last`; mostly both are one.

    A block that runs several `calls` is read as it first ran, and is over at `done`.
    """

    first: Call
    last: Call
    done: int
    calls: int = 1

    def holds(self, at: int) -> bool:
        """Whether something happened within this block."""
        return self.first.at <= at <= self.last.end


@dataclass(frozen=True)
class Group:
    """Calls of sibling modules of one kind."""

    kind: str
    parent: str
    calls: tuple[Call, ...]

    @property
    def chained(self) -> bool:
        """Whether some call works on what the one before it gave."""
        return any(first.gives & second.fed for first, second in pairwise(self.calls))

    @property
    def residual(self) -> bool:
        """Whether something passes a member unchanged."""
        return any(call.residual for call in self.calls)


def find_blocks(module: nn.Module, trace: Trace) -> list[Span]:
    """The blocks in call order; empty when no way of finding them succeeds.

    Tried in turn: repeated members of a list with a residual path, repeated siblings with one, repeated members
    without one that make up most of the network, a lone residual member of a list, and a chain of convolutions.
    """
    groups = siblings(module, trace)
    ways: list[Callable[[Group], bool]] = [
        lambda group: group.chained and group.residual and contained(module, group),
        lambda group: group.chained and group.residual,
        lambda group: group.chained and covers(group, trace) and contained(module, group),
        lambda group: group.chained and covers(group, trace),
        lambda group: group.residual and contained(module, group),
    ]
    for accepts in ways:
        chosen = innermost([group for group in groups if accepts(group)])
        if chosen:
            return spans(outermost(with_neighbours(with_kin(chosen, groups), groups)))
    return convolutions(trace)


def siblings(module: nn.Module, trace: Trace) -> list[Group]:
    """Calls of composite modules that use weights, by parent and kind."""
    modules = dict(module.named_modules())
    found: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in trace.calls:
        layers = trace.layers_of(call)
        composite = len(layers) > 1 or any(True for _ in modules[call.path].children())
        if call.path and layers and composite:
            found[call.path.rpartition(".")[0], kind_of(modules[call.path])].append(call)
    return [Group(kind, parent, tuple(calls)) for (parent, kind), calls in found.items()]


def kind_of(module: nn.Module) -> str:
    """The class of a module; for a plain sequence also the classes in it."""
    name = type(module).__qualname__
    if not isinstance(module, nn.Sequential):
        return name
    return f"{name}({', '.join(kind_of(child) for child in module)})"


def contained(module: nn.Module, group: Group) -> bool:
    """Whether the group are members of a list of modules."""
    return isinstance(module.get_submodule(group.parent), CONTAINERS)


def covers(group: Group, trace: Trace) -> bool:
    """Whether at least half of the weights are used within the group."""
    inside = sum(any(call.holds(layer.at) for call in group.calls) for layer in trace.layers)
    return 2 * inside >= len(trace.layers)


def innermost(groups: Sequence[Group]) -> list[Group]:
    """The groups whose members hold no members of another: blocks rather than the stages they stand in."""
    calls = [(group.kind, call) for group in groups for call in group.calls]
    outer = {kind for kind, call in calls for other, inner in calls if kind != other and within(inner, call)}
    return [group for group in groups if group.kind not in outer]


def within(inner: Call, outer: Call) -> bool:
    """Whether one call happened inside another."""
    return outer.at < inner.at and inner.end < outer.end


def with_kin(chosen: Sequence[Group], groups: Sequence[Group]) -> list[Group]:
    """With residual blocks, all others of their kind: a stage may have a single one."""
    kinds = {group.kind for group in chosen if group.residual}
    return [group for group in groups if group in chosen or group.kind in kinds]


def with_neighbours(chosen: Sequence[Group], groups: Sequence[Group]) -> list[Call]:
    """The calls of some groups, and what stands between them in the same list (a block that reduces, say)."""
    calls = [call for group in chosen for call in group.calls]
    for group in chosen:
        start, end = group.calls[0].at, group.calls[-1].end
        others = (call for other in groups if other.parent == group.parent for call in other.calls)
        calls += [call for call in others if start < call.at and call.end < end]
    return sorted(set(calls), key=lambda call: call.at)


def outermost(calls: Iterable[Call]) -> list[Call]:
    """Calls in order, without those that happened inside another."""
    kept: list[Call] = []
    for call in calls:
        if not (kept and within(call, kept[-1])):
            kept.append(call)
    return kept


def spans(calls: Iterable[Call]) -> list[Span]:
    """One block per path, where it first ran."""
    by_path: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_path[call.path].append(call)
    return [Span(each[0], each[0], each[-1].end, len(each)) for each in by_path.values()]


def convolutions(trace: Trace) -> list[Span]:
    """Convolutions that work on each other's results alone, each with the plain layers after it that keep its shape."""
    convolved = [layer for layer in trace.layers if layer.kind == "conv"]
    chained = all(after.fed == frozenset({before.path}) for before, after in pairwise(convolved))
    if len(convolved) < FEWEST_CONVOLUTIONS or not chained:
        return []
    leaves = [call for call, after in zip(trace.calls, [*trace.calls[1:], trace.calls[0]]) if not within(after, call)]
    paths = {layer.path for layer in convolved}
    starts = [index for index, call in enumerate(leaves) if call.path in paths]
    found: list[Span] = []
    for start, stop in pairwise([*starts, len(leaves)]):
        last = start
        while last + 1 < stop and _continues(leaves[start], leaves[last + 1], trace):
            last += 1
        found.append(Span(leaves[start], leaves[last], leaves[last].end))
    return found


def _continues(start: Call, call: Call, trace: Trace) -> bool:
    return call.out_shape == start.out_shape and not trace.layers_of(call)
