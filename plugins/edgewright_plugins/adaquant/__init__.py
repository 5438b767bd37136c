"""The method `adaquant`: weights below 8 bits, each layer fitted to its float outputs on unlabelled examples."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Model, Refusal, Target
from edgewright_plugins.qdq.obstacle import halved, obstacle


@dataclass(frozen=True)
class Params:
    """What the user may set."""

    bits: int = field(default=4, metadata={"help": "bits of a weight", "low": 2, "high": 8})
    activations: int = field(default=8, metadata={"help": "bits of an activation", "low": 2, "high": 8})
    edges: bool = field(default=True, metadata={"help": "first and last layer keep 8 bits"})
    order: str = field(
        default="sequential",
        metadata={
            "help": "sequential: a layer sees what the integer layers before it give; parallel: its float inputs",
            "choices": ("sequential", "parallel"),
        },
    )
    scheme: str = field(
        default="static",
        metadata={
            "help": "everything that has an integer form, or layers only",
            "choices": ("static", "static-layers"),
        },
    )
    range: str = field(
        default="min-max",
        metadata={"help": "how ranges of 8-bit activations are found", "choices": ("min-max", "percentile", "mse")},
    )
    tune: tuple[str, ...] = field(
        default=("norm", "bias"),
        metadata={
            "help": "afterwards, kept where outputs come nearer: norm restores means and deviations of channels, "
            "bias trains the biases",
            "choices": ("norm", "bias", "none"),
        },
    )
    examples: int = field(default=512, metadata={"help": "unlabelled calibration examples", "low": 8, "high": 100_000})
    iterations: int = field(
        default=200, metadata={"help": "steps that each layer is fitted for", "low": 0, "high": 100_000}
    )


class AdaQuant:
    """Learns what each weight is rounded to, so that the layer's outputs change least (arXiv:2006.10518)."""

    name = "adaquant"
    summary = "weights of 2 to 8 bits, fitted layer by layer to the float outputs without labels"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "calibration"
    reads: tuple[str, ...] = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses hosts without torch, models without layers, and those in integers or 16-bit floats."""
        if importlib.util.find_spec("torch") is None:
            return Refusal("adaquant needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return obstacle(model, self.name) or halved(model, self.name)

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The integer model; its step says what each stage of the work brought."""
        from edgewright_plugins.adaquant.job import run

        return run(model, params, context)


ADAQUANT = AdaQuant()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (ADAQUANT,)
