"""Packs the agent: one zip application of the installed packages' own files, named by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgewright.errors import DeviceError

CORE_PARTS = ("__init__", "errors", "types", "gates", "machine", "protocols", "bundle", "protocol")
"""What crosses of the core: the device set, and the protocols that third parties import to be typed."""


def build_agent(folder: Path) -> Path:
    """The agent as one zip application in `folder`, named by its content; the same code is packed once."""
    core, runtime = _package("edgewright"), _package("edgewright_runtime")
    sources = {"__main__.py": (runtime / "start.py").read_bytes()}
    for part in CORE_PARTS:
        for path in sorted((core / part).glob("*.py")) or [core / f"{part}.py"]:
            sources[f"edgewright/{path.relative_to(core).as_posix()}"] = path.read_bytes()
    for path in sorted(runtime.glob("*.py")):
        if path.name not in ("plugin.py", "start.py"):
            sources[f"edgewright_runtime/{path.name}"] = path.read_bytes()
    sha = hashlib.sha256()
    for name in sorted(sources):
        sha.update(f"{name}\0{len(sources[name])}\0".encode() + sources[name])
    goal = folder / f"agent-{sha.hexdigest()[:16]}.pyz"
    if not goal.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{goal.name}.{os.getpid()}"
        partial.write_bytes(_zipped(sources))
        os.replace(partial, goal)
    return goal


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DeviceError(f"the package {name} is not installed, so no agent can be packed; reinstall edgewright")
    return Path(next(iter(spec.submodule_search_locations)))


def _zipped(sources: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), sources[name])
    return buffer.getvalue()
