"""The loader `onnx`: a file as it lies about in the world becomes a Model of known sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import ModelError, suggest
from edgewright.protocols import LoadRequest
from edgewright.types import Model, Signature, Stage, State, TensorSpec, Variant
from edgewright_plugins.loaders.noise import noise

if TYPE_CHECKING:
    import onnx

STATE_KEY = "edgewright.state"
"""The metadata entry that names recurrent states: JSON, a list of [output, input] pairs."""


class OnnxFile:
    """Reads `*.onnx`.

    A recurrent network says which output becomes which input of its next run in the file's metadata:
    `onnx.helper.set_model_props(model, {"edgewright.state": '[["hidden_out", "hidden_in"]]'})`.
    """

    name = "onnx"

    def accepts(self, source: str) -> bool:
        """Whether the source ends in `.onnx`."""
        return source.lower().endswith(".onnx")

    def load(self, source: str, request: LoadRequest) -> Model:
        """The model with every input size fixed and external data merged into one file.

        Raises: ModelError when the file is missing, damaged, too large, beyond what onnxruntime runs,
        or leaves a size open that `request` does not give.
        """
        from edgewright import onnxkit
        from edgewright_plugins.loaders import onnx_read, onnx_shapes

        proto = onnx_read.read_file(Path(source))
        onnx_shapes.fix_sizes(proto, request, source)
        proto = onnx_read.hold_versions(proto, source)
        onnx_shapes.infer_outputs(proto, source)
        signature = read_signature(proto, source)
        data = onnxkit.pack(proto)
        onnx_read.check_opens(data, source)
        stage = Stage(
            name="main",
            graph=request.store.keep(data, "onnx"),
            inputs=tuple(spec.name for spec in signature.inputs),
            outputs=tuple(spec.name for spec in signature.outputs),
        )
        example = noise(signature.inputs, request.seed, still=[link.input for link in signature.state])
        return Model(Path(source).stem, signature, (Variant("main", (stage,)),), example, source=source)


def read_signature(proto: onnx.ModelProto, source: str) -> Signature:
    """What the graph takes and gives, with the states that its metadata names.

    Raises: ModelError when a state does not fit.
    """
    from edgewright.onnxkit import tensor_spec

    inputs = tuple(tensor_spec(value) for value in proto.graph.input)
    outputs = tuple(tensor_spec(value) for value in proto.graph.output)
    return Signature(inputs, outputs, _states(proto, inputs, outputs, source))


def _states(
    proto: onnx.ModelProto, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], source: str
) -> tuple[State, ...]:
    written = {entry.key: entry.value for entry in proto.metadata_props}.get(STATE_KEY)
    if written is None:
        return ()
    by_output = {spec.name: spec for spec in outputs}
    by_input = {spec.name: spec for spec in inputs}
    states = tuple(State(*pair) for pair in _pairs(written, source))
    for state in states:
        _known(state.output, by_output, "output", source)
        _known(state.input, by_input, "input", source)
        given, taken = by_output[state.output], by_input[state.input]
        if (given.dtype, given.shape) != (taken.dtype, taken.shape):
            raise ModelError(
                f"{source}: {STATE_KEY} feeds {given.describe()} back into {taken.describe()}; "
                "both need the same dtype and shape"
            )
    return states


def _pairs(written: str, source: str) -> list[Any]:
    try:
        pairs = json.loads(written)
        if not all(len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in pairs):
            raise ValueError("not pairs of names")
    except (ValueError, TypeError) as error:
        raise ModelError(
            f'{source}: metadata {STATE_KEY} must be JSON like [["hidden_out", "hidden_in"]], found {written!r}'
        ) from error
    return pairs


def _known(name: str, allowed: dict[str, TensorSpec], kind: str, source: str) -> None:
    if name not in allowed:
        raise ModelError(f"{source}: {STATE_KEY} names {name!r}, which is no {kind}; {suggest(name, allowed)}")


ONNX_FILE = OnnxFile()
