"""The trainer that every method shares."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.errors import EdgewrightError, TaskError
from edgewright.torchkit.data import Batch, Data
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.run import Run, begin
from edgewright.torchkit.training import Groups, Training, computing, place_of

SAVE_EVERY_S = 30.0
"""How much work a kill may cost, in seconds."""

Progress = Callable[[str, int, int], None]
AfterEpoch = Callable[[int, nn.Module], None]
"""(epoch, the module with the weights that would be the result now)."""


@dataclass(frozen=True)
class Fitted:
    """What a run did. `losses` are means over each whole epoch; `ended` is `done`, `budget` or `own loop`."""

    losses: tuple[float, ...]
    steps: int
    seconds: float
    ended: str


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
    save_every_s: float = SAVE_EVERY_S,
) -> Fitted:
    """Train `module` in place, where it lies.

    The same seed, data and machine give the same weights, also when the run was killed and called again with the
    same `folder`: every random draw depends on seed and step alone, and the state is kept every 30 s. A run that
    has ended is not run again. (A budget in seconds cuts where the clock says, so it repeats nothing exactly; on a
    GPU, gradients of some operators differ in their last bits.)

    Args:
        module: ends in evaluation mode; with `training.ema` it ends with the averaged weights.
        data: what to train on.
        training: the settings.
        objective: what to make small.
        folder: where the state of this run, and no other, is kept; None keeps none.
        progress: told what goes on, with the time left.
        groups: parameter groups; `lr` in a group is a share of the rate. Weight decay is for matrices by default.
        after_epoch: called after each epoch, say to measure; not again for those before a kill.
        save_every_s: how much work a kill may cost, in seconds.

    Raises: EdgewrightError when the loss is no longer a number; TaskError when there are no examples, or the
        objective gives something that cannot be made small; RecipeError when no weight can be trained.
    """
    if len(data) == 0:
        raise TaskError("there are no examples to train on; give the task a training split")
    run = begin(module, data, training, objective, folder=folder, groups=groups)
    ended = "done"
    with _repeatable(place_of(module)):
        for epoch in range(run.step // len(data), training.epochs):
            if not _epoch(run, epoch, progress, save_every_s):
                ended = "budget"
                break
            run.losses.append(run.epoch_loss / len(data))
            run.epoch_loss = 0.0
            run.save()
            if after_epoch:
                after_epoch(epoch, run.result.eval())
    run.save()
    if run.average is not None:
        module.load_state_dict(run.average.module.state_dict())
    module.eval()
    return Fitted(tuple(run.losses), run.step, run.seconds, ended)


def _epoch(run: Run, epoch: int, progress: Progress | None, save_every_s: float) -> bool:
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
        if now - saved >= save_every_s:
            run.save()
            saved = now
        if progress:
            _tell(run, progress)
    return True


def _step(run: Run, batch: Batch) -> float:
    training = run.training
    torch.manual_seed(training.seed * 1_000_003 + run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = training.rate * group["share"] * training.rate_at(run.share)
    device = place_of(run.module)
    with computing(training, device):
        loss = run.objective(run.module, _moved(batch, device))
    value = _value(loss, run.step)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if training.clip is not None:
        nn.utils.clip_grad_norm_(run.module.parameters(), training.clip)
    run.optimizer.step()
    if run.average is not None:
        run.average.update_parameters(run.module)
    return value


def _value(loss: Any, step: int) -> float:
    """The loss as a number, once it is known to be one that can be made small."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TaskError(f"the loss gives {found}; it must give a tensor of one number, the mean over the batch")
    if not loss.requires_grad:
        raise TaskError("the loss does not depend on the weights; compute it with torch from what the module returns")
    value = float(loss.detach())
    if not math.isfinite(value):
        raise EdgewrightError(f"training broke down at step {step}: the loss is {value}; lower the rate")
    return value


@contextlib.contextmanager
def _repeatable(device: torch.device) -> Generator[None]:
    """Draws inside repeat and leave the caller's generators alone; cuDNN takes algorithms that repeat."""
    cuda = device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
        if cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        yield


def _moved(batch: Batch, device: torch.device) -> Batch:
    labels = batch.labels.to(device) if isinstance(batch.labels, Tensor) else batch.labels
    return Batch(tuple(tensor.to(device) for tensor in batch.inputs), labels)


def _tell(run: Run, progress: Progress) -> None:
    """Say how far it is; in other words at every twentieth only, because a log has a line for each."""
    twentieth = int(20 * run.share)
    if twentieth != run.told:
        run.told, run.said = twentieth, _said(run)
    progress(run.said, run.step, run.steps)


def _said(run: Run) -> str:
    loss = run.epoch_loss / (run.step % len(run.data) or len(run.data))
    left = run.seconds / run.step * (run.steps - run.step)
    if run.training.budget_s is not None:
        left = min(left, run.training.budget_s - run.seconds)
    when = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
    return f"training: loss {loss:.3f}, {when} left"
