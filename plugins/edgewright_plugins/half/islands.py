"""Decides which nodes of a graph work in 16 bits, and says why the others stay in float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from edgewright_plugins.half.floats import HalfType, fits, is_float
from edgewright_plugins.half.slots import Runtime, Slots, find_slots

MOVERS = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Pad",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)
"""Operators that compute nothing: they follow what they are given, so that no cast is made for them."""


@dataclass
class Islands:
    """Of a graph's float nodes: those that go to 16 bits, and the others with the reason.

    `ranges` (by name) hold values that would overflow or vanish. `lacking` (with their operator) have no
    16-bit form in the runtime; their weights may be kept in 16 bits all the same. `scores` make one number per row,
    which thresholds are compared with.
    """

    halved: dict[ir.Node, Slots] = field(default_factory=dict)
    ranges: dict[str, str] = field(default_factory=dict)
    lacking: dict[ir.Node, str] = field(default_factory=dict)
    scores: list[ir.Node] = field(default_factory=list)

    def notes(self, half: HalfType) -> Iterator[str]:
        """What the user should know."""
        floats = len(self.ranges) + len(self.lacking) + len(self.scores)
        yield f"{len(self.halved)} nodes in {half.name}, {floats} stay in float32"
        if self.ranges:
            shown = "; ".join(f"{name}: {reason}" for name, reason in list(self.ranges.items())[:3])
            yield f"{len(self.ranges)} nodes stay because values would overflow or vanish ({shown})"
        if self.lacking:
            kinds = ", ".join(f"{kind} {n}" for kind, n in Counter(self.lacking.values()).most_common())
            yield f"{len(self.lacking)} nodes stay because onnxruntime here has no {half.name} form of them ({kinds})"
        if self.scores:
            yield f"{len(self.scores)} nodes stay because they make one number per row, which is no work"


def find_islands(
    model: ir.Model, half: HalfType, peaks: Mapping[str, float], headroom: float, scores: Collection[str] = ()
) -> Islands:
    """Decide for each float node of the main graph, in running order.

    Args:
        model: the graph.
        half: the type.
        peaks: the largest magnitude seen per tensor.
        headroom: the share of the type's largest value that a peak may reach.
        scores: names of nodes that only make one number per row.
    """
    found = Islands()
    opsets = model.graph.opset_imports
    runtime = Runtime(opsets, half, {})
    stored: set[ir.Value] = set()
    for node in model.graph:
        if not any(is_float(value) for value in (*node.inputs, *node.outputs)):
            continue
        slots = find_slots(node, opsets, half)
        reason = _range_reason(node, half, peaks, headroom)
        if node.name in scores:
            found.scores.append(node)
        elif reason:
            found.ranges[str(node.name)] = reason
        elif slots is None or not runtime.has(node, slots):
            found.lacking[node] = node.op_type
        elif node.op_type not in MOVERS or any(value in stored for value in node.inputs):
            found.halved[node] = slots
            stored.update(node.outputs[i] for i in slots.outputs)
    return found


def _range_reason(node: ir.Node, half: HalfType, peaks: Mapping[str, float], headroom: float) -> str:
    """Why the node's values do not fit; empty when they do."""
    for value in (*node.inputs, *node.outputs):
        if value is None or not is_float(value):
            continue
        if value.const_value is not None:
            if not fits(value.const_value.numpy(), half):
                return f"constant {value.name} does not fit"
        elif not peaks.get(str(value.name), 0.0) <= half.largest * headroom:
            return f"{value.name} reaches {peaks[str(value.name)]:.3g}"
    return ""
