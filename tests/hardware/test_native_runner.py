"""Devices without Python get the native runner, and answer behind ssh and adb as others do with the agent."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from answers import X, far
from edgewright.agents.agent import start_agent
from edgewright.agents.runnerfile import Machine, build_runner, needed_glibc
from edgewright.deploying.opening import open_agent, open_link
from edgewright.environment import Environment
from edgewright.errors import DeviceError, InputError, PluginError, RefusedError
from edgewright.onboarding.placing import Prepared
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.toolchain.ortheader import headers_place
from edgewright.toolchain.sysroot import find_sysroot
from edgewright.types import Source
from edgewright.verbs.checkup import examine
from edgewright.verbs.preparing import set_up
from served import Installed, Served, adb_device, ssh_device, without_python
from small import SHORT, engine, write_small
from userland import PI_4

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Start = Callable[..., Served]
Reach = Callable[[Served], str]
CLOSE = 1e-5


@pytest.fixture(scope="module")
def env() -> Environment:
    """Wheels stay in the cache of the emulated devices: an index is asked once."""
    return Environment(Registry(), Store(headers_place().parent / "hardware" / "setup"), lambda *_: None)


class Bare:
    """A device without Python: what was said of it before it was prepared, and what was done then."""

    def __init__(self, device: Served, env: Environment) -> None:
        self.device = without_python(device)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in device.settings.items():
                patch.setenv(name, value)
            self.before = states(device.address, env)
            try:
                self.done: Prepared = set_up(device.address, env)
            except RefusedError as refusal:
                pytest.skip(str(refusal))


@pytest.fixture(scope="module")
def bare_board(start: Start, trixie: Installed, env: Environment) -> Bare:
    return Bare(start(ssh_device, trixie, ready=False), env)


@pytest.fixture(scope="module")
def bare_phone(start: Start, trixie: Installed, env: Environment) -> Bare:
    return Bare(start(adb_device, trixie, ready=False), env)


@pytest.fixture(params=["bare_board", "bare_phone"])
def bare(request: pytest.FixtureRequest, reach: Reach) -> Bare:
    found: Bare = request.getfixturevalue(request.param)
    reach(found.device)
    return found


@pytest.fixture
def opened(env: Environment) -> Generator[Callable[[str], Any]]:
    """A link to an address, until the test ends."""
    with ExitStack() as stack:
        yield lambda address: open_link(address, env, stack)


def states(address: str, env: Environment) -> Mapping[str, str]:
    """What the doctor says, by subject."""
    return {each.what: f"{each.state}: {each.found}" for each in examine(address, env).findings}


# ------------------------------------------------------------------ what goes well


def test_it_is_told_about_and_prepared_once(bare: Bare, env: Environment) -> None:
    address = bare.device.address
    assert bare.before["python"] == "note: none of version 3.9 or newer; the native runner takes its place"
    assert bare.before["native runner"] == f"missing: not there yet; run `engine device setup --on {address}`"
    assert [each.split(" ")[0] for each in bare.done.installed] == ["native", "onnxruntime"]
    assert bare.done.sent_bytes > 10e6
    again = set_up(address, env)
    assert (again.installed, again.sent_bytes) == ((), 0)
    told = states(address, env)
    assert told["native runner"] == "ok: starts on glibc 2.41"
    assert told["onnxruntime"].startswith(f"ok: {bare.done.installed[1].split(' ')[1]} in ")
    assert told["runtime ort"].startswith("ok: ")
    with ExitStack() as stack:
        device = open_agent(address, env, stack).device()
        assert (device.isa, device.cpu, device.python) == ("aarch64", PI_4.model, "")
        assert (device.emulated, device.features) == (True, ("asimd",))
        with pytest.raises(DeviceError, match="is in use by"):
            set_up(address, env)


def test_glibc_2_31_is_enough(
    start: Start, bullseye: Installed, env: Environment, reach: Reach, bundle: Path, tmp_path: Path
) -> None:
    """As on JetPack 5; this host's own C library is newer."""
    old = Bare(start(ssh_device, bullseye, ready=False), env)
    assert states(reach(old.device), env)["native runner"] == "ok: starts on glibc 2.31"
    assert find_sysroot("aarch64", headers_place()) is not None
    assert needed_glibc(build_runner(Machine("aarch64"), headers_place())) <= 27
    assert far(bundle, tmp_path, "--on", old.device.address) <= CLOSE


