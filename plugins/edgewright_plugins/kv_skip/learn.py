"""Learns what to store: decisions drawn with Gumbel noise, a budget for their share, and the original as teacher."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from math import log
from typing import cast

import torch
from torch import Tensor, nn

from edgewright.torchkit.data import Batch
from edgewright.torchkit.losses import Loss, Objective, cross_entropy, divergence, judged, outputs_of
from edgewright.torchkit.training import Training
from edgewright_plugins.kv_skip import Params
from edgewright_plugins.kv_skip.net import Skipping, stored
from edgewright_plugins.tokens.learning import DECAY

STRICT = 100.0
"""The weight of the squared distance to the budget, as in the paper's code."""


def drawn(logits: Tensor) -> Tensor:
    """Decisions 1 or 0 with logistic noise (two Gumbel variables), whose gradient is that of their probability."""
    uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid(logits + uniform.log() - (-uniform).log1p())
    return (soft > 0.5).to(soft.dtype) + soft - soft.detach()


def skipping(teacher: nn.Module, loss: Loss | None, *, keep: float, distill: float) -> Objective:
    """`1 - distill` of the task's loss, `distill` of KL(teacher || network) per token, and the budget."""
    loss, teacher = loss or cross_entropy(), copy.deepcopy(teacher).eval()

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        net = cast("Skipping", module)
        with torch.no_grad():
            wanted = outputs_of(teacher.to(batch.inputs[0].device)(*batch.inputs))[0]
        returned = net(*batch.inputs)
        distance = divergence(outputs_of(returned)[0].float(), wanted.float(), 1.0)
        total = distill * distance
        if batch.labels is not None and distill < 1:
            total = total + (1 - distill) * judged(loss, returned, batch.labels)
        return total if net.noted is None else total + STRICT * (net.noted[1].mean() - keep) ** 2

    return objective


def learning(net: Skipping, keep: float) -> None:
    """Draw decisions from here on, at first so many as the budget allows."""
    net.rule = drawn
    if net.predictor is not None:
        nn.init.constant_(net.predictor.up.bias, log(keep / (1 - keep)))


def level(net: Skipping, keep: float, texts: Iterable[Tensor]) -> float:
    """End the drawing: move the predictor's bias until it stores its share of `texts`, and give that share."""
    net.rule = stored
    found: list[Tensor] = []
    with torch.no_grad():
        for tokens in texts:
            net(tokens)
            assert net.noted is not None
            found.append(net.noted[0].flatten())
        logits = torch.cat(found)
        bias = torch.quantile(logits, 1 - keep)
        assert net.predictor is not None
        net.predictor.up.bias.sub_(bias)
    return float((logits > bias).float().mean())


def settings(params: Params) -> Training:
    """The settings of the training."""
    return Training(epochs=params.epochs, batch=params.batch, rate=params.rate, weight_decay=DECAY)


def told(share: float, losses: tuple[float, ...]) -> str:
    """What a step says of its training."""
    how = f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last" if losses else "own loop"
    return f"{100 * share:.0f} % of the calibration tokens are stored; {how}"
