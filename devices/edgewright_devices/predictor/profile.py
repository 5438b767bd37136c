"""Writes fitted coefficients as the last tables of a device profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgewright.types import Figure, Target

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


def profile_of(target: Target) -> str:
    """A whole target as the text of a profile."""
    texts = {key: getattr(target, key) for key in ("name", "title", "isa", "unit", "family", "predictor", "notes")}
    lists = {key: list(getattr(target, key)) for key in ("features", "runtimes", "meters", "providers", "recipe")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in {**texts, **lists}.items() if value]
    figures: dict[str, Figure] = {"memory": target.memory, "cores": target.cores, "bandwidth": target.bandwidth}
    figures |= {f"compute.{dtype}": figure for dtype, figure in target.compute.items()}
    figures |= {f"power.{key}": figure for key, figure in target.power.items()}
    figures |= {f"operations.{key}": figure for key, figure in target.operations.items()}
    for name, figure in figures.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in vars(figure).items())]
    return "\n".join(lines) + "\n\n" + written(target.fitted)
