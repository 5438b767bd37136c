"""What passes between the core and a plugin besides models: what it offers, what it decides, why it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union

T_co = TypeVar("T_co", covariant=True)

Json = Union[None, bool, int, float, str, list[Any], dict[str, Any]]


@dataclass(frozen=True)
class Offer(Generic[T_co]):
    """A value and who offered it: how every error gets its name."""

    value: T_co
    plugin: str
    version: str
    entry: str = ""

    @property
    def label(self) -> str:
        """`edgewright-acme 0.3`."""
        return f"{self.plugin} {self.version}"


@dataclass(frozen=True)
class Refusal:
    """Why something cannot be done: one sentence that also says what would help."""

    reason: str
