"""What every step that handles ONNX needs: reading, packing and running graphs.

Beside `torchkit` the one part of the core that imports a framework; import it inside functions only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from edgewright.errors import EdgewrightError
from edgewright.int8constants import part_int8_constants
from edgewright.machine import listed_features, products_are_exact
from edgewright.types import Array, Arrays, Graph, GraphFile, Stage, TensorSpec, Variant

OLDEST_IR = 4
"""Below it, every initializer has to stand among the graph's inputs too."""
FUNCTIONS_IR = 8
"""From it on, a file may carry functions of its own."""
EXACT_PRODUCTS = ("session.x64quantprecision", "1")
"""The setting of a session that keeps sums of integer products exact on x86 without VNNI. There onnxruntime's usual
kernel for signed weights cuts sums off at 16 bits, which is wrong by a lot; weights within 7 bits never reach that end
and keep this kernel, others take a slower one."""


DATA_DEPENDENT = frozenset({"Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Unique"})
"""Operators whose results' sizes, or whose work, depend on values and not on shapes alone."""


def read(graph: Graph) -> onnx.ModelProto:
    """The parsed file of a stage. Raises: EdgewrightError when the graph is still a torch module."""
    if not isinstance(graph, GraphFile):
        raise EdgewrightError("a torch graph is no ONNX file; lower it first")
    return onnx.load_from_string(graph.path.read_bytes())


def pack(proto: onnx.ModelProto) -> bytes:
    """The bytes of a model at the lowest IR that holds it, equal for equal models.

    Shapes noted for values between nodes are left out: they go stale with the first rewrite, and
    quantisers refuse a file in which they contradict what they infer. Constants of int8 have one reader each.
    """
    packed = onnx.ModelProto()
    packed.CopyFrom(proto)
    packed.ir_version = lowest_ir(proto)
    del packed.graph.value_info[:]
    part_int8_constants(packed.graph)
    return packed.SerializeToString(deterministic=True)


def lowest_ir(proto: onnx.ModelProto) -> int:
    """The oldest IR version that holds the model's opsets, functions and initializers."""
    needed = helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    return max(needed, OLDEST_IR, FUNCTIONS_IR if proto.functions else 0)


def opsets(proto: onnx.ModelProto) -> dict[str, int]:
    """The opset version per domain; the standard one is `ai.onnx`."""
    return {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}


def operators(proto: onnx.ModelProto) -> dict[str, int]:
    """How often each operator stands in the main graph; other domains are written `domain::name`."""
    names = (f"{n.domain}::{n.op_type}" if n.domain not in ("", "ai.onnx") else n.op_type for n in proto.graph.node)
    return dict(sorted(Counter(names).items()))


def data_dependent(proto: onnx.ModelProto) -> bool:
    """Whether what a run costs may depend on the values that it is given."""
    return not DATA_DEPENDENT.isdisjoint(operators(proto))


def holds_integers(proto: onnx.ModelProto) -> bool:
    """Whether weights are stored in 8 bits or fewer."""
    names = ("INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2")  # older releases of onnx lack the last ones
    few = {getattr(onnx.TensorProto, name, None) for name in names}
    return any(tensor.data_type in few and len(tensor.dims) > 1 for tensor in proto.graph.initializer)


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Name, dtype and shape of a tensor; a dimension without size or name is called `name_axis`."""
    tensor = value.type.tensor_type
    dims = (
        dim.dim_value if dim.dim_value > 0 else dim.dim_param or f"{value.name}_{axis}"
        for axis, dim in enumerate(tensor.shape.dim)
    )
    return TensorSpec(value.name, str(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(dims))


def ask_for_exact_products(options: Any) -> None:
    """Set `EXACT_PRODUCTS` where this host's CPU needs it."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        cpuinfo = ""
    if not products_are_exact(listed_features(cpuinfo)):
        options.add_session_config_entry(*EXACT_PRODUCTS)


def session(graph: bytes | Path, *, threads: int = 1) -> ort.InferenceSession:
    """The graph, loaded on this host's CPU with onnxruntime's warnings off.

    Raises: onnxruntime's own exceptions when it cannot hold the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    ask_for_exact_products(options)
    model = graph if isinstance(graph, bytes) else str(graph)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(graph: bytes | Path, feeds: Iterable[Arrays], names: Sequence[str] | None = None) -> Iterator[list[Array]]:
    """The outputs called `names` (all, in the graph's order, when None) for each of `feeds`, on this host."""
    opened = session(graph)
    taken = [value.name for value in opened.get_inputs()]
    for feed in feeds:
        outputs = opened.run(list(names) if names else None, {name: feed[name] for name in taken})
        yield [np.asarray(output) for output in outputs]


def run_stages(variant: Variant, feeds: Iterable[Arrays]) -> list[dict[str, Array]]:
    """All that the stages make of each feed, the last one's outputs included; on this host."""
    pools = [dict(feed) for feed in feeds]
    for stage in variant.stages:
        pools = _after(stage, pools)
    return pools


def _after(stage: Stage, pools: list[dict[str, Array]]) -> list[dict[str, Array]]:
    graph = read(stage.graph)
    names = [value.name for value in graph.graph.output]
    made = run(pack(graph), pools)
    return [{**pool, **dict(zip(names, outputs))} for pool, outputs in zip(pools, made)]
