"""What the stages of a bundle take on this device: read from its manifest or the user's cache, and kept there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.bundle import Bundle
from edgewright.types import StageCost

ENOUGH = 1000
"""Runs from which on the time that all but one in a thousand stayed below is read off, not estimated."""


def stage_cost(stage: str, taken_ms: Sequence[float]) -> StageCost:
    """What `taken_ms` says about a stage."""
    return StageCost(stage, float(np.median(taken_ms)), float(np.mean(taken_ms)), high_ms(taken_ms), len(taken_ms))


def high_ms(taken_ms: Sequence[float]) -> float:
    """What 999 of 1000 runs stay below.

    With fewer than 1000 runs their largest says little: one that was disturbed unnoticed may be ten times the rest. If
    what a run takes beyond the median falls off exponentially, the excess that one in 1000 has is ln(1000) / ln(100),
    1.5 times the one that one in 100 has; that is where it is taken from.
    """
    if len(taken_ms) >= ENOUGH:
        return float(np.quantile(taken_ms, 1 - 1 / ENOUGH, method="higher"))
    middle = float(np.median(taken_ms))
    in_hundred = float(np.quantile(taken_ms, 0.99, method="higher"))
    return middle + (in_hundred - middle) * math.log(ENOUGH) / math.log(100)


def listed_costs(bundle: Bundle, fingerprint: str, threads: int) -> tuple[StageCost, ...]:
    """The costs that the manifest lists for this device, its first variant and so many threads; empty without."""
    variant = bundle.variants[0]
    asked = {"device": fingerprint, "variant": variant.name, "threads": threads}
    for entry in bundle.extra.get("costs", ()):
        if all(entry.get(key) == value for key, value in asked.items()):
            return parse_costs(entry.get("stages"), [stage.name for stage in variant.stages])
    return ()


def read_costs(place: Path, bundle: Bundle) -> tuple[StageCost, ...]:
    """What `keep_costs` left at `place`; empty when there is nothing to use."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return parse_costs(found, [stage.name for stage in bundle.variants[0].stages])


def keep_costs(place: Path, costs: Sequence[StageCost]) -> None:
    """Write them for the next process; a place that cannot be written only means that it measures again."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps([asdict(cost) for cost in costs]), encoding="utf-8")
        os.replace(partial, place)


def cost_place(bundle: Bundle, fingerprint: str, threads: int) -> Path:
    """Where the user's cache keeps the costs of a bundle."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "edgewright" / "costs"
    return folder / f"{bundle.digest}-{fingerprint}-{threads}.json"


def parse_costs(entries: Any, stages: Sequence[str]) -> tuple[StageCost, ...]:
    """Costs from their JSON form; empty unless they are those of `stages`, in order."""
    try:
        costs = tuple(_cost(entry) for entry in entries)
    except (KeyError, TypeError, ValueError):
        return ()
    return costs if [cost.stage for cost in costs] == list(stages) else ()


def _cost(entry: Mapping[str, Any]) -> StageCost:
    times = {key: float(entry[key]) for key in ("median_ms", "mean_ms", "high_ms")}
    return StageCost(str(entry["stage"]), **times, n=int(entry["n"]))
