"""Compiles the loader, once per machine type and version of its sources and header."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from edgewright.errors import PluginError
from edgewright.toolchain.ortheader import Header, find_header
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.tir.linking import find_compiler

SOURCES = tuple(Path(__file__).parent / name for name in ("loader.c", "node.h", "call.h"))
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-fvisibility=hidden", "-c")
LIBRARIES = ("dl",)
"""What a library with the loader in it is linked with."""


def loader_object(isa: Isa, cache: Path, *, header: Path | None = None) -> bytes:
    """The loader as an object file for `isa`, to be linked with kernels into one shared library.

    Args:
        isa: Only its machine type matters here.
        cache: Where the object and a fetched header are kept.
        header: A file or folder with onnxruntime's C header; by default it is looked for.

    Raises:
        InputError: when `header` cannot be used.
        RefusedError: when a compiler or the header is missing; the message says how to get it.
        PluginError: when the compiler fails, with its first complaint.
    """
    found = find_header(cache, header)
    place = cache / f"{isa.triple}-{_key(found)}.o"
    if not place.is_file():
        _keep(place, _compile(find_compiler(isa), found))
    return place.read_bytes()


def _key(header: Header) -> str:
    sha = hashlib.sha256(f"{header.version} {FLAGS}".encode())
    for source in SOURCES:
        sha.update(source.read_bytes())
    return sha.hexdigest()[:16]


def _compile(compiler: str, header: Header) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        goal = Path(folder) / "loader.o"
        command = (compiler, *FLAGS, "-isystem", str(header.folder), "-o", str(goal), str(SOURCES[0]))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
            raise PluginError(f"{compiler} cannot compile the loader: {lines[0] if lines else 'it says nothing'}")
        return goal.read_bytes()


def _keep(place: Path, content: bytes) -> None:
    """In one step, because another process may read it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, place)
