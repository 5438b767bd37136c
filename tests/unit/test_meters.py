"""Meters read by a real agent, on file trees in the formats that kernels have; what they tell is labelled simulated."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewright.agents.agent import Agent, start_agent
from edgewright.errors import InputError
from edgewright.measuring.energy import energy_in, energy_of
from edgewright.measuring.metering import ROOT, Metered, NoMeter, metered, trace_of
from edgewright.measuring.timings import Setting
from edgewright.registry import Registry
from edgewright.types import Device, Mark, Recording
from edgewright_devices.local import LOCAL
from edgewright_devices.meters.battery import BATTERY
from edgewright_devices.meters.ina3221 import INA3221
from edgewright_devices.meters.nvml import NVML
from edgewright_devices.meters.pmic import PMIC
from edgewright_devices.meters.rapl import RAPL
from edgewright_runtime.sensors import find_rails, read_rails
from shunt import WATTS, install_shunt

HWMON = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
RAPL_ZONE = "sys/class/powercap/intel-rapl:"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """A real agent on this machine."""
    link = LOCAL.open("")
    with start_agent(link, tmp_path_factory.mktemp("agents")) as started:
        yield started
    link.close()


@pytest.fixture
def board(agent: Agent) -> Callable[..., Device]:
    """This machine, if it were another one."""
    return lambda **what: replace(agent.device(), **what)


def tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def jetson(root: Path, labels: Sequence[str], folder: str = HWMON) -> Path:
    """One chip as JetPack 5 and 6 show it, with the voltages over the shunts that are no rails."""
    rails = {f"{folder}/in{n}_label": label for n, label in enumerate(labels, 1)}
    volts = {f"{folder}/in{n}_input": 5072 for n in (1, 2, 3)}
    amperes = {f"{folder}/curr{n}_input": 1152 // n for n in (1, 2, 3)}
    shunts = {f"{folder}/in{n}_input": 5760 for n in (4, 5, 6, 7)}
    return tree(root, {**rails, **volts, **amperes, **shunts, f"{folder}/in7_label": "sum of shunt voltages"})


def watts(sources: Sequence[Any], root: Path) -> dict[str, float]:
    """One reading of each rail, in W or J."""
    rails, absent = find_rails(sources, str(root))
    assert rails, absent
    found: dict[str, float] = {}
    for each, (at, values) in zip(rails, read_rails(rails), strict=True):
        (sample,) = trace_of(each.described(), [(at, *values)], {}).samples
        found[each.rail] = sample[1] * each.source.scale
    return found


# ------------------------------------------------------------------ formats


def test_jetson_rails_by_their_labels(tmp_path: Path, board: Callable[..., Device]):
    sources = INA3221.sources(board(isa="aarch64"))
    root = jetson(tmp_path, ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"])
    found = watts(sources, root)
    assert found == pytest.approx({"VDD_IN": 5.842944, "VDD_CPU_GPU_CV": 2.921472, "VDD_SOC": 1.947648})
    rails, absent = find_rails(sources, str(root))
    assert [rail.whole for rail in rails] == [True, False, False]
    assert {rail.source.period_ns for rail in rails} == {430_000_000}
    tree(root, {f"{HWMON}/update_interval": 70})
    assert {rail.source.period_ns for rail in find_rails(sources, str(root))[0]} == {70_000_000}
    assert absent == ["/sys/bus/i2c/drivers/ina3221x/*/iio:device* is not there"]


def test_agx_orin_has_two_chips_no_input_rail_and_an_unused_channel(tmp_path: Path, board: Callable[..., Device]):
    jetson(tmp_path, ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"])
    second = HWMON.replace("1-0040", "1-0041").replace("hwmon3", "hwmon4")
    jetson(tmp_path, ["NC", "VDDQ_VDD2_1V8AO", "NC"], second)
    sources = INA3221.sources(board(isa="aarch64"))
    assert sorted(watts(sources, tmp_path)) == ["VDDQ_VDD2_1V8AO", "VDD_CPU_CV", "VDD_GPU_SOC", "VIN_SYS_5V0"]
    assert not any(rail.whole for rail in find_rails(sources, str(tmp_path))[0])


def test_older_jetpack_tells_milliwatts(tmp_path: Path, board: Callable[..., Device]):
    folder = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    root = tree(tmp_path, {f"{folder}/rail_name_0": "POM_5V_IN", f"{folder}/in_power0_input": 2545})
    assert watts(INA3221.sources(board(isa="aarch64")), root) == pytest.approx({"POM_5V_IN": 2.545})


def test_rapl_takes_packages_and_memory_and_no_part_of_them(tmp_path: Path, board: Callable[..., Device]):
    names = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "1:0": "dram", "2": "psys"}
    for zone, name in names.items():
        usual = {"name": name, "energy_uj": 48215336871, "max_energy_range_uj": 262143328850}
        tree(tmp_path, {f"{RAPL_ZONE}{zone}/{file}": text for file, text in usual.items()})
    rails, _ = find_rails(RAPL.sources(board(isa="x86_64")), str(tmp_path))
    assert [rail.rail for rail in rails] == [
        "package-0",
        "dram of intel-rapl:0:1",
        "package-1",
        "dram of intel-rapl:1:0",
    ]
    assert {rail.wrap for rail in rails} == {262143328850}
    assert not RAPL.sources(board(isa="aarch64"))


def test_a_counter_that_only_root_may_read_comes_with_the_command(board: Callable[..., Device]):
    sources, zone = RAPL.sources(board(isa="x86_64")), f"{RAPL_ZONE}0"
    with tempfile.TemporaryDirectory() as place:
        root = tree(Path(place), {f"{zone}/name": "package-0", f"{zone}/energy_uj": 1})
        with as_nobody(root, root / zone / "energy_uj"):
            rails, absent = find_rails(sources, str(root))
    assert not rails
    assert "Permission denied" in absent[0]
    assert "run: sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj" in absent[0]


@contextmanager
def as_nobody(place: Path, secret: Path) -> Iterator[None]:
    """As a user who may enter the folder `place`, and not read the file."""
    place.chmod(0o755)
    secret.chmod(0)
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())


@pytest.mark.parametrize(("current", "power"), [(-482000, 1.921734), (482000, 1.921734), (-482, 1.921734)])
def test_a_battery_in_every_sign_and_unit(tmp_path: Path, board: Callable[..., Device], current: int, power: float):
    folder = "sys/class/power_supply/battery"
    facts = {"current_now": current, "voltage_now": 3987000, "status": "Discharging"}
    root = tree(tmp_path, {f"{folder}/{name}": text for name, text in facts.items()})
    rails, _ = find_rails(BATTERY.sources(board(isa="aarch64")), str(root))
    ((at, values),) = read_rails(rails)
    found = trace_of(rails[0].described(), [(at, *values)], {})
    assert found.samples[0][1] * found.scale == pytest.approx(power)


def test_a_battery_that_is_charged_tells_nothing(tmp_path: Path, board: Callable[..., Device]):
    folder = "sys/class/power_supply/battery"
    facts = {"current_now": -482000, "voltage_now": 3987000, "status": "Charging"}
    root = tree(tmp_path, {f"{folder}/{name}": text for name, text in facts.items()})
    rails, absent = find_rails(BATTERY.sources(board(isa="aarch64")), str(root))
    assert not rails
    assert absent == ["battery tells nothing while it is 'Charging'; it has to be Discharging"]


def test_the_power_chip_of_a_raspberry_pi_5(
    tmp_path: Path, board: Callable[..., Device], monkeypatch: pytest.MonkeyPatch
):
    said = "     VDD_CORE_A current(7)=1.75600000A\n     VDD_CORE_V volt(15)=0.72050000V\n"
    (tmp_path / "vcgencmd").write_text(f"#!/bin/sh\nprintf '%s' '{said}'\n")
    (tmp_path / "vcgencmd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sources = PMIC.sources(board(cpu="Raspberry Pi 5 Model B Rev 1.0"))
    assert watts(sources, Path("/")) == pytest.approx({"VDD_CORE": 1.756 * 0.7205})
    assert "vcgencmd pmic_read_adc does not tell HDMI" in find_rails(sources, "/")[1]
    assert not PMIC.sources(board(cpu="Raspberry Pi 4 Model B"))


# ------------------------------------------------------------------ the poller, for real


def test_a_counter_is_read_while_it_wraps_fails_and_comes_back(tmp_path: Path, agent: Agent):
    zone = f"{RAPL_ZONE}0"
    tree(tmp_path, {f"{zone}/name": "package-0", f"{zone}/energy_uj": 0, f"{zone}/max_energy_range_uj": 3_000_000})
    rails, absent = agent.meter(RAPL.sources(replace(agent.device(), isa="x86_64")), root=str(tmp_path))
    assert (len(rails), absent) == (1, [])
    counter = tmp_path / zone / "energy_uj"
    with drawing(counter, watts=25, wrap=3_000_000):
        begin, end = agent.rest(0.4)
        counter.parent.rename(tmp_path / "away")  # a sensor that is gone for a while
        agent.rest(0.05)
        (tmp_path / "away").rename(counter.parent)
        agent.rest(0.2)
    found = agent.unmeter()
    trace = trace_of(rails[0], found["samples"][0], found["missed"][0])
    assert max(value for _, value in trace.samples) < 3_000_000
    assert energy_in([trace], [Mark("a", begin, end)]) == pytest.approx(25 * (end - begin) / 1e9, rel=0.1)
    assert trace.missed > 0
    assert 0 < found["cpu"] < 1
    lasted = trace.samples[-1][0] - trace.samples[0][0]
    assert len(trace.samples) <= lasted / trace.period_ns + 2  # nobody reads faster than the sensor


@contextmanager
def drawing(counter: Path, watts: float, wrap: int) -> Iterator[None]:
    """A counter that moves as time passes, replaced whole at each step."""
    ended = threading.Event()

    def run() -> None:
        start, partial = time.monotonic(), counter.with_suffix(".partial")
        while not ended.wait(0.001):
            try:
                partial.write_text(f"{int((time.monotonic() - start) * watts * 1e6) % wrap}\n")
                os.replace(partial, counter)
            except OSError:
                continue

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_no_sensor_is_said_and_nothing_goes_on(agent: Agent, tmp_path: Path):
    rails, absent = agent.meter(RAPL.sources(replace(agent.device(), isa="x86_64")), root=str(tmp_path))
    assert (rails, absent) == ([], ["/sys/class/powercap/intel-rapl:* is not there"])
    with pytest.raises(InputError, match="no meter is being read"):
        agent.unmeter()


def test_a_meter_of_python_says_why_it_does_not_open(agent: Agent):
    rails, absent = agent.meter(NVML.sources(agent.device()), entry="edgewright_devices.meters.nvml:NVML")
    if rails:
        agent.unmeter()
        pytest.skip("there is an NVIDIA card here")
    assert "there is no NVIDIA driver" in absent[0] or "NVML:" in absent[0]


def test_a_third_party_meter_travels_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The agent imports it from the folder that was packed, not from where it is installed here."""
    cache, site = tmp_path / "cache", tmp_path / "site"
    install_shunt(site, str(cache))
    monkeypatch.syspath_prepend(str(site))
    sys.modules.pop("edgewright_shunt", None)
    import edgewright_shunt  # pyright: ignore[reportMissingImports]

    link = LOCAL.open("")
    with start_agent(link, cache) as agent:
        sources = edgewright_shunt.SHUNT.sources(agent.device())
        rails, absent = agent.meter(sources, entry="edgewright_shunt:SHUNT")
        assert (len(rails), absent) == (1, [])
        begin, end = agent.rest(0.5)
        found = agent.unmeter()
    link.close()
    trace = trace_of(rails[0], found["samples"][0], found["missed"][0])
    marks = [Mark("a", begin, end, 10)]
    joules = energy_of(Recording("acme-shunt", (trace,), tuple(marks)), "a", Setting("measured", {})).total.value
    assert joules == pytest.approx(1e3 * WATTS * (end - begin) / 1e9 / 10, rel=0.01)


# ------------------------------------------------------------------ choosing


def test_the_first_meter_with_a_sensor_is_read(tmp_path: Path, agent: Agent, monkeypatch: pytest.MonkeyPatch):
    registry = Registry(only=())
    zone = f"{RAPL_ZONE}0"
    tree(tmp_path, {f"{zone}/name": "package-0", f"{zone}/energy_uj": 5, f"{zone}/max_energy_range_uj": 9})
    monkeypatch.setenv(ROOT, str(tmp_path))
    monkeypatch.setattr(agent, "_device", replace(agent.device(), isa="x86_64"))
    with metered(agent, ["ina3221", "rapl"], registry) as meter:
        assert isinstance(meter, Metered)
    assert meter.recording is not None
    assert (meter.recording.meter, meter.recording.simulated) == ("rapl", True)
    with metered(agent, ["ina3221"], registry) as meter:
        assert isinstance(meter, NoMeter)
    assert meter.reason.startswith("no energy meter was found on local (ina3221: it reads nothing on ")
    with metered(agent, [], registry) as meter:
        assert isinstance(meter, NoMeter)
    assert "name one with --meter" in meter.reason
