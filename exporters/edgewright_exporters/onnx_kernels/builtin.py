"""The kernels that come with the engine, offered as a plugin offers its own; listing them imports none of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

from edgewright.protocols import Kernel
from edgewright.types import Offer


@dataclass(frozen=True)
class Pattern:
    """A kernel whose places a function of a neighbouring module finds: `home` is `module:function`."""

    name: str
    summary: str
    home: str

    def find(self, graph: Any) -> Iterable[Any]:
        """Every place in a `Wiring` where it computes the same."""
        module, _, function = self.home.partition(":")
        return getattr(import_module(f"edgewright_exporters.onnx_kernels.{module}"), function)(graph)

    def examples(self) -> Iterable[str]:
        """Graphs in which it is found."""
        from edgewright_exporters.onnx_kernels.examples import EXAMPLES

        return EXAMPLES[self.name]


KERNELS = (
    Pattern("attention", "softmax(Q K') V of all heads, scores never in memory", "attentions:attentions"),
    Pattern(
        "blockattention", "softmax(Q K') V of the blocks of keys that a mask names", "blockattentions:blockattentions"
    ),
    Pattern("conv", "convolution of float32 with bias, residual and activation", "convs:convs"),
    Pattern("gatedconv", "convolution of the channels that a predictor names while it runs", "gatedconvs:gatedconvs"),
    Pattern("gemm", "product of float32 with constant weights, with what follows it", "products:products"),
    Pattern("hamming", "products of signs, looked up or counted", "hammings:hammings"),
    Pattern("norm", "layer normalisation, with the sum before it", "norms:norms"),
    Pattern("pool", "largest or mean value under a window, of images in blocks", "pools:pools"),
    Pattern("qconv", "convolution of bytes, exact", "qconvs:qconvs"),
    Pattern("qgemm", "product of bytes, exact, of weights of 2 to 8 bits", "qproducts:qproducts"),
)

BUILT_IN = tuple(Offer[Kernel](kernel, "edgewright", version("edgewright")) for kernel in KERNELS)
"""What is called where nobody says which."""


def edgewright_kernels() -> Iterable[Kernel]:
    """What this module offers."""
    return KERNELS
