"""A board that looks like a Jetson: its sensors are files of ours, so what they tell of energy is simulated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emulated import Served
from served import ssh_device
from small import SHORT, engine
from systems import Installed

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

CHIP = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
RAILS = {"VDD_IN": (5072, 1152), "VDD_CPU_GPU_CV": (5064, 400), "VDD_SOC": (5064, 304)}
"""mV and mA, as an Orin Nano has them."""


@pytest.fixture(scope="module")
def jetson(start: Callable[..., Served], trixie: Installed, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A board of its own, since its /sys is not that of others."""
    device = start(ssh_device, trixie, name="jetson")
    device.show_sys(sensors(tmp_path_factory.mktemp("sys")))
    return device


def sensors(sys_root: Path) -> Path:
    """One chip with three rails, and a channel that is no rail."""
    files = {f"in{n}_label": name for n, name in enumerate(RAILS, 1)}
    files |= {f"in{n}_input": str(volt) for n, (volt, _) in enumerate(RAILS.values(), 1)}
    files |= {f"curr{n}_input": str(ampere) for n, (_, ampere) in enumerate(RAILS.values(), 1)}
    files |= {"update_interval": "50"}  # boards come with 430 ms; a process of QEMU that is put aside misses 20 ms
    files |= {"in7_label": "sum of shunt voltages", "in7_input": "1"}
    for name, text in files.items():
        path = sys_root / CHIP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    for path in (sys_root, *sys_root.rglob("*")):
        path.chmod(path.stat().st_mode | 0o555)
    return sys_root


def profiled(*words: str) -> Any:
    done = engine("profile", *words, "--preset", SHORT, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def energy_in(report: Any) -> Any:
    found = next(each for each in report["measurements"] if each["quantity"] == "energy")
    assert found["value"] is not None, found["reason"]
    return found


def test_energy_per_rail_is_read_over_ssh(
    jetson: Served, reach: Callable[[Served], str], bundle: Path, tmp_path: Path
) -> None:
    where = ("--on", reach(jetson), "--meter", "ina3221", "--cache", str(tmp_path / "cache"))
    report = profiled(str(bundle), *where)
    energy = energy_in(report)
    latency = next(each for each in report["measurements"] if each["statistic"] == "mean" and each["unit"] == "ms")
    assert energy["kind"] == "simulated"
    assert energy["instrument"] == "ina3221: VDD_IN"
    watts = {name: rail["watts"] for name, rail in energy["conditions"]["rails"].items()}
    assert watts == pytest.approx({name: volt * ampere / 1e6 for name, (volt, ampere) in RAILS.items()})
    # A run takes its latency at that power, and what passes between runs besides.
    assert energy["value"] >= 0.9 * watts["VDD_IN"] * latency["value"]
    assert min(rail["samples"] for rail in energy["conditions"]["rails"].values()) >= 50
    assert {trace["rail"] for trace in report["energy"]["traces"]} == set(RAILS)
