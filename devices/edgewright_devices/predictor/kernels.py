"""Turns the work of a graph into terms: how many operations, bytes and launches each class of kernel asks for.

Terms come from the loops of a kernel alone. None knows a network, an architecture or a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from edgewright_devices.workload import Work

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PRODUCTS = ("window", "unit", "point", "group", "depth", "vector", "matrix")
"""Classes of kernels that multiply: convolutions with a window, those of 3x3 at stride 1 (which may use Winograd's
transform), of 1x1 and other products with weights, grouped ones, depthwise ones, products of one row with weights,
and products of two tensors of data."""

OTHERS = ("pointwise", "curve", "pool", "reduce", "move", "recode")
"""The other classes: arithmetic on each value, functions with an exponential, windows that slide, means and norms,
what only moves data, and what changes its width."""

WIDTHS = ("float", "int8")
TERMS = tuple(
    f"{width}.{term}"
    for width in WIDTHS
    for term in (
        *(f"{kind}.{what}" for kind in PRODUCTS for what in ("ops", "taken", "given", "launches")),
        *(f"{kind}.{what}" for kind in OTHERS for what in ("bytes", "launches")),
        "weights.bytes",
    )
)
"""`ops` are million multiply-adds, `taken` and `given` million values that enter a sum, each packed once, and that
leave one, `bytes` megabytes moved between a kernel and memory, `launches` kernels."""

INDEX = {name: at for at, name in enumerate(TERMS)}

CURVES = {
    "Softmax", "LogSoftmax", "Gelu", "Swish", "Erf", "Sigmoid", "Tanh", "Exp", "Log", "Softplus", "Mish", "Elu", "Selu",
}  # fmt: skip
POOLS = {"AveragePool", "MaxPool", "LpPool", "LRN"}
REDUCES = {
    "GlobalAveragePool", "GlobalMaxPool", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "ArgMax",
    "TopK", "CumSum",
}  # fmt: skip
MOVES = {
    "Concat", "Transpose", "Slice", "Split", "Pad", "Resize", "Upsample", "Gather", "GatherElements", "GatherND",
    "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "ScatterND",
}  # fmt: skip

RECODES = {"QuantizeLinear", "DequantizeLinear", "Cast"}
KINDS = {
    **dict.fromkeys(CURVES, "curve"), **dict.fromkeys(POOLS, "pool"), **dict.fromkeys(REDUCES, "reduce"),
    **dict.fromkeys(MOVES, "move"), **dict.fromkeys(RECODES, "recode"),
}  # fmt: skip

LANES = 4
"""Results that a vector unit finishes together at the least: a kernel of 5 channels takes as long as one of 8."""


def kind_of(work: Work) -> str:
    """The class of a kernel."""
    product = work.product
    if product is None:
        return KINDS.get(work.operator, "reduce" if work.operator.startswith("Reduce") else "pointwise")
    if product.groups > 1:
        return "depth" if product.taken == 1 else "group"
    if not product.constant:
        return "matrix"
    if product.rows == 1:
        return "vector"
    if product.window == 1:
        return "point"
    return "unit" if (product.window, product.stride) == (9, 1) else "window"


def terms_of(work: Work) -> Mapping[str, float]:
    """The terms of one kernel by name."""
    width = "int8" if work.dtype == "int8" else "float"
    kind, product = kind_of(work), work.product
    found = {f"{width}.{kind}.launches": 1.0}
    if product is None:
        return found | {f"{width}.{kind}.bytes": work.bytes / 1e6}
    lanes = -(-product.given // LANES) * LANES if product.groups == 1 else product.given
    return found | {
        f"{width}.{kind}.ops": product.rows * lanes * product.taken * product.window / 1e6,
        f"{width}.{kind}.taken": product.rows * product.taken * product.groups * product.window / 1e6,
        f"{width}.{kind}.given": product.rows * product.given / 1e6,
        f"{width}.weights.bytes": work.weight_bytes / 1e6,
    }


def design(works: Iterable[Work], *, idle: bool) -> npt.NDArray[np.float64]:
    """The terms of a graph, summed over its kernels, in the order of TERMS; `idle` takes in work on zeros."""
    import numpy as np

    total = np.zeros(len(TERMS))
    for work in works:
        if idle or not work.idle:
            for name, amount in terms_of(work).items():
                total[INDEX[name]] += amount
    return total
