"""What each verb does on a device: which target it takes, what its figures are called, what it says when it cannot."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chain import IMAGES, THRESHOLD, chain, pack
from edgewright.bundle import Contents, open_bundle, write_bundle
from served import Served
from small import SHORT, SHORTEST_INTERVAL, engine, write_small
from third_party import write_acme

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

Reach = Callable[[Served], str]


def told(*words: str) -> Mapping[str, Any]:
    """The document of a command that went well."""
    done = engine(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_profile_of_a_model_takes_the_target_that_the_device_is(board: Served, reach: Reach, tmp_path: Path) -> None:
    model, _ = write_small(tmp_path)
    where = ("--on", reach(board), "--preset", SHORT, "--cache", str(tmp_path / "cache"))
    found = told("profile", str(model), *where)
    energy = found["measurements"][-1]
    assert "the target names no meter" in energy["reason"], "a Raspberry Pi 4 has none, this host may have one"
    assert found["notes"] == []


def test_a_target_that_the_device_is_not_quite_is_told_once(
    board: Served, reach: Reach, bundle: Path, tmp_path: Path
) -> None:
    where = ("--on", reach(board), "--preset", SHORT, "--cache", str(tmp_path / "cache"))
    (note,) = told("profile", str(bundle), *where, "--target", "raspberry-pi-5")["notes"]
    assert note.startswith("this is not quite the raspberry-pi-5 that was asked for: it calls itself Raspberry Pi 4 ")
    assert ", the target raspberry-pi-4; it has no asimddp, asimdhp" in note
    done = engine("profile", str(bundle), *where, "--target", "cpu")
    assert done.returncode == 2
    assert "is aarch64, but the target cpu is x86_64" in done.stderr


def test_compare(board: Served, reach: Reach, bundle: Path, tmp_path: Path) -> None:
    model, _ = write_small(tmp_path)
    where = ("--on", reach(board), "--preset", SHORTEST_INTERVAL, "--cache", str(tmp_path / "cache"))
    found = told("compare", str(model), str(bundle), *where)
    assert found["device"]["emulated"]
    latency = [row for row in found["rows"] if row["quantity"].startswith("latency")]
    assert {row[side]["kind"] for row in latency for side in ("original", "candidate")} == {"simulated"}
    low, high = found["changes"]["latency"]
    assert low <= high


def test_stress(phone: Served, reach: Reach, tmp_path: Path) -> None:
    gated = pack(tmp_path, chain(THRESHOLD))
    np.savez(tmp_path / "data.npz", image=IMAGES)
    about = ("--task", str(tmp_path / "data.npz"), "--examples", "4", "--queries", "8", "--deadline", "60s")
    done = engine("stress", str(gated), *about, "--on", reach(phone), "--cache", str(tmp_path / "cache"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    cases = {case["name"]: case for case in found["cases"]}
    assert (cases["real inputs"]["depth"], cases["real inputs"]["misses"]) == (1.0, 0)
    assert {each["kind"] for case in found["cases"] for each in case["latency"]} == {"simulated"}
    assert found["whole"]["kind"] == "simulated"
    assert found["device"]["emulated"]


def test_a_runtime_of_a_third_party_travels_to_the_device(
    phone: Served, reach: Reach, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is installed on this host alone, and doubles what onnxruntime answers there."""
    write_acme(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(2).standard_normal((10, 16), np.float32))
    answers = []
    for each in (bundle, _with_runtime(bundle, "acme", tmp_path / "acme")):
        words = ("run", str(each), "-i", str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz"))
        done = engine(*words, "--on", reach(phone), "--cache", str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "y.npz") as arrays:
            answers.append(arrays["y"])
    assert np.array_equal(answers[1], 2 * answers[0])


def _with_runtime(bundle: Path, runtime: str, place: Path) -> Path:
    """The same bundle, with another runtime in its plan."""
    old = open_bundle(bundle)
    plan = replace(old.plan, placements=tuple(replace(p, runtime=runtime) for p in old.plan.placements))
    files = {"example/inputs.npz": old.example_inputs.read_bytes()}
    contents = Contents(old.name, old.signature, old.variants, old.artifacts, plan, files, {})
    return write_bundle(place, contents).path


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_doctor_of_a_device_that_does_not_answer_fails(form: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = engine("doctor", "--on", f"ssh://127.0.0.1:{port}", *form)
    assert done.returncode == 4
    assert "nothing listens" in done.stdout
