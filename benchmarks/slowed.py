"""A runtime that takes longer than ONNX Runtime by a known share: the slow-down that benchmarks/ab.py must find."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgewright.types import Artifact, Device, Refusal, Target
from edgewright_runtime.ort import ORT
from edgewright_runtime.ort_session import OrtSession

SHARE = 0.05


class SlowedSession:
    """A session that spins after each run for a share of the time the run took."""

    def __init__(self, session: OrtSession) -> None:
        self._session = session
        self.inputs, self.outputs = session.inputs, session.outputs

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order, late."""
        start = time.perf_counter_ns()
        outputs = self._session.run(feeds)
        end = time.perf_counter_ns()
        end += round(SHARE * (end - start))
        while time.perf_counter_ns() < end:
            pass
        return outputs

    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """The nodes as they are, not slowed."""
        return self._session.profile(feeds, runs)


class Slowed:
    """ONNX Runtime, late."""

    name = "slowed"
    formats = ORT.formats

    def probe(self, device: Device) -> Refusal | None:
        """As ONNX Runtime."""
        return ORT.probe(device)

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """As ONNX Runtime."""
        return ORT.options(artifact, target)

    def open(self, path: str, options: Mapping[str, Any]) -> SlowedSession:
        """Load one ONNX file."""
        return SlowedSession(ORT.open(path, options))


SLOWED = Slowed()
