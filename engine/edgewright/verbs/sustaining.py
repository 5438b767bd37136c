"""One long run: the median of each minute, and when the device began to slow down.

What heat does to a device shows after minutes, not seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewright.agents.agent import Agent
from edgewright.environment import Progress
from edgewright.errors import RecipeError
from edgewright.measuring import measure
from edgewright.measuring.measure import Candidate
from edgewright.types import Measurement
from edgewright.verbs.details import held, kind_of

MINUTE_S = 60.0
LOOK_S = 5.0
"""How often the device is asked what it is like."""

SLOWER = 1.1
"""Minutes that take so many times the first one's median are told of, where no sensor says why."""

FALLEN = 0.9
"""A clock below this share of what it was at the start has been lowered."""


@dataclass(frozen=True)
class Look:
    """What the device was like `at_s` seconds after the start."""

    at_s: float
    conditions: Mapping[str, Any]


@dataclass(frozen=True)
class Sustained:
    """The median of each minute, and what was seen meanwhile; `onset` tells when it began to slow down, if it did."""

    minutes: tuple[Measurement, ...] = ()
    looks: tuple[Look, ...] = ()
    onset: str = ""


NOT_SUSTAINED = Sustained()


def sustain(agent: Agent, candidate: Candidate, minutes: int, progress: Progress) -> Sustained:
    """Run for so many minutes; nothing for none."""
    if not minutes:
        return NOT_SUSTAINED
    looks, medians, kind = [Look(0.0, agent.conditions())], list[Measurement](), kind_of(agent)
    with held(agent, candidate) as opened:
        start = time.monotonic()
        for minute in range(1, minutes + 1):
            taken = list[int]()
            while time.monotonic() < start + minute * MINUTE_S:
                taken += agent.time(opened, least_runs=1, least_ns=measure.BLOCK_NS).ns
                if time.monotonic() - start - looks[-1].at_s >= LOOK_S:
                    looks.append(Look(time.monotonic() - start, agent.conditions()))
            progress("sustained run, minute", minute, minutes)
            medians.append(_median(minute, taken, looks[-1], kind))
    return Sustained(tuple(medians), tuple(looks), "; ".join(onsets(looks, [m.value or 0.0 for m in medians])))


def _median(minute: int, taken: Sequence[int], look: Look, kind: str) -> Measurement:
    return Measurement(
        f"latency in minute {minute}",
        float(np.median(taken)) / 1e6,
        "ms",
        len(taken),
        statistic="p50",
        kind=kind,
        conditions=dict(look.conditions),
    )


def onsets(looks: Sequence[Look], medians: Sequence[float]) -> Iterator[str]:
    """When the device began to slow down, by each sign that there is: its own word, its clocks, and latency.

    `looks` are in order, the first one before the run; `medians` are each minute's latency.
    """
    first, *later = looks
    yield from _told(first, later)
    yield from _fallen(first, later)
    slow = next((n for n in range(len(medians)) if min(medians[n:]) > SLOWER * medians[0]), None)
    if slow is not None:
        worst = max(medians) / medians[0]
        yield f"from minute {slow + 1} on runs took more than {SLOWER:g} times the first minute's ({worst:.2f} at most)"


def _told(first: Look, later: Sequence[Look]) -> Iterator[str]:
    if first.conditions.get("throttled"):
        yield f"it was slowed down from the start: {first.conditions['throttled']}"
        return
    slowed = next((look for look in later if look.conditions.get("throttled")), None)
    counted = next((look for look in later if _count(look) > _count(first)), None)
    if slowed is not None:
        yield f"throttling began after {_time(slowed)}{_heat(slowed)}: {slowed.conditions['throttled']}"
    elif counted is not None:
        yield f"throttling began after {_time(counted)}{_heat(counted)}: cores were slowed for heat"


def _fallen(first: Look, later: Sequence[Look]) -> Iterator[str]:
    """Nothing where a clock rose after the start: it was idle then, so the highest one seen is what counts."""
    best = _clock(first)
    for look in later:
        clock = _clock(look)
        best = max(best, clock)
        if 0 < clock < FALLEN * best:
            yield f"clocks fell from {best:.0f} to {clock:.0f} MHz after {_time(look)}{_heat(look)}"
            return


def _count(look: Look) -> int:
    return look.conditions.get("throttle_count") or 0


def _clock(look: Look) -> float:
    return max((clock.get("mhz") or 0.0 for clock in look.conditions.get("clocks", ())), default=0.0)


def _heat(look: Look) -> str:
    heat = look.conditions.get("temperature_c")
    return "" if heat is None else f", at {heat:.1f} °C"


def _time(look: Look) -> str:
    minutes, seconds = divmod(round(look.at_s), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def parse_minutes(text: str) -> int:
    """`30m` or `1h`. Raises: RecipeError."""
    match = re.fullmatch(r"(\d+)(m|h)", text)
    if not match or int(match[1]) == 0:
        raise RecipeError(f"--sustained {text!r} is no time; write 30m or 1h")
    return int(match[1]) * (60 if match[2] == "h" else 1)
