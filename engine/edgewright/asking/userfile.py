"""Python that the user names: `file.py:name`, imported from its own folder and known by its content."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgewright.errors import InputError, no_file, suggest


@dataclass(frozen=True)
class Reference:
    """A callable or value in a user's file."""

    path: Path
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.name}"


def split_reference(source: str) -> Reference | None:
    """`dir/file.py:name` as its two halves; None when `source` is not of that form."""
    path, colon, name = source.rpartition(":")
    if colon and path.endswith(".py") and name.isidentifier():
        return Reference(Path(path), name)
    return None


def load_user(reference: Reference, *, kind: str, error: type[InputError]) -> ModuleType:
    """The module at `reference.path`; its folder is on `sys.path` while it is imported.

    Raises: `error`, naming file and cause.
    """
    path = reference.path.resolve()
    if not path.is_file():
        raise error(f"{no_file(reference.path)}; it should hold the {kind} {reference.name!r}")
    name = f"edgewright_user_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as cause:
        del sys.modules[name]
        raise error(f"{reference.path} could not be imported: {type(cause).__name__}: {cause}") from cause
    finally:
        sys.path.remove(str(path.parent))
    return module


def call_user(reference: Reference, *, kind: str, error: type[InputError]) -> Any:
    """What `reference` names; called without arguments when it is callable.

    Raises: `error` when the name is missing or the call fails.
    """
    return call_in(load_user(reference, kind=kind, error=error), reference, kind=kind, error=error)


def call_in(module: ModuleType, reference: Reference, *, kind: str, error: type[InputError]) -> Any:
    """As `call_user`, in the module that `load_user` gave: a second callable costs no second import."""
    if not hasattr(module, reference.name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise error(f"{reference.path} has no {kind} named {reference.name!r}; {suggest(reference.name, public)}")
    value = getattr(module, reference.name)
    if not callable(value):
        return value
    try:
        return value()
    except InputError:
        raise
    except Exception as cause:
        raise error(f"{reference} failed: {type(cause).__name__}: {cause}") from cause


def code_digest(path: Path, modules: Sequence[ModuleType] | None = None) -> str:
    """The sha-256 of a user's file and of every module imported from its folder."""
    folder = path.resolve().parent
    files = {path.resolve()}
    for module in list(sys.modules.values()) if modules is None else modules:
        origin = Path(getattr(module, "__file__", None) or "").resolve()
        if _is_users(origin, folder):
            files.add(origin)
    sha = hashlib.sha256()
    for file in sorted(files):
        sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()


def _is_users(origin: Path, folder: Path) -> bool:
    """A source file below the user's folder; an environment that lies there is not theirs, and some modules lie."""
    below = origin.suffix == ".py" and origin.is_relative_to(folder) and "site-packages" not in origin.parts
    return below and origin.is_file()
