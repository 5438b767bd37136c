"""Wheels for a device, found by this host's pip: the device itself needs no network and no pip."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgewright.errors import DeviceError, RefusedError
from edgewright.store import Store, key_of

OLDEST_GLIBC = {"aarch64": 17, "x86_64": 5}
"""The minor version of glibc 2 that manylinux begins with (PEP 600, PEP 599)."""

OLDER = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""The names that some of those platforms had before (PEP 513, PEP 571, PEP 599)."""

MOST_SECONDS = 900


def platforms(machine: str, libc: tuple[str, str]) -> Sequence[str]:
    """The tags of all wheels that run there, the newest first; pip adds no older ones to those it is told.

    Raises: RefusedError for a machine or libc that no wheels are made for.
    """
    name, version = libc
    if machine not in OLDEST_GLIBC:
        raise RefusedError(f"no wheels are made for {machine}; there are some for {', '.join(sorted(OLDEST_GLIBC))}")
    major, _, minor = version.partition(".")
    if name != "glibc" or major != "2" or not minor.isdigit():
        raise RefusedError(
            f"wheels of numpy and onnxruntime need glibc 2, and the device has {' '.join(libc) or 'none'}"
        )
    tags: list[str] = []
    for number in range(int(minor), OLDEST_GLIBC[machine] - 1, -1):
        tags += [f"manylinux_2_{number}_{machine}", *([f"{OLDER[number]}_{machine}"] if number in OLDER else [])]
    if not tags:
        raise RefusedError(f"the device's glibc {version} is older than that of any wheel for {machine}")
    return tags


def unpacked(requirements: Sequence[str], python: tuple[int, int], tags: Sequence[str], store: Store) -> Path:
    """A folder with those packages and nothing that they depend on, kept in the cache.

    Raises: RefusedError when there are none for that device, DeviceError when pip cannot look.
    """
    place = store.folder("sites") / key_of("site", list(requirements), list(python), list(tags))[:32]
    if place.is_dir():
        return place
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".site-") as scratch:
        _install(requirements, python, tags, Path(scratch) / "site")
        os.replace(Path(scratch) / "site", place)
    return place


def _install(requirements: Sequence[str], python: tuple[int, int], tags: Sequence[str], place: Path) -> None:
    version = f"{python[0]}.{python[1]}"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    only = [f"--python-version={version}", "--implementation=cp", "--only-binary=:all:"]
    command = [*pip, *only, *(f"--platform={tag}" for tag in tags), "--target", str(place), *requirements]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"pip did not find {' and '.join(requirements)} within {MOST_SECONDS} s") from None
    if done.returncode == 0:
        return
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: it says nothing"]
    if "No matching distribution" in done.stderr:
        raise RefusedError(
            f"there is no wheel of {' or '.join(requirements)} for Python {version} and {tags[0]}; give another "
            f"version with --package, such as --package onnxruntime==1.19.2"
        )
    raise DeviceError(f"pip cannot get {' and '.join(requirements)} on this host: {said[-1].removeprefix('ERROR: ')}")
