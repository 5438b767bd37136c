"""The runtime `null`: answers zeros of the right shapes, so what is left to measure is the engine itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from edgewright.types import Artifact, Device, Refusal, Target

if TYPE_CHECKING:
    from edgewright.protocols import Runtime
    from edgewright_runtime.null_session import NullSession


class Null:
    """Takes every ONNX file that onnxruntime can read, and computes nothing."""

    name = "null"
    formats: tuple[str, ...] = ("onnx",)

    def probe(self, device: Device) -> Optional[Refusal]:
        """It works wherever the names and shapes of a graph can be read."""
        return (
            None if "onnxruntime" in device.versions else Refusal("the device has no onnxruntime to read graphs with")
        )

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """There is nothing to choose."""
        return [{"provider": "null"}]

    def open(self, path: str, options: Mapping[str, Any]) -> NullSession:
        """Read the graph's inputs and outputs. Raises: InputError."""
        from edgewright_runtime.null_session import NullSession
        from edgewright_runtime.ort_session import read_signature

        return NullSession(*read_signature(path, options.get("libraries", ())))


NULL = Null()


def edgewright_runtimes() -> Iterable[Runtime]:
    """What this module offers."""
    return (NULL,)
