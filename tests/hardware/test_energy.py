"""A board that looks like a Jetson: its sensors are files of ours, so what they tell of energy is simulated."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from served import Installed, Served, ssh_device

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
    files |= {"update_interval": "50"}  # boards come with 430 ms, which takes the test a minute longer
    files |= {"in7_label": "sum of shunt voltages", "in7_input": "1"}
    for name, text in files.items():
        path = sys_root / CHIP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    for path in (sys_root, *sys_root.rglob("*")):
        path.chmod(path.stat().st_mode | 0o555)
    return sys_root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, made for such a board without one."""
    folder = tmp_path_factory.mktemp("net")
    weight = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    place = ("--cache", str(folder / "cache"), "--out", str(folder / "bundle"))
    engine("deploy", str(path), "--target", "raspberry-pi-4", "--apply", "simplify", *place)
    return folder / "bundle"


def engine(*argv: str) -> dict[str, object]:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("engine")), *argv, "--json"], capture_output=True, timeout=150
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_energy_per_rail_is_read_over_ssh(jetson: Served, reach: Callable[[Served], str], bundle: Path, tmp_path: Path):
    where = ("--on", reach(jetson), "--meter", "ina3221", "--cache", str(tmp_path / "cache"))
    found = engine("profile", str(bundle), *where, "--preset", "quick")
    energy = next(each for each in found["measurements"] if each["quantity"] == "energy")
    latency = next(each for each in found["measurements"] if each["statistic"] == "mean" and each["unit"] == "ms")
    assert energy["value"] is not None, energy["reason"]
    assert energy["kind"] == "simulated"
    assert energy["instrument"] == "ina3221: VDD_IN"
    watts = {name: rail["watts"] for name, rail in energy["conditions"]["rails"].items()}
    assert watts == pytest.approx({name: volt * ampere / 1e6 for name, (volt, ampere) in RAILS.items()})
    # A run takes its latency at that power, and what passes between runs besides.
    assert energy["value"] >= 0.9 * watts["VDD_IN"] * latency["value"]
    assert min(rail["samples"] for rail in energy["conditions"]["rails"].values()) >= 50
    assert {trace["rail"] for trace in found["energy"]["traces"]} == set(RAILS)


SHUNT = """
import time

from edgewright.types import Source

EDGEWRIGHT_API = 1


class Sampler:
    def __init__(self):
        self.start = time.perf_counter()

    def read(self):
        return ((time.perf_counter() - self.start) * 7000,)


class Shunt:
    name, needs_python = "acme-shunt", True

    def sources(self, device):
        return (Source("shunt", "ACME's bench", "counter", "mJ", 1e-3, 20_000_000),)

    def open(self):
        return Sampler()


SHUNT = Shunt()


def edgewright_meters():
    return (SHUNT,)
"""


def test_a_third_party_meter_is_read_over_ssh(
    jetson: Served, reach: Callable[[Served], str], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is installed on this host alone; on the device it is imported from the package that travelled."""
    site = tmp_path / "site"
    (site / "edgewright_shunt").mkdir(parents=True)
    (site / "edgewright_shunt" / "__init__.py").write_text(SHUNT)
    info = site / "edgewright_shunt-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgewright-shunt\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[edgewright]\nshunt = edgewright_shunt\n")
    (info / "RECORD").write_text("edgewright_shunt/__init__.py,,\nedgewright_shunt-0.1.dist-info/METADATA,,\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    where = ("--on", reach(jetson), "--cache", str(tmp_path / "cache"), "--preset", "quick")
    found = engine("profile", str(bundle), *where, "--meter", "acme-shunt")
    energy = next(each for each in found["measurements"] if each["quantity"] == "energy")
    assert energy["instrument"] == "acme-shunt: shunt"
    assert energy["conditions"]["watts"] == pytest.approx(7, rel=0.05)
