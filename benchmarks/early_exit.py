"""Early exits on CIFAR-10: trains networks with heads, and their controls, from the weights of `networks.py`.

    python benchmarks/early_exit.py train --data DIR --work DIR --out DIR --net vit12 --heads lgvit --seed 0

`lgvit`, `linear` and `local` (local perception everywhere) are heads after the blocks of --at, `frozen` are linear ones
on a network that stays as it is; `perceiver` is Dynamic Perceiver. The other controls cost the same or have no exit:
`truncated` ends after a block and is trained as a plain network of that depth, `none` is the network itself, trained on
as long. A killed run goes on when it is called again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from networks import NETWORKS, save, trained
from safetensors.torch import load_file
from torch import Tensor, nn
from train_reference import cifar10

from edgewright.task import Task
from edgewright.torchkit.anatomy import Anatomy, examine
from edgewright.torchkit.data import Batch, TaskData, flip_and_shift
from edgewright.torchkit.fit import Fitted, fit
from edgewright.torchkit.losses import Objective, distilled, supervised
from edgewright.torchkit.training import Training, place_of
from edgewright_plugins.early_exit import objectives
from edgewright_plugins.early_exit.heads import lgvit, perceiver
from edgewright_plugins.early_exit.heads.linear import LinearHead
from edgewright_plugins.early_exit.net import MultiExit
from edgewright_plugins.early_exit.side import Cut

CLASSES = 10
AFTER = {"vit12": (3, 5, 7, 9), "vit": (2, 3, 4, 5), "resnet18": (2, 4, 6)}
"""After how many blocks there is an exit."""
SHORTER = {"vit12": (6,), "vit": (4,), "resnet18": (6,)}
"""After how many blocks a truncated network ends."""
HEADS = ("lgvit", "linear", "frozen", "local", "truncated", "perceiver", "none")
EVERY = 5
"""After how many epochs accuracy is read."""


@dataclass(frozen=True)
class Settings:
    """One configuration. `start` is `trained`, `scratch`, or the file of weights it starts from."""

    net: str
    heads: str
    seed: int
    at: tuple[int, ...]
    epochs: int = 30
    head_epochs: int = 10
    batch: int = 128
    rate: float = 1e-3
    decay: float = 0.05
    ema: float = 0.998
    start: str = "trained"
    budget_s: float | None = None
    head_budget_s: float | None = None

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.net}-{self.heads}-{self.seed}"


# ------------------------------------------------------------------ networks


def load_net(path: Path) -> MultiExit:
    """A network that `train` wrote (`.safetensors`, with the `.json` beside it), in evaluation mode."""
    said = json.loads(path.with_suffix(".json").read_text())["settings"]
    settings = Settings(**{**said, "at": tuple(said["at"])})
    net = build(NETWORKS[settings.net](), settings)
    net.load_state_dict(_floats(path))
    return net.eval()


def _floats(path: Path) -> dict[str, Tensor]:
    return {key: each.float() if each.is_floating_point() else each for key, each in load_file(path).items()}


def build(backbone: nn.Module, settings: Settings) -> MultiExit:
    """The backbone with new heads."""
    anatomy = examine(backbone.eval(), [torch.zeros(1, 3, 32, 32)])
    last = anatomy.blocks[-1].end
    if settings.heads == "perceiver":
        sides = perceiver.sides(anatomy, CLASSES)
        return MultiExit(backbone, perceiver.cuts(anatomy), sides, last=last, final=True)
    blocks = [anatomy.blocks[number - 1] for number in settings.at]
    cuts = [Cut(block.end) for block in blocks]
    return MultiExit(backbone, cuts, _heads(settings, anatomy), last=last)


def _heads(settings: Settings, anatomy: Anatomy) -> list[nn.Module]:
    grids = [anatomy.stages[anatomy.blocks[number - 1].stage] for number in settings.at]
    reads = anatomy.head.reads if anatomy.head else ()
    if settings.heads in ("linear", "frozen", "truncated"):
        return [LinearHead(grid, CLASSES, reads) for grid in grids]
    kinds = lgvit.kinds(len(grids))
    if settings.heads == "local":
        kinds = tuple(lgvit.kinds(2 * len(grids))[: len(grids)])
    return [lgvit.head(kind, grid, CLASSES, reads) for kind, grid in zip(kinds, grids, strict=True)]


def _start(settings: Settings) -> nn.Module:
    if settings.start == "trained":
        return trained(settings.net)
    module = NETWORKS[settings.net]()
    if settings.start != "scratch":
        module.load_state_dict(_floats(Path(settings.start)))
    return module.eval()


# ------------------------------------------------------------------ training


@dataclass(frozen=True)
class Part:
    """One of the trainings that a configuration takes, one after the other."""

    name: str
    epochs: int
    objective: Objective
    frozen: bool = False
    budget_s: float | None = None


def parts(settings: Settings, teacher: nn.Module | None) -> list[Part]:
    """What is trained, for as many epochs in all whatever the heads are."""
    whole = settings.epochs + settings.head_epochs
    budget = None if settings.budget_s is None else settings.budget_s + (settings.head_budget_s or 0.0)
    if settings.heads == "perceiver":
        return [Part("joint", whole, objectives.perceiver(), budget_s=budget)]
    if settings.heads == "frozen":
        return [Part("heads", whole, objectives.heads_only(), frozen=True, budget_s=budget)]
    if settings.heads in ("truncated", "none"):
        plain = supervised() if teacher is None else distilled(teacher)
        return [Part("joint", whole, _first_answer(plain), budget_s=budget)]
    joint = Part("joint", settings.epochs, objectives.joint(teacher), budget_s=settings.budget_s)
    heads = Part("heads", settings.head_epochs, objectives.heads_only(), frozen=True, budget_s=settings.head_budget_s)
    return [joint, heads] if heads.epochs else [joint]


def _first_answer(plain: Objective) -> Objective:
    """An objective of plain networks, for the first answer of a `MultiExit`."""

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        return plain(_First(module), batch)

    return objective


class _First(nn.Module):
    """The first answer alone."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(*inputs).logits[0]


