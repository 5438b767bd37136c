"""From an ONNX graph with our kernels to TVM's Relax: their nodes become calls, TVM's importer does the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from onnx import helper
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright_exporters.onnx_kernels.rewrite import DOMAIN
from edgewright_exporters.tir import builder

KERNELS = ("FloatKernel", "Kernel")
"""Our operators; `edgewright_exporters.onnx_kernels.rewrite` writes them."""

CALLER = "call_"
"""What the functions begin with that call our kernels."""

Array = tuple[Sequence[int], str]
"""Shape and dtype."""


def imported(proto: onnx.ModelProto) -> Any:
    """An IRModule whose `main` computes what the graph does.

    Raises:
        RefusedError: when TVM has no importer for an operator, or its importer fails; the message names it.
    """
    graph: Any = proto.graph  # what TVM's importer reads, whatever its annotation says
    try:
        return _Importer({}, {}, sanitize=False).from_onnx(graph, onnxkit.opsets(proto)["ai.onnx"])
    except RefusedError:
        raise
    except Exception as error:
        raise RefusedError(f"TVM cannot import this graph: {_first_line(error)}") from error


class _Importer(ONNXGraphImporter):
    """TVM's importer, which knows our operators and says which one it failed at."""

    def _check_for_unsupported_ops(self, graph: Any) -> None:
        others: Any = SimpleNamespace(node=[node for node in graph.node if node.domain != DOMAIN])
        super()._check_for_unsupported_ops(others)

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Any:
        if op_name in KERNELS:
            return self._call(attrs, [self.bb.normalize(value) for value in inputs])
        try:
            return super()._convert_operator(op_name, inputs, attrs, opset)
        except Exception as error:
            raise RefusedError(f"TVM cannot import this {op_name}: {_first_line(error)}") from error

    def _call(self, attrs: dict[str, Any], inputs: Any) -> Any:
        types = [str(np.dtype(helper.tensor_dtype_to_np_dtype(code))) for code in attrs["types"]]
        made = list(zip(_shapes(attrs["shapes"]), types))
        arrays = [*map(_array, inputs), *made]
        symbol = attrs["symbol"].decode()
        function = builder.caller(symbol, arrays, int(attrs["items"]))
        results = [_type(shape, dtype) for shape, dtype in made]
        to = self.bb.add_func(function, f"{CALLER}{symbol}")
        return self.bb.emit(relax.call_tir(to, inputs, results if len(results) > 1 else results[0]))


def _shapes(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """The shapes that lie in a row, each behind its rank."""
    at = 0
    while at < len(numbers):
        rank = numbers[at]
        yield tuple(numbers[at + 1 : at + 1 + rank])
        at += 1 + rank


def _type(shape: Any, dtype: str) -> Any:
    return relax.TensorType(shape, dtype)


def _array(value: Any) -> Array:
    return [int(size) for size in value.ty.shape], str(value.ty.dtype)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
