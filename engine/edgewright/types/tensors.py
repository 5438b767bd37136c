"""Arrays by name, and the signature that says which of them a model takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Arrays = Mapping[str, Array]
else:
    Array = Any
    Arrays = Mapping[str, Any]

Dim = Union[int, str]
"""A size, or the name of a free dimension."""


@dataclass(frozen=True)
class TensorSpec:
    """A named tensor of a signature; `dtype` is numpy's name, free dimensions are strings."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def describe(self) -> str:
        """As people write it: `image float32 [1, 3, 224, 224]`."""
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"

    @property
    def free(self) -> tuple[str, ...]:
        """The names of the dimensions that have no size."""
        return tuple(dim for dim in self.shape if isinstance(dim, str))


@dataclass(frozen=True)
class State:
    """A recurrent state: after each run, output `output` becomes input `input` of the next."""

    output: str
    input: str


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives. Inputs named by `state` are fed by the session, not by the caller."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[State, ...] = ()

    @property
    def fed(self) -> tuple[TensorSpec, ...]:
        """The inputs a caller gives: all but the recurrent ones."""
        recurrent = {link.input for link in self.state}
        return tuple(spec for spec in self.inputs if spec.name not in recurrent)
