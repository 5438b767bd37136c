"""Bundles deployed here for boards that are not at hand, and run there by the device set and one runtime."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from digits import DIGITS, images, write_int8
from edgewright.agents.agentfile import build_agent
from edgewright.deploying.race import FURTHEST as RACE_FURTHEST
from edgewright.errors import BundleError, RefusedError
from edgewright.toolchain.ortheader import find_header, headers_place
from edgewright_runtime import load
from userland import PI_4, PI_5, Board, Userland

pytestmark = [pytest.mark.hardware, pytest.mark.slow, pytest.mark.torch]

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
IMAGES = {
    "vit": RNG.standard_normal((4, 1, 3, 32, 32), np.float32),
    "digits": images("train", 8),
}
"""By the first word of a network's name; one image a run."""

QUANTIZE = "quantize:mode=static,range=min-max,activations=u8,examples=8,drop=1"
FURTHEST = {"vit": 1e-5, "vit int8": RACE_FURTHEST, "digits": 1e-5, "digits int8": 0.0}
"""As a share of the largest output; where one sum is rounded otherwise, a byte differs and what follows from it."""

LEAST_CALLS = {"vit": 16, "vit int8": 16, "digits": 4, "digits int8": 4}
"""Nodes that call a kernel: the products, norms and attentions in two blocks, and the convolutions."""

WHOLE_FURTHEST = 1e-4
STRANGERS = {"onnx", "torch", "pluggy", "click"}

RUN = """
import importlib.util, sys
import numpy as np
import edgewright_runtime
found = {}
for name in sys.argv[1:]:
    model = edgewright_runtime.load(name)
    found[name] = [next(iter(model.run(image).outputs.values())) for image in np.load(name + ".npy")]
np.savez("found.npz", **found)
print(*(name for name in ("onnxruntime", "tvm") if importlib.util.find_spec(name)))
print(*{name.split(".")[0] for name in sys.modules})
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

Deploy = Callable[..., Path]


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
    about = [
        "--target",
        board.name,
        "--preset",
        "quick:seconds=0.2,rounds=3",
        "--cache",
        str(out.parent / "cache"),
        *more,
    ]
    done = subprocess.run([*command, *about], capture_output=True, text=True)
    assert out.exists(), done.stderr
    return out


@pytest.fixture(scope="module")
def networks(folder: Path) -> Mapping[str, Path]:
    """Small networks by name: quick to compile here, and to run there."""
    vit = _write_vit(folder / "vit.onnx")
    freely = ("--min-speedup", "off", "--minimise", "size")
    bundle = engine_deploy(vit, PI_4, folder / "int8", "--apply", QUANTIZE, *freely)
    return {
        "vit": vit,
        "vit int8": bundle / "artifacts" / "main.onnx",
        "digits": DIGITS,
        "digits int8": write_int8(folder / "digits-int8.onnx"),
    }


def _write_vit(place: Path) -> Path:
    """The first two blocks of the reference ViT with its weights."""
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    spec = importlib.util.spec_from_file_location("networks", ROOT / "benchmarks" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net, image = module.vit(), torch.zeros(IMAGES["vit"].shape[1:])
    net.blocks = net.blocks[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates parts of itself
        torch.onnx.export(net, (image,), str(place), dynamo=True, external_data=False, verbose=False)
    return place


@pytest.fixture(scope="module")
def deploy(networks: Mapping[str, Path], folder: Path) -> Deploy:
    """Makes the bundle of a network for a board, in one form, once."""

    def made(board: Board, name: str, exporter: str = "kernels") -> Path:
        out = folder / f"{board.name}-{name.replace(' ', '-')}-{exporter}"
        how = ("--exporter", exporter, "--apply", "simplify")
        return out if out.exists() else engine_deploy(networks[name], board, out, *how)

    return made


def outputs_of(network: Path, images: Any) -> Any:
    """What ONNX Runtime answers on this host, node by node as the graph says it."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    return np.stack([session.run(None, {name: image})[0] for image in images])


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """What is copied to the device: so far the device set, as one file."""
    os.rename(build_agent(tmp_path), tmp_path / "agent.pyz")
    return tmp_path


