"""From a path to a parsed ONNX model that stands alone and that the installed onnxruntime can hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import external_data_helper, helper, version_converter

from edgewright import onnxkit
from edgewright.errors import ModelError, no_file
from edgewright_plugins.loaders.zero_points import state_zero_points

LARGEST = 2**31 - 1
"""Bytes a protobuf message, and so an ONNX file, may have."""
RUNTIME_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
"""Domains whose operators onnxruntime brings; any other needs functions in the file."""

NUMBERS = frozenset(helper.get_all_tensor_dtypes()) - {onnx.TensorProto.STRING}


def read_file(path: Path) -> onnx.ModelProto:
    """The model in `path`, with its external data inside, no initializer among its inputs, and zero points stated.

    Raises: ModelError when the file, or a data file of it, is missing, damaged or too large, or when it
    uses an operator that nobody defines.
    """
    proto = _parse(path)
    _merge_external(proto, path)
    _part_inputs(proto.graph)
    state_zero_points(proto.graph)
    proto.ir_version = onnxkit.lowest_ir(proto)
    _check(proto, path)
    return proto


def hold_versions(proto: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The model at versions that the installed onnxruntime loads; a newer opset is converted down.

    Raises: ModelError when the conversion fails.
    """
    opset = onnxkit.opsets(proto).get("ai.onnx")
    if opset is None or _runs(opset):
        return proto
    newest = next(version for version in range(min(opset, onnx.defs.onnx_opset_version()), 0, -1) if _runs(version))
    try:
        return version_converter.convert_version(proto, newest)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{source} uses opset {opset}, but onnxruntime {ort.__version__} runs up to {newest} and the file "
            f"cannot be converted ({_first_line(error)}); export it again with opset_version={newest}"
        ) from error


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise ModelError(f"{no_file(path)}; a model is a .onnx file, a .pt2 program or file.py:callable")
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path} has {path.stat().st_size} bytes; an ONNX file holds at most {LARGEST}")
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        raise ModelError(f"{path} is a Git LFS pointer, not the model; fetch it with `git lfs pull`")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"{path} is not an ONNX file, or was cut short ({len(data)} bytes)") from error
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{path} holds no graph with outputs ({len(data)} bytes); is it an ONNX file?")
    return proto


def _merge_external(proto: onnx.ModelProto, path: Path) -> None:
    """Read the tensors that lie in other files beside the model."""
    outside = [t for t in _tensors(proto.graph) if external_data_helper.uses_external_data(t)]
    if not outside:
        return
    infos = [external_data_helper.ExternalDataInfo(tensor) for tensor in outside]
    for info in infos:
        _check_data_file(path, info.location)
    size = sum(info.length or (path.parent / info.location).stat().st_size for info in infos)
    if size + proto.ByteSize() > LARGEST:
        raise ModelError(f"{path} has {size} bytes of weights; models over {LARGEST} bytes cannot be deployed")
    try:
        external_data_helper.load_external_data_for_model(proto, str(path.parent))
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: its external data cannot be read: {_first_line(error)}") from error
    _check_lengths(outside, path)


def _check_data_file(path: Path, location: str) -> None:
    found = (path.parent / location).resolve()
    if not found.is_relative_to(path.parent.resolve()):
        raise ModelError(f"{path} keeps weights in {location!r}, outside its own folder; put both into one folder")
    if not found.is_file():
        raise ModelError(f"{path} keeps its weights in {location!r}, which is not there; put it beside the model")


def _check_lengths(tensors: list[onnx.TensorProto], path: Path) -> None:
    for tensor in tensors:
        try:
            onnx.numpy_helper.to_array(tensor)
        except ValueError as error:
            raise ModelError(f"{path}: the data file is too short for weight {tensor.name!r}") from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)


def _part_inputs(graph: onnx.GraphProto) -> None:
    """Take initializers out of the inputs: old files list them in both places."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)


def check_opens(data: bytes, source: str) -> None:
    """Raises: ModelError with onnxruntime's reason when it cannot open the model."""
    try:
        onnxkit.session(data)
    except Exception as error:  # onnxruntime's errors have no common root
        raise ModelError(f"{source} cannot be opened by onnxruntime {ort.__version__}: {_first_line(error)}") from error


def _check(proto: onnx.ModelProto, path: Path) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.tensor_type.elem_type not in NUMBERS:
            raise ModelError(f"{path}: {value.name!r} is no tensor of numbers, and only those can be fed and read")
    _check_domains(proto, path)
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid ONNX: {_first_line(error)}") from error


def _check_domains(proto: onnx.ModelProto, path: Path) -> None:
    defined = {(function.domain, function.name) for function in proto.functions}
    unknown = sorted(
        f"{node.domain}::{node.op_type}"
        for node in proto.graph.node
        if node.domain not in RUNTIME_DOMAINS and (node.domain, node.op_type) not in defined
    )
    if unknown:
        raise ModelError(
            f"{path} uses {unknown[0]}, which neither onnxruntime nor the file defines; "
            f"known domains: ai.onnx, {', '.join(RUNTIME_DOMAINS[2:])}, or write it as a function in the file"
        )


def _runs(opset: int) -> bool:
    """Whether the installed onnxruntime loads files of that opset: asked with a graph of one node."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "probe", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    probe = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=onnxkit.OLDEST_IR)
    try:
        onnxkit.session(probe.SerializeToString())
    except Exception:  # noqa: BLE001 - onnxruntime has no common root for what it raises; any failure is a no
        return False
    return True


def _first_line(error: Exception) -> str:
    """What an error says first, without the place in onnx's sources where an assertion failed."""
    lines = [line.strip() for line in str(error).rpartition("` failed: ")[2].splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
