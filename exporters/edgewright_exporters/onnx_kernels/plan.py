"""Decides what a graph becomes: which kernels are called, and which nodes stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgewright.protocols import Kernel
from edgewright.types import Offer
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.builtin import BUILT_IN
from edgewright_exporters.onnx_kernels.layouts import laid_out
from edgewright_exporters.onnx_kernels.looking import places
from edgewright_exporters.onnx_kernels.match import Match
from edgewright_exporters.onnx_kernels.moves import Moved
from edgewright_exporters.onnx_kernels.norms import with_sums
from edgewright_exporters.onnx_kernels.reshapes import without_reshapes
from edgewright_exporters.onnx_kernels.wiring import Wiring, is_standard, read_by

Kernels = Sequence[Offer[Kernel]]
"""Those that may be called, in the order in which they look at a graph."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What the outputs of a graph need: kernels, nodes that are rewritten for blocks, and nodes as they are."""

    matches: Sequence[Match]
    moved: Sequence[Moved]
    nodes: Sequence[onnx.NodeProto]


@dataclass(frozen=True, eq=False)
class _Step:
    """One of these, with the values that it reads and makes."""

    what: Match | Moved | onnx.NodeProto
    reads: Sequence[str]
    makes: Sequence[str]


def matches(wiring: Wiring, kernels: Kernels = BUILT_IN) -> Sequence[Match]:
    """Everything in a graph that kernels can do; a value that several could make is made by the first of them."""
    found, made = list[Match](), set[str]()
    for each in (place for kernel in kernels for place in places(kernel, wiring)):
        if made.isdisjoint(each.outputs.values()):
            found.append(each)
            made.update(each.outputs.values())
    return with_sums(wiring, found)


def planned(wiring: Wiring, blocks: Blocks, kernels: Kernels = BUILT_IN) -> Plan:
    """The plan for a graph whose images lie in `blocks` between kernels."""
    layout = laid_out(wiring, matches(wiring, kernels), blocks)
    called = without_reshapes(wiring, layout.matches)
    steps = [_Step(each, each.reads(blocks), each.makes(blocks)) for each in called]
    steps += [_Step(each, list(read_by(each.node)), each.node.output) for each in layout.moved]
    made = {name for step in steps for name in step.makes}
    steps += [_Step(n, list(read_by(n)), n.output) for n in _shapes_known(wiring) if not made.intersection(n.output)]
    needed = [step.what for step in _needed(steps, wiring.outputs)]
    return Plan(
        [each for each in needed if isinstance(each, Match)],
        [each for each in needed if isinstance(each, Moved)],
        [each for each in needed if isinstance(each, onnx.NodeProto)],
    )


def _shapes_known(wiring: Wiring) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph; those that tell a fixed shape are constants, so that they keep no image plain."""
    for node in wiring.nodes:
        shape = wiring.shape(node.input[0]) if is_standard(node, "Shape") and not node.attribute else None
        if shape is None:
            yield node
        else:
            value = numpy_helper.from_array(np.asarray(shape, np.int64))
            yield helper.make_node("Constant", [], node.output, name=node.name, value=value)


def _needed(steps: Sequence[_Step], outputs: Iterable[str]) -> Sequence[_Step]:
    """The steps that the outputs depend on, in their order."""
    makers = {name: at for at, step in enumerate(steps) for name in step.makes if name}
    waiting, needed = [makers[name] for name in outputs if name in makers], set[int]()
    while waiting:
        at = waiting.pop()
        if at not in needed:
            needed.add(at)
            waiting.extend(makers[name] for name in steps[at].reads if name in makers)
    return [step for at, step in enumerate(steps) if at in needed]
