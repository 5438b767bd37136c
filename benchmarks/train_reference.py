"""Trains the reference networks of `networks.py` on CIFAR-10; goes on after a kill.

    python benchmarks/train_reference.py resnet20 vit vgg11 vit12 resnet18 --data DIR --work DIR

`checkpoints/NAME.safetensors` and `NAME.json` (recipe, curve, accuracy with its interval) are written at the end.
What was trained on another machine is recorded here with --record, once its weights and its folder are back.
Only the training split of `examples/cifar10.py:resnet` is seen: calibration, selection and test stay unseen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from networks import CHECKPOINTS, NETWORKS, save, trained

from edgewright.task import Task
from edgewright.torchkit.data import TaskData, flip_and_shift
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import cross_entropy, supervised
from edgewright.torchkit.training import Training, place_of

SGD = Training(optimizer="sgd", rate=0.1, weight_decay=5e-4, ema=0.998, warm_up=0.05, clip=None)
RECIPES = {
    "resnet20": Training(**{**asdict(SGD), "epochs": 45}),
    "vit": Training(epochs=60, rate=1.5e-3, weight_decay=0.05, ema=0.998, warm_up=0.08),
    "vgg11": Training(**{**asdict(SGD), "epochs": 30}),
    "vit12": Training(epochs=60, batch=256, rate=2e-3, weight_decay=0.1, ema=0.998, warm_up=0.08),
    "resnet18": Training(**{**asdict(SGD), "epochs": 60}),
}
SMOOTHING = {"resnet20": 0.0, "vit": 0.1, "vgg11": 0.0, "vit12": 0.1, "resnet18": 0.0}


def cifar10(data: str) -> Task:
    """The task, read from a folder."""
    os.environ["EDGEWRIGHT_DATA"] = data
    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    from cifar10 import resnet

    return resnet()


def accuracy(module: torch.nn.Module, task: Task, split: str) -> float:
    """Top-1 in % over a split."""
    place = place_of(module)
    with torch.no_grad():
        right = [
            (module(*(each.to(place) for each in batch.inputs)).argmax(1).cpu() == batch.labels).float().sum()
            for batch in TaskData(task, ("image",), 250, split).epoch(0)
        ]
    return 100 * float(torch.stack(right).sum()) / task.size(split)


def train(name: str, task: Task, work: Path) -> None:
    """Train one network and write its checkpoint and its record."""
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    module = NETWORKS[name]().to(memory_format=torch.channels_last)
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    kept = work / name / "curve.json"
    curve: list[list[float]] = json.loads(kept.read_text()) if kept.exists() else []

    def after_epoch(epoch: int, result: torch.nn.Module) -> None:
        if epoch % 5 == 4:
            curve.append([epoch + 1, accuracy(result, task, "selection")])
            kept.write_text(json.dumps(curve))
            print(name, "epoch", epoch + 1, "selection", curve[-1][1], flush=True)

    fitted = fit(
        module,
        TaskData(task, ("image",), recipe.batch, augment=flip_and_shift()),
        recipe,
        supervised(cross_entropy(SMOOTHING[name])),
        folder=work / name,
        after_epoch=after_epoch,
    )
    save(module, CHECKPOINTS / f"{name}.safetensors")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    run = {"seconds": round(fitted.seconds), "torch": torch.__version__, "trained on": where}
    losses = [round(loss, 4) for loss in fitted.losses]
    (work / name / "run.json").write_text(json.dumps({**run, "loss_per_epoch": losses}))


def record(name: str, task: Task, work: Path) -> None:
    """Write what was done and what came of it; accuracy is that of the weights as they are kept."""
    kept = trained(name)
    run, curve = (json.loads((work / name / f"{each}.json").read_text()) for each in ("run", "curve"))
    found = {split: round(accuracy(kept, task, split), 2) for split in ("selection", "test")}
    report = {
        "network": name,
        "weights": sum(p.numel() for p in kept.parameters()),
        "data": f"{task.name}, {'; '.join(task.notes)}; mirrored and shifted by up to 4 pixels",
        "recipe": {**asdict(RECIPES[name]), "label_smoothing": SMOOTHING[name]},
        "top1_percent": {**found, "n": {split: task.size(split) for split in found}},
        **run,
        "selection_top1_percent_after_epoch": curve,
    }
    (CHECKPOINTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    print(name, found, flush=True)


def main() -> None:
    """Train what is asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(NETWORKS))
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train", action="store_true", help="only train")
    parser.add_argument("--record", action="store_true", help="only write the records")
    options = parser.parse_args()
    task = cifar10(options.data)
    for name in options.names:
        if not options.record:
            train(name, task, options.work)
        if not options.train:
            record(name, task, options.work)


if __name__ == "__main__":
    main()
