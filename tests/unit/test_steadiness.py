"""What a device is like while it is measured: read from recorded formats of sysfs and boards' own tools, and told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import RecipeError
from edgewright.measuring.steadiness import in_words, warnings
from edgewright.verbs.sustaining import Look, onsets, parse_minutes
from edgewright_runtime.circumstances import conditions

CPUFREQ = "sys/devices/system/cpu/cpufreq"
BIG_LITTLE = {
    f"{CPUFREQ}/policy0/related_cpus": "0 1 2 3\n",
    f"{CPUFREQ}/policy0/scaling_governor": "schedutil\n",
    f"{CPUFREQ}/policy0/scaling_cur_freq": "1401600\n",
    f"{CPUFREQ}/policy0/scaling_max_freq": "1803000\n",
    f"{CPUFREQ}/policy0/cpuinfo_max_freq": "1803000\n",
    f"{CPUFREQ}/policy4/related_cpus": "4 5\n",
    f"{CPUFREQ}/policy4/scaling_governor": "schedutil\n",
    f"{CPUFREQ}/policy4/scaling_cur_freq": "1197000\n",
    f"{CPUFREQ}/policy4/scaling_max_freq": "1491000\n",
    f"{CPUFREQ}/policy4/cpuinfo_max_freq": "2253000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "84500\n",
    "sys/class/thermal/thermal_zone1/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone1/temp": "100000\n",
    "sys/class/thermal/thermal_zone2/type": "gpu-off\n",
    "sys/class/thermal/thermal_zone2/temp": "-274000\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu4\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device1/cur_state": "2\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "7\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "5\n",
}
NVPMODEL = "#!/bin/sh\necho 'NVPM WARN: fan mode is not set!'\necho 'NV Power Mode: 15W'\necho 2\n"
VCGENCMD = "#!/bin/sh\necho 'throttled=0x50005'\n"


@pytest.fixture
def no_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the only one with programs, but for the shell."""
    tools = tmp_path / "bin"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    return tools


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_clocks_heat_and_what_slows_a_device_are_read(no_tools: Path, tmp_path: Path) -> None:
    found = conditions(tree(tmp_path / "root", BIG_LITTLE))
    assert found["clocks"] == [
        {"cpus": "0 1 2 3", "governor": "schedutil", "mhz": 1401.6, "limit_mhz": 1803.0, "most_mhz": 1803.0},
        {"cpus": "4 5", "governor": "schedutil", "mhz": 1197.0, "limit_mhz": 1491.0, "most_mhz": 2253.0},
    ]
    assert (found["temperature_c"], found["throttled"]) == (84.5, "cpufreq-cpu4 at step 3")
    assert (found["throttle_count"], found["power_mode"]) == (12, "")


def test_the_tools_of_boards_are_asked(no_tools: Path, tmp_path: Path) -> None:
    for name, text in (("nvpmodel", NVPMODEL), ("vcgencmd", VCGENCMD)):
        (no_tools / name).write_text(text)
        (no_tools / name).chmod(0o755)
    found = conditions(tmp_path / "nothing")
    assert (found["power_mode"], found["throttled"]) == ("15W", "under-voltage, throttled")


def test_a_machine_that_tells_nothing(no_tools: Path, tmp_path: Path) -> None:
    found = dict(conditions(tmp_path / "nothing"))
    assert found.pop("load_average") >= 0
    assert found == {**{"temperature_c": None, "clocks": [], "power_mode": "", "throttled": "", "throttle_count": None}}
    assert list(warnings({"before": found, "after": found})) == []
    assert in_words({"before": found, "after": found}) == ""
    assert list(warnings({})) == []


def test_what_was_read_is_told(no_tools: Path, tmp_path: Path) -> None:
    root = tree(tmp_path / "root", BIG_LITTLE)
    before = {**conditions(root), "cpus": [4], "load_average": 0.25}
    tree(root, {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "9\n"})
    tree(root, {"sys/class/thermal/thermal_zone0/temp": "86100\n"})
    told = {"governor": "schedutil", "before": before, "after": {**conditions(root), "load_average": 1.0}}
    assert in_words(told) == "CPUs 4, governor schedutil, clocks 1197 MHz, 84.5 to 86.1 °C, load average 0.25 to 1"
    assert list(warnings(told)) == [
        "the device was slowed down while it was measured: cpufreq-cpu4 at step 3 (before), "
        "cpufreq-cpu4 at step 3 (after); cool it or give it more power",
        "its cores were slowed for heat 2 times while they were measured",
        "clocks were held below what the processor can do: CPUs 4 5 to 1491 of 2253 MHz",
        "the device was at 86 °C in the end, where boards begin to slow down",
    ]


# ------------------------------------------------------------------ a long run


def look(at_s: float, mhz: float = 1800.0, **more: Any) -> Look:
    return Look(at_s, {"clocks": [{"mhz": mhz}], "temperature_c": 60 + at_s / 20, **more})


def test_the_moment_at_which_throttling_begins_is_told() -> None:
    looks = [look(0), look(5), look(455, throttled="throttled"), look(460, 1500.0, throttled="throttled")]
    assert list(onsets(looks, [10.0, 10.2, 11.5, 12.0])) == [
        "throttling began after 7 min 35 s, at 82.8 °C: throttled",
        "clocks fell from 1800 to 1500 MHz after 7 min 40 s, at 83.0 °C",
        "from minute 3 on runs took more than 1.1 times the first minute's (1.20 at most)",
    ]


def test_an_x86_that_only_counts(no_tools: Path) -> None:
    (told,) = onsets([look(0, throttle_count=3), look(5, throttle_count=3), look(10, throttle_count=4)], [10.0])
    assert told == "throttling began after 10 s, at 60.5 °C: cores were slowed for heat"


def test_one_slow_minute_is_no_onset() -> None:
    assert list(onsets([look(0)], [10.0, 14.0, 10.0])) == []


def test_a_clock_that_rises_when_the_load_begins_is_no_onset() -> None:
    assert list(onsets([look(0, 600.0), look(5), look(10, 1750.0)], [10.0])) == []


@given(st.lists(st.floats(9.5, 10.4), min_size=1, max_size=40), st.floats(1.2, 4), st.data())
def test_the_minute_from_which_on_all_are_slow_is_found(calm: list[float], slower: float, data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(calm)))
    medians = [each if n < start else each * slower * 1.1 for n, each in enumerate([*calm, calm[-1]])]
    (told,) = onsets([look(0)], medians)
    assert told.startswith(f"from minute {start + 1} on ")


@pytest.mark.parametrize("text", ["", "30", "0m", "m", "-3m", "1d"])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(RecipeError, match="write 30m or 1h"):
        parse_minutes(text)
    assert (parse_minutes("30m"), parse_minutes("2h")) == (30, 120)
