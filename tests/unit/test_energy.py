"""Energy from traces and marks: right joules whatever the wrap, the unit, the gaps and the length of a run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.measuring.energy import IDLE, LEAST_SAMPLES, counted, energy_in, energy_of, fault, joules_at, samples_in
from edgewright.measuring.metering import trace_of
from edgewright.measuring.timings import Setting
from edgewright.types import Mark, Recording, Source, Trace

MS = 1_000_000
SETTING = Setting("measured", {})
pure = settings(deadline=None, derandomize=True)

steps = st.lists(st.integers(1, 20), min_size=60, max_size=200)
"""Milliseconds from one sample to the next."""


def times_of(gaps: list[int], start: int = 5_000_000_000) -> list[int]:
    found = [start]
    for gap in gaps:
        found.append(found[-1] + gap * MS)
    return found


def trace(kind: str, samples: list[tuple[int, float]], **more: object) -> Trace:
    fields = {"unit": "µJ", "scale": 1e-6, "period_ns": 5 * MS, **more}
    return Trace("rail", "board", kind, samples=tuple(samples), **fields)  # pyright: ignore[reportArgumentType]


@pure
@given(steps, st.integers(1, 40), st.integers(200_000, 10_000_000), st.integers(0, 10_000_000))
def test_a_counter_that_wraps_tells_the_joules_of_one_that_does_not(gaps: list[int], watts: int, wrap: int, at: int):
    times = times_of(gaps)
    plain = [(ns, at + watts * (ns - times[0]) // 1000) for ns in times]
    # One wrap between two samples is all that a counter can show.
    wrap = max(wrap, 1 + max(b - a for (_, a), (_, b) in zip(plain, plain[1:], strict=False)))
    wrapped = trace("counter", [(ns, value % wrap) for ns, value in plain], wrap=wrap)
    seconds = (times[-1] - times[0]) / 1e9
    assert energy_in([wrapped], [Mark("a", times[0], times[-1])]) == pytest.approx(watts * seconds, rel=1e-6, abs=1e-5)


@pure
@given(steps, st.floats(0.1, 100), st.data())
def test_steady_power_is_power_times_time_wherever_the_window_lies(gaps: list[int], watts: float, data: st.DataObject):
    times = times_of(gaps)
    begin = data.draw(st.integers(times[0], times[-2]))
    end = data.draw(st.integers(begin + 1, times[-1]))
    power = trace("power", [(ns, watts * 1e6) for ns in times])
    assert energy_in([power], [Mark("a", begin, end)]) == pytest.approx(watts * (end - begin) / 1e9, rel=1e-6, abs=1e-9)


@pure
@given(steps, st.data())
def test_windows_that_touch_add_up(gaps: list[int], data: st.DataObject):
    times = times_of(gaps)
    power = trace("power", [(ns, data.draw(st.integers(0, 10**7))) for ns in times])
    cut = data.draw(st.integers(times[0], times[-1]))
    parts = energy_in([power], [Mark("a", times[0], cut), Mark("a", cut, times[-1])])
    assert parts == pytest.approx(energy_in([power], [Mark("a", times[0], times[-1])]), abs=1e-9)


@pure
@given(steps, st.data())
def test_a_counter_loses_nothing_with_samples_that_are_missing(gaps: list[int], data: st.DataObject):
    times = times_of(gaps)
    values = [0.0]
    for _ in times[1:]:
        values.append(values[-1] + data.draw(st.integers(0, 10**6)))
    everything = list(zip(times, values, strict=True))
    kept = [everything[0], *(each for each in everything[1:-1] if data.draw(st.booleans())), everything[-1]]
    window = [Mark("a", times[0], times[-1])]
    assert energy_in([trace("counter", kept)], window) == pytest.approx(
        energy_in([trace("counter", everything)], window)
    )


@pure
@given(st.integers(1, 10**6), st.integers(-(10**12), 10**12), st.sampled_from([(1e-6, 1.0), (1e-3, 1e-3), (1.0, 1e-6)]))
def test_unit_and_clock_change_nothing(step: int, shift: int, unit: tuple[float, float]):
    scale, factor = unit
    times = times_of([5] * 100)
    usual = trace("counter", [(ns, float(i * step)) for i, ns in enumerate(times)])
    other = trace("counter", [(ns + shift, i * step * factor) for i, ns in enumerate(times)], scale=scale)
    window = Mark("a", times[3] + MS, times[90] - MS)
    moved = replace(window, begin_ns=window.begin_ns + shift, end_ns=window.end_ns + shift)
    assert energy_in([other], [moved]) == pytest.approx(energy_in([usual], [window]), rel=1e-6)


def test_a_window_outside_of_the_trace_has_no_energy():
    power = trace("power", [(ns, 1e6) for ns in times_of([5] * 100)])
    assert math.isnan(joules_at(power, [0])[0])
    assert "does not span" in fault(Recording("m", (power,), ()), [Mark("a", 0, times_of([5] * 100)[-1], 1)])


# ------------------------------------------------------------------ figures


def recording(run_ms: float, runs: int, watts: float = 8.0, idle: float = 3.0, period_ms: int = 5) -> Recording:
    """A device that rests, and then runs: a board input, and a rail that is part of it."""
    load_ms = round(run_ms * runs)
    rest, begin = 100 * period_ms * MS, 1_000_000_000
    turn = begin + rest
    times = range(begin - 2 * period_ms * MS, turn + (load_ms + 2 * period_ms) * MS, period_ms * MS)
    board = [(ns, (idle if ns < turn else watts) * 1e6) for ns in times]
    shared = {"period_ns": period_ms * MS}
    traces = (
        replace(trace("power", board, **shared), rail="VDD_IN", whole=True),
        replace(trace("power", [(ns, w / 2) for ns, w in board], **shared), rail="VDD_SOC"),
    )
    marks = (
        Mark(IDLE, begin, turn - period_ms * MS),
        *(Mark("a", turn + load_ms * n // 4 * MS, turn + load_ms * (n + 1) // 4 * MS, runs // 4, n) for n in range(4)),
    )
    return Recording("ina3221", traces, marks)


@pytest.mark.parametrize(("run_ms", "runs", "period_ms"), [(5, 400, 5), (2000, 12, 430), (0.2, 20000, 5)])
def test_total_idle_and_net_of_quick_and_slow_models(run_ms: float, runs: int, period_ms: int):
    found = energy_of(recording(run_ms, runs, period_ms=period_ms), "a", SETTING)
    assert found.total.value == pytest.approx(8.0 * run_ms)
    assert found.idle.value == pytest.approx(3.0 * run_ms, rel=1e-3)
    assert found.net.value == pytest.approx(5.0 * run_ms, rel=1e-3)
    assert found.total.instrument == "ina3221: VDD_IN"
    rails = found.total.conditions["rails"]
    assert {name: round(rail["watts"], 3) for name, rail in rails.items()} == {"VDD_IN": 8.0, "VDD_SOC": 4.0}
    assert found.total.conditions["interval_s"] == pytest.approx(run_ms * runs / 1e3)


def test_without_a_rail_for_all_of_it_rails_are_added():
    both = tuple(replace(each, whole=False) for each in recording(5, 400).traces)
    assert counted(both) == both
    found = energy_of(replace(recording(5, 400), traces=both), "a", SETTING)
    assert found.total.value == pytest.approx((8 + 4) * 5.0)
    assert found.total.instrument == "ina3221: VDD_IN + VDD_SOC"


def test_too_few_samples_make_no_figure():
    found = energy_of(recording(5, 40, period_ms=5), "a", SETTING)  # 200 ms: 41 samples
    assert found.total.value is None
    assert f"{LEAST_SAMPLES} are needed" in found.total.reason
    assert found.recording is not None


def test_samples_that_come_faster_than_the_sensor_has_new_ones_do_not_count():
    many = trace("power", [(ns, 1e6) for ns in times_of([1] * 2000)], period_ns=430 * MS)
    assert samples_in(many, [Mark("a", many.samples[0][0], many.samples[-1][0], 1)]) == 6


def test_power_that_was_not_seen_for_long_makes_no_figure():
    whole = recording(5, 400)
    lost = whole.marks[1].begin_ns
    rails = tuple(
        replace(
            each,
            samples=tuple(s for s in each.samples if not lost < s[0] < lost + 400 * MS),
            missed=80,
            reason="No data available",
        )
        for each in whole.traces
    )
    found = energy_of(replace(whole, traces=rails), "a", SETTING).total
    assert found.value is None
    assert "told nothing for 2" in found.reason
    assert "No data available" in found.reason


def test_a_counter_that_runs_backwards_without_a_known_wrap_is_refused():
    times = times_of([5] * 100)
    torn = trace("counter", [(ns, float(i % 50)) for i, ns in enumerate(times)])
    assert "ran backwards" in fault(Recording("m", (torn,), ()), [Mark("a", times[0], times[-1], 1)])


def test_idle_that_was_not_seen_leaves_the_total():
    whole = recording(5, 400)
    found = energy_of(replace(whole, marks=whole.marks[1:]), "a", SETTING)
    assert found.total.value == pytest.approx(40.0)
    assert (found.idle.value, found.net.value) == (None, None)


def test_the_ratio_is_paired_by_rounds_and_a_drift_meets_both():
    """Each round draws 20 % more than the one before, the candidate always half of the original."""
    times = times_of([5] * 2000)
    marks: list[Mark] = []
    watts: list[float] = []
    for i, ns in enumerate(times):
        turn, place = divmod(i, 200)
        watts.append(1.2**turn * (4.0 if place < 100 else 2.0))
        if place in (10, 110) and i + 80 < len(times):
            marks.append(Mark("ab"[place > 100], ns, times[i + 80], 10, turn))
    power = trace("power", [(ns, w * 1e6) for ns, w in zip(times, watts, strict=True)])
    ratio = energy_of(Recording("m", (power,), tuple(marks)), "b", SETTING, "a").ratio
    assert ratio is not None
    assert ratio.value == pytest.approx(2.0)
    assert ratio.interval == pytest.approx((2.0, 2.0))


def test_a_sensor_of_a_test_is_simulated():
    found = energy_of(replace(recording(5, 400), simulated=True), "a", SETTING)
    assert {found.total.kind, found.idle.kind, found.net.kind} == {"simulated"}


# ------------------------------------------------------------------ raw rows


def rail(**source: object) -> dict[str, object]:
    usual = {"rail": "battery", "scope": "s", "kind": "power", "unit": "µA µV", "scale": 1e-12, "period_ns": MS}
    stated = Source(**{**usual, **source})  # pyright: ignore[reportArgumentType]
    return {"source": vars(stated), "rail": "battery", "wrap": None, "whole": True}


@pytest.mark.parametrize("rows", [[(0, -482000, 3987000)], [(0, 482000, 3987000)], [(0, -482, 3987000)]])
def test_a_phone_draws_the_same_whatever_sign_and_unit_its_driver_takes(rows: list[tuple[int, int, int]]):
    found = trace_of(rail(coarse_below=10_000), rows, {})
    assert found.samples[0][1] * found.scale == pytest.approx(1.921734)
