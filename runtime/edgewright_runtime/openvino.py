"""The runtime `openvino`: ONNX files on OpenVINO's CPU plugin; it races where it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from edgewright.errors import InputError
from edgewright.types import Artifact, Device, Refusal, Target

if TYPE_CHECKING:
    from edgewright.protocols import Runtime
    from edgewright_runtime.openvino_session import OpenvinoSession

CPU = "CPU"
INSTALL = "pip install 'edgewright[openvino]'"

OLDEST = (2025, 4)
"""Earlier versions mix up the names of inputs and outputs between which nothing happens."""


class Openvino:
    """OpenVINO on the processor, tuned for the latency of one run.

    Options: `provider` (CPU) and `threads` (1). Floats are computed in float32 whatever the processor offers; int64
    and float64 are computed in 32 bits too, because its CPU plugin has no wider kernels. `libraries` are refused: they
    hold operators for ONNX Runtime.
    """

    name = "openvino"
    formats: tuple[str, ...] = ("onnx",)

    def probe(self, device: Device) -> Optional[Refusal]:
        """Whether the device has OpenVINO, and a version that can be used."""
        found = device.versions.get("openvino")
        if found is None:
            return Refusal(f"the device ({device.cpu}) has no openvino; install it there with {INSTALL}")
        if tuple(map(int, found.split(".")[:2])) < OLDEST:
            return Refusal(f"openvino {found} on the device ({device.cpu}) is too old; update it there with {INSTALL}")
        return None

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """The one way: what could be chosen besides would trade accuracy or throughput for latency."""
        return [{"provider": CPU, "threads": 1}]

    def prepare(self) -> None:
        """Import OpenVINO."""
        importlib.import_module("edgewright_runtime.openvino_session")

    def open(self, path: str, options: Mapping[str, Any]) -> OpenvinoSession:
        """Load one ONNX file. Raises: InputError."""
        try:
            from edgewright_runtime.openvino_session import OpenvinoSession
        except ImportError as error:
            raise InputError(f"openvino cannot be imported here ({error}); install it with {INSTALL}") from error
        return OpenvinoSession(path, options)


OPENVINO = Openvino()


def edgewright_runtimes() -> Iterable[Runtime]:
    """What this module offers."""
    return (OPENVINO,)
