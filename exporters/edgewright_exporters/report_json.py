"""The renderer `json`: the whole report as one versioned document."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from edgewright.bundle import plain
from edgewright.protocols import Renderer
from edgewright.types import Report

SCHEMA = 1
"""Raised when a key is renamed or removed; new keys may appear at any time."""


class Json:
    """Keys are those of `edgewright.types.Report` and its parts, plus `schema` and `kind`."""

    name = "json"
    suffix = ".json"

    def render(self, report: Report) -> str:
        """The document. A number that is infinite or NaN becomes null: JSON has neither."""
        document = {"schema": SCHEMA, "kind": "report", **plain(report)}
        return json.dumps(_finite(document), indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


JSON = Json()


def edgewright_renderers() -> Iterable[Renderer]:
    """What this module offers."""
    return (JSON,)
