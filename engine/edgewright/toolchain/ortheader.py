"""Finds ONNX Runtime's C header, which its Python wheel lacks, and fetches it when that is asked for."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.errors import InputError, RefusedError
from edgewright.toolchain.debian import Wanted, fetched

NAME = "onnxruntime_c_api.h"
OLDEST = 17
"""The API that lets a kernel share the session's threads."""

SYSTEM = (Path("/usr/include"), Path("/usr/local/include"))
FETCHED = "onnxruntime-include"
BY_HAND = "or unpack a release of onnxruntime for C and name its folder `include`"
PACKAGE = Wanted("onnxruntime's C header", "trixie", ("libonnxruntime-dev",), BY_HAND)
"""Of the first Debian that has it; a header has no dependencies, so any Debian can unpack it."""


@dataclass(frozen=True)
class Header:
    """Where the header lies, and the API it describes (21 is that of onnxruntime 1.21)."""

    folder: Path
    version: int


def headers_place() -> Path:
    """Where a fetched header lies, and what was compiled with it: the user's cache, whichever one a run works in."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgewright" / "loader"


def find_header(cache: Path, given: Path | None = None, *, system: Sequence[Path] = SYSTEM) -> Header:
    """The header: in `given` (a file or a folder) if that is named, else in `system`, else as it was fetched.

    Raises:
        InputError: when `given` holds none that can be used.
        RefusedError: when there is none; the message says how to get it.
    """
    if given is not None:
        return _given(given)
    for header in map(_read, _places(system, cache)):
        if header and header.version >= OLDEST:
            return header
    raise RefusedError(
        f"onnxruntime's C header ({NAME}, 1.{OLDEST} or newer) is needed, which its Python wheel lacks and "
        f"{' and '.join(map(str, system))} do not have; `engine doctor --fix` fetches it, {BY_HAND}"
    )


def fetch_header(cache: Path) -> Header:
    """Fetch the header from the system's own Debian mirror into `cache`; nothing is installed, root is not needed.

    Raises:
        RefusedError: when this is no Debian, or apt fails, with the reason.
    """
    with fetched(PACKAGE, cache) as unpacked:
        header = _given(unpacked)
        shutil.rmtree(cache / FETCHED, ignore_errors=True)
        os.rename(header.folder, cache / FETCHED)
    return Header(cache / FETCHED, header.version)


def _given(place: Path) -> Header:
    if not place.exists():
        raise InputError(f"{place} does not exist; name the folder that holds {NAME}")
    places = [place] if place.is_file() else sorted(place.glob(f"**/{NAME}"))
    header = next(filter(None, map(_read, places)), None)
    if header is None:
        raise InputError(f"{place} holds no {NAME}; name the folder `include` of a release of onnxruntime for C")
    if header.version < OLDEST:
        raise InputError(f"{header.folder / NAME} is of onnxruntime 1.{header.version}; 1.{OLDEST} or newer is needed")
    return header


def _places(system: Sequence[Path], cache: Path) -> Iterator[Path]:
    for folder in system:
        yield folder / NAME
        yield from sorted(folder.glob(f"onnxruntime*/**/{NAME}"))
    yield from sorted((cache / FETCHED).glob(f"**/{NAME}"))


def _read(place: Path) -> Header | None:
    try:
        text = place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"^#define ORT_API_VERSION (\d+)", text, re.MULTILINE)
    return Header(place.parent, int(found[1])) if found else None