def test_bundles_with_kernels_run_there(bare_board: Bare, reach: Reach, tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason="the tvm extra is not installed")
    model, _ = write_small(tmp_path)
    out = tmp_path / "kernels"
    how = ("--target", PI_4.name, "--preset", SHORT, "--apply", "simplify", "--exporter", "kernels")
    done = engine("deploy", str(model), *how, "--cache", str(tmp_path / "cache"), "--out", str(out))
    assert out.exists(), done.stderr
    (artifact,) = json.loads((out / "manifest.json").read_text())["artifacts"]
    assert any(name.startswith("edgewright::") for name in artifact["operators"])
    np.savez(tmp_path / "x.npz", x=X[:1])
    places = ("-i", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz"))
    done = engine("run", str(out), *places, "--on", reach(bare_board.device))
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "y.npz") as found:
        assert np.abs(found["y"] - plain(model, X[:1])).max() <= CLOSE


def plain(model: Path, x: Any) -> Any:
    """What the network answers on this host."""
    import onnxruntime

    (y,) = onnxruntime.InferenceSession(str(model)).run(None, {"x": x})
    return y


def test_power_is_read_from_the_files_that_a_meter_states(
    bare_board: Bare, reach: Reach, env: Environment, bundle: Path, tmp_path: Path
) -> None:
    """Files of ours, as a Jetson has them: what they tell is simulated."""
    device, power = bare_board.device, tmp_path / "sys" / "class" / "hwmon" / "hwmon9"
    power.mkdir(parents=True)
    for name, text in (("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "1000")):
        (power / name).write_text(f"{text}\n")
    device.inside(f"cp -a {tmp_path}/sys {device.root}/home/pi/ && chmod -R a+rX {device.root}/home/pi/sys")
    source = Source(
        "rail", "a board", "power", "mV mA", 1e-6, 20_000_000,
        folder="/sys/class/hwmon/hwmon*", values=("in1_input", "curr1_input"), label="in1_label",
    )  # fmt: skip
    with ExitStack() as stack:
        agent = open_agent(reach(device), env, stack)
        rails, absent = agent.meter([source], root="/home/pi")
        assert ([rail["rail"] for rail in rails], absent) == (["VDD_IN"], [])
        opened = agent.open(bundle)
        timed = agent.time(opened, least_runs=3, least_ns=100_000_000)
        samples = agent.unmeter()["samples"][0]
        assert {tuple(values) for _, *values in samples} == {(5000, 1000)}
        assert samples[0][0] < timed.begin_ns < timed.end_ns < samples[-1][0]


# ------------------------------------------------------------------ what goes wrong


def test_what_is_for_python_is_refused(bare_board: Bare, reach: Reach, env: Environment, tmp_path: Path) -> None:
    address = reach(bare_board.device)
    with pytest.raises(
        RefusedError, match="acme-meter is for Python, which the device lacks; --with names onnxruntime"
    ):
        set_up(address, env, ["acme-meter"])
    with pytest.raises(InputError, match="names no file of this host"):
        set_up(address, env, [f"{tmp_path}/libonnxruntime.so"])


def test_a_library_that_does_not_work_changes_nothing(
    bare_board: Bare, reach: Reach, env: Environment, tmp_path: Path, opened: Callable[[str], Any]
) -> None:
    address = reach(bare_board.device)
    broken = tmp_path / "libonnxruntime.so.9"
    broken.write_bytes(b"\x7fELF no library")
    link = opened(address)
    look = ["sh", "-c", f"readlink {link.root}/site; ls {link.root}/sites"]
    before = link.run(look)
    with pytest.raises(DeviceError, match="nothing that was tried works on ssh://board, which is as it was: "):
        set_up(address, env, [str(broken)])
    assert link.run(look) == before
    assert states(address, env)["onnxruntime"].startswith("ok: ")


def test_a_runner_or_worker_that_is_killed_is_told_and_leaves_nothing(
    bare_board: Bare, reach: Reach, bundle: Path, opened: Callable[[str], Any], tmp_path: Path
) -> None:
    device = bare_board.device
    link = opened(reach(device))
    with start_agent(link, tmp_path / "agents") as agent:
        model = agent.open(bundle)
        worker = max(device.running("edgewright-runner worker"))
        os.kill(worker, signal.SIGSEGV)
        with pytest.raises(PluginError, match=r"was ended by SIGSEGV \(the runtime crashed\) during 'infer'"):
            agent.infer(model, {"x": X})
        model = agent.open(bundle)
        for each in device.running("edgewright-runner"):
            if each not in device.running("worker"):
                with suppress(ProcessLookupError):  # it ended with one before it
                    os.kill(each, signal.SIGKILL)
        with pytest.raises(DeviceError, match=f"the agent at {device.address} was lost during 'infer'"):
            agent.infer(model, {"x": X})
    end = time.monotonic() + 30
    while device.running("edgewright-runner"):
        assert time.monotonic() < end, "a process was left"
        time.sleep(0.05)
    with start_agent(link, tmp_path / "agents") as agent:
        assert agent.ask("ping") == {}
