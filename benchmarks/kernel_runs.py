"""Makes what kernels.py times: sessions of one node, the library with our kernels, and loops that reach the peak."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from kernel_cases import Comparison
from onnx import NodeProto, helper, numpy_helper

from edgewright.onnxkit import ask_for_exact_products
from edgewright_exporters.kernels import dot, gelu
from edgewright_exporters.loader.build import LIBRARIES, loader_object
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.tir.linking import link

Array = npt.NDArray[Any]
Run = Callable[[], object]
Constants = Callable[[int], Mapping[str, Array]]
"""The constants of a copy, by its number."""

DOMAINS = {"": 20, "com.microsoft": 1, "com.microsoft.nchwc": 1, "edgewright": 1}
PEAKS = ("float32", "int8")
PEAK_ITEMS = 20_000


@dataclass(frozen=True)
class Library:
    """A shared object on disk with kernels and loader, for `isa`."""

    path: Path
    isa: Isa


def symbol(number: int, tile: int) -> str:
    """The kernel of a comparison, by its number, with one of its tiles, by its number."""
    return f"kernel_{number}_{tile}"


def library(comparisons: Sequence[Comparison], isa: Isa, place: Path, cache: Path) -> Library:
    """Every comparison with every tile, and the loops of the peak, compiled and linked as an exporter does it."""
    functions = _loops(isa)
    for number, each in enumerate(comparisons):
        for at, tile in enumerate(each.template.tiles(each.case, isa)):
            functions[symbol(number, at)] = each.template.function(each.case, tile, isa, symbol(number, at))
    place.write_bytes(link([compile_object(functions, isa), loader_object(isa, cache)], isa, libraries=LIBRARIES))
    return Library(place, isa)


def peak_library(isa: Isa, place: Path) -> Library:
    """The loops of the peak alone."""
    place.write_bytes(link([compile_object(_loops(isa), isa)], isa))
    return Library(place, isa)


def _loops(isa: Isa) -> dict[str, Any]:
    return {**{f"peak_{kind}": _peak(kind, isa) for kind in PEAKS}, "read": _read(isa), "write": _write(isa)}


# ------------------------------------------------------------------ sessions


def theirs(comparison: Comparison) -> Run:
    """ONNX Runtime's own nodes, checked once and ready to be timed."""
    if comparison.theirs:
        comparison = replace(comparison, inputs=comparison.theirs[0], expected=comparison.theirs[1])
    return _opened(comparison, comparison.nodes, lambda copy: _turned(comparison.constants, copy), None)


def ours(comparison: Comparison, number: int, tile: int, built: Library) -> Run:
    """Our kernel with one of its tiles, called by the loader's node; checked once and ready to be timed."""
    template, case, isa = comparison.template, comparison.case, built.isa
    chosen = template.tiles(case, isa)[tile]
    taken = [each.name for each in template.arguments(case, chosen, isa)]
    taken, given = taken[: -len(comparison.expected)], taken[-len(comparison.expected) :]

    def constants(copy: int) -> Mapping[str, Array]:
        weights = _turned(comparison.weights, copy)
        names = [name for name in taken if name not in comparison.inputs]
        return dict(zip(names, template.pack(case, chosen, isa, **weights) if weights else (), strict=True))

    types = [_dtype(comparison, name) for name in given]
    node = helper.make_node(
        "Kernel",
        taken,
        given,
        domain="edgewright",
        symbol=symbol(number, tile),
        shapes=[size for name in given for size in (comparison.expected[name].ndim, *comparison.expected[name].shape)],
        types=[helper.np_dtype_to_tensor_dtype(each) for each in types],
        items=template.items(case, chosen, isa),
    )
    return _opened(comparison, [node], constants, built.path)


def _turned(arrays: Mapping[str, Array], copy: int) -> Mapping[str, Array]:
    """What a copy has instead of `arrays`: columns in another order, for ONNX Runtime packs equal weights once."""
    return {name: np.roll(array, copy, -1) if array.ndim else array for name, array in arrays.items()}


def empty() -> Run:
    """A run of next to nothing: what every run costs beside its operator."""
    one = np.zeros(1, np.float32)
    return theirs(Comparison("empty", gelu, None, [helper.make_node("Relu", ["x"], ["y"])], {"x": one}, {"y": one}))


