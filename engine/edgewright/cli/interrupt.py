"""Ctrl-C that cannot be lost: Python drops an exception that is raised while an object is being finalised."""

from __future__ import annotations

import signal
from contextlib import suppress
from types import FrameType


class Interrupt:
    """What handles SIGINT: it raises KeyboardInterrupt, and remembers that it did."""

    def __init__(self) -> None:
        """Nothing was pressed yet."""
        self.seen = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """The handler."""
        self.seen = True
        raise KeyboardInterrupt


def watch() -> None:
    """Take over SIGINT; left as it is where we are not the main thread."""
    with suppress(ValueError):
        signal.signal(signal.SIGINT, Interrupt())


def pressed() -> bool:
    """Whether Ctrl-C was pressed, even if nobody got to know."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(handler, Interrupt) and handler.seen


def check() -> None:
    """Raises: KeyboardInterrupt when Ctrl-C was pressed, and we still work because nobody got to know."""
    if pressed():
        raise KeyboardInterrupt
