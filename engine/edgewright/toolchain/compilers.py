"""Finds compilers on this host, for itself and for machines of another kind."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from edgewright.errors import RefusedError


@dataclass(frozen=True)
class Language:
    """`programs` compile it for this host, the first of them behind a triple for others; `packages` of Debian's by isa.

    `here` is the package for this host.
    """

    programs: tuple[str, ...]
    packages: Mapping[str, str]
    here: str


C = Language(
    ("gcc", "cc", "clang"),
    {
        "x86_64": "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
        "aarch64": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    },
    "gcc libc6-dev",
)
CPP = Language(("g++", "c++", "clang++"), {"x86_64": "g++-x86-64-linux-gnu", "aarch64": "g++-aarch64-linux-gnu"}, "g++")


def find_compiler(language: Language, isa: str, triple: str, need: str) -> str:
    """The path of a compiler that makes programs for `isa` (as Linux calls it; `triple` as compilers do).

    Raises: RefusedError when there is none; it begins with `need` and says what to install.
    """
    native = platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64") == isa
    candidates = (f"{triple}-{language.programs[0]}", *(language.programs if native else ()))
    found = next(filter(None, map(shutil.which, candidates)), None)
    if found is None:
        packages = language.here if native else language.packages[isa]
        raise RefusedError(
            f"{need}, and none is here ({', '.join(candidates)} were looked for); on Debian or Ubuntu "
            f"`apt-get install {packages}` installs one"
        )
    return found
