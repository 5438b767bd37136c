"""Reads a device profile: a TOML file that says what a device can do, every figure with unit and source."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from edgewright.errors import TargetError, suggest
from edgewright.types import Figure, Target

TEXTS = ("name", "title", "isa", "unit", "family", "predictor", "notes")
LISTS = ("features", "models", "runtimes", "meters", "providers", "recipe")
FIGURES = {"memory": "B", "cores": "cores", "bandwidth": "GB/s"}
TABLES = {
    "compute": {"float32": "GFLOP/s", "float16": "GFLOP/s", "bfloat16": "GFLOP/s", "int8": "GOP/s"},
    "power": {"idle_w": "W", "active_w": "W"},
    "operations": dict.fromkeys(
        (
            *(f"{step}_{dtype}" for step in ("multiply", "add") for dtype in ("float32", "float16")),
            *("multiply_int8", "add_int32", "shift", "agree", "dram", "buffer"),
        ),
        "pJ",
    ),
}
FITTED = {"coefficients": dict, "spread": dict, "noise": float, "error": float, "n": int, "idle": bool, "source": str}
"""What a predictor's coefficients for one quantity come with."""

REQUIRED = ("name", "title", "isa", "memory", "cores", "bandwidth", "compute")
UNITS = ("cpu", "gpu")


def read_profile(path: Path) -> Target:
    """The target that the TOML file at `path` describes; docs/targets.md gives the schema.

    Raises: TargetError, one sentence that names the file, the key, and what is allowed there.
    """
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:  # wrong TOML and wrong UTF-8 are ValueErrors
        raise TargetError(f"{path} cannot be read as a device profile: {cause}") from cause
    return parse_profile(document, str(path))


def parse_profile(document: Mapping[str, Any], origin: str) -> Target:
    """The target that a parsed profile describes; `origin` says in errors where it came from.

    Raises: TargetError.
    """
    _check_keys(document, (*TEXTS, *LISTS, *FIGURES, *TABLES, "default", "fitted"), origin)
    for key in REQUIRED:
        if key not in document:
            raise TargetError(f"{origin}: {key} is missing; a profile needs {', '.join(REQUIRED)}")
    fields: dict[str, Any] = {key: _read(key, value, origin) for key, value in document.items()}
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fields["name"]):
        raise TargetError(f"{origin}: name is {fields['name']!r}; write small letters, digits and single hyphens")
    if fields.get("unit", "cpu") not in UNITS:
        raise TargetError(f"{origin}: unit is {fields['unit']!r}; {suggest(fields['unit'], UNITS)}")
    if "float32" not in fields["compute"]:
        raise TargetError(f"{origin}: compute.float32 is missing; every model has some float32 in it")
    return Target(**fields)


def _read(key: str, value: Any, origin: str) -> Any:
    where = f"{origin}: {key}"
    if key in TEXTS:
        return _text(value, where)
    if key in LISTS:
        return _texts(value, where)
    if key in FIGURES:
        return _figure(value, FIGURES[key], where)
    if key in TABLES:
        return _table(value, TABLES[key], where)
    if key == "fitted":
        return _fitted(value, where)
    if not isinstance(value, bool):
        raise TargetError(f"{where} is {value!r}; write true or false")
    return value


def _table(value: Any, units: Mapping[str, str], where: str) -> dict[str, Figure]:
    table = _mapping(value, where)
    _check_keys(table, units, where)
    return {key: _figure(figure, units[key], f"{where}.{key}") for key, figure in table.items()}


def _fitted(value: Any, where: str) -> Mapping[str, Any]:
    """Coefficients by quantity, as `engine calibrate` writes them."""
    tables = _mapping(value, where)
    _check_keys(tables, ("latency", "energy"), where)
    for quantity, given in tables.items():
        table = _mapping(given, f"{where}.{quantity}")
        _check_keys(table, FITTED, f"{where}.{quantity}")
        for key, kind in FITTED.items():
            found = table.get(key)
            if not isinstance(found, (int, float) if kind is float else kind):
                raise TargetError(f"{where}.{quantity}.{key} is {found!r}; let engine calibrate write this table")
    return tables


def _figure(value: Any, unit: str, where: str) -> Figure:
    figure = _mapping(value, where)
    _check_keys(figure, ("value", "unit", "source"), where)
    for key in ("value", "unit", "source"):
        if key not in figure:
            raise TargetError(f"{where} has no {key}; a figure needs value, unit ({unit}) and source")
    if _text(figure["unit"], f"{where}.unit") != unit:
        raise TargetError(f"{where}.unit is {figure['unit']!r}; write the figure in {unit}")
    return Figure(_number(figure["value"], f"{where}.value"), unit, _text(figure["source"], f"{where}.source"))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TargetError(f"{where} is {value!r}; write a number")
    if not (value > 0 and math.isfinite(value)):
        raise TargetError(f"{where} is {value}; write a number above 0")
    return float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TargetError(f"{where} is {value!r}; write a text")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TargetError(f"{where} is {value!r}; write a list of texts")
    return tuple(_text(item, where) for item in cast("list[Any]", value))


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TargetError(f"{where} is {value!r}; write a table with value, unit and source")
    return cast("Mapping[str, Any]", value)


def _check_keys(given: Iterable[str], allowed: Iterable[str], where: str) -> None:
    names = tuple(allowed)
    for key in given:
        if key not in names:
            raise TargetError(f"{where}: unknown key {key!r}; {suggest(key, names)}")
