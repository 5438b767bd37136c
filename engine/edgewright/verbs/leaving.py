"""Where inputs leave a model with gates, what runs to each exit take, and what the whole chain takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewright.agents.agent import Agent, Opened
from edgewright.bundle import Bundle
from edgewright.measuring.timings import Measured, Setting, latency_of
from edgewright.types import Array, Measurement, unknown

CALIBRATION_S = 1.0

WHOLE = "latency to the end"


@dataclass(frozen=True)
class Way:
    """One exit: the `rows` that left there, their `share`, and the latency of runs that ended there, by statistic.

    `latency` is empty where no run ended. A run of several rows ends where the last of them leaves.
    """

    name: str
    rows: int
    share: float
    latency: Mapping[str, Measurement]


def ways_of(bundle: Bundle, exits: Array, measured: Measured) -> tuple[Way, ...]:
    """The exits in order, from where each row left (int64 [rows]) and from timed runs."""
    depths = np.concatenate([np.asarray(each, np.int64) for each in measured.depths])
    runs_ns = np.concatenate([np.asarray(each, np.int64) for each in measured.runs_ns])
    plain = measured.latency["mean"]
    setting = Setting(plain.kind, plain.conditions)
    return tuple(
        Way(
            name,
            rows=int((exits == number).sum()),
            share=float((exits == number).mean()),
            latency=latency_of(setting, [runs_ns[depths == number].tolist()]) if (depths == number).any() else {},
        )
        for number, name in enumerate(exit_names(bundle, max(int(exits.max()), int(depths.max()))))
    )


def rows_by_exit(bundle: Bundle, exits: Array | Sequence[int]) -> dict[str, int]:
    """How many left at each exit; nothing for a model in which all go the same way."""
    if len(bundle.variants[0].stages) == 1 and not bundle.variants[0].stages[0].exits:
        return {}
    left = np.asarray(exits)
    return {name: int((left == number).sum()) for number, name in enumerate(exit_names(bundle, int(left.max())))}


def exit_names(bundle: Bundle, last: int) -> list[str]:
    """What exits are called: like their stages, and numbered up to `last` where the graph decides inside."""
    stages = bundle.variants[0].stages
    return [stage.name for stage in stages] if len(stages) > 1 else [f"exit {number}" for number in range(last + 1)]


def whole_chain(agent: Agent, opened: Opened, bundle: Bundle) -> Measurement:
    """What no input can exceed: the sum of what 999 of 1000 runs of each stage stayed below."""
    if len(bundle.variants[0].stages) == 1:
        return unknown(WHOLE, "ms", "its graph decides inside, so its parts cannot be timed")
    costs = agent.calibrate(opened, seconds=CALIBRATION_S)
    kind = "simulated" if agent.device().emulated else "measured"
    n, total = min(cost.n for cost in costs), sum(cost.high_ms for cost in costs)
    return Measurement(WHOLE, total, "ms", n, statistic="p99.9", instrument="sum of its stages", kind=kind)
