"""Checks what a caller feeds against a model's signature; nothing is cast and nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright.errors import BundleError, InputError, suggest
from edgewright.types import Dim, TensorSpec


@dataclass(frozen=True)
class Port:
    """An input that a caller gives, ready to be checked quickly."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...]
    described: str

    def accepts(self, array: Any) -> bool:
        """Whether type, number type and shape are right."""
        if type(array) is not np.ndarray or array.dtype != self.dtype:
            return False
        return array.shape == self.shape or _fits(self.shape, array.shape)


def make_port(spec: TensorSpec) -> Port:
    """Raises: BundleError for a number type that numpy does not know."""
    try:
        return Port(spec.name, np.dtype(spec.dtype), spec.shape, spec.describe())
    except TypeError:
        raise BundleError(f"the input {spec.describe()} has a number type that numpy does not know here") from None


def explain(ports: tuple[Port, ...], feeds: Mapping[str, Any]) -> InputError:
    """Why `feeds` is not what `ports` take, in one sentence."""
    names = [port.name for port in ports]
    for name in feeds:
        if name not in names:
            return InputError(f"the model has no input {name!r}; {suggest(name, names)}")
    for port in ports:
        if port.name not in feeds:
            return InputError(f"the input {port.described} is missing; given: {', '.join(feeds) or 'nothing'}")
        if not port.accepts(feeds[port.name]):
            return InputError(f"{port.name} is {_found(feeds[port.name])}; the model takes {port.described}")
    return InputError(f"the model takes {', '.join(port.described for port in ports)}")


def zeros(spec: TensorSpec, free: Mapping[str, int]) -> np.ndarray[Any, Any]:
    """Zeros of a spec; a free dimension takes its size from `free`, else 1."""
    return np.zeros([free.get(d, 1) if isinstance(d, str) else d for d in spec.shape], spec.dtype)


def sizes(ports: tuple[Port, ...], feeds: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that `feeds` give to the free dimensions."""
    return {
        dim: size for port in ports for dim, size in zip(port.shape, feeds[port.name].shape) if isinstance(dim, str)
    }


def _fits(shape: tuple[Dim, ...], found: tuple[int, ...]) -> bool:
    return len(shape) == len(found) and all(isinstance(d, str) or d == f for d, f in zip(shape, found))


def _found(value: Any) -> str:
    if type(value) is not np.ndarray:
        return f"a {type(value).__name__} (give a numpy array)"
    return f"{value.dtype} {list(value.shape)}"
