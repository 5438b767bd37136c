"""Arrays between forbidden memory and canaries, for the tests of machine code; needs NumPy alone, on any Linux."""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

CANARY = 0xA5


@dataclass
class Guarded:
    """An array that ends where a forbidden page begins, with canary bytes before it: reading on is a crash."""

    size: int
    dtype: str
    array: npt.NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        """Forbid the page. Raises: OSError."""
        count = self.size * np.dtype(self.dtype).itemsize
        whole = -(-(count + 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self.pages = mmap.mmap(-1, whole + mmap.PAGESIZE)
        self.bytes = np.frombuffer(self.pages, np.uint8, whole)
        self.bytes[:] = CANARY
        self.before = whole - count
        self.array = self.bytes[self.before :].view(self.dtype)
        libc = ctypes.CDLL(None, use_errno=True)
        end = ctypes.c_void_p(self.bytes.ctypes.data + whole)
        if libc.mprotect(end, ctypes.c_size_t(mmap.PAGESIZE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def intact(self) -> bool:
        """Whether nothing was written before the array."""
        return bool((self.bytes[: self.before] == CANARY).all())
