"""The connection `adb`: an Android device, or any other that runs adbd, behind the system's adb client."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable, Sequence

from edgewright.errors import DeviceError
from edgewright.protocols import Connection, Link, Spotted
from edgewright_devices.remote.link import RemoteLink

FOLDER = "/data/local/tmp/edgewright"
"""The one place where the shell of a phone may write and run programs."""

ANSWER_S = 20.0

STATES = {
    "unauthorized": "it has not allowed this host; unlock it and accept the dialogue there",
    "offline": "adb calls it offline; plug it in again, or run adb reconnect offline",
    "no permissions": "this user may not open it over USB; add udev rules for it, or run adb as root",
    "recovery": "it is in recovery; start its system",
    "bootloader": "it is in its bootloader; start its system",
    "sideload": "it is in sideload; start its system",
    "authorizing": "it is still deciding; try again in a moment",
    "connecting": "it is still connecting; try again in a moment",
}  # fmt: skip
"""What `adb devices` calls a device that cannot be used yet, and what to do."""


CLIENT_SAYS = ("error: device", "error: closed", "error: no devices", "error: protocol fault", "adb: ")
"""How lines begin that are adb's own; its exit status does not tell them from a script's."""


class AdbShell:
    """One device by its serial number."""

    def __init__(self, serial: str) -> None:
        """Raises: DeviceError with the way out when there is no such device, or it cannot be used."""
        self.address = f"adb://{serial}"
        self._serial = _chosen(serial, attached())

    def client(self, script: str) -> Sequence[str]:
        """The command of this host that runs the script there."""
        return ["adb", "-s", self._serial, "shell", "-T", f"exec sh -c {shlex.quote(script)}"]

    def trouble(self, status: int, errors: str) -> str:
        """Why adb itself failed; nothing when the script ran."""
        last = (errors.strip().splitlines() or [""])[-1]
        if status == 0 or not last.startswith(CLIENT_SAYS):
            return ""
        return f"{self.address} cannot be reached: {last.partition(': ')[2]}; see adb devices"

    def close(self) -> None:
        """Nothing is held."""


def attached() -> dict[str, str]:
    """The state of every device that adb knows, by serial number. Raises: DeviceError when adb does not answer."""
    try:
        done = subprocess.run(["adb", "devices"], capture_output=True, text=True, timeout=ANSWER_S, check=False)
    except FileNotFoundError:
        raise DeviceError("the program adb is not installed here; get Android's platform-tools") from None
    except subprocess.TimeoutExpired:
        raise DeviceError(f"adb did not answer within {ANSWER_S:g} s; run adb kill-server and try again") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise DeviceError(f"adb cannot list its devices: {said}")
    lines = (line.partition("\t") for line in done.stdout.splitlines() if "\t" in line)
    return {serial: state.strip() for serial, _, state in lines}


def _chosen(serial: str, devices: dict[str, str]) -> str:
    """Raises: DeviceError when that one is not there or not ready, or it is not clear which one is meant."""
    there = ", ".join(f"adb://{each}" for each in sorted(devices)) or "none"
    if not serial and len(devices) == 1:
        serial = next(iter(devices))
    if not serial:
        raise DeviceError(f"adb:// leaves open which device; say one of its serial numbers; there are {there}")
    state = devices.get(serial)
    if state is None:
        raise DeviceError(f"adb knows no device {serial!r}; plug it in or run adb connect; there are {there}")
    if reason := _reason(state):
        raise DeviceError(f"adb://{serial} cannot be used: {reason}")
    return serial


def _reason(state: str) -> str:
    """Why a device in that state cannot be used, and what to do; nothing when it can."""
    if state == "device":
        return ""
    return next((way for name, way in STATES.items() if state.startswith(name)), f"adb calls it {state!r}")


class Adb:
    """Reaches a device as `adb -s` does; the address is its serial number, or nothing where there is one device."""

    scheme = "adb"

    def open(self, address: str) -> Link:
        """Raises: DeviceError when the device is not there or not ready."""
        return RemoteLink(AdbShell(address), FOLDER)

    def discover(self, *, configured: bool = False) -> Iterable[Spotted]:
        """Every device that adb knows, whatever its state. Raises: DeviceError when adb does not answer."""
        return tuple(Spotted(f"adb://{serial}", _reason(state)) for serial, state in attached().items())


ADB = Adb()


def edgewright_connections() -> Iterable[Connection]:
    """What this module offers."""
    return (ADB,)
