"""The runtime `ort`: ONNX files on ONNX Runtime, with whichever of its providers the device has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from edgewright.types import Artifact, Device, Refusal, Target

if TYPE_CHECKING:
    from edgewright.protocols import Runtime
    from edgewright_runtime.ort_session import OrtSession

CPU = "CPUExecutionProvider"


class Ort:
    """ONNX Runtime.

    Options: `provider`, `threads` (1), `graph` (all, extended, basic, none), `allow_fallback`, and `share_memory`: take
    memory from one arena for all sessions, so that a stage works in what the stage before it has left in the caches;
    `libraries`: operators of the bundle's own, which `load` names after their digests were checked.
    """

    name = "ort"
    formats: tuple[str, ...] = ("onnx",)

    def probe(self, device: Device) -> Optional[Refusal]:
        """Whether the device has ONNX Runtime."""
        if "onnxruntime" in device.versions:
            return None
        way = (
            "install it there with pip install onnxruntime" if device.python else "`engine device setup --on` brings it"
        )
        return Refusal(f"the device ({device.cpu}) has no onnxruntime; {way}")

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """Each provider of the target, in its order; on a CPU two levels of graph optimisation as well.

        `extended` is raced because the layout changes that `all` adds make some small graphs slower.
        """
        choices = [{"provider": p, "threads": 1, "graph": "all"} for p in target.providers]
        return [*choices, *({**c, "graph": "extended"} for c in choices if c["provider"] == CPU)]

    def open(self, path: str, options: Mapping[str, Any]) -> OrtSession:
        """Load one ONNX file. Raises: InputError."""
        from edgewright_runtime.ort_session import OrtSession

        return OrtSession(path, options)


ORT = Ort()


def edgewright_runtimes() -> Iterable[Runtime]:
    """What this module offers."""
    return (ORT,)
