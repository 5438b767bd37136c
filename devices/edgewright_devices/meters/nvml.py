"""NVML: the energy counter of NVIDIA's graphics cards (Volta and newer), through the driver's own library.

Not for Jetson: the library opens there, and every query of energy fails.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterable, Sequence

from edgewright.errors import RefusedError
from edgewright.protocols import PythonMeter, Sampler
from edgewright.types import Device, Source

LIBRARY = "libnvidia-ml.so.1"
PERIOD_NS = 100_000_000
"""How often the counter moves is not documented; cards were reported to take from 20 to 100 ms."""


class _Counter:
    """The first card's counter. nvml.h: every function returns 0 when it went well."""

    def __init__(self) -> None:
        self._nvml = _library()
        self._card = ctypes.c_void_p()
        self._check(self._nvml.nvmlInit_v2(), "nvmlInit_v2")
        self._check(self._nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._card)), "no card")
        found = ctypes.c_ulonglong()
        self._check(
            self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card, ctypes.byref(found)), "no energy counter"
        )

    def read(self) -> Sequence[float]:
        """Raises: OSError."""
        found = ctypes.c_ulonglong()
        if self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card, ctypes.byref(found)):
            raise OSError(errno.EIO, "the energy counter does not answer")
        return (found.value,)

    def _check(self, status: int, what: str) -> None:
        if status:
            raise RefusedError(
                f"NVML: {what} (status {status}); a card of Volta or newer has a counter, Jetson has none"
            )


def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise RefusedError(f"{LIBRARY} cannot be loaded: there is no NVIDIA driver") from error


class Nvml:
    """The first graphics card."""

    name = "nvml"
    needs_python = True

    def sources(self, device: Device) -> Sequence[Source]:
        """Its counter."""
        return (
            Source(
                rail="gpu 0",
                scope="graphics card with its memory, without the rest of the machine",
                kind="counter",
                unit="mJ",
                scale=1e-3,
                period_ns=PERIOD_NS,
                whole=("gpu 0",),
            ),
        )

    def open(self) -> Sampler:
        """Raises: RefusedError where there is no driver, no card, or no counter."""
        return _Counter()


NVML = Nvml()


def edgewright_meters() -> Iterable[PythonMeter]:
    """What this module offers."""
    return (NVML,)
