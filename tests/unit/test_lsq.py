"""LSQ: trains under a real context, goes on after kill -9, and works on transformers; its graph says the same."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgewright.protocols import NoParams
from edgewright.registry import Registry
from edgewright.testing import Rig, open_rig
from edgewright.types import Model

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from edgewright import onnxkit  # noqa: E402
from edgewright.torchkit.data import TaskData  # noqa: E402
from edgewright.torchkit.fakequant import Quantizer  # noqa: E402
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, prepare, usual_grids  # noqa: E402
from edgewright.torchkit.fit import fit  # noqa: E402
from edgewright.torchkit.losses import distilled  # noqa: E402
from edgewright_plugins.lower import LOWER  # noqa: E402
from edgewright_plugins.lower.export import lower_module, settled  # noqa: E402
from edgewright_plugins.lsq import LSQ, Params  # noqa: E402
from edgewright_plugins.lsq.job import settings  # noqa: E402
from networks_to_train import digits, first_digits, vit  # noqa: E402

EPOCHS = Params(bits=3, activations=3, epochs=4, batch=16)
SCRIPT = """
import sys, time
from dataclasses import replace
from pathlib import Path

from edgewright.registry import Registry
from edgewright.testing import open_rig
from edgewright_plugins.lsq import LSQ, Params

folder = Path(sys.argv[1])

def told(message, done, total):
    if list(folder.rglob("training.pt")):
        time.sleep(600)  # to be killed here, within the second epoch

with open_rig(folder, Registry()) as rig:
    model, context = rig.models("torch")["torch"], rig.context("torch", "killed")
    context = replace(context, bench=replace(context.bench, env=replace(context.bench.env, progress=told)))
    decision = LSQ.decide(model, Params(bits=3, activations=3, epochs=4, batch=16), context)
    LSQ.fit(LSQ.rewrite(model, decision), decision, context)
"""


def killed(folder: Path) -> Path:
    """Train in another process, kill it once it has kept a state, and say where that lies."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder)], stderr=subprocess.PIPE) as process:
        while not (kept := list(folder.rglob("training.pt"))) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -9, process.stderr and process.stderr.read()
    return kept[0]


def trained(rig: Rig, key: str, params: Params) -> Model:
    model, context = rig.models("torch")["torch"], rig.context("torch", key)
    decision = LSQ.decide(model, params, context)
    return LSQ.fit(LSQ.rewrite(model, decision), decision, context)


def test_a_killed_training_goes_on_to_the_same_weights_and_the_graph_agrees(tmp_path: Path) -> None:
    state_file = killed(tmp_path)
    state = torch.load(state_file, weights_only=True)
    state["losses"][0] = 123.0
    torch.save(state, state_file)
    with open_rig(tmp_path, Registry()) as rig:
        resumed, whole = trained(rig, "killed", EPOCHS), trained(rig, "whole", EPOCHS)
        assert "loss 123.000 in the first epoch" in resumed.history[-1].notes[0]
        one, other = (model.graph.module.state_dict() for model in (resumed, whole))
        assert all(torch.equal(one[name], other[name]) for name in other)
        context = rig.context("torch", "lowered")
        lowered = LOWER.apply(whole, NoParams(), context)
        feeds = list(context.feed(lowered, "selection"))
        got = [out[0].argmax() for out in onnxkit.run(lowered.graph.path, feeds)]
        with torch.no_grad():
            module = settled(whole.graph.module, feeds[0])
            want = [int(module(torch.from_numpy(next(iter(feed.values())))).argmax()) for feed in feeds]
        assert np.mean(np.array(got) == np.array(want)) >= 0.995


def test_one_step_moves_the_steps_of_a_vit_and_it_can_be_exported() -> None:
    net, images = vit(hidden_size=16, intermediate_size=24), torch.randn(8, 3, 8, 8)
    prepare(net, usual_grids(layers_of(net, [(images,)]), 4, 4))
    calibrate(net, [(images,)])
    steps = {path: each.scale for path, each in net.named_modules() if isinstance(each, Quantizer)}
    assert len(steps) == 2 * 8
    before = {path: scale.detach().clone() for path, scale in steps.items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    functional.cross_entropy(net.train()(images), torch.arange(8) % 5).backward()
    optimizer.step()
    assert all(scale.grad is not None and scale.grad.abs().sum() > 0 for scale in steps.values())
    # Queries and keys of a network that was never trained hardly matter: their steps move by less than a last bit.
    moved = {path for path, scale in steps.items() if not torch.equal(scale.detach(), before[path])}
    assert len(moved) >= 12
    whole = net.eval()
    got = next(
        onnxkit.run(onnxkit.pack(lower_module(whole, {"x": images[:1].numpy()}, ["y"])), [{"x": images[:1].numpy()}])
    )
    want = settled(whole, {"x": images[:1].numpy()})(images[:1]).detach().numpy()
    assert np.abs(got[0] - want).max() < 0.02 * np.abs(want).max()


def test_two_bits_are_learned_that_rounding_alone_loses() -> None:
    """Digits, 4 epochs. Over ten seeds 92.4 to 97.2 % (deviation 1.9), against 56.9 % calibrated and not trained."""
    task, make, accuracy = digits()
    module, seen = make(), [first_digits()]
    prepare(module, usual_grids(layers_of(module, seen), 2, 2, edges=2))
    calibrate(module, seen)

    before = accuracy(module)
    params = Params(bits=2, activations=2, epochs=4, batch=32)
    fit(module, TaskData(task, ("image",), params.batch), settings(params), distilled(make()))
    assert before < 60
    assert accuracy(module) > 88
