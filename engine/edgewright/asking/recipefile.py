"""Recipe and project files: TOML read into a request, every key known."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from edgewright.asking.bounds import BOUND_NAMES
from edgewright.asking.request import MethodCall, Request
from edgewright.errors import RecipeError, no_file, suggest

PROJECT_FILE = "edgewright.toml"


def read_request(path: Path) -> Request:
    """A recipe or project file as a request. Paths in it are relative to its folder.

    Raises: RecipeError naming the file, the key, and the nearest key.
    """
    document = _read_toml(path)
    methods = _tables(path, document.pop("method", None), "[[method]]")
    contract = _table(path, document.pop("contract", {}), "[contract]")
    shapes = _table(path, document.pop("shapes", {}), "[shapes]")
    known = {f.name for f in fields(Request)} - {"bounds", "apply", "shapes"}
    for key in document:
        if key not in known:
            raise RecipeError(f"{path}: unknown key {key!r}; {suggest(key, known | {'method', 'contract', 'shapes'})}")
    for key in contract:
        if key not in BOUND_NAMES:
            raise RecipeError(f"{path}: [contract] has no bound {key!r}; {suggest(key, BOUND_NAMES)}")
    values: dict[str, Any] = {key: _typed(path, key, value) for key, value in document.items()}
    for key in ("model", "task", "out"):
        if key in values:
            values[key] = _beside(path, values[key])
    return Request(
        **values,
        apply=None if methods is None else tuple(_method_table(path, table) for table in methods),
        bounds={key: str(value) for key, value in contract.items()},
        shapes={name: _sizes(path, name, sizes) for name, sizes in shapes.items()},
    )


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(no_file(path, "recipe file")) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not readable TOML: {error}") from error


_TYPES: Mapping[str, type[Any]] = {"batch": int, "threads": int, "seed": int, "tune": int, "allow_fallback": bool}


def _typed(path: Path, key: str, value: Any) -> Any:
    if key in ("runtime", "exporter", "kernel", "meter"):
        return tuple(str(v) for v in (cast("list[Any]", value) if isinstance(value, list) else str(value).split(",")))
    kind = _TYPES.get(key, str)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{path}: {key} = {value!r} must be {_WORDS[kind]}")
    return value


_WORDS: Mapping[type[Any], str] = {int: "a whole number", bool: "true or false", str: "text"}


def _table(path: Path, value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: {name.strip('[]')} = {value!r} must be a table, {name}")
    return cast("dict[str, Any]", value)


def _tables(path: Path, value: Any, name: str) -> list[dict[str, Any]] | None:
    if value is not None and not isinstance(value, list):
        raise RecipeError(f"{path}: {name.strip('[]')} = {value!r} must be a list of tables, {name}")
    return None if value is None else [_table(path, each, name) for each in cast("list[Any]", value)]


def _sizes(path: Path, name: str, value: Any) -> tuple[int, ...]:
    sizes = cast("list[Any]", value if isinstance(value, list) else [None])
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise RecipeError(f"{path}: [shapes] {name} = {value!r} must be a list of sizes such as [1, 3, 224, 224]")
    return tuple(sizes)


def _method_table(path: Path, table: Mapping[str, Any]) -> MethodCall:
    if "name" not in table:
        raise RecipeError(f"{path}: a [[method]] has no name")
    return MethodCall(str(table["name"]), {key: value for key, value in table.items() if key != "name"})


def _beside(path: Path, text: str) -> str:
    place = Path(text)
    return text if place.is_absolute() else str(path.parent / place)
