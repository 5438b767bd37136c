"""How a conformance check says that something failed, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from edgewright.errors import EdgewrightError, PluginError
from edgewright.types import Array, Refusal

T = TypeVar("T")


def require(holds: bool, where: str, sentence: str) -> None:
    """Raises: PluginError, `where: sentence`, unless `holds`."""
    if not holds:
        raise PluginError(f"{where}: {sentence}")


def require_type(found: object, wanted: type[object], where: str) -> None:
    """Raises: PluginError when a plugin returned something else than it is annotated to return."""
    require(isinstance(found, wanted), where, f"it returns a {type(found).__name__}; return a {wanted.__name__}")


def attempt(where: str, call: Callable[[], T], through: tuple[type[Exception], ...] = ()) -> T:
    """What `call` returns. Raises: PluginError saying where and how it failed; what is of `through` stays as it is."""
    try:
        return call()
    except through:
        raise
    except (Exception, SystemExit) as cause:
        told = "" if isinstance(cause, EdgewrightError) else f"{type(cause).__name__}: "
        raise PluginError(f"{where}: {told}{cause}") from cause


def require_sentence(refusal: object, where: str) -> Refusal | None:
    """The answer of a `check` or `probe`: None, or a Refusal whose reason is a sentence."""
    if refusal is None:
        return None
    if not isinstance(refusal, Refusal):
        raise PluginError(f"{where}: it returns a {type(refusal).__name__}; return None or a Refusal")
    words = refusal.reason.split()
    require(len(words) >= 3 and "\n" not in refusal.reason, where, f"{refusal.reason!r} is not a sentence")
    return refusal


def fits(shape: tuple[int | str, ...], dtype: str, found: Array) -> bool:
    """Whether an array is of that type and of those sizes; a name stands for any size."""
    sizes = all(isinstance(want, str) or want == have for want, have in zip(shape, found.shape))
    return len(shape) == found.ndim and sizes and str(found.dtype) == dtype
