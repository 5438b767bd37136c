"""Folders on their way to a device, and the step in which one of them becomes what models run with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgewright.errors import DeviceError
from edgewright.onboarding.preflight import RUNNER, SITE, Preflight
from edgewright.protocols import Link

MARK = "edgewright.json"
"""In the folder that was sent: what was asked for and what it holds."""

OLDER = ("<1.28", "<1.22")
"""Where the newest onnxruntime dies at import: since 1.28 it reads the layout of caches from /sys, since 1.22 it
counts cores in a way that some boards do not survive (microsoft/onnxruntime#25103, #25472)."""

BUSY = 75
SAID = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What was done. `installed` is empty where nothing was sent; `notes` are for the user."""

    installed: tuple[str, ...]
    sent_bytes: int
    notes: tuple[str, ...]
    device: Preflight


def check_room(link: Link, size: int, device: Preflight) -> None:
    """Raises: DeviceError before anything is sent that would not fit."""
    free = device.disk_free_bytes
    if free is not None and free < size:
        raise DeviceError(
            f"{link.address} has {free / 1e6:.0f} MB left at {link.root}, and {size / 1e6:.0f} MB are to be sent; "
            "free some there and run the same command again"
        )


def about(digest: str, asked: Sequence[str], versions: Mapping[str, str]) -> Mapping[str, Any]:
    """What the mark says."""
    return {"digest": digest, "asked": list(asked), "versions": dict(versions)}


def send(link: Link, folder: Path, mark: Mapping[str, Any]) -> None:
    """Put `folder` beside what is there, with its mark in it."""
    (folder / MARK).write_text(json.dumps(mark))
    link.put(folder, f"sites/{mark['digest']}")


def lead(link: Link, name: str) -> None:
    """Make what was sent under `name` what models run with; without a name, what the device has by itself.

    Raises: DeviceError when another client holds the device, or it cannot be done.
    """
    script = files("edgewright.onboarding").joinpath("place.py").read_text()
    placing = [link.python, "-c", script] if link.python else [f"{link.root}/{RUNNER}", "place"]
    status, _, errors = link.run([*placing, str(link.root), name], timeout=120)
    if status == BUSY:
        raise DeviceError(
            f"{link.address} is in use by another client; wait for its end and run the same command again"
        )
    if status:
        last = (errors.decode(errors="replace").strip().splitlines() or [f"it ended with {status}"])[-1]
        raise DeviceError(f"{link.address} could not put {SITE} in its place: {last[:200]}")