def one_thread(kernels: Path | None) -> Any:
    """Options of a session that runs on one thread, products exact, with a library of kernels."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    ask_for_exact_products(settings)
    settings.add_session_config_entry("edgewright.threads", "1")
    if kernels is not None:
        settings.register_custom_ops_library(str(kernels))
    return settings


def _opened(comparison: Comparison, nodes: Sequence[NodeProto], constants: Constants, kernels: Path | None) -> Run:
    """A session of one thread whose inputs and outputs lie in memory of its own."""
    settings = one_thread(kernels)
    graph = _model(comparison, nodes, constants)
    session = onnxruntime.InferenceSession(graph, settings, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in comparison.inputs.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    results = {}
    for output in session.get_outputs():
        name, _, _ = output.name.rpartition(".")
        empty = np.zeros(comparison.expected[name].shape, _dtype(comparison, name))
        results[output.name] = onnxruntime.OrtValue.ortvalue_from_numpy(empty)
        binding.bind_ortvalue_output(output.name, results[output.name])
    session.run_with_iobinding(binding)
    for full, value in results.items():
        name, _, copy = full.rpartition(".")
        expected = _turned(comparison.expected, int(copy))[name]
        _check(f"{comparison.name}: {name}", value.numpy(), expected, exact=kernels is not None)
    return lambda: session.run_with_iobinding(binding)


def _model(comparison: Comparison, nodes: Sequence[NodeProto], constants: Constants) -> bytes:
    """`copies` of the nodes side by side: all read the same inputs, and each has constants of its own."""
    parts, initializers = [], []
    for copy in range(comparison.copies):
        for node in nodes:
            part = NodeProto()
            part.CopyFrom(node)
            part.input[:] = [_named(name, copy, comparison) for name in node.input]
            part.output[:] = [_named(name, copy, comparison) for name in node.output]
            parts.append(part)
        initializers += [numpy_helper.from_array(array, f"{name}.{copy}") for name, array in constants(copy).items()]
    outputs = [
        _value(f"{name}.{copy}", _dtype(comparison, name), array)
        for copy in range(comparison.copies)
        for name, array in comparison.expected.items()
    ]
    inputs = [_value(name, array.dtype, array) for name, array in comparison.inputs.items()]
    domains = {"", *(node.domain for node in nodes)}
    opsets = [helper.make_opsetid(domain, DOMAINS[domain]) for domain in sorted(domains)]
    graph = helper.make_graph(parts, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def _named(name: str, copy: int, comparison: Comparison) -> str:
    return name if not name or name in comparison.inputs else f"{name}.{copy}"


def _value(name: str, dtype: Any, array: Array) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), array.shape)


def _dtype(comparison: Comparison, name: str) -> np.dtype[Any]:
    """Of a result: references of float32 results are in float64."""
    dtype = comparison.expected[name].dtype
    return np.dtype(np.float32) if dtype.kind == "f" else dtype


def _check(name: str, found: Array, expected: Array, *, exact: bool) -> None:
    """Bytes of ours are exact; ONNX Runtime may round one differently. Floats: 1e-5 of the largest, 1e-4 for it."""
    away = float(np.abs(found.astype(np.float64) - expected).max())
    allowed = (0 if exact else 1) if found.dtype.kind in "ui" else np.abs(expected).max() * (1e-5 if exact else 1e-4)
    if away > allowed:
        raise ValueError(f"{name} is off by {away:.3g}, allowed are {allowed:.3g}")


# ------------------------------------------------------------------ the peak


def peak(kind: str, built: Library) -> tuple[Run, int]:
    """A loop of products and sums of registers only, and how many operations one run of it is."""
    call = getattr(ctypes.CDLL(str(built.path)), f"peak_{kind}")
    x, y = (np.ones(pointer.size, pointer.dtype) for pointer in _pointers(kind, built.isa))
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, y)]

    def run() -> object:
        """Also what keeps the memory."""
        return call(*pointers, ctypes.c_int32(0), ctypes.c_int32(PEAK_ITEMS)), x, y

    return run, 2 * PEAK_ITEMS * x.size * (1 if kind == "int8" else _chains(built.isa))


def _chains(isa: Isa) -> int:
    """Sums side by side: enough to hide how long one product takes, and few enough to stay in registers."""
    return isa.registers - 6


def _pointers(kind: str, isa: Isa) -> tuple[builder.Argument, builder.Argument]:
    """One vector of factors (of bytes, one for each chain, so that no two have the same products) and one of sums."""
    way = dot.dot_of_gathered(isa, gentle=True)
    if kind == "int8":
        factors = _chains(isa) * way.lanes * way.step
        return builder.Argument("x", "int8", factors), builder.Argument("y", "int32", way.lanes)
    return builder.Argument("x", kind, isa.lanes), builder.Argument("y", kind, isa.lanes)


def _peak(kind: str, isa: Isa) -> Any:
    """sum = sum * x + x for float32, sum += word . x with another word in each turn for bytes.

    Neither has products that a compiler can take out of the loop.
    """
    factors, sums = _pointers(kind, isa)
    lanes, way = sums.size, dot.dot_of_gathered(isa, gentle=True)
    places = range(0, _chains(isa) * lanes, lanes)

    def body(x: Any, y: Any, begin: Any, end: Any) -> None:
        kept = builder.registers(_chains(isa) * lanes, sums.dtype)
        for place in places:
            builder.store(kept, place, builder.splat(place, lanes, sums.dtype), lanes)
        with builder.loop(begin, end) as turn:
            word = builder.splat(turn if way.kind != "widen" else turn % 128, lanes)
            for place in places:
                value = builder.load(kept, place, lanes)
                if kind == "int8":
                    factor = builder.load(x, place * way.step, lanes * way.step)
                    builder.store(kept, place, dot.multiply(way, value, word, factor), lanes)
                else:
                    factor = builder.load(x, 0, lanes)
                    builder.store(kept, place, value * factor + factor, lanes)
        total = builder.splat(0, lanes, sums.dtype)
        for place in places:
            total = total + builder.load(kept, place, lanes)
        builder.store(y, 0, total, lanes)

    return builder.function(f"peak_{kind}", (factors, sums), body)


# ------------------------------------------------------------------ the traffic


def moving(read: int, written: int, built: Library) -> Run:
    """A run that reads and then writes as many float32, in order, and computes nothing.

    What is written begins beside a cache line, as do most rows of a result.
    """
    library, lanes = ctypes.CDLL(str(built.path)), built.isa.lanes
    x, y, top = np.ones(read + lanes, np.float32), np.ones(written + lanes, np.float32), np.ones(lanes, np.float32)
    pointer = [ctypes.c_void_p(array.ctypes.data) for array in (x, top, y[1:])]
    turns = [ctypes.c_int32(count // lanes) for count in (read, written)]

    def run() -> object:
        """Also what keeps the memory."""
        library.read(pointer[0], pointer[1], ctypes.c_int32(0), turns[0])
        library.write(pointer[1], pointer[2], ctypes.c_int32(0), turns[1])
        return x, y, top

    return run


ANY = 1 << 30
"""Declared as the size of arrays whose size the call says."""


def _read(isa: Isa) -> Any:
    """The largest of a vector's lanes over all vectors."""
    arrays = builder.Argument("x", "float32", ANY), builder.Argument("top", "float32", isa.lanes)

    def body(x: Any, top: Any, begin: Any, end: Any) -> None:
        kept = builder.registers(isa.lanes, "float32")
        builder.store(kept, 0, builder.load(x, 0, isa.lanes), isa.lanes)
        with builder.loop(begin, end) as turn:
            found = builder.load(x, turn * isa.lanes, isa.lanes)
            builder.store(kept, 0, builder.largest(builder.load(kept, 0, isa.lanes), found), isa.lanes)
        builder.store(top, 0, builder.load(kept, 0, isa.lanes), isa.lanes)

    return builder.function("read", arrays, body)


def _write(isa: Isa) -> Any:
    """One vector everywhere."""
    arrays = builder.Argument("top", "float32", isa.lanes), builder.Argument("y", "float32", ANY)

    def body(top: Any, y: Any, begin: Any, end: Any) -> None:
        value = builder.held(builder.load(top, 0, isa.lanes))
        with builder.loop(begin, end) as turn:
            builder.store(y, turn * isa.lanes, value, isa.lanes)

    return builder.function("write", arrays, body)
