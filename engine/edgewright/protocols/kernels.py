"""What finds places in a graph that a kernel can take over, and what was seen of it in a graph of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Kernel(Protocol):
    """Machine code for some nodes of a graph, and where it fits. Offered with `edgewright_kernels`, used by `--kernel`.

    Graphs and places are those of `edgewright_exporters.onnx_kernels`: a `Wiring` and `Match`, which names the module
    that writes the code, its template.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    def find(self, graph: Any) -> Iterable[Any]:
        """Every place in the graph where it computes the same, each a `Match`; what is in doubt is left alone."""
        ...

    def examples(self) -> Iterable[str]:
        """Models in ONNX's own text (`onnx.parser`) in which it is found, of sizes that are not all alike."""
        ...


@dataclass(frozen=True)
class Trial:
    """What a kernel did in one graph: how many places it took, and what went wrong.

    `doubts` says by place where the NumPy reference is not what the graph computes, `lost` says by tile why its
    machine code is not what the reference computes; both are empty where all is well.
    """

    places: int
    doubts: Mapping[str, str]
    lost: Mapping[str, str]
