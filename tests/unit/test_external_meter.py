"""A power meter of its own: logs of every unit, and the right joules whatever its clock says and loses."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.cli.console import open_registry
from edgewright.errors import RefusedError
from edgewright.measuring.alignment import Burst
from edgewright.measuring.energy import energy_in, energy_of
from edgewright.measuring.instrument import recording_of
from edgewright.measuring.metering import Metered, metered
from edgewright.measuring.timings import Setting
from edgewright.protocols import PowerLog
from edgewright.types import Mark
from edgewright_devices.meters.external import EXTERNAL, LOG, PORT
from edgewright_devices.meters.powerlog import read_log

S = 1_000_000_000
pure = settings(deadline=None, derandomize=True, max_examples=60)
FIRST, LAST = Burst(102 * S, 104 * S), Burst(140 * S, 142 * S)
IDLE_W, BURST_W, RUN_W = 2.0, 4.0, 6.5
RUNS = [Mark("model", 110 * S, 120 * S, 100), Mark("model", 124 * S, 134 * S, 100, 1)]


def watts_at(device_s: np.ndarray) -> np.ndarray:
    """What the device takes: at rest, in bursts, and while the model runs."""
    found = np.full(len(device_s), IDLE_W)
    windows = [(FIRST, BURST_W), (LAST, BURST_W), *((mark, RUN_W) for mark in RUNS)]
    for window, watts in windows:
        found[(device_s >= window.begin_ns / 1e9) & (device_s < window.end_ns / 1e9)] = watts
    return found


@dataclass(frozen=True)
class Clock:
    """An instrument's clock: ahead of the device's by `offset`, and faster by `drift`."""

    offset: float = 0.0
    drift: float = 0.0

    def log(self, hertz: float, noise: float = 0.0, lost: float = 0.0, begin: float = 95, end: float = 150) -> PowerLog:
        device_s = np.arange(begin, end, 1 / hertz)
        rng = np.random.default_rng(3)
        watts = watts_at(device_s) + noise * rng.standard_normal(len(device_s))
        kept = rng.random(len(device_s)) >= lost
        own = self.offset + device_s * (1 + self.drift)
        return PowerLog(tuple(zip(own[kept].tolist(), watts[kept].tolist(), strict=True)), int((~kept).sum()))


def joules(log: PowerLog) -> float:
    return energy_in(recording_of(log, FIRST, LAST, RUNS, meter="external", scope="all").traces, RUNS)


@pure
@given(st.floats(-2e9, 2e9), st.floats(-0.004, 0.004), st.sampled_from([10.0, 50.0, 1000.0]))
def test_offset_and_drift_do_not_change_the_joules(offset: float, drift: float, hertz: float) -> None:
    found = recording_of(Clock(offset, drift).log(hertz, noise=0.05), FIRST, LAST, RUNS, meter="external", scope="all")
    # A window's ends are known to a fraction of a sample; 4 ends, each between 2 and 6.5 W.
    assert energy_in(found.traces, RUNS) == pytest.approx(20 * RUN_W, abs=4 * 4.5 / hertz + 0.2)
    assert found.conditions["clock_drift"] == pytest.approx(1 / (1 + drift) - 1, abs=2 / (38 * hertz) + 1e-4)


@pure
@given(st.floats(0, 0.3), st.floats(-1e6, 1e6))
def test_missing_samples_are_bridged_and_counted(lost: float, offset: float) -> None:
    log = Clock(offset).log(100.0, lost=lost)
    found = recording_of(log, FIRST, LAST, RUNS, meter="external", scope="all")
    assert energy_in(found.traces, RUNS) == pytest.approx(20 * RUN_W, rel=0.02)
    assert found.traces[0].missed == log.missed
    energy = energy_of(found, "model", Setting("measured", {}))
    assert energy.total.value == pytest.approx(1e3 * 20 * RUN_W / 200, rel=0.02)


def test_a_gap_in_the_runs_makes_no_figure() -> None:
    whole = Clock().log(100.0)
    holed = PowerLog(tuple(each for each in whole.samples if not 112 < each[0] < 118))
    found = recording_of(holed, FIRST, LAST, RUNS, meter="external", scope="all")
    assert "told nothing for 30% of the time" in energy_of(found, "model", Setting("measured", {})).total.reason


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (Clock().log(100.0, begin=110), "does not span the measurement"),
        (PowerLog(()), "does not span the measurement"),
        (PowerLog(tuple((t / 100, 2.0) for t in range(9000, 16000))), "no two bursts of load 38.0 s apart stand out"),
        (
            PowerLog(tuple((t / 100, float(w)) for t, w in enumerate(np.random.default_rng(0).normal(2, 1, 7000)))),
            "is it this device that it measures?",
        ),
    ],
)
def test_a_log_without_the_bursts_is_refused(log: PowerLog, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason.replace("?", r"\?")):
        joules(log)


# ------------------------------------------------------------------ logs


@pytest.mark.parametrize(
    ("heading", "row"),
    [
        ("time_s,power_w", "1.5,2.4"),
        ("time_ms,power_mw", "1500,2400"),
        ("Timestamp (ms);Power (mW)", "1500;2400,0"),
        ("t [s]\tvoltage [V]\tcurrent [mA]", "1,5\t4,8\t500"),
        ('"Time","V","A"', "1.5,4.8,0.5"),
        ("n,elapsed_us,voltage_mv,current_ua,power_w", "7,1500000,1,1,2.4"),
        ("time,watts", "1970-01-01T00:00:01.500Z,2.4"),
    ],
)
def test_every_unit_is_read(heading: str, row: str) -> None:
    found = read_log(f"# an instrument\n{heading}\r\n{row}\r\n", "log.csv")
    assert found.missed == 0
    assert found.samples[0] == pytest.approx((1.5, 2.4))


@pure
@given(st.lists(st.one_of(st.floats(0, 100).map(lambda w: f"{w:.6f}"), st.sampled_from(["", "nan", "OL", "inf"]))))
def test_rows_without_a_number_are_counted(cells: list[str]) -> None:
    text = "\n".join(["time_s,power_w", *(f"{n},{cell}" for n, cell in enumerate(cells))])
    found = read_log(text, "log.csv")
    good = [(float(n), float(cell)) for n, cell in enumerate(cells) if cell.replace(".", "").isdigit()]
    assert list(found.samples) == good
    assert found.missed == len(cells) - len(good)


@pytest.mark.parametrize("text", ["", "time_s,humidity\n1,2\n", "power_w\n1\n", "time_s,voltage_v\n1,2\n"])
def test_a_log_that_tells_no_power_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RefusedError, match="time_s,power_mw"):
        read_log(text, "log.csv")


# ------------------------------------------------------------------ the whole way


def test_energy_is_read_with_an_instrument_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program writes what a device would take by its own clock; what the agent does is known from the marks."""
    from edgewright.agents.agent import start_agent
    from edgewright_devices.local import LOCAL

    log, busy, ended = tmp_path / "log.csv", threading.Event(), threading.Event()
    log.write_text("time_ms,power_mw\n")
    monkeypatch.setenv(LOG, str(log))
    monkeypatch.setattr("edgewright.measuring.instrument.BURST_S", 0.6)
    monkeypatch.setattr("edgewright.measuring.instrument.BURST_PERIODS", 1)

    def note() -> None:
        with log.open("a", buffering=1) as file:
            while not ended.wait(0.01):
                file.write(f"{time.perf_counter() * 1001 + 5e6:.3f},{4000 if busy.is_set() else 2000}\n")

    writer = threading.Thread(target=note)
    writer.start()
    link = LOCAL.open("")
    try:
        with start_agent(link, tmp_path / "agents") as agent:
            plain = agent.rest

            def rest(seconds: float, *, busy_there: bool = False, **how: bool) -> tuple[int, int]:
                if how.get("busy") or busy_there:
                    busy.set()
                try:
                    return plain(seconds, **how)
                finally:
                    busy.clear()

            monkeypatch.setattr(agent, "rest", rest)
            with metered(agent, ["external"], open_registry()) as meter:
                assert isinstance(meter, Metered)
                begin, end = rest(2.0, busy_there=True)
                meter.marks.append(Mark("model", begin, end, 10))
    finally:
        ended.set()
        writer.join()
        link.close()
    assert meter.recording is not None, meter.reason
    found = energy_of(meter.recording, "model", Setting("measured", {}))
    assert found.total.value == pytest.approx(1e3 * 4 * (end - begin) / 1e9 / 10, rel=0.1), found.total.reason
    assert found.idle.value == pytest.approx(1e3 * 2 * (end - begin) / 1e9 / 10, rel=0.1)


def test_what_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LOG, raising=False)
    monkeypatch.delenv(PORT, raising=False)
    with pytest.raises(RefusedError, match=f"set {LOG}=FILE.csv"):
        EXTERNAL.start()
    monkeypatch.setenv(LOG, str(tmp_path / "none.csv"))
    with pytest.raises(RefusedError, match="start the power meter's program first"):
        EXTERNAL.start()
    monkeypatch.delenv(LOG)
    monkeypatch.setenv(PORT, "/dev/no-such-port")
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(RefusedError, match="pip install pyserial"):
        EXTERNAL.start()


def test_a_serial_port_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("serial", reason="pyserial is not installed")
    ours, theirs = os.openpty()
    monkeypatch.delenv(LOG, raising=False)
    monkeypatch.setenv(PORT, os.ttyname(theirs))
    recorder = EXTERNAL.start()
    for _ in range(5):
        os.write(ours, b"2.25\r\n")
        time.sleep(0.05)
    os.write(ours, b"OL\r\n")
    time.sleep(0.3)
    found = recorder.stop()
    assert [watts for _, watts in found.samples] == [2.25] * 5
    assert found.missed == 1
    times = [at for at, _ in found.samples]
    assert times == sorted(times)
    os.close(ours)
    os.close(theirs)
