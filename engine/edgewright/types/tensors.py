"""Arrays by name, and the signature that says which of them a model takes and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from edgewright.errors import InputError

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

    def holds_steps(self, array: Array) -> bool:
        """Whether an array is of several steps, on axis 1, and a run takes one."""
        return self.shape[1:2] == (1,) and array.ndim == len(self.shape) and array.shape[1] > 1


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

    @property
    def answers(self) -> tuple[TensorSpec, ...]:
        """The outputs that answer: all but the recurrent ones."""
        recurrent = {link.output for link in self.state}
        return tuple(spec for spec in self.outputs if spec.name not in recurrent)

    def steps(self, inputs: Arrays) -> Iterator[dict[str, Array]]:
        """What each run takes of inputs that may hold many steps of a recurrent model, from the first on.

        They do on axis 1 where the signature has a size of 1 there and the array a larger one; the other inputs go to
        every step. Where nothing holds several, that is the inputs themselves, once.

        Raises: InputError when two inputs hold different numbers of steps.
        """
        long = [
            spec.name for spec in self.fed if self.state and spec.name in inputs and spec.holds_steps(inputs[spec.name])
        ]
        lengths = {name: inputs[name].shape[1] for name in long}
        if len(set(lengths.values())) > 1:
            raise InputError(f"inputs hold different numbers of steps on axis 1: {lengths}; give as many of each")
        for at in range(next(iter(lengths.values()), 1)):
            yield {**inputs, **{name: inputs[name][:, at : at + 1] for name in long}}
