"""Knows a GELU in every form it is exported in: elementwise nodes are one when they compute one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import erf, sqrt

import numpy as np
import onnx

from edgewright.types import Array
from edgewright_exporters.onnx_kernels.wiring import Wiring, attributes, is_standard

LONGEST = 8
"""The most nodes that one GELU is spread over."""

CLOSE = 1e-6
"""Exact forms differ by less, the approximations by `tanh` and by a logistic by more than 1e-4."""

OPERATIONS: Mapping[str, Callable[..., Array]] = {
    "Add": np.add,
    "Mul": np.multiply,
    "Div": np.divide,
    "Erf": np.vectorize(erf, otypes=[np.float64]),
}
POINTS = np.linspace(-6.0, 6.0, 61)
VALUES = np.array([0.5 * x * (1.0 + erf(x / sqrt(2.0))) for x in POINTS])


def gelu_after(wiring: Wiring, name: str) -> str | None:
    """The value that is the exact GELU of `name`, if all that is made of `name` goes into it."""
    reader = wiring.only_reader(name)
    if reader is not None and reader.op_type == "Gelu":
        exact = attributes(reader).get("approximate", "none") == "none"
        return reader.output[0] if exact and reader.domain in ("", "ai.onnx", "com.microsoft") else None
    known: dict[str, Array] = {name: POINTS}
    inside: set[int] = set()
    for at in _elementwise(wiring, known):
        node = wiring.nodes[at]
        inside.add(at)
        known[node.output[0]] = _computed(wiring, node, known)
        if _closed(wiring, known, inside, node.output[0]) and np.allclose(known[node.output[0]], VALUES, atol=CLOSE):
            return node.output[0]
    return None


def _elementwise(wiring: Wiring, known: Mapping[str, Array]) -> Iterator[int]:
    """Nodes, in order, that need nothing but what is known by then and single numbers."""
    waiting = sorted({at for at in wiring.readers.get(next(iter(known)), ())})
    for _ in range(LONGEST):
        ready = next((at for at in waiting if _ready(wiring, wiring.nodes[at], known)), None)
        if ready is None:
            return
        yield ready
        waiting = sorted({*waiting, *wiring.readers.get(wiring.nodes[ready].output[0], ())} - {ready})


def _ready(wiring: Wiring, node: onnx.NodeProto, known: Mapping[str, Array]) -> bool:
    if not is_standard(node, *OPERATIONS) or node.output[0] in known:
        return False
    return all(name in known or wiring.number(name) is not None for name in node.input)


def _computed(wiring: Wiring, node: onnx.NodeProto, known: Mapping[str, Array]) -> Array:
    with np.errstate(all="ignore"):
        return OPERATIONS[node.op_type](*(known.get(n, wiring.number(n)) for n in node.input))


def _closed(wiring: Wiring, known: Mapping[str, Array], inside: set[int], last: str) -> bool:
    """Whether nothing outside reads a value of the region but its last, and the last is read outside alone."""
    inner = [name for name in known if name != last]
    if inside & set(wiring.readers.get(last, ())):
        return False
    return all(set(wiring.readers.get(name, ())) <= inside and name not in wiring.outputs for name in inner)
