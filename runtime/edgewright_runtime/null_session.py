"""Sessions that answer zeros; the shapes come from the graph, free dimensions from what is fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgewright.types import TensorSpec
from edgewright_runtime.feeds import make_port, sizes, zeros


class NullSession:
    """One graph of which only the names and shapes are known."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
        """The graph's inputs and outputs, in its order."""
        self.inputs = tuple(spec.name for spec in inputs)
        self.outputs = tuple(spec.name for spec in outputs)
        self._ports = tuple(make_port(spec) for spec in inputs)
        self._gives = outputs

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """Zeros of every output."""
        free = sizes(self._ports, feeds)
        return [zeros(spec, free) for spec in self._gives]

    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """No node is executed."""
        return []
