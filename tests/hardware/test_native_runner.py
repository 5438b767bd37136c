"""The native runner, built here for aarch64, opens and times a bundle on an emulated board, without Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright.errors import RefusedError
from edgewright.ortheader import headers_place
from edgewright.runnerfile import NAME, Machine, build_runner
from unit.conftest import make_bundle  # noqa: F401 - a fixture
from userland import PI_4, Userland

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

TALK = """
import os, subprocess, sys
env = {**os.environ, "EDGEWRIGHT_ONNXRUNTIME": sys.argv[1]}
runner = subprocess.Popen(["./edgewright-runner"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
for request in sys.argv[2:]:
    print(request, file=runner.stdin, flush=True)
    print(runner.stdout.readline(), end="")
"""
REQUESTS = (
    {"op": "device"},
    {"op": "open", "handle": "a", "bundle": "bundle"},
    {"op": "time", "handle": "a", "least_runs": 3, "least_ns": 0},
    {"op": "profile", "handle": "a", "runs": 2},
    {"op": "open", "handle": "b", "bundle": "nowhere"},
    {"op": "bye"},
)


def test_a_board_is_told_and_runs_a_bundle(
    userland: Userland,
    make_bundle: Callable[..., Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    job = tmp_path / "job"
    shutil.copytree(make_bundle(), job / "bundle")
    try:
        shutil.copy(build_runner(Machine("aarch64"), headers_place()), job / NAME)
    except RefusedError as refusal:
        pytest.skip(str(refusal))
    capi = userland.sites["onnxruntime"] / "onnxruntime" / "capi"
    library = f"/site/onnxruntime/capi/{next(capi.glob('libonnxruntime.so*')).name}"
    done = userland.run(["python3", "-c", TALK, library, *map(json.dumps, REQUESTS)], PI_4, job)
    device, opened, timed, profile, refused, bye = map(json.loads, done.stdout.splitlines())
    found = {key: device["result"][key] for key in ("isa", "cpu", "features", "emulated", "python")}
    assert found == {"isa": "aarch64", "cpu": PI_4.model, "features": ["asimd"], "emulated": True, "python": ""}
    assert opened["result"]["peak_bytes"] > opened["result"]["baseline_bytes"] > 1 << 20
    assert len(timed["result"]["ns"]) == 3
    assert [node["operator"] for node in profile["result"]["nodes"]] == ["MatMul"]
    assert refused["error"] == {"kind": "BundleError", "message": "nowhere is not a bundle: it has no manifest.json"}
    assert bye["result"] == {}
