"""The user's verbs on devices behind ssh and adb; what is sent to them; and several at once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digits import DIGITS, images, write_int8
from edgewright.agents.agent import start_agent
from edgewright.protocols import Link
from edgewright_devices.local import LOCAL
from emulated import Served
from reached import linked
from served import ssh_device
from small import deploy, engine
from systems import Installed
from userland import PI_5

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Reach = Callable[[Served], str]
CLOSE = 1e-5

STEPS = 1 / 64
"""As a share of the range of outputs: how far the kernels of another processor, which round a sum otherwise, may go."""


@pytest.fixture(params=["board", "phone"])
def device(request: pytest.FixtureRequest, reach: Reach) -> Served:
    found: Served = request.getfixturevalue(request.param)
    reach(found)
    return found


@pytest.fixture
def link(device: Served) -> Generator[Link]:
    with linked(device.address) as found:
        yield found


def test_a_target_that_the_device_is_not(board: Served, reach: Reach, tmp_path: Path) -> None:
    done = engine(*deploy(tmp_path, "--target", "cpu", "--on", reach(board), "--out", str(tmp_path / "out")))
    assert done.returncode == 2
    assert "ssh://board is aarch64, but the target cpu is x86_64" in done.stderr


# ------------------------------------------------------------------ what is sent


def written() -> int:
    """Bytes that this process has written so far, into pipes too."""
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])


def test_a_bundle_is_sent_once(link: Link, tmp_path: Path) -> None:
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


# ------------------------------------------------------------------ several at once, of other systems too


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A network of convolutions by the type that it computes in, for a board that is not at hand."""
    folder = tmp_path_factory.mktemp("digits")
    about = (
        "--target",
        "raspberry-pi-4",
        "--apply",
        "simplify",
        "--exporter",
        "onnx",
        "--cache",
        str(folder / "cache"),
    )
    found = {}
    for name, network in (("float32", DIGITS), ("int8", write_int8(folder / "int8.onnx"))):
        found[name] = folder / name
        done = engine("deploy", str(network), *about, "--out", str(found[name]))
        assert found[name].exists(), done.stderr
    return found


def asked(link: Link, agents: Path, bundles: Mapping[str, Path], given: Any) -> Mapping[str, Any]:
    """What a device answers with each network, float32 [images, classes]."""
    with start_agent(link, agents) as agent:
        found = {name: agent.infer(agent.open(bundle), {"image": given}) for name, bundle in bundles.items()}
    return {name: next(iter(outputs.values())) for name, outputs in found.items()}


def test_three_devices_at_once_answer_as_this_host(
    start: Callable[..., Served],
    bullseye: Installed,
    board: Served,
    phone: Served,
    reach: Reach,
    bundles: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """One has Python 3.9, an older runtime and dot products; each is asked about other images."""
    third = start(ssh_device, bullseye, name="third", board=PI_5)
    joined = tmp_path / "ssh_config"
    joined.write_text("".join((each.folder / "ssh_config").read_text() for each in (board, third)))
    reach(phone)
    monkeypatch.setenv("EDGEWRIGHT_SSH_CONFIG", str(joined))
    devices, given = (board, third, phone), np.split(images("test", 90)[:, 0], 3)

    def ask(number: int) -> Mapping[str, Any]:
        with linked(devices[number].address) as link:
            return asked(link, tmp_path / f"agents-{number}", bundles, given[number])

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(ask, range(3)))
    here = LOCAL.open("")
    for device, x, there in zip(devices, given, found, strict=True):
        wanted = asked(here, tmp_path / "agents", bundles, x)
        far = np.abs(there["float32"] - wanted["float32"]).max() / np.abs(wanted["float32"]).max()
        apart = np.abs(there["int8"] - wanted["int8"])
        furthest = apart.max() / np.ptp(wanted["int8"])
        agree = (there["int8"].argmax(1) == wanted["int8"].argmax(1)).mean()
        record_property(
            f"{device.address} ({device.board.name}) and this host",
            f"float32 within {far:.1e} of the largest output; int8: {(apart > 0).mean():.1%} of outputs differ, "
            f"by {furthest:.2%} of their range at most, and {agree:.0%} of classes are the same",
        )
        assert far <= CLOSE
        assert furthest <= STEPS
    here.close()
