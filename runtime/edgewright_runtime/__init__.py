"""Runs bundles on a device, and answers the engine's questions there (numpy and the device's own runtime alone)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgewright_runtime.loaded import Loaded, Result, load

__all__ = ["Loaded", "Result", "load"]


def __getattr__(name: str) -> Any:
    """The public names, imported when first asked for: listing plugins must not import numpy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgewright_runtime import loaded

    return getattr(loaded, name)
