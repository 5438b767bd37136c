"""The method `quantize`: 8 bits and fewer, static or dynamic, signed or unsigned, as the device itself decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Model, Refusal, Target
from edgewright_plugins.qdq.obstacle import obstacle


def _choice(help: str, *choices: str) -> str:
    return field(default=choices[0], metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class Params:
    """What may be forced; `auto` is decided by measurement. A forced mode is kept even where it is slower."""

    bits: int = field(
        default=8,
        metadata={
            "help": "bits of the weights; layers that lose too much get more, in the order of what that gains per byte",
            "low": 2,
            "high": 8,
        },
    )
    mode: str = _choice(
        "static ranges, static ranges for layers only, dynamic ones, or weights alone with float arithmetic",
        "auto",
        "static",
        "static-layers",
        "dynamic",
        "weights",
    )
    group: int = field(
        default=32,
        metadata={"help": "values of a matrix that share a scale with mode=weights", "choices": (16, 32, 64, 128, 256)},
    )
    range: str = _choice("how static ranges are found", "auto", "min-max", "percentile", "entropy", "mse")
    activations: str = _choice("unsigned or signed activations", "auto", "u8", "s8")
    per_channel: bool = field(default=True, metadata={"help": "a scale per output channel of each weight"})
    keep: tuple[str, ...] = field(default=(), metadata={"help": "names of nodes that stay float", "nodes": True})
    examples: int = field(
        default=64, metadata={"help": "calibration examples that are looked at", "low": 1, "high": 100_000}
    )
    drop: float | None = field(
        default=None,
        metadata={
            "help": "share of the metric's full scale that int8 may lose before layers are put back to float "
            "(default: --max-drop; with --max-drop off nothing is put back)",
            "low": 0.0,
            "high": 1.0,
        },
    )


class Quantize:
    """Tries each form of int8 on the device, keeps the fastest, and puts back what loses accuracy or time."""

    name = "quantize"
    summary = "8 to 2 bits, static or dynamic as measured; layers that lose accuracy get more bits or stay float"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "calibration"
    reads: tuple[str, ...] = ("task", "target", "device")

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models without layers, and models that are quantised already."""
        return obstacle(model, self.name)

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The fastest int8 form that keeps the metric; the same graph, with reasons, where nothing is gained."""
        from edgewright_plugins.quantize.decide import decide

        return decide(model, params, context)


QUANTIZE = Quantize()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (QUANTIZE,)
