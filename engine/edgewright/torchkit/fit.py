"""The trainer that every method shares."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from edgewright.errors import EdgewrightError
from edgewright.torchkit import checkpoint
from edgewright.torchkit.data import Batch, Data
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.training import Groups, Training, computing, optimizer_of, place_of

SAVE_EVERY_S = 30.0
"""How much work a kill may cost, in seconds."""

Progress = Callable[[str, int, int], None]
AfterEpoch = Callable[[int, nn.Module], None]
"""(epoch, the module with the weights that would be the result now)."""


@dataclass(frozen=True)
class Fitted:
    """What a run did. `losses` are means over each epoch; `ended` is `done` or `budget`."""

    losses: tuple[float, ...]
    steps: int
    seconds: float
    ended: str


@dataclass
class _Run:
    """A run: what it was asked, and what changes while it trains and is kept across a kill."""

    module: nn.Module
    data: Data
    training: Training
    objective: Objective
    folder: Path | None
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list[float])
    epoch_loss: float = 0.0

    @property
    def key(self) -> str:
        """What a kept state must agree on: the settings, the steps, and the weights' names and shapes."""
        shapes = [(name, tuple(tensor.shape)) for name, tensor in self.module.state_dict().items()]
        return hashlib.sha256(repr((self.training, len(self.data), shapes)).encode()).hexdigest()

    @property
    def share(self) -> float:
        """How far it is, by steps or by the budget, whichever ends first."""
        by_steps = self.step / (self.training.epochs * len(self.data))
        budget = self.training.budget_s
        return by_steps if budget is None else max(by_steps, self.seconds / budget)

    @property
    def result(self) -> nn.Module:
        return self.module if self.average is None else self.average.module

    def save(self) -> None:
        """Keep the state, where there is a folder for it."""
        if self.folder is None:
            return
        state = {
            "key": self.key,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "numbers": [self.step, self.seconds, self.epoch_loss],
            "losses": self.losses,
        }
        checkpoint.save(self.folder, state)

    def restore(self) -> None:
        """Go on where a run of the same key was killed."""
        state = checkpoint.load(self.folder, self.key) if self.folder else None
        if state is None:
            return
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.step, self.seconds, self.epoch_loss = int(state["numbers"][0]), *state["numbers"][1:]
        self.losses = list(state["losses"])


def fit(
    module: nn.Module,
    data: Data,
    training: Training,
    objective: Objective,
    *,
    folder: Path | None = None,
    progress: Progress | None = None,
    groups: Groups | None = None,
    after_epoch: AfterEpoch | None = None,
) -> Fitted:
    """Train `module` in place.

    The same seed, data and machine give the same weights, also when the run was killed and called again with the
    same `folder`: every random draw depends on seed and step alone, and the state is kept every 30 s.

    Args:
        module: ends in evaluation mode; with `training.ema` it ends with the averaged weights.
        data: what to train on.
        training: the settings.
        objective: what to make small.
        folder: where the state of the run is kept; None keeps none.
        progress: told what goes on, with the time left.
        groups: parameter groups; `lr` in a group is a share of the rate. Weight decay is for matrices by default.
        after_epoch: called after each epoch, say to measure.

    Raises: EdgewrightError when the loss is no longer a number.
    """
    run = _Run(
        module, data, training, objective, folder, optimizer_of(module, training, groups), _average(module, training)
    )
    run.restore()
    ended = "done"
    for epoch in range(run.step // len(data), training.epochs):
        if not _epoch(run, epoch, progress):
            ended = "budget"
            break
        run.losses.append(run.epoch_loss / len(data))
        run.epoch_loss = 0.0
        run.save()
        if after_epoch:
            after_epoch(epoch, run.result.eval())
    if run.average is not None:
        module.load_state_dict(run.average.module.state_dict())
    module.eval()
    return Fitted(tuple(run.losses), run.step, run.seconds, ended)


def _epoch(run: _Run, epoch: int, progress: Progress | None) -> bool:
    """What is left of an epoch; False when the budget ended it."""
    run.module.train()
    saved = before = time.monotonic()
    for batch in itertools.islice(run.data.epoch(epoch), run.step % len(run.data), None):
        if run.share >= 1:
            return False
        run.epoch_loss += _step(run, batch)
        run.step += 1
        now = time.monotonic()
        run.seconds, before = run.seconds + now - before, now
        if now - saved > SAVE_EVERY_S:
            run.save()
            saved = now
        if progress:
            progress(_said(run), run.step, run.training.epochs * len(run.data))
    return True


def _step(run: _Run, batch: Batch) -> float:
    training = run.training
    torch.manual_seed(training.seed * 1_000_003 + run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = training.rate * group["share"] * training.rate_at(run.share)
    device = place_of(run.module)
    with computing(training, device):
        loss = run.objective(run.module, _moved(batch, device))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise EdgewrightError(f"training broke down at step {run.step}: the loss is {value}; lower the rate")
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if training.clip is not None:
        nn.utils.clip_grad_norm_(run.module.parameters(), training.clip)
    run.optimizer.step()
    if run.average is not None:
        run.average.update_parameters(run.module)
    return value


def _moved(batch: Batch, device: torch.device) -> Batch:
    """On the device; images in the layout that convolutions train fastest in."""
    inputs = tuple(
        t.to(device, memory_format=torch.channels_last) if t.ndim == 4 else t.to(device) for t in batch.inputs
    )
    return Batch(inputs, None if batch.labels is None else batch.labels.to(device))


def _average(module: nn.Module, training: Training) -> AveragedModel | None:
    if training.ema is None:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(training.ema), use_buffers=True)


def _said(run: _Run) -> str:
    loss = run.epoch_loss / (run.step % len(run.data) or len(run.data))
    left = run.seconds / run.step * (run.training.epochs * len(run.data) - run.step)
    if run.training.budget_s is not None:
        left = min(left, run.training.budget_s - run.seconds)
    when = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
    return f"training: loss {loss:.3f}, {when} left"
