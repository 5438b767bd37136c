"""Methods that train: what `train` takes from the task, and what is kept of a trained module across runs."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgewright import TOP1, Task, top1
from edgewright.asking.recipe import Method
from edgewright.asking.request import MethodCall, Request
from edgewright.deploying.context import Workbench
from edgewright.deploying.opening import open_bench
from edgewright.deploying.pipeline import prepare
from edgewright.deploying.steps import run_step
from edgewright.environment import Environment
from edgewright.errors import EdgewrightError, RefusedError, TaskError
from edgewright.registry import TARGETS, TRANSFORMS, Registry
from edgewright.registry.discovery import Source, installed
from edgewright.store import Store

torch = pytest.importorskip("torch")

from edgewright.torchkit.train import train  # noqa: E402
from edgewright.torchkit.training import Training  # noqa: E402

DIGITS = Path(__file__).parents[2] / "examples" / "digits"

PLUGIN = '''
"""Methods that train a little."""

import copy
from dataclasses import dataclass, field

from edgewright.types import Step, TorchGraph

EDGEWRIGHT_API = 1


@dataclass(frozen=True)
class Params:
    epochs: int = field(default=2, metadata={"help": "passes over the data", "low": 0})


class Tune:
    """Trains on; `grown` puts the trained network into another, so that its rewrite cannot be repeated."""

    summary, takes, gives, needs, reads, Params = "train on", "torch", "torch", "training", ("task",), Params

    def __init__(self, name, grown):
        self.name, self.grown = name, grown

    def check(self, model, target):
        return None

    def decide(self, model, params, context):
        return {"epochs": params.epochs}

    def rewrite(self, model, decision):
        if not decision["epochs"]:
            return model
        return model.with_graph(TorchGraph(copy.deepcopy(model.graph.module), "rewritten"))

    def fit(self, model, decision, context):
        from torch import nn

        from edgewright.torchkit.train import train
        from edgewright.torchkit.training import Training

        if not decision["epochs"]:
            return model.after(Step(self.name, "", notes=("nothing to train",)))
        module = model.graph.module
        fitted = train(module, module, context, Training(epochs=decision["epochs"], batch=256, rate=1e-3))
        if self.grown:
            module = nn.Sequential(module)
        return model.with_graph(TorchGraph(module, "fitted")).after(Step(self.name, "", notes=(str(fitted.steps),)))


def edgewright_transforms():
    return Tune("tune", grown=False), Tune("grow", grown=True)
'''


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """The digits network on this host, in a registry with the built-ins and the plugin above."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "a_tuner.py").write_text(PLUGIN)
    spec = importlib.util.spec_from_file_location("a_tuner", folder / "a_tuner.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["a_tuner"] = module
    spec.loader.exec_module(module)
    registry = Registry([*installed(), Source("tuner", "edgewright-tuner", "0.1", lambda: module)])
    env = Environment(registry, Store(folder / "cache"), lambda *_: None)
    asked = Request(model=str(DIGITS / "digits.onnx"), task=str(DIGITS / "digits.npz"), apply=(MethodCall("tune"),))
    with ExitStack() as stack:
        yield open_bench(prepare(asked, registry.get(TARGETS, "cpu").value, env), env, stack)


@pytest.fixture
def fresh(bench, tmp_path):
    """(a bench with an empty cache, what was told while it worked)."""
    told = []

    def progress(message, done, total):
        told.append(f"{message} {done}/{total}")

    return replace(bench, env=Environment(bench.registry, Store(tmp_path), progress)), told


def applied(bench, name, model=None, **params):
    offer = bench.registry.get(TRANSFORMS, name)
    return run_step(Method(offer, offer.value.Params(**params)), model or bench.original, bench)


def steps(told):
    return [line for line in told if line.startswith("training:")]


def outputs(model, bench):
    return Workbench(bench, "outputs").outputs(model, limit=16)["logits"]


def weights(model):
    return torch.cat([p.flatten() for p in model.graph.module.parameters()])


def test_what_was_trained_is_not_trained_again(fresh):
    bench, told = fresh
    lifted = applied(bench, "lift")
    first = applied(bench, "tune", lifted)
    assert len(steps(told)) == 6
    assert not (bench.store.root / "scratch").exists() or not any((bench.store.root / "scratch").iterdir())
    told.clear()
    again = applied(bench, "tune", applied(bench, "lift"))
    assert not steps(told)
    assert (again.digest, again.history) == (first.digest, first.history)
    assert again.history[-1].plugin == "edgewright-tuner 0.1"
    assert torch.equal(weights(again), weights(first))
    assert not torch.equal(weights(first), weights(lifted))
    assert np.array_equal(outputs(again, bench), outputs(first, bench))


def test_the_digest_of_a_trained_module_covers_its_weights(fresh):
    bench, _ = fresh
    lifted = applied(bench, "lift")
    other = replace(bench, recipe=replace(bench.recipe, seed=1))
    trained = [applied(bench, "tune", lifted), applied(bench, "tune", lifted, epochs=1), applied(other, "tune", lifted)]
    assert len({model.digest for model in (*trained, lifted)}) == 4


def test_a_step_that_was_stopped_goes_on_and_ends_as_if_it_had_not_been(fresh, tmp_path):
    bench, told = fresh

    def stop(message, done, total):
        if message.startswith("training:") and done == 5:
            raise KeyboardInterrupt

    stopped = replace(bench, env=replace(bench.env, progress=stop))
    lifted = applied(bench, "lift")
    with pytest.raises(KeyboardInterrupt):
        applied(stopped, "tune", lifted)
    resumed = applied(bench, "tune", lifted)
    assert [line.split()[-1] for line in steps(told)] == ["4/6", "5/6", "6/6"]
    elsewhere = replace(bench, env=replace(bench.env, store=Store(tmp_path / "elsewhere")))
    assert applied(elsewhere, "tune", lifted).digest == resumed.digest


def test_a_method_whose_rewrite_cannot_be_repeated_does_not_train_again_either(fresh):
    bench, told = fresh
    lifted = applied(bench, "lift")
    first = applied(bench, "grow", lifted)
    told.clear()
    assert applied(bench, "grow", lifted).digest == first.digest != lifted.digest
    assert not steps(told)


def test_a_method_that_changed_nothing_gives_the_same_digest(fresh):
    bench, _ = fresh
    lifted = applied(bench, "lift")
    for _ in range(2):
        found = applied(bench, "tune", lifted, epochs=0)
        assert (found.digest, found.history[-1].notes) == (lifted.digest, ("nothing to train",))


SETTINGS = Training(epochs=1, batch=64, rate=1e-3, precision="fp32")


def given_task(bench, *, labels=True, **options):
    """(a context of the bench whose task has these fields, a network for it)."""
    with np.load(DIGITS / "digits.npz") as data:
        x, y = {"image": data["x_train"][:160]}, data["y_train"][:160] if labels else None
    name = bench.original.signature.inputs[0].name
    x = {name: x["image"]}
    task = Task.from_arrays(x, y, metric=TOP1, score=top1, training=(x, y), **options)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    return Workbench(replace(bench, task=task), "a step"), module


def test_training_uses_the_tasks_augmentation_and_loss_and_the_contexts_seed(fresh):
    bench, _ = fresh
    seen = []

    def augment(inputs, generator):
        seen.append((tuple(inputs[0].shape), generator.initial_seed()))
        return inputs

    def loss(returned, labels):
        seen.append(tuple(labels.shape))
        return torch.nn.functional.cross_entropy(returned, labels)

    context, module = given_task(bench, augment=augment, loss=loss)
    assert train(module, module, context, SETTINGS).steps == 2
    assert seen == [((64, 1, 8, 8), 0), (64,), ((64, 1, 8, 8), 0), (64,)]
    assert (context.scratch / "training" / "training.pt").is_file()


def test_without_labels_the_teacher_alone_trains(fresh):
    bench, _ = fresh
    context, module = given_task(bench, labels=False)
    torch.manual_seed(1)
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    fitted = train(module, teacher, context, replace(SETTINGS, epochs=20, rate=1e-2))
    assert fitted.losses[-1] < 0.5 * fitted.losses[0]
    with pytest.raises(TaskError, match="have no labels"):
        train(module, None, context, SETTINGS)


def test_the_users_own_loop_trains_instead(fresh):
    bench, told = fresh

    def loop(module, data, training, objective, folder):
        (folder / "mine").write_text("kept")
        optimizer = torch.optim.SGD(module.parameters(), lr=training.rate)
        for batch in data.epoch(0):
            optimizer.zero_grad()
            objective(module, batch).backward()
            optimizer.step()

    context, module = given_task(bench, loop=loop)
    before = module[1].weight.detach().clone()
    fitted = train(module, module, context, SETTINGS, part="second")
    assert fitted.ended == "own loop"
    assert not torch.equal(module[1].weight, before)
    assert not module.training
    assert (context.scratch / "second" / "mine").read_text() == "kept"
    assert not steps(told)


def test_a_loop_that_fails_or_breaks_the_weights_is_named(fresh):
    bench, _ = fresh

    def fails(*_):
        raise ValueError("no such schedule")

    def breaks(module, *_):
        module[1].weight.data.fill_(float("nan"))

    context, module = given_task(bench, loop=fails)
    with pytest.raises(TaskError, match="the training loop of task 'task' failed: ValueError: no such schedule"):
        train(module, module, context, SETTINGS)
    context, module = given_task(bench, loop=breaks)
    with pytest.raises(EdgewrightError, match="left weights that are not finite"):
        train(module, module, context, SETTINGS)


def test_without_training_examples_nothing_is_trained(fresh):
    bench, _ = fresh
    _, module = given_task(bench)
    for task in (replace(bench.task, synthetic=True), replace(bench.task, splits={})):
        with pytest.raises(RefusedError, match="no training split to train on; give x_train"):
            train(module, module, Workbench(replace(bench, task=task), "a step"), SETTINGS)
