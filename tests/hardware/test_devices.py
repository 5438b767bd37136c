"""The user's verbs on devices behind ssh and adb; what is sent to them; and several at once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime import quantization
from onnxruntime.quantization import QuantType

from edgewright.agent import start_agent
from edgewright_devices.adb import ADB
from edgewright_devices.ssh import SSH
from served import Installed, Served, ssh_device
from small import deploy, engine, write_small

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Reach = Callable[[Served], str]
CLOSE = 1e-5
RNG = np.random.default_rng(1)


@pytest.fixture(params=["board", "phone"])
def device(request: pytest.FixtureRequest, reach: Reach) -> Served:
    found: Served = request.getfixturevalue(request.param)
    reach(found)
    return found


@pytest.fixture
def link(device: Served) -> Any:
    scheme, _, rest = device.address.partition("://")
    found = {"ssh": SSH, "adb": ADB}[scheme].open(rest)
    yield found
    found.close()


def answers(bundle: Path, folder: Path, *on: str) -> Mapping[str, Any]:
    """What `engine run` answers to ten examples."""
    np.savez(folder / "x.npz", x=np.random.default_rng(2).standard_normal((10, 16), np.float32))
    done = engine("run", str(bundle), "-i", str(folder / "x.npz"), "-o", str(folder / "y.npz"), *on)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "y.npz") as arrays:
        return dict(arrays)


def test_deploy_run_profile_verify(device: Served, tmp_path: Path) -> None:
    on, out = ("--on", device.address), tmp_path / "out"
    done = engine(*deploy(tmp_path, "--target", "raspberry-pi-4", *on, "--out", str(out)))
    assert done.returncode == 0, done.stderr
    assert "Raspberry Pi 4 Model B" in done.stderr
    assert "(simulated" in done.stderr
    assert "(measured" not in done.stderr
    assert "top-1 accuracy (n=40)" in done.stderr
    assert engine("verify", str(out), *on).returncode == 0
    profiled = engine("profile", str(out), *on, "--preset", "quick", "--json")
    assert profiled.returncode == 0, profiled.stderr
    told = [each for each in json.loads(profiled.stdout)["measurements"] if each["value"] is not None]
    assert {each["kind"] for each in told} == {"simulated"}
    here, there = answers(out, tmp_path), answers(out, tmp_path, *on)
    assert all(np.abs(here[name] - there[name]).max() <= CLOSE for name in here)


def test_a_target_that_the_device_is_not(board: Served, reach: Reach, tmp_path: Path) -> None:
    done = engine(*deploy(tmp_path, "--target", "cpu", "--on", reach(board), "--out", str(tmp_path / "out")))
    assert done.returncode == 2
    assert "ssh://board is aarch64, but the target cpu is x86_64" in done.stderr


class _Rows(quantization.CalibrationDataReader):
    def __init__(self) -> None:
        self._rows = iter([{"x": RNG.standard_normal((1, 16), np.float32)} for _ in range(32)])

    def get_next(self) -> Any:
        return next(self._rows, None)


def test_int8_differs_by_a_step_at_most(
    device: Served, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The kernels of another processor may round a sum otherwise; how far that goes is recorded."""
    model, _ = write_small(tmp_path)
    how = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantization.quantize_static(model, tmp_path / "int8.onnx", _Rows(), **how)
    done = engine("deploy", str(tmp_path / "int8.onnx"), "--target", "cpu", "--preset", "quick", "--apply", "simplify",
                  "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out"))  # fmt: skip
    assert (tmp_path / "out").exists(), done.stderr
    here, there = answers(tmp_path / "out", tmp_path), answers(tmp_path / "out", tmp_path, "--on", device.address)
    furthest = max(np.abs(here[name] - there[name]).max() / np.ptp(here[name]) for name in here)
    record_property("int8 difference, share of the range", float(furthest))
    assert furthest <= 1 / 64


# ------------------------------------------------------------------ what is sent


def written() -> int:
    """Bytes that this process has written so far, into pipes too."""
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])


def test_a_bundle_is_sent_once(link: Any, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    for name, size in (("artifacts/main.bin", 90 << 20), ("artifacts/other.bin", 7 << 20), ("a file.json", 100)):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(secrets.token_bytes(size))
    before = written()
    place = link.put(bundle, "bundles/large")
    first, before = written() - before, written()
    assert link.put(bundle, "bundles/large") == place
    assert first > 97 << 20
    assert written() - before < first / 100
    link.get(f"{place}/a file.json", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (bundle / "a file.json").read_bytes()
    link.run(["rm", "-rf", place, f"{link.root}/store"])
    link.run(["mkdir", f"{link.root}/store"])


# ------------------------------------------------------------------ other systems, and several at once


def test_python_3_9_answers_as_3_13_does(
    start: Any, bullseye: Installed, board: Served, reach: Reach, bundle: Path, tmp_path: Path
) -> None:
    old = start(ssh_device, bullseye)
    found = {}
    for each in (board, old):
        found[each] = answers(bundle, tmp_path, "--on", reach(each))
    assert all(np.abs(found[board][name] - found[old][name]).max() <= CLOSE for name in found[board])


def test_three_devices_at_once(
    start: Any,
    trixie: Installed,
    board: Served,
    phone: Served,
    reach: Reach,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    third = start(ssh_device, trixie, name="third")
    joined = tmp_path / "ssh_config"
    joined.write_text("".join((each.folder / "ssh_config").read_text() for each in (board, third)))
    reach(phone)
    reach(board)
    monkeypatch.setenv("EDGEWRIGHT_SSH_CONFIG", str(joined))
    x = RNG.standard_normal((3, 5, 16), np.float32)

    def ask(i: int, address: str) -> Any:
        scheme, _, rest = address.partition("://")
        found = {"ssh": SSH, "adb": ADB}[scheme].open(rest)
        try:
            with start_agent(found, tmp_path / f"agents-{i}") as agent:
                return agent.infer(agent.open(bundle), {"x": x[i]})["y"]
        finally:
            found.close()

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(ask, range(3), (board.address, third.address, phone.address)))
    session = onnxruntime.InferenceSession(str(next(bundle.glob("artifacts/*.onnx"))))
    for given, answered in zip(x, found, strict=True):
        rows = [session.run(None, {"x": row[None]})[0][0] for row in given]
        assert np.abs(np.stack(rows) - answered).max() <= CLOSE
