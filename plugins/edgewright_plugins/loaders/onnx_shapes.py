"""Gives every free input dimension of an ONNX graph its size."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgewright import onnxkit
from edgewright.errors import ModelError, suggest
from edgewright.protocols import LoadRequest
from edgewright_plugins.loaders.noise import noise


def fix_sizes(proto: onnx.ModelProto, request: LoadRequest, source: str) -> None:
    """Write sizes into the inputs of `proto`: from `request.shapes`, else `request.batch` for a free first axis.

    A dimension named once is the same wherever its name stands.
    Raises: ModelError when a given shape does not fit, or a size stays open.
    """
    inputs = {value.name: value for value in proto.graph.input}
    for name in request.shapes:
        if name not in inputs:
            raise ModelError(f"--shape names {name!r}, which is no input of {source}; {suggest(name, inputs)}")
    sizes: dict[str, int] = {}
    for name, shape in request.shapes.items():
        _apply_shape(inputs[name], shape, sizes, source)
    _apply_names(proto, sizes)
    _apply_batch(proto, request.batch, source)
    _check_closed(proto, source)


def infer_outputs(proto: onnx.ModelProto, source: str) -> None:
    """Work the outputs' shapes out anew from the fixed inputs.

    Raises: ModelError when the sizes do not fit the graph.
    """
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"{source} does not fit its input sizes: {reason}; give others with --shape") from error
    shapes = {value.name: value for value in inferred.graph.output}
    for value in proto.graph.output:
        value.CopyFrom(shapes[value.name])
    if any(not _known(value) for value in proto.graph.output):
        _read_shapes(proto, source)


def _apply_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...], sizes: dict[str, int], source: str) -> None:
    given = f"--shape {value.name}:{'x'.join(map(str, shape))}"
    if not value.type.tensor_type.HasField("shape"):
        for _ in shape:
            value.type.tensor_type.shape.dim.add()
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        raise ModelError(f"{given} has {len(shape)} sizes, but {_describe(value)} of {source} has {len(dims)}")
    for dim, size in zip(dims, shape, strict=True):
        if size < 1:
            raise ModelError(f"{given} has the size {size}; sizes are 1 or more")
        if dim.dim_value > 0 and dim.dim_value != size:
            raise ModelError(f"{given} contradicts {_describe(value)} of {source}, which is fixed at {dim.dim_value}")
        if dim.dim_param and sizes.setdefault(dim.dim_param, size) != size:
            raise ModelError(f"{given} makes {dim.dim_param} of {source} both {sizes[dim.dim_param]} and {size}")
        dim.dim_value = size


def _apply_batch(proto: onnx.ModelProto, batch: int, source: str) -> None:
    """Give `batch` to the first axes that are free; a batch that fits nowhere is an error."""
    first = [dims[0] for value in proto.graph.input if (dims := value.type.tensor_type.shape.dim)]
    free = [dim for dim in first if dim.dim_value <= 0]
    taken = [dim.dim_value for dim in first if dim.dim_value > 0]
    if batch != 1 and not free and batch not in taken:
        raise ModelError(f"--batch {batch} does not fit {source}, whose first axis is fixed at {taken or 'none'}")
    _apply_names(proto, {dim.dim_param: batch for dim in free if dim.dim_param})
    for dim in free:
        dim.dim_value = batch


def _apply_names(proto: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]


def _check_closed(proto: onnx.ModelProto, source: str) -> None:
    for value in proto.graph.input:
        if not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f"{source} does not say the shape of its input {value.name!r}; add --shape {value.name}:1x..."
            )
        spec = onnxkit.tensor_spec(value)
        if spec.free:
            wanted = "x".join(map(str, spec.shape))
            raise ModelError(
                f"{source} leaves {', '.join(spec.free)} of its input {spec.describe()} open; "
                f"add --shape {spec.name}:{wanted} with a number for each name"
            )


def _known(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.HasField("shape")


def _describe(value: onnx.ValueInfoProto) -> str:
    return f"input {onnxkit.tensor_spec(value).describe()}"


def _read_shapes(proto: onnx.ModelProto, source: str) -> None:
    """Take the shapes that inference cannot know (operators it has no rule for) from one run on noise."""
    feed = noise((onnxkit.tensor_spec(value) for value in proto.graph.input), seed=0)
    try:
        outputs = next(onnxkit.run(onnxkit.pack(proto), [feed]))
    except Exception as error:  # onnxruntime's errors have no common root
        raise ModelError(f"{source} cannot be run by onnxruntime: {error}") from error
    for value, output in zip(proto.graph.output, outputs, strict=True):
        if not _known(value):
            for size in output.shape:
                value.type.tensor_type.shape.dim.add(dim_value=size)
