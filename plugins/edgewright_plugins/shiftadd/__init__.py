"""Turns multiplications by weights into shifts (DeepShift: Elhoushi et al. 2021, arXiv:1905.13298), and trains them."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.params import TrainingParams
from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target


@dataclass(frozen=True)
class Params(TrainingParams):
    """What `shiftadd` can be told."""

    layers: str = field(
        default="auto",
        metadata={
            "help": "which layers shift: those of MLPs, all but the ends, mlp where there are any, or none",
            "choices": ("auto", "mlp", "all", "none"),
        },
    )
    train: str = field(
        default="weights",
        metadata={
            "help": "what learns: float weights that are rounded (DeepShift-Q), or powers and signs (DeepShift-PS)",
            "choices": ("weights", "powers"),
        },
    )
    experts: str = field(
        default="shift",
        metadata={
            "help": "shift: all tokens shift; mixture: a router sends each token of linear layers either way",
            "choices": ("shift", "mixture"),
        },
    )
    latencies: tuple[float, ...] = field(
        default=(),
        metadata={"help": "of a mixture's products and shifts, as in 6+4; none to measure them", "low": 1e-9},
    )
    balance: float = field(
        default=0.05, metadata={"help": "weight of the loss that evens out what a mixture's experts cost", "low": 0}
    )
    attention: str = field(
        default="softmax",
        metadata={
            "help": "softmax leaves it; hamming: products of signs of queries and keys; masked: signs of queries only; "
            "linear: signs without a softmax, whose cost grows with the tokens, not with their square",
            "choices": ("softmax", "hamming", "masked", "linear"),
        },
    )
    others: str = field(
        default="int8", metadata={"help": "what the layers that do not shift are", "choices": ("int8", "float")}
    )


class ShiftAdd:
    """The transform `shiftadd`."""

    name = "shiftadd"
    summary = "weights that are signs and powers of two, four bits each: products become shifts"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, and hosts without torch."""
        if len(model.stages) != 1:
            return Refusal(
                f"{model.name} has {len(model.stages)} stages, and shiftadd trains models of one; apply it before "
                "the method that splits the model: --apply shiftadd --apply early-exit"
            )
        if importlib.util.find_spec("torch") is None:
            return Refusal("shiftadd needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return None

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """The layers that shift, the grids of the others, and how to train.

        Raises: RefusedError when no layer can shift, or there is none of those that were asked for.
        """
        from edgewright_plugins.shiftadd.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The model with layers that shift; their inputs pass until they are calibrated."""
        from edgewright_plugins.shiftadd.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The model with trained shifts."""
        from edgewright_plugins.shiftadd.job import train_shifts

        return train_shifts(model, decision, context)


SHIFT_ADD: Any = ShiftAdd()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (SHIFT_ADD,)
