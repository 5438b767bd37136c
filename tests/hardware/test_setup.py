"""Devices that have Python and nothing else are prepared from this host, over ssh and over adb, and told about."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgewright.deploying.opening import open_agent, open_link
from edgewright.environment import Environment
from edgewright.errors import DeviceError, RefusedError
from edgewright.protocols import Link
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.toolchain.ortheader import headers_place
from edgewright.verbs.checkup import examine
from edgewright.verbs.preparing import devices, set_up
from emulated import Served
from kills import kill_when
from served import ssh_device
from systems import Installed
from wheel import make_wheel

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

ENGINE = (sys.executable, "-c", "from edgewright.cli import main; main()")
Start = Callable[..., Served]
Reach = Callable[[Served], str]


@pytest.fixture(scope="module")
def env() -> Environment:
    """Wheels stay in the cache of the emulated devices: an index is asked once."""
    return Environment(Registry(), Store(headers_place().parent / "hardware" / "setup"), lambda *_: None)


@pytest.fixture
def opened(env: Environment) -> Generator[Callable[[str], Link]]:
    """A link to an address, until the test ends."""
    with ExitStack() as stack:
        yield lambda address: open_link(address, env, stack)


def states(address: str, env: Environment) -> dict[str, str]:
    """What the doctor says, by subject."""
    return {each.what: f"{each.state}: {each.found}" for each in examine(address, env).findings}


def said(link: Link, script: str) -> str:
    status, output, errors = link.run(["sh", "-c", script], timeout=120)
    assert status == 0, errors
    return output.decode()


def test_a_bare_board_is_told_about_prepared_once_and_then_runs_our_agent(
    start: Start, trixie: Installed, reach: Reach, env: Environment, tmp_path: Path, opened: Callable[[str], Link]
) -> None:
    address = reach(start(ssh_device, trixie, ready=False))
    (seen,) = devices([address], env)
    assert seen.device is not None
    assert (seen.device.model, seen.device.busy) == ("Raspberry Pi 4 Model B Rev 1.1", "")
    assert "qemu" in seen.device.emulation
    before = states(address, env)
    assert before["numpy"] == f"missing: not installed; run `engine device setup --on {address}`"
    assert before["python"].startswith("ok: cpython 3.13")

    meter = make_wheel(tmp_path, "acme_meter", "1.0", "UNIT = 'W'\n")
    first = set_up(address, env, [str(meter)])
    assert [each.split()[0] for each in first.installed] == ["acme-meter", "numpy", "onnxruntime"]
    assert first.sent_bytes > 30e6
    link = opened(address)
    assert said(link, f"{link.python} -c 'import acme_meter; print(acme_meter.UNIT)'") == "W\n"

    with ExitStack() as stack:
        device = open_agent(address, env, stack).device()
        assert (device.isa, device.emulated, device.features) == ("aarch64", True, seen.device.features)
        assert f"onnxruntime {device.versions['onnxruntime']}" in first.installed
        (busy,) = devices([address], env)
        assert busy.device is not None
        assert f"process {os.getpid()}" in busy.device.busy
        with pytest.raises(DeviceError, match="is in use by"):
            set_up(address, env)

    place = said(link, "readlink ~/.edgewright/site")
    with pytest.raises(RefusedError, match=r"there is no wheel of .*numpy==1\.19\.0"):
        set_up(address, env, ["numpy==1.19.0"])
    sound = make_wheel(tmp_path, "numpy", "99", "__version__ = '99'\n")
    deadly = make_wheel(tmp_path, "onnxruntime", "99", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(DeviceError, match="onnxruntime: its import is ended by SIGSEGV"):
        set_up(address, env, [str(sound), str(deadly)])
    assert said(link, "readlink ~/.edgewright/site; ls ~/.edgewright/sites") == f"{place}{Path(place).name}"


def test_a_setup_that_is_killed_leaves_nothing_and_the_next_one_works_on_python_3_9(
    start: Start, bullseye: Installed, reach: Reach, env: Environment, opened: Callable[[str], Link]
) -> None:
    address = reach(start(ssh_device, bullseye, ready=False))
    link = opened(address)
    parts, ours = f"{link.root}/store/.part-*", f"{link.root}/site {link.root}/sites/*"
    begun = lambda _: int(said(link, f"ls -d {parts}/new/* 2>/dev/null | wc -l")) >= 20  # noqa: E731 - one of 1200 files
    kill_when([*ENGINE, "device", "setup", "--on", address, "--cache", str(env.store.root)], begun)
    end = time.monotonic() + 30
    while said(link, f"ls -d {parts} {ours} 2>/dev/null || true"):
        assert time.monotonic() < end, "something was left"

    done = set_up(address, env)
    assert done.installed == ("numpy 2.0.2", "onnxruntime 1.19.2")
    assert done.device.python is not None
    assert done.device.python.found["onnxruntime"].works
    assert states(address, env)["onnxruntime"].startswith("ok: 1.19.2, put there by setup")


def test_a_runtime_of_the_devices_own_stays_and_its_sensors_are_listed(
    start: Start,
    trixie: Installed,
    reach: Reach,
    env: Environment,
    opened: Callable[[str], Link],
    tmp_path: Path,
) -> None:
    device = start(ssh_device, trixie, ready=False)
    address = reach(device)
    packages = f"{device.root}/home/pi/.local/lib/python3.13/site-packages"
    device.inside(f"mkdir -p {packages} && mount --bind -o ro {trixie.site} {packages}")
    power = tmp_path / "sys" / "class" / "hwmon" / "hwmon0"  # not in a folder that only root may enter
    power.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5072"), ("in7_label", "sum")):
        (power / name).write_text(f"{text}\n")
    device.show_sys(tmp_path / "sys")
    (seen,) = devices([address], env)
    assert seen.device is not None
    assert seen.device.sensors == ("ina3221 VDD_IN",)

    done = set_up(address, env, ["onnxruntime"])
    assert (done.installed, done.sent_bytes) == ((), 0)
    assert "stays as it is" in done.notes[0]
    assert "would hide" in done.notes[1]
    link = opened(address)
    assert said(link, f"ls -d {link.root}/site 2>/dev/null || echo none") == "none\n"
    assert "the device's own" in states(address, env)["onnxruntime"]
