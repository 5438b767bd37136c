"""Which values of a graph lie in blocks of channels, and what stands where they meet those that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from edgewright_exporters.kernels.reorder import ReorderCase
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.codes import byte_type
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.moves import Moved, moved
from edgewright_exporters.onnx_kernels.templates import Job
from edgewright_exporters.onnx_kernels.wiring import Wiring


@dataclass(frozen=True, eq=False)
class Layout:
    """The kernels of a graph, and its nodes that were rewritten for images in blocks."""

    matches: Sequence[Match]
    moved: Sequence[Moved]


FOLLOWING = "pool"
"""The template whose kernels are worth it only where images lie in blocks already."""


def laid_out(wiring: Wiring, matches: Sequence[Match], blocks: Blocks) -> Layout:
    """The same kernels, with nodes between them that do as well on blocks, and with kernels that reorder.

    Every image that lies in blocks is also put into plain layout; most of these kernels are needed by nothing.
    """
    firm = [each for each in matches if each.job.template != FOLLOWING]
    made = {each.outputs[pointer] for each in firm for pointer in each.outputs if pointer in each.blocked}
    followers, nodes = _following(wiring, matches, made, blocks)
    taken = [_taking(each, made) for each in (*firm, *followers)]
    missing = {each.inputs[n] for each in taken for n in each.inputs if n in each.blocked} - made
    there = [_reorder(wiring, name, back=False) for name in sorted(missing)]
    back = [_reorder(wiring, name, back=True) for name in sorted(made)]
    return Layout([*taken, *there, *back], nodes)


def _following(
    wiring: Wiring, matches: Sequence[Match], made: set[str], blocks: Blocks
) -> tuple[Sequence[Match], Sequence[Moved]]:
    """The kernels and nodes that go on where images lie in blocks; what they make is added to `made`."""
    makers = {name: each for each in matches for name in each.outputs.values()}
    followers, nodes = list[Match](), list[Moved]()
    for node in wiring.nodes:
        maker = next((makers[name] for name in node.output if name in makers), None)
        if maker is None and (there := moved(wiring, node, made, blocks)) is not None:
            nodes.append(there)
        elif maker is not None and maker.job.template == FOLLOWING and maker.inputs["x"] in made:
            followers.append(maker)
        else:
            continue
        made.update(node.output)
    return followers, nodes


def _taking(each: Match, made: set[str]) -> Match:
    """A dense convolution reads a plain image as it is."""
    if each.job.template != "conv" or each.inputs["x"] in made:
        return each
    return replace(each, job=Job("conv", replace(each.job.case, plain=True)), blocked=each.blocked - {"x"})


def _reorder(wiring: Wiring, name: str, *, back: bool) -> Match:
    shape = wiring.shape(name) or (1, 1)
    case = ReorderCase(shape[0], shape[1], prod(shape[2:]), back, byte_type(wiring, name) or "float32")
    return match("reorder", case, inputs={"x": name}, output=name, blocked=frozenset("x" if back else "y"))
