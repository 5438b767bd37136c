"""Finds convolutions that compute the channels which a predictor names, as `lower` writes those of `ftwt`.

fires = Cast(logits >= Min(ReduceMax(logits), 0)), spread over the channels of each block by a Gather
wanted = NonZero(fires), full = NonZero(Max(means, first channel)), both squeezed
y = ScatterND(zeros, wanted, Conv(Gather(x, full), Gather(Gather(weight, wanted), full), Gather(bias, wanted)))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from edgewright_exporters.kernels.gatedconv import WHOLE, GatedConvCase
from edgewright_exporters.onnx_kernels.epilogues import image_epilogue_after
from edgewright_exporters.onnx_kernels.match import Match, match
from edgewright_exporters.onnx_kernels.windows import window_of
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard

IMAGES = frozenset(("x", "y"))


def gatedconvs(wiring: Wiring) -> Iterator[Match]:
    """Every `Conv` of gathered filters that is scattered to where they were."""
    for node in wiring.nodes:
        found = _matched(wiring, node) if is_standard(node, "Conv") and len(node.input) == 3 else None
        if found is not None:
            yield found


def _matched(wiring: Wiring, node: onnx.NodeProto) -> Match | None:
    image, filters, bias = (_gathered(wiring, name) for name in node.input)
    if filters is None or bias is None or filters.axis not in (0, 1):
        return None
    inner = _gathered(wiring, filters.of) if filters.axis == 1 else filters
    signless = filters.axis == 1
    if inner is None or (signless and (image is None or image.places != filters.places)):
        return None
    x = image.of if signless and image is not None else node.input[0]
    logits, means = _logits(wiring, inner.places), _means(wiring, filters.places) if signless else ""
    y, weight, held = _scattered(wiring, node, inner.places), wiring.constant(inner.of), wiring.constant(bias.of)
    shape = wiring.floats(x)
    if logits is None or means is None or y is None or weight is None or held is None or shape is None:
        return None
    window = window_of(attributes(node), shape[2:], weight.shape[2:])
    if window is None or shape[0] != 1 or any(n % WHOLE for n in weight.shape[:2]):
        return None
    after, (named, block) = image_epilogue_after(wiring, y, residual=False), logits
    case = GatedConvCase(shape[1], len(weight), window, block, signless, after.activation)
    inputs = {"x": x, "logits": named} | ({"means": means} if signless else {})
    return match("gatedconv", case, inputs=inputs, output=after.y, blocked=IMAGES, weight=weight, bias=held)


@dataclass(frozen=True)
class _Gathered:
    """Some of a value along an axis: which, another value says."""

    of: str
    places: str
    axis: int


def _gathered(wiring: Wiring, name: str) -> _Gathered | None:
    node = wiring.maker(name)
    if node is None or not is_standard(node, "Gather"):
        return None
    return _Gathered(node.input[0], node.input[1], attributes(node).get("axis", 0))


def _marks(wiring: Wiring, places: str) -> str | None:
    """The row of which `places` are those that are not zero."""
    name = places
    for operator in ("Squeeze", "NonZero", "Squeeze"):
        node = wiring.maker(name)
        if node is None or not is_standard(node, operator):
            return None
        name = node.input[0]
    return name


def _logits(wiring: Wiring, places: str) -> tuple[str, int] | None:
    """The logits of blocks, and how many channels each has."""
    marks = _marks(wiring, places)
    spread = None if marks is None else _gathered(wiring, marks)
    to = None if spread is None else wiring.constant(spread.places)
    cast = None if spread is None else wiring.maker(spread.of)
    compared = wiring.maker(cast.input[0]) if cast is not None and is_standard(cast, "Cast") else None
    if to is None or compared is None or not is_standard(compared, "GreaterOrEqual"):
        return None
    logits, block = compared.input[0], int(np.count_nonzero(to == 0))
    evenly = np.array_equal(to, np.arange(len(to)) // max(block, 1))
    return (logits, block) if evenly and _is_threshold(wiring, compared.input[1], logits) else None


def _is_threshold(wiring: Wiring, name: str, logits: str) -> bool:
    """Whether a value is the smaller of 0 and the largest logit."""
    node = wiring.maker(name)
    if node is None or not is_standard(node, "Min") or len(node.input) != 2:
        return False
    most = wiring.maker(node.input[0])
    return (
        most is not None
        and is_standard(most, "ReduceMax")
        and most.input[0] == logits
        and (wiring.number(node.input[1]) == 0.0)
    )


def _means(wiring: Wiring, places: str) -> str | None:
    """The means of which those that are not zero name the channels that hold something."""
    marks = _marks(wiring, places)
    most = None if marks is None else wiring.maker(marks)
    if most is None or not is_standard(most, "Max") or len(most.input) != 2:
        return None
    first = wiring.constant(most.input[1])
    alone = first is not None and bool(first.ravel()[0]) and not first.ravel()[1:].any()
    return most.input[0] if alone else None


def _scattered(wiring: Wiring, node: onnx.NodeProto, places: str) -> str | None:
    """The image in which what a convolution gives lies at `places`, and zeros elsewhere; its shape is read as well."""
    readers = [wiring.nodes[at] for at in wiring.readers.get(node.output[0], ())]
    squeezed = next((each for each in readers if is_standard(each, "Squeeze")), None)
    scatter = None if squeezed is None else wiring.only_reader(squeezed.output[0])
    if scatter is None or not is_standard(scatter, "ScatterND"):
        return None
    empty, where = wiring.maker(scatter.input[0]), wiring.maker(scatter.input[1])
    zeros = empty is not None and is_standard(empty, "Expand") and wiring.number(empty.input[0]) == 0.0
    there = where is not None and is_standard(where, "Unsqueeze") and where.input[0] == places
    image = wiring.only_reader(scatter.output[0])
    plain = all(each is squeezed or is_standard(each, "Shape") for each in readers)
    return (
        image.output[0] if image is not None and is_standard(image, "Unsqueeze") and zeros and there and plain else None
    )
