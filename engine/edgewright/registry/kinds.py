"""The kinds of things that plugins offer, and what an offer of each kind must have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, Union

from edgewright.errors import InputError, RecipeError, TargetError
from edgewright.protocols import (
    Attack,
    Connection,
    Exporter,
    Kernel,
    Loader,
    Meter,
    OnnxTransform,
    Predictor,
    Renderer,
    Runtime,
    TorchTransform,
)
from edgewright.types import Target

T = TypeVar("T")

Transform = Union[OnnxTransform, TorchTransform]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of offer.

    `plural` names the hook, `protocols` are those of which an offer satisfies one, `value` is the class of
    offers that are plain values, `key` the attribute that names an offer, `error` what an unknown name raises.
    """

    plural: str
    protocols: tuple[type[Any], ...] = ()
    value: type[Any] | None = None
    key: str = "name"
    error: type[InputError] = RecipeError

    @property
    def hook(self) -> str:
        """The function a plugin module defines: `edgewright_transforms`."""
        return f"edgewright_{self.plural}"

    @property
    def noun(self) -> str:
        """One of them: `transform`."""
        return self.plural.removesuffix("s")

    def name_of(self, offer: T) -> str:
        """What the recipe calls it."""
        return getattr(offer, self.key)

    def fault(self, offer: object) -> str | None:
        """What keeps `offer` from being one of this kind, to follow "offers"; None when nothing does."""
        if isinstance(offer, type):
            return f"the class {offer.__name__} as a {self.noun}; offer an instance of it"
        if self.value and not isinstance(offer, self.value):
            return f"a {type(offer).__name__} as a {self.noun}; it must be an edgewright.types.{self.value.__name__}"
        lacking = min((_lacks(offer, each) for each in self.protocols), key=len) if self.protocols else None
        if lacking:
            called = repr(getattr(offer, self.key, type(offer).__name__))
            return f"a {self.noun} {called} without {', '.join(lacking)}"
        name = getattr(offer, self.key)
        if not isinstance(name, str) or not re.fullmatch(r"[^\s/,]+", name):
            return f"a {self.noun} named {name!r}; a name is one word without '/' and ','"
        return None


LOADERS: Kind[Loader] = Kind("loaders", (Loader,))
TRANSFORMS: Kind[Transform] = Kind("transforms", (OnnxTransform, TorchTransform))
EXPORTERS: Kind[Exporter] = Kind("exporters", (Exporter,))
KERNELS: Kind[Kernel] = Kind("kernels", (Kernel,))
RUNTIMES: Kind[Runtime] = Kind("runtimes", (Runtime,))
METERS: Kind[Meter] = Kind("meters", (Meter,))
TARGETS: Kind[Target] = Kind("targets", value=Target, error=TargetError)
PREDICTORS: Kind[Predictor] = Kind("predictors", (Predictor,))
CONNECTIONS: Kind[Connection] = Kind("connections", (Connection,), key="scheme")
ATTACKS: Kind[Attack] = Kind("attacks", (Attack,))
RENDERERS: Kind[Renderer] = Kind("renderers", (Renderer,))

KINDS: tuple[Kind[Any], ...] = (
    LOADERS,
    TRANSFORMS,
    EXPORTERS,
    KERNELS,
    RUNTIMES,
    METERS,
    TARGETS,
    PREDICTORS,
    CONNECTIONS,
    ATTACKS,
    RENDERERS,
)


def _lacks(offer: object, protocol: type[Any]) -> list[str]:
    """The public members of `protocol` that `offer` lacks; a method that cannot be called is lacking."""
    members = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    return [name for name, member in members.items() if not _has(offer, name, method=callable(member))]


def _has(offer: object, name: str, *, method: bool) -> bool:
    return callable(getattr(offer, name, None)) if method else hasattr(offer, name)
