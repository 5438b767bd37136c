"""The method `mixed-bits`: each layer's bits by an integer programme over what they lose and what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Model, Refusal, Target
from edgewright_plugins.qdq.obstacle import halved, obstacle


@dataclass(frozen=True)
class Params:
    """What is spent, what there is to choose from, and how losses are found."""

    cost: str = field(
        default="bytes",
        metadata={
            "help": "what the budget counts: bytes of weights, bitops (multiplications times the bits of both factors) "
            "or latency as measured on the device (layers in int8 or float)",
            "choices": ("bytes", "bitops", "latency"),
        },
    )
    average: float | None = field(
        default=None,
        metadata={"help": "bits per weight on average (with cost=bytes)", "low": 2.0, "high": 32.0},
    )
    budget: float | None = field(
        default=None,
        metadata={
            "help": "share of what the network costs with all weights in 8 bits "
            "(default: 0.625, which is 5 bits per weight; for latency 1.1)",
            "low": 0.01,
            "high": 16.0,
        },
    )
    options: tuple[int, ...] = field(
        default=(),
        metadata={
            "help": "bits that a layer's weights may have, 32 for float (default: 2+4+8; for latency 8+32)",
            "low": 2,
            "high": 32,
        },
    )
    activations: int = field(default=8, metadata={"help": "bits of the layers' inputs", "low": 2, "high": 8})
    mode: str = field(
        default="static",
        metadata={
            "help": "integers in every operator that has an integer form, or around layers only",
            "choices": ("static", "static-layers"),
        },
    )
    examples: int = field(
        default=64, metadata={"help": "calibration examples by which losses are found", "low": 1, "high": 100_000}
    )
    adapt: bool = field(
        default=False, metadata={"help": "fit the rounding of each layer as adaquant does (needs torch)"}
    )
    tune: bool = field(
        default=False, metadata={"help": "bring the channels' mean and deviation back to the float network's"}
    )
    races: int = field(
        default=24, metadata={"help": "random mixes that the latency is learnt from", "low": 4, "high": 1000}
    )


class MixedBits:
    """Measures what each layer loses at each number of bits, and solves for the mix that loses least."""

    name = "mixed-bits"
    summary = "2, 4 or 8 bits (or float) per layer: the mix that loses least within a budget"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "calibration"
    reads: tuple[str, ...] = ("task", "target", "device")

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses where scipy is missing, and models without layers, in 16 bits, or quantised already."""
        if find_spec("scipy") is None:
            return Refusal("it needs scipy to solve its programme; run: pip install 'edgewright[bits]'")
        return obstacle(model, self.name) or halved(model, self.name)

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The chosen mix; the model as it was where no mix keeps the metric.

        Raises: RecipeError when parameters contradict one another, or no mix is within the budget.
        """
        from edgewright_plugins.mixed_bits.decide import decide

        return decide(model, params, context)


MIXED_BITS = MixedBits()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (MIXED_BITS,)
