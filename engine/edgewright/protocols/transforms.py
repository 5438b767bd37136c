"""What changes a model: methods that rewrite ONNX, and methods that rewrite and train torch modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edgewright.protocols.context import Context
from edgewright.types import Json, Model, Refusal, Target


@dataclass(frozen=True)
class NoParams:
    """The `Params` of a plugin that has none."""


@runtime_checkable
class OnnxTransform(Protocol):
    """A method that rewrites ONNX. Offered with `edgewright_transforms`.

    `needs` is `nothing`, `calibration` or `training`; `reads` names what the result depends on besides
    model, parameters and seed (`task`, `target`, `device`), which goes into the cache key.

    A method from ONNX to ONNX gets one graph. On a model of several stages it is applied to each in turn: `feed` is
    then what reaches the stage, `score` the metric of the whole model. One that has to see all stages at once says so
    with an attribute `whole = True`, and gets the model as it is.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str:
        """One line for `engine plugins`."""
        ...

    @property
    def Params(self) -> type[Any]: ...
    @property
    def takes(self) -> str: ...
    @property
    def gives(self) -> str: ...
    @property
    def needs(self) -> str: ...
    @property
    def reads(self) -> tuple[str, ...]: ...

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Whether it can work on this model for this target, before anything is done."""
        ...

    def apply(self, model: Model, params: Any, context: Context) -> Model:
        """A new model, with one more Step in its history."""
        ...


@runtime_checkable
class TorchTransform(Protocol):
    """A method that rewrites and trains torch modules. Offered with `edgewright_transforms`.

    Three calls, so that it goes on after a kill without pickles: the decision is JSON and cached, the
    rewrite is replayed, the fit is checkpointed.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def Params(self) -> type[Any]: ...
    @property
    def takes(self) -> str: ...
    @property
    def gives(self) -> str: ...
    @property
    def needs(self) -> str: ...
    @property
    def reads(self) -> tuple[str, ...]: ...

    def check(self, model: Model, target: Target) -> Refusal | None: ...
    def decide(self, model: Model, params: Any, context: Context) -> Json:
        """What to do (which heads, channels, exits) and how to train it."""
        ...

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The structure only; the same decision gives the same structure."""
        ...

    def fit(self, model: Model, decision: Json, context: Context) -> Model:
        """A new value with trained weights; the input itself when nothing trains."""
        ...
