"""Writes fitted coefficients as the last tables of a device profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MARK = "# What follows was fitted; `engine calibrate` writes it anew."


def without_fitted(text: str) -> str:
    """A profile without its fitted part."""
    return text.split(MARK, maxsplit=1)[0].rstrip() + "\n"


def written(fitted: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables `fitted.latency` and `fitted.energy` in TOML."""
    lines = [MARK]
    for quantity, entry in fitted.items():
        plain = {key: value for key, value in entry.items() if not isinstance(value, dict)}
        lines += ["", f"[fitted.{quantity}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
        for part in ("coefficients", "spread"):
            lines += ["", f"[fitted.{quantity}.{part}]"]
            lines += [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in entry[part].items()]
    return "\n".join(lines) + "\n"
