"""What transforms that leave out tokens do alike: they decide a schedule, and build the network that has it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from edgewright.protocols import Context
from edgewright.types import Json, Model, Refusal, Target
from edgewright_plugins.tokens.obstacle import obstacle

if TYPE_CHECKING:
    from edgewright_plugins.tokens.decide import Asked, Method


class FewerTokens(ABC):
    """A transform between torch networks; `method` is what it does, and needs torch."""

    name: ClassVar[str]
    takes = "torch"
    gives = "torch"
    reads = ("task", "target", "device")

    @property
    @abstractmethod
    def method(self) -> Method:
        """The schedules to search, and the network to build."""

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models of several stages, recurrent ones, hosts without torch, and networks without attention."""
        return obstacle(model, self.name)

    def decide(self, model: Model, params: Asked, context: Context) -> Json:
        """After which blocks how many tokens stay.

        Raises: RefusedError for networks whose tokens cannot become fewer; RecipeError for a schedule that does not
            fit, or a speed-up that none reaches.
        """
        from edgewright_plugins.tokens.decide import decide

        return decide(model, params, context, self.method)

    def rewrite(self, model: Model, decision: Json) -> Model:
        """The network before anything is learned. Raises: RefusedError when its code needs all tokens."""
        from edgewright_plugins.tokens.decide import rebuild

        return rebuild(model, decision, self.method)
