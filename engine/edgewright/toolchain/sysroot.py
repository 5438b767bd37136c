"""The C and C++ libraries of an older system, to build programs against that run on devices older than this host."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.toolchain.debian import Wanted, fetched

SUITE, GCC = "bullseye", "10"
"""Debian 11: glibc 2.31, as on JetPack 5. What of it a program calls decides how much older a device may be."""

PACKAGES = ("libc6", "libc6-dev", "linux-libc-dev", f"libgcc-{GCC}-dev", f"libstdc++-{GCC}-dev")
BY_HAND = "or build on a system that is no newer than the device"


@dataclass(frozen=True)
class Sysroot:
    """A root folder with headers and libraries, for a machine that compilers call `triple`."""

    root: Path
    triple: str

    def compiling(self, compiler: str) -> Sequence[str]:
        """What a g++ of any version has to be told to look here for headers, and beside itself for its own only."""
        asked = (compiler, "-print-file-name=include")
        own = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        include = self.root / "usr/include"
        folders = (include / "c++" / GCC, include / self.triple / "c++" / GCC, own, include / self.triple, include)
        return (f"--sysroot={self.root}", "-nostdinc", *(word for each in folders for word in ("-isystem", str(each))))

    def linking(self) -> Sequence[str]:
        """Where the linker finds libraries and what a program begins with."""
        usr = self.root / "usr/lib"
        return (f"--sysroot={self.root}", f"-B{usr / 'gcc' / self.triple / GCC}", f"-B{usr / self.triple}")


def find_sysroot(isa: str, cache: Path) -> Sysroot | None:
    """The one for `isa` (as Linux calls it) that was fetched into `cache` before, if one was."""
    place = _place(isa, cache)
    return Sysroot(place, f"{isa}-linux-gnu") if place.is_dir() else None


def fetch_sysroot(isa: str, cache: Path) -> Sysroot:
    """Fetch it from the system's own Debian mirror (about 20 MB) into `cache`.

    Raises: RefusedError when this is no Debian, or apt fails, with the reason.
    """
    place = _place(isa, cache)
    with fetched(Wanted("an older C library", SUITE, PACKAGES, BY_HAND, isa), cache) as unpacked:
        _keep_links_inside(unpacked)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(unpacked, place)
    return Sysroot(place, f"{isa}-linux-gnu")


def _place(isa: str, cache: Path) -> Path:
    return cache / f"sysroot-{SUITE}-{isa}"


def _keep_links_inside(root: Path) -> None:
    """Links of a system begin at its own root, and would lead to this host's."""
    for path in root.rglob("*"):
        if path.is_symlink() and (goal := os.readlink(path)).startswith("/"):
            path.unlink()
            path.symlink_to(os.path.relpath(f"{root}{goal}", path.parent))