def accuracies(net: nn.Module, task: Task, split: str = "selection") -> list[float]:
    """Top-1 in % of every exit over a split, the final answer last."""
    place, right = place_of(net), torch.zeros(())
    with torch.no_grad():
        for batch in TaskData(task, ("image",), 500, split).epoch(0):
            logits = torch.stack(net(*(each.to(place) for each in batch.inputs)).logits)
            right = right + (logits.argmax(2).cpu() == batch.labels).float().sum(1)
    return [round(100 * each / task.size(split), 2) for each in right.tolist()]


def train_part(net: MultiExit, part: Part, settings: Settings, task: Task, folder: Path) -> tuple[Fitted, list[Any]]:
    """Train, and read accuracy every few epochs; both go on after a kill."""
    kept = folder / "curve.json"
    curve: list[Any] = json.loads(kept.read_text()) if kept.exists() else []

    def after_epoch(epoch: int, result: nn.Module) -> None:
        if (epoch + 1) % EVERY == 0 or epoch + 1 == part.epochs:
            curve.append([part.name, epoch + 1, accuracies(result, task)])
            kept.write_text(json.dumps(curve))
            print(settings.name, *curve[-1], flush=True)

    if part.frozen:
        net.freeze()
    training = Training(
        epochs=part.epochs,
        batch=settings.batch,
        rate=settings.rate,
        ema=settings.ema,
        seed=settings.seed,
        budget_s=part.budget_s,
    )
    data = TaskData(replace(task, seed=settings.seed), ("image",), settings.batch, augment=flip_and_shift())
    groups = objectives.groups(settings.decay) if settings.start != "scratch" else None
    fitted = fit(net, data, training, part.objective, folder=folder, groups=groups, after_epoch=after_epoch)
    return fitted, curve


def train(settings: Settings, task: Task, work: Path, out: Path) -> None:
    """Train one configuration and write its weights and its record."""
    torch.manual_seed(settings.seed)
    start = _start(settings)
    teacher = None if settings.start == "scratch" else start
    trainings = parts(settings, teacher)
    net = build(start, settings).to(memory_format=torch.channels_last)
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    seconds, steps, curve = 0.0, {}, []
    for part in trainings:
        fitted, read = train_part(net, part, settings, task, work / settings.name / part.name)
        seconds, curve, steps[part.name] = seconds + fitted.seconds, [*curve, *read], fitted.steps
    reached = accuracies(net, task)
    out.mkdir(parents=True, exist_ok=True)
    save(net.cpu(), out / f"{settings.name}.safetensors")
    record = {
        "settings": asdict(settings),
        "examples": {split: task.size(split) for split in ("training", "selection")},
        "weights": sum(each.numel() for each in net.parameters()),
        "selection_top1_percent": reached,
        "curve": curve,
        "steps": steps,
        "seconds": round(seconds),
        "torch": torch.__version__,
        "trained on": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    (out / f"{settings.name}.json").write_text(json.dumps(record, indent=1) + "\n")


def limited(task: Task, limit: int | None) -> Task:
    """The task with at most `limit` examples in each split."""
    splits = {name: (examples, indices[:limit]) for name, (examples, indices) in task.splits.items()}
    return replace(task, splits=splits)


# ------------------------------------------------------------------ command line


def _train(options: argparse.Namespace) -> None:
    at = SHORTER if options.heads == "truncated" else AFTER
    chosen = () if options.heads in ("none", "perceiver") else tuple(options.at or at[options.net])
    start = "scratch" if options.scratch else options.start
    asked = {key: value for key in ("epochs", "head_epochs", "batch", "rate", "decay", "ema",
                                                       "budget_s", "head_budget_s")
             if (value := getattr(options, key)) is not None}  # fmt: skip
    settings = Settings(options.net, options.heads, options.seed, chosen, start=start, **asked)
    train(settings, limited(cifar10(options.data), options.limit), options.work, options.out)


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    train_command = commands.add_parser("train", help="train one configuration")
    train_command.set_defaults(run=_train)
    paths: list[tuple[str, Callable[[str], Any]]] = [("--data", str), ("--work", Path), ("--out", Path)]
    for flag, kind in paths:
        train_command.add_argument(flag, type=kind, required=True)
    train_command.add_argument("--net", choices=sorted(AFTER), required=True)
    train_command.add_argument("--heads", choices=HEADS, required=True)
    train_command.add_argument("--seed", type=int, default=0)
    train_command.add_argument("--at", type=int, nargs="+", help="after how many blocks there is an exit")
    for flag, kind in (("epochs", int), ("head-epochs", int), ("batch", int), ("rate", float), ("decay", float),
                       ("ema", float), ("budget-s", float), ("head-budget-s", float)):  # fmt: skip
        train_command.add_argument(f"--{flag}", type=kind)
    train_command.add_argument("--limit", type=int, help="examples of each split, to try things out")
    train_command.add_argument("--start", default="trained", help="weights to start from, as networks.save writes")
    train_command.add_argument("--scratch", action="store_true", help="start from random weights")
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
