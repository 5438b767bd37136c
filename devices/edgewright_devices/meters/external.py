"""A power meter of its own in the device's supply, connected to this host: the log it writes, or a serial port.

`EDGEWRIGHT_POWER_LOG=FILE.csv` names a table that its program is writing; `EDGEWRIGHT_POWER_PORT=/dev/ttyUSB0@115200`
a port on which it says a line per reading, whose columns `EDGEWRIGHT_POWER_COLUMNS` names (`power_w` unless said).
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from edgewright.errors import RefusedError
from edgewright.protocols import HostMeter, PowerLog, Recorder
from edgewright.types import Device, Source
from edgewright_devices.meters.powerlog import read_log

LOG, PORT, COLUMNS = "EDGEWRIGHT_POWER_LOG", "EDGEWRIGHT_POWER_PORT", "EDGEWRIGHT_POWER_COLUMNS"
USUAL_COLUMNS = "power_w"
USUAL_BAUD = 115200
USUAL_PERIOD_NS = 100_000_000
"""Where the log is too short yet to tell."""

SETTLE_S = 1.0
"""How long a program may keep rows back before it writes them."""


class External:
    """Whatever the device takes in, as the instrument sees it."""

    name = "external"
    needs_python = False
    scope = "the device's whole supply, where the instrument stands"

    def sources(self, device: Device) -> Sequence[Source]:
        """None: nothing is read on the device."""
        return ()

    def start(self) -> Recorder:
        """Raises: RefusedError when no instrument is named, or it is not there."""
        if os.environ.get(LOG):
            return LogFile(Path(os.environ[LOG]))
        if os.environ.get(PORT):
            return SerialPort(os.environ[PORT], os.environ.get(COLUMNS, USUAL_COLUMNS))
        raise RefusedError(
            f"no power meter is named; set {LOG}=FILE.csv to the table it writes, or {PORT}=/dev/ttyUSB0"
        )


class LogFile:
    """A table that grows while the instrument's program runs."""

    def __init__(self, path: Path) -> None:
        """Raises: RefusedError when it is not there, or has no columns that tell power."""
        self._path = path
        times = [at for at, _ in read_log(self._text(), str(path)).samples]
        steps = [b - a for a, b in zip(times, times[1:]) if b > a]
        self.period_ns = round(1e9 * median(steps)) if steps else USUAL_PERIOD_NS

    def stop(self) -> PowerLog:
        """All of it, also what was written before the measurement. Raises: RefusedError."""
        time.sleep(SETTLE_S)
        found = read_log(self._text(), str(self._path))
        return PowerLog(found.samples, found.missed)

    def _text(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise RefusedError(
                f"{self._path} cannot be read ({error.strerror}); start the power meter's program first"
            ) from error


class SerialPort:
    """Lines as they come, each with the time at which it came: the clock is this host's then."""

    period_ns = USUAL_PERIOD_NS

    def __init__(self, port: str, columns: str) -> None:
        """Raises: RefusedError when pyserial or the port is missing."""
        name, _, baud = port.partition("@")
        try:
            serial: Any = importlib.import_module("serial")
        except ImportError:
            raise RefusedError("reading a serial port needs pyserial: pip install pyserial") from None
        try:
            self._port = serial.Serial(name, int(baud or USUAL_BAUD), timeout=0.5)
        except (OSError, ValueError) as error:
            raise RefusedError(f"the port {name} cannot be opened: {error}") from error
        self._columns, self._lines = columns, list[str]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> PowerLog:
        """What came since it was opened. Raises: RefusedError."""
        self._ended.set()
        self._thread.join()
        self._port.close()
        heading = f"time_s;{self._columns.replace(',', ';')}"
        found = read_log("\n".join((heading, *self._lines)), "the serial port")
        return PowerLog(found.samples, found.missed)

    def _listen(self) -> None:
        with suppress(OSError):  # it was pulled out: what came until then counts
            while not self._ended.is_set():
                line = self._port.readline().decode(errors="replace").strip()
                if line:
                    self._lines.append(f"{time.monotonic()};{line.replace(',', ';')}")


EXTERNAL = External()


def edgewright_meters() -> Iterable[HostMeter]:
    """What this module offers."""
    return (EXTERNAL,)
