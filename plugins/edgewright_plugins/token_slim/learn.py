"""Feature recalibration distillation: what slimmed tokens still know of all tokens (SiT, section 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.data import Batch
from edgewright.torchkit.losses import Loss, Objective, distilled
from edgewright_plugins.token_slim.net import SlimNet, features


def recalibrated(teacher: nn.Module, loss: Loss | None, *, distill: float, recalibrate: float) -> Objective:
    """The task's loss and the distance to the teacher's answers, and how badly its tokens are recovered.

    The paper's sum is CE + 2 MSE + 2 KL. Ours shares out 1 between labels and answers (`distill` of it for the
    answers, as in every method here), and takes MSE over the variance of the teacher's tokens, so that a weight means
    the same in every network.
    """
    teacher = copy.deepcopy(teacher).eval()
    answers = distilled(teacher, loss, weight=distill)

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        net = cast("SlimNet", module)
        if not recalibrate:
            return answers(net, batch)
        with torch.no_grad():
            wanted = features(teacher.to(batch.inputs[0].device), net.compared, batch.inputs)[1]
        seen = _Seen(net)
        return answers(seen, batch) + recalibrate * distance(seen.found, wanted)

    return objective


class _Seen(nn.Module):
    """Answers as the net, and keeps what it recovered."""

    def __init__(self, net: SlimNet) -> None:
        super().__init__()
        self.net = net
        self.found: list[Tensor] = []

    def forward(self, *inputs: Tensor) -> Any:
        returned, self.found = self.net.seen(*inputs)
        return returned


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """The mean over blocks of the squared error over the variance of what is wanted."""
    errors = [
        functional.mse_loss(one.float(), other.float()) / other.float().var().clamp_min(1e-12)
        for one, other in zip(found, wanted, strict=True)
    ]
    return torch.stack(errors).mean()
