"""Packs the distribution of a third party's runtime or meter, so that it can travel to a device.

On the device nothing is installed and no entry point is read: the folder goes in front of Python's path, and the agent
imports `module:object` from it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

IN_THE_AGENT = ("edgewright", "edgewright_runtime")
"""Packages that every agent has."""


def in_the_agent(entry: str) -> bool:
    """Whether `module:object` is of a package that every agent has."""
    return entry.partition(":")[0].partition(".")[0] in IN_THE_AGENT


def pack(entry: str, cache: Path) -> Path | None:
    """The distribution that offers `module:object`, as a folder in `cache` named by its content.

    None for what every agent has, for modules that are not found on this host, and for machine code, which is this
    host's: all of these the device has to have itself.
    """
    if in_the_agent(entry):
        return None
    top = entry.partition(":")[0].partition(".")[0]
    files = dict(_files(top))
    if not files or any(name.endswith((".so", ".pyd", ".dylib")) for name in files):
        return None
    return _kept(top, files, cache)


def _files(top: str) -> Iterator[tuple[str, Path]]:
    """What the distribution of a package installed, by place; of an editable one the package and its metadata."""
    for name in importlib.metadata.packages_distributions().get(top, ()):
        for file in importlib.metadata.distribution(name).files or ():
            if ".." not in file.parts and file.suffix not in (".pyc", ".pth"):
                yield file.as_posix(), Path(str(file.locate()))
    spec = importlib.util.find_spec(top)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                yield f"{top}/{path.relative_to(folder).as_posix()}", path
    if spec and spec.origin and not spec.submodule_search_locations:
        yield f"{top}.py", Path(spec.origin)


def _kept(top: str, files: Mapping[str, Path], cache: Path) -> Path:
    sha = hashlib.sha256()
    for name in sorted(files):
        data = files[name].read_bytes()
        sha.update(f"{name}\0{len(data)}\0".encode() + data)
    goal = cache / f"{top}-{sha.hexdigest()[:16]}"
    if not goal.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as partial:
            for name, path in files.items():
                place = Path(partial) / "packed" / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
            if not goal.is_dir():
                os.replace(Path(partial) / "packed", goal)
    return goal
