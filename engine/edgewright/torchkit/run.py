"""A training run under way: what it was asked, what changes while it trains, and what is kept across a kill."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgewright.torchkit import checkpoint
from edgewright.torchkit.data import Data
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.training import Groups, Training, optimizer_of
from edgewright.torchkit.weights import digest_of


@dataclass
class Run:
    """A run. `start` tells where it starts from: the weights and the groups of the optimiser, before any step.

    `said` is what the user was told at the twentieth `told`.
    """

    module: nn.Module
    data: Data
    training: Training
    objective: Objective
    folder: Path | None
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    start: str
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list[float])
    epoch_loss: float = 0.0
    told: int = -1
    said: str = ""

    @property
    def key(self) -> str:
        """What a kept state must agree on: the settings, the steps, and the weights' names and shapes."""
        shapes = [(name, tuple(tensor.shape)) for name, tensor in self.module.state_dict().items()]
        return hashlib.sha256(repr((self.training, len(self.data), shapes)).encode()).hexdigest()

    @property
    def steps(self) -> int:
        """How many there are in all."""
        return self.training.epochs * len(self.data)

    @property
    def share(self) -> float:
        """How far it is, by steps or by the budget, whichever ends first."""
        by_steps = self.step / self.steps
        budget = self.training.budget_s
        return by_steps if budget is None else max(by_steps, self.seconds / budget)

    @property
    def result(self) -> nn.Module:
        """The module with the weights that would be the result now."""
        return self.module if self.average is None else self.average.module

    def save(self) -> None:
        """Keep the state, where there is a folder for it."""
        if self.folder is None:
            return
        state = {
            "key": self.key,
            "start": self.start,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "numbers": [self.step, self.seconds, self.epoch_loss],
            "losses": self.losses,
        }
        checkpoint.save(self.folder, state)

    def restore(self) -> None:
        """Go on where a run of the same key and start was killed."""
        state = checkpoint.load(self.folder, self.key) if self.folder else None
        if state is None or state.get("start", self.start) != self.start:
            return
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.seconds, self.epoch_loss = int(state["numbers"][0]), *state["numbers"][1:]
        self.losses = list(state["losses"])


def begin(
    module: nn.Module,
    data: Data,
    training: Training,
    objective: Objective,
    *,
    folder: Path | None,
    groups: Groups | None,
) -> Run:
    """A run at its start, or where a killed one was."""
    optimizer = optimizer_of(module, training, groups)
    run = Run(module, data, training, objective, folder, optimizer, _average(module, training), "")
    run.start = _start(module, optimizer)
    run.restore()
    return run


def _average(module: nn.Module, training: Training) -> AveragedModel | None:
    if training.ema is None:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(training.ema), use_buffers=True)


def _start(module: nn.Module, optimizer: torch.optim.Optimizer) -> str:
    groups = [
        (group["share"], group["weight_decay"], [tuple(p.shape) for p in group["params"]])
        for group in optimizer.param_groups
    ]
    return hashlib.sha256(repr((digest_of(module), groups)).encode()).hexdigest()
