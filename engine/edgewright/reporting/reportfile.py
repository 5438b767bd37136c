"""Reads a report back from the document that the renderer `json` wrote, every field checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from edgewright.errors import BundleError
from edgewright.types import Report

SCHEMA = 1
"""Of the documents that can be read; newer keys of the same schema are passed over."""


def read_report(path: Path) -> Report:
    """The report in the file.

    Raises: BundleError, in one sentence, when it cannot be read or is no report of this schema.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: an older version made this bundle; deploy again for a report") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as a report: {error}") from error
    return parse_report(document, str(path))


def parse_report(document: Any, source: str) -> Report:
    """The report in a JSON document; `source` names it in errors. Raises: BundleError."""
    found = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    if found.get("kind") != "report" or found.get("schema") != SCHEMA:
        raise BundleError(
            f"{source} is kind {found.get('kind')!r} of schema {found.get('schema')!r}; "
            f"this version reads kind 'report' of schema {SCHEMA}"
        )
    try:
        return _value(Report, found, "report")
    except _Misfit as misfit:
        raise BundleError(f"{source} is no report of schema {SCHEMA}: {misfit}") from None


class _Misfit(Exception):
    """Where in a document something else stands than a report has there."""


def _value(kind: Any, found: Any, where: str) -> Any:
    """`found` as a value of the annotated type `kind`. Raises: _Misfit."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return found
    if is_dataclass(kind):
        return _fields(kind, _of(dict, found, where), where)
    if origin is Union:
        return None if found is None else _value(next(part for part in parts if part is not NoneType), found, where)
    if origin is tuple:
        return _tuple(parts, _of(list, found, where), where)
    if origin is Mapping:
        return {key: _value(parts[1], item, f"{where}.{key}") for key, item in _of(dict, found, where).items()}
    return _scalar(kind, found, where)


def _fields(kind: Any, found: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    lacking = [field.name for field in fields(kind) if field.name not in found and _required(field)]
    if lacking:
        raise _Misfit(f"{where} lacks {', '.join(lacking)}")
    return kind(**{name: _value(hint, found[name], f"{where}.{name}") for name, hint in hints.items() if name in found})


def _tuple(parts: tuple[Any, ...], found: list[Any], where: str) -> tuple[Any, ...]:
    """`tuple[X, ...]` of any length, `tuple[X, Y]` of its own."""
    kinds = (parts[0],) * len(found) if parts[-1] is Ellipsis else parts
    if len(kinds) != len(found):
        raise _Misfit(f"{where} has {len(found)} items, expected {len(kinds)}")
    return tuple(_value(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, found, strict=True)))


def _scalar(kind: type[Any], found: Any, where: str) -> Any:
    # JSON does not tell 1 from 1.0, and True is an int to Python.
    allowed = (int, float) if kind is float else kind
    if not isinstance(found, allowed) or (isinstance(found, bool) and kind is not bool):
        raise _Misfit(f"{where} is {json.dumps(found)[:40]}, expected a {kind.__name__}")
    return found


def _of(kind: type[Any], found: Any, where: str) -> Any:
    if not isinstance(found, kind):
        raise _Misfit(f"{where} is {json.dumps(found)[:40]}, expected a {kind.__name__}")
    return found


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)
