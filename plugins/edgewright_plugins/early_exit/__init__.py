"""Lets easy inputs leave a classifier early: heads at inner blocks, trained, gated, and cut into a chain of stages."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target


@dataclass(frozen=True)
class Params:
    """What `early-exit` can be told."""

    heads: str = field(
        default="auto",
        metadata={
            "help": "what answers at an exit: lgvit for tokens on a grid, linear for anything, perceiver (a latent "
            "beside a convolutional network: better in equal time, slow to the end); auto: lgvit if it fits, or linear",
            "choices": ("auto", "lgvit", "perceiver", "linear"),
        },
    )
    exits: int = field(default=0, metadata={"help": "how many; 0 for 4, or fewer in small networks", "low": 0})
    at: tuple[int, ...] = field(
        default=(), metadata={"help": "blocks to leave behind, from 1, as in 3+6+9; none to choose by their cost"}
    )
    gate: str = field(
        default="max-probability",
        metadata={"help": "what lets an input leave", "choices": ("max-probability", "entropy", "patience")},
    )
    drop: float = field(
        default=0.5,
        metadata={
            "help": "percent of the metric's full scale that leaving may lose, against staying to the end",
            "low": 0,
            "high": 100,
        },
    )
    cost: float = field(
        default=0.0,
        metadata={
            "help": "share of the mean latency to reach instead of bounding the drop; 0 for none",
            "low": 0,
            "high": 1,
        },
    )
    train: str = field(
        default="both",
        metadata={
            "help": "both: network and heads, then heads; heads: the network stays",
            "choices": ("both", "heads"),
        },
    )
    epochs: int = field(default=20, metadata={"help": "passes over the training split for both together", "low": 1})
    head_epochs: int = field(default=10, metadata={"help": "passes for the heads alone", "low": 1})
    batch: int = field(default=128, metadata={"help": "examples in a step", "low": 1})
    rate: float = field(
        default=1e-3, metadata={"help": "highest learning rate, of the heads; the network has half of it", "low": 1e-9}
    )
    distill: float = field(
        default=0.4,
        metadata={"help": "share of an exit's loss that compares with the last answer", "low": 0, "high": 1},
    )


class EarlyExit:
    """The transform `early-exit`."""

    name = "early-exit"
    summary = "let easy inputs leave early: trained heads at inner blocks, each with a gate"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task", "target", "device")

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, recurrent ones, what is no classifier, and hosts without torch."""
        if len(model.stages) != 1:
            return Refusal(f"{model.name} has {len(model.stages)} stages already; early-exit cuts models of one stage")
        if model.signature.state:
            return Refusal(f"{model.name} is recurrent, and its next run needs what the blocks left out would give")
        outputs = model.signature.outputs
        if len(outputs) != 1 or len(outputs[0].shape) != 2:
            found = ", ".join(spec.describe() for spec in outputs)
            return Refusal(f"early-exit needs a classifier with one output [n, classes]; {model.name} gives {found}")
        if importlib.util.find_spec("torch") is None:
            return Refusal("early-exit needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return None

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """Where the exits stand, by what it costs to get there, and what answers at them.

        Raises: RefusedError when no blocks are found, or the heads asked for do not fit; RecipeError for blocks that
            are not there.
        """
        from edgewright_plugins.early_exit.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The chain, with heads that know nothing yet. Raises: RefusedError when it does not compute the same."""
        from edgewright_plugins.early_exit.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The chain, trained; its gates have temperatures, and no thresholds yet."""
        from edgewright_plugins.early_exit.job import train_exits

        return train_exits(model, decision, context)


EARLY_EXIT: Any = EarlyExit()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (EARLY_EXIT,)
