"""Finds attention between the tiles of queries and blocks of keys that a mask names, as `lower` writes `sparsifiner`'s.

sees = Gather(Gather(Greater(mask, 0), tile of each query), block of each key), of mask [batch, heads, tiles, blocks]
y = MatMul(Softmax(Where(sees, MatMul(q, k') * factor, -inf)), v)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.kernels.blockattention import MOST_KEYS, WHOLE, BlockAttentionCase
from edgewright_exporters.onnx_kernels.attentions import attention_of, scaled_product, softmax_of
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard


def blockattentions(wiring: Wiring) -> Iterator[Match]:
    """Every attention under such a mask whose tiles fill vectors, and whose scores fit on the stack."""
    for node in wiring.nodes:
        found = _matched(wiring, node) if is_standard(node, "MatMul") else None
        if found is not None:
            yield found


def _matched(wiring: Wiring, last: onnx.NodeProto) -> Match | None:
    softmax = softmax_of(wiring, last.input[0])
    choice = None if softmax is None else wiring.maker(softmax.input[0])
    if choice is None or not is_standard(choice, "Where") or wiring.number(choice.input[2]) != -np.inf:
        return None
    product, mask = scaled_product(wiring, choice.input[1]), _mask(wiring, choice.input[0])
    found = None if product is None else attention_of(wiring, last, *product)
    if found is None or mask is None:
        return None
    name, tile, block = mask
    case = BlockAttentionCase(**asdict(found.job.case), tile=tile, block=block)
    fits = wiring.floats(name) == (case.batch, case.heads, case.tiles, case.blocks)
    if not fits or tile % WHOLE or case.keys > MOST_KEYS:
        return None
    return match("blockattention", case, inputs={**found.inputs, "mask": name}, output=found.outputs["y"])


def _mask(wiring: Wiring, sees: str) -> tuple[str, int, int] | None:
    """The mask of tiles and blocks behind what each query sees of each key, and their sizes."""
    sizes: dict[int, int] = {}
    name = sees
    while is_standard(node := wiring.maker(name), "Gather") and node is not None:
        axis, places = attributes(node).get("axis", 0), wiring.constant(node.input[1])
        size = None if places is None or axis in sizes else _each(places)
        if size is None:
            return None
        name, sizes[axis] = node.input[0], size
    if not is_standard(node, "Greater") or node is None or sizes.keys() != {2, 3} or wiring.number(node.input[1]) != 0:
        return None
    return node.input[0], sizes[2], sizes[3]


def _each(places: Array) -> int | None:
    """How many of each there are in 0, 0, .. 1, 1, ..; the last may be fewer."""
    size = int(np.count_nonzero(places == 0)) if places.ndim == 1 else 0
    return size if size and np.array_equal(places, np.arange(len(places)) // size) else None
