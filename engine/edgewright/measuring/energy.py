"""From traces and marks to joules: wrap-around, integration, idle and net, in one place.

A trace becomes a curve of joules against time: a counter is unwrapped, power is integrated between samples. Energy
over a window is the difference of the curve at its ends, so windows need not begin at samples and those that touch
add up. What a run takes is the energy of its windows over its runs; idle is what the device would have taken in that
time doing nothing; net is the difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgewright.measuring import stats
from edgewright.measuring.timings import Energy, Setting
from edgewright.types import Mark, Measurement, Recording, Trace, unknown

IDLE = "idle"

QUANTITIES = ("energy", "idle energy", "net energy")

LEAST_SAMPLES = 50
"""Readings in a figure's windows; with fewer there is no figure."""

GAP_PERIODS = 3
"""Power between samples further apart than this is not known; a counter goes on counting."""

MOST_UNKNOWN = 0.1
"""The share of a window in which power may be unknown."""

Floats = npt.NDArray[np.float64]


def joules_at(trace: Trace, at_ns: Sequence[int]) -> Floats:
    """Joules since the first sample, at each time; NaN outside of the trace."""
    times = np.asarray([ns for ns, _ in trace.samples], np.int64)
    if len(times) < 2:
        return np.full(len(at_ns), np.nan)
    seconds = (times - times[0]) / 1e9
    where = (np.asarray(at_ns, np.int64) - times[0]) / 1e9
    return np.interp(where, seconds, _curve(trace, seconds), left=np.nan, right=np.nan)


def _curve(trace: Trace, seconds: Floats) -> Floats:
    """Joules since the first sample, at each sample."""
    raw = np.asarray([value for _, value in trace.samples], np.float64)
    steps = np.diff(raw)
    if trace.kind == "counter":
        if trace.wrap is not None:
            steps = np.where(steps < 0, steps + trace.wrap, steps)
    else:
        steps = (raw[1:] + raw[:-1]) / 2 * np.diff(seconds)
    return np.concatenate(([0.0], np.cumsum(steps * trace.scale)))


def energy_in(traces: Sequence[Trace], marks: Sequence[Mark]) -> float:
    """Joules of all these rails together while the marks' windows were open; NaN where a trace does not hold one."""
    ends = [ns for mark in marks for ns in (mark.begin_ns, mark.end_ns)]
    return float(sum((joules_at(t, ends)[1::2] - joules_at(t, ends)[::2]).sum() for t in traces))


def counted(traces: Sequence[Trace]) -> tuple[Trace, ...]:
    """The rails that make the figure: one that includes the others where there is one, else all of them."""
    return tuple(t for t in traces if t.whole)[:1] or tuple(traces)


def samples_in(trace: Trace, marks: Sequence[Mark]) -> int:
    """Readings inside of the windows; those that come faster than the sensor has new ones do not count."""
    times = np.asarray([ns for ns, _ in trace.samples], np.int64)
    found = sum(int(np.searchsorted(times, m.end_ns, "right") - np.searchsorted(times, m.begin_ns)) for m in marks)
    return min(found, round(_length(marks) / (trace.period_ns / 1e9)) + 1)


def unknown_share(trace: Trace, marks: Sequence[Mark]) -> float:
    """The share of the windows in which the power is not known."""
    if trace.kind == "counter" or not marks:
        return 0.0
    times = np.asarray([ns for ns, _ in trace.samples], np.float64)
    wide = np.diff(times) > GAP_PERIODS * trace.period_ns
    gaps = list(zip(times[:-1][wide], times[1:][wide], strict=True))
    lost = sum(max(0.0, min(m.end_ns, end) - max(m.begin_ns, begin)) for m in marks for begin, end in gaps)
    return lost / 1e9 / _length(marks)


def fault(recording: Recording, marks: Sequence[Mark]) -> str:
    """Why the windows of these marks support no figure; nothing when they do."""
    if not marks:
        return "nothing ran while the meter was read"
    for trace in counted(recording.traces):
        found, lost = samples_in(trace, marks), unknown_share(trace, marks)
        if trace.kind == "counter" and trace.wrap is None and np.any(np.diff([v for _, v in trace.samples]) < 0):
            return f"the counter of {trace.rail} ran backwards, and where it wraps is not known"
        if found < LEAST_SAMPLES:
            why = f"; {trace.missed} readings failed: {trace.reason}" if trace.missed else ""
            seen = f"{found} samples of {trace.rail} in {_length(marks):.3g} s"
            return f"{seen} are too few; {LEAST_SAMPLES} are needed{why}"
        if lost > MOST_UNKNOWN:
            return f"{trace.rail} told nothing for {lost:.0%} of the time{f': {trace.reason}' if trace.reason else ''}"
        if math.isnan(energy_in([trace], marks)):
            return f"the trace of {trace.rail} does not span the measurement"
    return ""


