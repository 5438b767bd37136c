"""Turns the work of a graph into terms: how many operations, bytes and launches each class of kernel asks for.

Terms come from the loops of a kernel alone. None knows a network, an architecture or a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
        *(f"{kind}.taps" for kind in ("window", "unit")),
        *(f"{kind}.{what}" for kind in OTHERS for what in ("bytes", "launches")),
        "inputs",
        "path.ops",
        "apart.launches",
        "weights.bytes",
        "spill.bytes",
        "launches",
    )
)
"""`ops` are million multiply-adds, `taken` and `given` million values that enter a sum, each packed once, and that
leave one, `taps` million places that a window reads, `bytes` megabytes moved between a kernel and memory, `launches`
kernels: of a class, and of all. `inputs` are million values that come from outside, which runtimes convert or copy.
`path.ops` are those of the heaviest path: kernels beside it may run at the same time. `apart.launches` are those of
sums that no product takes in, beside what other kernels on each value cost. `spill` is what a kernel moves
of data beyond `NEAR`, which no cache near a core holds.
"""

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

NEAR = 1 << 19
"""Bytes that stay near a core: half a megabyte, between what small cores and large ones have of their own."""

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


def terms_of(work: Work, far: float = 1.0) -> Mapping[str, float]:
    """The terms of one kernel by name; `far` is the share of weights that a run finds in no cache near a core."""
    width = "int8" if work.dtype == "int8" else "float"
    kind, product = kind_of(work), work.product
    spilt = max(0, work.activation_bytes - NEAR)
    found = {
        f"{width}.{kind}.launches": 1.0,
        f"{width}.launches": 1.0,
        f"{width}.spill.bytes": spilt / 1e6,
        f"{width}.inputs": work.fed / 1e6,
        f"{width}.apart.launches": float(work.apart),
    }
    if product is None:
        return found | {f"{width}.{kind}.bytes": work.bytes / 1e6}
    lanes = -(-product.given // LANES) * LANES if product.groups == 1 else product.given
    ops = product.rows * lanes * product.taken * product.window / 1e6
    if kind in {"window", "unit"}:
        found[f"{width}.{kind}.taps"] = product.rows * product.window / 1e6
    return found | {
        f"{width}.{kind}.ops": ops,
        f"{width}.path.ops": ops * work.critical,
        f"{width}.{kind}.taken": product.rows * product.taken * product.groups * product.window / 1e6,
        f"{width}.{kind}.given": product.rows * product.given / 1e6,
        f"{width}.weights.bytes": far * work.weight_bytes / 1e6,
    }


def far_share(works: Iterable[Work]) -> float:
    """The share of a network's weights that does not fit near a core, and so comes from afar in each run."""
    total = sum(work.weight_bytes for work in works)
    return max(0.0, 1 - NEAR / total) if total else 0.0


def matrix(works: Sequence[Work], far: float | None = None) -> npt.NDArray[np.float64]:
    """The terms of each kernel (n x m) in the order of TERMS.

    `far` is the share of far weights where `works` are only a part of a graph.
    """
    import numpy as np

    share = far_share(works) if far is None else far
    found = np.zeros((len(works), len(TERMS)))
    for row, work in zip(found, works):
        for name, amount in terms_of(work, share).items():
            row[INDEX[name]] = amount
    return found


def design(works: Iterable[Work], *, idle: bool) -> npt.NDArray[np.float64]:
    """The terms of a graph, summed over its kernels; `idle` takes in work on zeros."""
    return matrix([work for work in works if idle or not work.idle]).sum(axis=0)
