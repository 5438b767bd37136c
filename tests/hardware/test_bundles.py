"""Bundles with kernels, deployed here for boards that are not at hand, and run there by the device set alone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgewright.agentfile import build_agent
from edgewright.errors import BundleError, RefusedError
from edgewright.race import FURTHEST as RACE_FURTHEST
from edgewright_exporters.loader.header import find_header, headers_place
from edgewright_runtime import load
from userland import BOARDS, PI_4, PI_5, Board, Userland

pytestmark = [pytest.mark.hardware, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).standard_normal((4, 1, 3, 32, 32), np.float32)
QUANTIZE = "quantize:mode=static,range=min-max,activations=u8,examples=8,drop=1"
FURTHEST = {"float": 1e-5, "int8": RACE_FURTHEST}
"""As a share of the largest output; where one sum is rounded otherwise, a byte differs and what follows from it."""

RUN = """
import sys
import numpy as np
import edgewright_runtime
found = {}
for name in sys.argv[1:]:
    model = edgewright_runtime.load(name)
    found[name] = [next(iter(model.run(image).outputs.values())) for image in np.load("images.npy")]
np.savez("found.npz", **found)
assert not {"onnx", "torch", "tvm", "pluggy", "click"} & {name.split(".")[0] for name in sys.modules}
"""
LOAD = "import sys, edgewright_runtime\nedgewright_runtime.load(sys.argv[1])"
ASK = """
import subprocess, sys
agent = subprocess.Popen([sys.executable, "agent.pyz"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for request in sys.argv[1:]:
    print(request, file=agent.stdin, flush=True)
    print(agent.stdout.readline(), end="")
"""
REFUSAL = (
    "kernels.so of this bundle is made for armv8.2-a-dot and needs asimddp, which this CPU lacks (it has asimd); "
    "deploy again with the --target that this device is, or with --exporter onnx"
)

Deploy = Callable[[Board, str], Path]


@pytest.fixture(scope="module")
def tools(userland: Userland) -> None:
    """What kernels are made with, or a skip; the userland has brought the cross compiler."""
    pytest.importorskip("tvm", reason="the tvm extra is not installed")
    try:
        find_header(headers_place())
    except RefusedError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="module")
def folder(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def engine_deploy(model: Path, board: Board, out: Path, *more: str) -> Path:
    """As a user does who has no board at hand."""
    command = [sys.executable, "-c", "from edgewright.cli import main; main()", "deploy", str(model), "--out", str(out)]
    about = ["--target", board.name, "--preset", "quick", "--cache", str(out.parent / "cache"), *more]
    done = subprocess.run([*command, *about], capture_output=True, text=True)
    assert out.exists(), done.stderr
    return out


@pytest.fixture(scope="module")
def networks(folder: Path) -> Mapping[str, Path]:
    """The first two blocks of the reference ViT with its weights, in float and int8: quick to compile."""
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    spec = importlib.util.spec_from_file_location("networks", ROOT / "benchmarks" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net, image = module.vit(), torch.zeros(IMAGES.shape[1:])
    net.blocks = net.blocks[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates parts of itself
        torch.onnx.export(net, (image,), str(folder / "vit.onnx"), dynamo=True, external_data=False, verbose=False)
    freely = ("--min-speedup", "off", "--minimise", "size")
    bundle = engine_deploy(folder / "vit.onnx", PI_4, folder / "int8", "--apply", QUANTIZE, *freely)
    return {"float": folder / "vit.onnx", "int8": bundle / "artifacts" / "main.onnx"}


@pytest.fixture(scope="module")
def deploy(networks: Mapping[str, Path], folder: Path) -> Deploy:
    """Makes the bundle with kernels for a board, once."""

    def made(board: Board, form: str) -> Path:
        out = folder / f"{board.name}-{form}"
        kernels = ("--exporter", "kernels", "--apply", "simplify")
        return out if out.exists() else engine_deploy(networks[form], board, out, *kernels)

    return made


def outputs_of(network: Path) -> Any:
    """What ONNX Runtime answers on this host, node by node as the graph says it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    return np.stack([session.run(None, {name: image})[0] for image in IMAGES])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """What is copied to the device: so far the device set, as one file."""
    os.rename(build_agent(tmp_path), tmp_path / "agent.pyz")
    return tmp_path


def carry(bundle: Path, job: Path) -> str:
    shutil.copytree(bundle, job / bundle.name)
    return bundle.name


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_board_answers_as_this_host(
    board: Board, userland: Userland, networks: Mapping[str, Path], deploy: Deploy, job: Path
) -> None:
    bundles = {form: deploy(board, form) for form in networks}
    np.save(job / "images.npy", IMAGES)
    done = userland.run(["python3", "-c", RUN, *(carry(bundle, job) for bundle in bundles.values())], board, job)
    assert done.returncode == 0, done.stderr
    for form, bundle in bundles.items():
        (artifact,) = json.loads((bundle / "manifest.json").read_text())["artifacts"]
        assert calls_of(artifact) >= 16
        assert ("QuantizeLinear" in artifact["operators"]) == (form == "int8")
        wanted = outputs_of(networks[form])
        with np.load(job / "found.npz") as found:
            assert np.abs(found[bundle.name] - wanted).max() <= FURTHEST[form] * np.abs(wanted).max()


def calls_of(artifact: Mapping[str, Any]) -> int:
    """How many nodes call a kernel, of the products, norms and attentions in two blocks."""
    return sum(count for name, count in artifact["operators"].items() if name.startswith("edgewright::"))


def test_dot_products_are_refused_by_a_board_without_them(userland: Userland, deploy: Deploy, job: Path) -> None:
    """Even where /proc/cpuinfo is that of a board that has them."""
    name = carry(deploy(PI_5, "float"), job)
    for board in (PI_4, replace(PI_5, cpu=PI_4.cpu)):
        done = userland.run(["python3", "-c", LOAD, name], board, job)
        assert done.returncode == 1
        assert f"edgewright.errors.BundleError: {REFUSAL}" in done.stderr


def test_the_agent_tells_the_board_and_refuses_too(userland: Userland, deploy: Deploy, job: Path) -> None:
    theirs, ours = (carry(deploy(board, "float"), job) for board in (PI_5, PI_4))
    requests = [
        {"id": 1, "op": "hello", "protocol": 1},
        {"id": 2, "op": "device"},
        {"id": 3, "op": "open", "handle": "a", "bundle": theirs},
        {"id": 4, "op": "open", "handle": "b", "bundle": ours},
        {"id": 5, "op": "bye"},
    ]
    done = userland.run(["python3", "-c", ASK, *map(json.dumps, requests)], PI_4, job)
    _, device, refused, opened, _ = map(json.loads, done.stdout.splitlines())
    found = {key: device["result"][key] for key in ("isa", "cpu", "features", "emulated")}
    assert found == {"isa": "aarch64", "cpu": PI_4.model, "features": ["asimd"], "emulated": True}
    assert refused["error"]["kind"] == "BundleError"
    assert refused["error"]["message"].startswith(REFUSAL)
    assert opened["result"]["load_ns"] > 0


def test_a_bundle_for_a_board_is_refused_by_this_host(deploy: Deploy) -> None:
    if os.uname().machine == "aarch64":
        pytest.skip("this host may run it")
    with pytest.raises(BundleError, match="needs a processor of aarch64, and this one is x86_64; deploy again"):
        load(deploy(PI_4, "float"))