# ------------------------------------------------------------------ figures


def energy_of(recording: Recording, what: str, setting: Setting, reference: str = "") -> Energy:
    """What a candidate takes per inference; `reference` is the candidate that the ratio refers to."""
    marks = [mark for mark in recording.marks if mark.what == what]
    setting = replace(setting, kind="simulated" if recording.simulated else setting.kind)
    reason = fault(recording, marks)
    if reason:
        total, idle, net = (unknown(name, "mJ", reason) for name in QUANTITIES)
        return Energy(total, idle, net, recording=recording)
    total, runs = energy_in(counted(recording.traces), marks), sum(mark.runs for mark in marks)
    _, interval = stats.mean_interval(list(_rounds(recording, what).values()))
    plain = _measurement(recording, marks, setting)
    pooled = 1e3 * total / runs
    found = replace(plain, value=pooled, n=runs, interval=interval and _holding(interval, pooled), statistic="mean")
    ratio = _ratio(recording, what, reference, plain) if reference else None
    return Energy(found, *_idle_and_net(recording, marks, found), ratio, recording)


def _holding(interval: stats.Interval, value: float) -> stats.Interval:
    return min(interval[0], value), max(interval[1], value)


def _rounds(recording: Recording, what: str) -> dict[int, float]:
    """Millijoules per run, by round."""
    marks = [mark for mark in recording.marks if mark.what == what]
    found: dict[int, float] = {}
    for turn in sorted({mark.turn for mark in marks}):
        own = [mark for mark in marks if mark.turn == turn]
        found[turn] = 1e3 * energy_in(counted(recording.traces), own) / sum(mark.runs for mark in own)
    return found


def _idle_and_net(recording: Recording, marks: Sequence[Mark], total: Measurement) -> tuple[Measurement, Measurement]:
    """What the windows would have cost at idle, and what is left without it; unknown when idle was not seen well."""
    resting = [mark for mark in recording.marks if mark.what == IDLE]
    reason = fault(recording, resting)
    if reason or total.value is None:
        return unknown("idle energy", "mJ", f"at idle {reason}"), unknown("net energy", "mJ", f"at idle {reason}")
    watts = energy_in(counted(recording.traces), resting) / _length(resting)
    idle = 1e3 * watts * _length(marks) / total.n
    ends = None if total.interval is None else (total.interval[0] - idle, total.interval[1] - idle)
    noting = {**total.conditions, "idle_w": watts, "idle_s": _length(resting)}
    return (
        replace(total, quantity="idle energy", value=idle, interval=None, conditions=noting),
        replace(total, quantity="net energy", value=total.value - idle, interval=ends, conditions=noting),
    )


def _ratio(recording: Recording, what: str, reference: str, plain: Measurement) -> Measurement:
    """How many times less energy than the reference, paired by rounds."""
    first, this = _rounds(recording, reference), _rounds(recording, what)
    logs = [math.log(first[turn] / this[turn]) for turn in this if first.get(turn, 0) > 0 and this[turn] > 0]
    if not logs:
        return unknown("energy ratio", "x", "no round of both drew energy")
    value, interval = stats.ratio_over_rounds(logs)
    words = "ratio of the energies of a round, trimmed mean over rounds"
    return replace(
        plain, quantity="energy ratio", value=value, unit="x", n=len(logs), interval=interval, statistic=words
    )


def _measurement(recording: Recording, marks: Sequence[Mark], setting: Setting) -> Measurement:
    """All but the value: rails and scopes, interval, samples, watts, and the cost of reading."""
    used = counted(recording.traces)
    seconds = _length(marks)
    rails: dict[str, Any] = {
        trace.rail: {
            "scope": trace.scope,
            "watts": energy_in([trace], marks) / seconds,
            "samples": samples_in(trace, marks),
            "missed": trace.missed,
        }
        for trace in recording.traces
        if not math.isnan(energy_in([trace], marks))
    }
    return Measurement(
        "energy",
        None,
        "mJ",
        instrument=f"{recording.meter}: {' + '.join(trace.rail for trace in used)}",
        kind=setting.kind,
        conditions=setting.noting(
            scope=" + ".join(dict.fromkeys(trace.scope for trace in used)),
            rails=rails,
            interval_s=seconds,
            watts=energy_in(used, marks) / seconds,
            sensor_resolution=max(trace.resolution for trace in used),
            poller_cpu=recording.cost,
            **recording.conditions,
        ).conditions,
    )


def _length(marks: Sequence[Mark]) -> float:
    """Seconds of all windows."""
    return sum(mark.end_ns - mark.begin_ns for mark in marks) / 1e9
