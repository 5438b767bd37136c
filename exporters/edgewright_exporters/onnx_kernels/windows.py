"""Reads from a node how its window moves over an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgewright_exporters.kernels.window import Window


def window_of(about: Mapping[str, Any], image: Sequence[int], kernel: Sequence[int]) -> Window | None:
    """The window that a node with attributes `about` moves over `image`; None for what kernels do not do.

    That is: other than two axes, taps that lie apart, and windows that reach beyond the padding (`ceil_mode`).
    """
    if len(image) != 2 or len(kernel) != 2 or any(n != 1 for n in about.get("dilations", ())):
        return None
    (high, wide), (tall, broad) = image, kernel
    down, across = about.get("strides", (1, 1))
    padding = _padding(about, ((high, tall, down), (wide, broad, across)))
    window = Window((high, wide), (tall, broad), (down, across), padding)
    rests = (
        (high + padding[0] + padding[2] - tall) % down,
        (wide + padding[1] + padding[3] - broad) % across,
    )
    beyond = about.get("ceil_mode", 0) and any(rests)
    return None if beyond or min(window.output) < 1 else window


def _padding(about: Mapping[str, Any], axes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right; `axes` are size, taps and stride of rows and columns."""
    how = about.get("auto_pad", "NOTSET")
    if how == "NOTSET":
        top, left, bottom, right = about.get("pads", (0, 0, 0, 0))
        return top, left, bottom, right
    if how == "VALID":
        return 0, 0, 0, 0
    wanted = [max((-(-size // stride) - 1) * stride + taps - size, 0) for size, taps, stride in axes]
    less, more = zip(*((each // 2, each - each // 2) for each in wanted))
    return (*less, *more) if how == "SAME_UPPER" else (*more, *less)
