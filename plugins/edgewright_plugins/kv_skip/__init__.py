"""Lets a decoder answer token by token from a cache that stores few of them (Dynamic-LLaVA: Huang et al. 2025)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgewright.protocols import Context, TorchTransform
from edgewright.types import Json, Model, Refusal, Target


@dataclass(frozen=True)
class Params:
    """What `kv-skip` can be told."""

    keep: float = field(
        default=0.5,
        metadata={
            "help": "share of a text that later attentions have room for; 1 stores all and trains nothing",
            "low": 0.05,
            "high": 1,
        },
    )
    after: int = field(default=1, metadata={"help": "so many attentions, the first ones, store every token", "low": 0})
    recent: int = field(
        default=4, metadata={"help": "so many of the latest tokens are seen by all attentions", "low": 1}
    )
    epochs: int = field(default=3, metadata={"help": "passes over the training split", "low": 1})
    batch: int = field(default=8, metadata={"help": "passages in a step", "low": 1})
    rate: float = field(
        default=2e-3,
        metadata={"help": "highest learning rate, of the predictor; the network has 0.3 of it", "low": 1e-9},
    )
    distill: float = field(
        default=0.5,
        metadata={"help": "share of the answers' loss that compares with the original", "low": 0, "high": 1},
    )


class KvSkip:
    """The transform `kv-skip`."""

    name = "kv-skip"
    summary = "answer token by token from a cache of keys and values, and store few tokens in it"
    Params = Params
    takes = "torch"
    gives = "torch"
    needs = "training"
    reads = ("task",)

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses what is no network from tokens to answers, and hosts without torch."""
        if len(model.stages) != 1 or model.signature.state:
            return Refusal(f"{model.name} has stages or states already; kv-skip takes a decoder that reads whole texts")
        taken = model.signature.inputs
        if len(taken) != 1 or len(taken[0].shape) != 2 or not taken[0].dtype.startswith("int"):
            found = ", ".join(spec.describe() for spec in taken)
            return Refusal(f"{model.name} takes {found}; kv-skip takes decoders of one input of tokens, int64 [n, t]")
        if importlib.util.find_spec("torch") is None:
            return Refusal("kv-skip needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
        return None

    def decide(self, model: Model, params: Params, context: Context) -> Json:
        """What the network's attentions look like, once it was seen that it can answer token by token.

        Raises: RefusedError when it cannot; RecipeError for parameters that do not fit it.
        """
        from edgewright_plugins.kv_skip.job import decide

        return decide(model, params, context)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The network of one token a run, before anything is learned."""
        from edgewright_plugins.kv_skip.job import rewrite

        return rewrite(model, decision)

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """The network whose predictor and weights have learned what to store."""
        from edgewright_plugins.kv_skip.job import train_skips

        return train_skips(model, decision, context)


KV_SKIP: Any = KvSkip()


def edgewright_transforms() -> Iterable[TorchTransform]:
    """What this module offers."""
    return (KV_SKIP,)
