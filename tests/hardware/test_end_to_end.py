"""A user's whole way with a device just unpacked: prepared, deployed to, verified, profiled and asked.

Over ssh and adb, with our agent and with the native runner. Nothing else here takes as long, and each is a group of its
own for pytest-xdist: `pytest -n 2 --dist loadgroup tests/hardware/test_end_to_end.py`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from answers import far
from edgewright.toolchain.ortheader import headers_place
from emulated import Served
from served import adb_device, ssh_device, without_python
from shunt import NAME, WATTS, install_shunt
from small import SHORT, deploy, engine
from systems import Installed
from wheel import make_wheel

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Start = Callable[..., Served]
Reach = Callable[[Served], str]
CLOSE = 1e-5

WHEELS = ("--cache", str(headers_place().parent / "hardware" / "setup"))
"""Wheels stay in the cache of the emulated devices: an index is asked once."""


def told(*words: str) -> Mapping[str, Any]:
    """The document of a command that went well."""
    done = engine(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def prepared(address: str, *more: str) -> Mapping[str, Any]:
    """What `engine device setup` did, where no runtime was before."""
    done = told("device", "setup", "--on", address, *WHEELS, *more)
    assert done["sent_bytes"] > 10e6
    return done


def used(address: str, folder: Path, *metered: str) -> Mapping[str, Any]:
    """A network is deployed to the device, and the bundle verified, profiled and asked there; what profiling told."""
    on, out = ("--on", address), folder / "out"
    done = engine(*deploy(folder, "--target", "raspberry-pi-4", *on, "--out", str(out)))
    assert done.returncode == 0, done.stderr
    assert "Raspberry Pi 4 Model B" in done.stderr
    assert "(simulated" in done.stderr
    assert "(measured" not in done.stderr
    assert "top-1 accuracy (n=40)" in done.stderr
    assert engine("verify", str(out), *on).returncode == 0
    profiled = told("profile", str(out), *on, "--preset", SHORT, "--cache", str(folder / "cache"), *metered)
    values = {each["quantity"]: each for each in profiled["measurements"] if each["value"] is not None}
    assert {"latency", "peak memory"} <= set(values)
    assert {each["kind"] for each in values.values()} == {"simulated"}
    assert far(out, folder, *on) <= CLOSE
    return values


@pytest.mark.xdist_group("agent over ssh")
def test_the_agent_over_ssh_with_a_meter_of_a_third_party(
    start: Start, trixie: Installed, reach: Reach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meter is a package that this host has; it travels to the device and is imported there from what travelled."""
    install_shunt(tmp_path / "site", carried="/home/pi/.edgewright/agents/")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    address = reach(start(ssh_device, trixie, ready=False))
    wheel = make_wheel(tmp_path, "acme_meter", "1.0", "UNIT = 'W'\n")
    done = prepared(address, "--with", str(wheel))
    assert [each.split()[0] for each in done["installed"]] == ["acme-meter", "numpy", "onnxruntime"]
    energy = used(address, tmp_path, "--meter", "acme-shunt")["energy"]
    assert energy["instrument"] == "acme-shunt: shunt"
    assert energy["conditions"]["watts"] == pytest.approx(WATTS, rel=0.05)


@pytest.mark.xdist_group("runner over adb")
def test_the_native_runner_over_adb(start: Start, trixie: Installed, reach: Reach, tmp_path: Path) -> None:
    address = reach(without_python(start(adb_device, trixie, ready=False)))
    assert [each.split()[0] for each in prepared(address)["installed"]] == ["native", "onnxruntime"]
    used(address, tmp_path)


@pytest.mark.xdist_group("runner over ssh")
def test_the_native_runner_over_ssh(start: Start, trixie: Installed, reach: Reach, tmp_path: Path) -> None:
    address = reach(without_python(start(ssh_device, trixie, ready=False)))
    assert [each.split()[0] for each in prepared(address)["installed"]] == ["native", "onnxruntime"]
    used(address, tmp_path)


@pytest.mark.xdist_group("agent over adb")
def test_the_agent_over_adb_on_a_device_that_is_listed(
    start: Start, trixie: Installed, reach: Reach, tmp_path: Path
) -> None:
    address = reach(start(adb_device, trixie, ready=False))
    (listed,) = told("devices")["devices"]
    assert (listed["address"], listed["reason"]) == (address, "")
    assert [each.split()[0] for each in prepared(address)["installed"]] == ["numpy", "onnxruntime"]
    again = told("device", "setup", "--on", address, *WHEELS)
    assert (again["installed"], again["sent_bytes"]) == ([], 0)
    assert again["device"]["python"]["found"]["onnxruntime"]["providers"]
    used(address, tmp_path)
