"""The method `eora`: linear layers below 8 bits, each with a small float branch that makes up for the rounding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Model, Refusal, Target
from edgewright_plugins.qdq.obstacle import obstacle


@dataclass(frozen=True)
class Params:
    """What the user may set."""

    bits: int = field(default=3, metadata={"help": "bits of the linear layers' weights", "low": 2, "high": 8})
    group: int = field(
        default=0,
        metadata={"help": "inputs that share a scale; 0: one scale per output", "choices": (0, 16, 32, 64, 128)},
    )
    rank: int = field(
        default=16,
        metadata={"help": "width of the branch; 0 writes the rounded layers without one", "low": 0, "high": 1024},
    )
    rounding: str = field(
        default="closest",
        metadata={
            "help": "weight ranges with the least squared error, or from the lowest to the highest weight",
            "choices": ("closest", "min-max"),
        },
    )
    least: str = field(
        default="outputs",
        metadata={
            "help": "what the branch keeps smallest: the error of the layers' outputs on calibration data, or that of "
            "their weights (plain SVD)",
            "choices": ("outputs", "weights"),
        },
    )
    branch: str = field(
        default="int8", metadata={"help": "how the branch's weights are kept", "choices": ("int8", "float")}
    )
    activations: int = field(
        default=0,
        metadata={"help": "bits of activations; 0: float, and convolutions stay float too", "choices": (0, 8)},
    )
    examples: int = field(
        default=128, metadata={"help": "calibration examples that are looked at", "low": 1, "high": 100_000}
    )
    keep: tuple[str, ...] = field(default=(), metadata={"help": "names of nodes that stay as they are", "nodes": True})


LINEAR = ("Gemm", "MatMul")


class Eora:
    """Rounds linear layers to few bits and adds to each the low-rank product that its inputs miss most."""

    name = "eora"
    summary = "linear layers at 2-8 bits, with low-rank branches that make up for the rounding; no training"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "calibration"
    reads: tuple[str, ...] = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models without linear layers, and models that are quantised already."""
        return obstacle(model, self.name, LINEAR, "for a convolutional network use quantize")

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The model with rounded linear layers and their branches; the notes give each layer's error."""
        from edgewright_plugins.eora.compensate import compensate

        return compensate(model, params, context)


EORA = Eora()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (EORA,)