def carry(bundle: Path, job: Path) -> str:
    shutil.copytree(bundle, job / bundle.name)
    return bundle.name


@pytest.mark.parametrize(
    ("board", "names"),
    [(PI_4, ("vit", "digits", "digits int8")), (PI_5, ("vit int8", "digits int8"))],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_board_answers_as_this_host(
    board: Board, names: Sequence[str], userland: Userland, networks: Mapping[str, Path], deploy: Deploy, job: Path
) -> None:
    bundles = {name: deploy(board, name) for name in names}
    found = run(userland, board, bundles, job, "onnxruntime")
    for name, bundle in bundles.items():
        (artifact,) = json.loads((bundle / "manifest.json").read_text())["artifacts"]
        assert calls_of(artifact) >= LEAST_CALLS[name]
        assert ("QuantizeLinear" in artifact["operators"]) == name.endswith("int8")
        wanted = outputs_of(networks[name], images_of(name))
        assert np.abs(found[name] - wanted).max() <= FURTHEST[name] * np.abs(wanted).max()


def test_whole_models_answer_as_this_host_without_onnxruntime(
    userland: Userland, networks: Mapping[str, Path], deploy: Deploy, job: Path
) -> None:
    bundles = {name: deploy(PI_4, name, "tvm") for name in ("vit", "digits")}
    found = run(userland, PI_4, bundles, job, "tvm")
    for name, bundle in bundles.items():
        (artifact,) = json.loads((bundle / "manifest.json").read_text())["artifacts"]
        assert artifact["format"] == "tvm"
        assert calls_of(artifact) >= LEAST_CALLS[name]
        wanted = outputs_of(networks[name], images_of(name))
        assert np.abs(found[name] - wanted).max() <= WHOLE_FURTHEST * np.abs(wanted).max()


def run(userland: Userland, board: Board, bundles: Mapping[str, Path], job: Path, runtime: str) -> Mapping[str, Any]:
    """What bundles answer on a board to the images of their networks, loaded by the device set and one runtime."""
    for name, bundle in bundles.items():
        np.save(job / carry(bundle, job), images_of(name))
    names = [bundle.name for bundle in bundles.values()]
    done = userland.run(["python3", "-c", RUN, *names], board, job, runtime=runtime)
    assert done.returncode == 0, done.stderr
    runtimes, modules = done.stdout.splitlines()[-2:]
    assert runtimes == runtime
    assert not STRANGERS & set(modules.split())
    with np.load(job / "found.npz") as found:
        return {name: found[bundle.name] for name, bundle in bundles.items()}


def images_of(name: str) -> Any:
    return IMAGES[name.split(maxsplit=1)[0]]


def calls_of(artifact: Mapping[str, Any]) -> int:
    """How many nodes call a kernel."""
    return sum(count for name, count in artifact["operators"].items() if name.startswith("edgewright::"))


def test_dot_products_are_refused_by_a_board_without_them(userland: Userland, deploy: Deploy, job: Path) -> None:
    """Even where /proc/cpuinfo is that of a board that has them."""
    name = carry(deploy(PI_5, "digits int8"), job)
    for board in (PI_4, replace(PI_5, cpu=PI_4.cpu)):
        done = userland.run(["python3", "-c", LOAD, name], board, job)
        assert done.returncode == 1
        assert f"edgewright.errors.BundleError: {REFUSAL}" in done.stderr


def test_the_agent_tells_the_board_and_refuses_too(userland: Userland, deploy: Deploy, job: Path) -> None:
    theirs, ours = (carry(deploy(board, "digits int8"), job) for board in (PI_5, PI_4))
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
        load(deploy(PI_4, "vit"))
