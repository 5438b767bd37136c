"""A third party's runtime travels to the device with its distribution, and machine code does not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgewright.agents.agent import start_agent
from edgewright.agents.travel import pack
from edgewright.errors import InputError
from edgewright_devices.local import LOCAL
from third_party import FACTOR, write_acme


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ACME's package, installed on this host."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield write_acme(tmp_path / "site")
    for name in ("edgewright_acme", "edgewright_acme.factor"):
        sys.modules.pop(name, None)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_distribution_is_packed_with_its_metadata(package: Path, tmp_path: Path) -> None:
    folder = pack("edgewright_acme:ACME", tmp_path / "cache")
    assert folder is not None
    info = "edgewright_acme-0.1.dist-info"
    own = {"edgewright_acme/__init__.py", "edgewright_acme/factor.py"}
    assert files(folder) == own | {f"{info}/METADATA", f"{info}/entry_points.txt"}
    assert pack("edgewright_acme:ACME", tmp_path / "cache") == folder
    (package / "factor.py").write_text("TIMES = 3\n")
    assert pack("edgewright_acme:ACME", tmp_path / "cache") != folder


def test_what_is_here_alone_and_what_is_there_already_stays(package: Path, tmp_path: Path) -> None:
    (package / "kernels.so").write_bytes(b"\x7fELF")
    for entry in ("edgewright_acme:ACME", "edgewright_runtime.ort:ORT", "no_such_package:THING"):
        assert pack(entry, tmp_path / "cache") is None


def test_the_agent_runs_a_runtime_that_travelled(
    package: Path, tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part of its package is gone from this host by the time the second process for the model imports it."""
    bundle = make_bundle(runtime="acme")
    link = LOCAL.open("")
    with start_agent(link, tmp_path / "cache") as agent:
        agent.close(agent.open(bundle, runtimes={"acme": "edgewright_acme:ACME"}))
        (package / "factor.py").unlink()
        opened = agent.open(bundle, runtimes={"acme": "edgewright_acme:ACME"})
        answered = agent.infer(opened, {"x": np.ones((2, 4), np.float32)})["y"]
        (package / "factor.py").write_text(FACTOR)
    link.close()
    assert answered.tolist() == [[4, 4, 4]] * 2


def test_a_runtime_that_holds_machine_code_is_named_when_it_is_not_on_the_device(
    package: Path, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    (package / "kernels.so").write_bytes(b"\x7fELF")
    link = LOCAL.open("")
    with (
        start_agent(link, tmp_path / "cache") as agent,
        pytest.raises(
            InputError,
            match=r"the runtime 'acme' cannot be imported from edgewright_acme:ACME on this device \(No module",
        ),
    ):
        agent.open(make_bundle(runtime="acme"), runtimes={"acme": "edgewright_acme:ACME"})
    link.close()
