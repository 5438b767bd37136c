"""Learns which channels fire: predictors from the network's own heat, and the network with them (FTWT, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.data import Batch, Inputs
from edgewright.torchkit.gated import fired
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.training import Training, decayed_and_not
from edgewright_plugins.ftwt import Params
from edgewright_plugins.ftwt.gates import SURE, GatedConv, gates, targets

RATE = 1e-3
DECAY = 1e-2
FASTER = 5.0
"""How many times the network's rate predictors learn with (the paper has 10, with SGD)."""
RIDGE = 0.3
"""How much the start of a predictor is drawn to what fires on average, in variances of what it sees."""


def wire(module: nn.Module, mass: float, batches: Sequence[Inputs]) -> None:
    """Start predictors, in place, with the ridge regression of what fires in the examples on what they see of them.

    In the place of the paper's 500 batches that teach them that everything fires: so the network learns with masks
    that depend on its input from the first step on.
    """
    noted: dict[GatedConv, list[tuple[Tensor, Tensor]]] = {each: [] for each in gates(module)}
    seen: dict[GatedConv, Tensor] = {}
    handles: list[Any] = []
    for each, pairs in noted.items():
        each.rule = lambda heat, _, each=each, pairs=pairs: _noting(pairs, seen[each], targets(heat, mass))
        handles.append(each.predict.register_forward_pre_hook(partial(_keeping, seen, each)))
    with torch.no_grad():
        for inputs in batches:
            module(*inputs)
        for each, pairs in noted.items():
            each.rule = None
            _regress(each.predict, torch.cat([x for x, _ in pairs]), torch.cat([fires for _, fires in pairs]))
    for handle in handles:
        handle.remove()
    level(module, mass, batches)


def _keeping(seen: dict[GatedConv, Tensor], each: GatedConv, _predict: nn.Module, args: Any) -> None:
    seen[each] = args[0]


def level(module: nn.Module, mass: float, batches: Sequence[Inputs]) -> None:
    """Move each predictor's bias, layer by layer, until as many blocks fire in the examples as hold `mass`.

    Not in the paper: what a predictor is unsure of, it lets fire where most blocks fire, and the budget is missed.
    """
    for each in gates(module):
        pairs: list[tuple[Tensor, Tensor]] = []
        each.rule = lambda heat, logits, pairs=pairs: _noting(pairs, heat, fired(logits), logits)
        with torch.no_grad():
            for inputs in batches:
                module(*inputs)
            share = targets(torch.cat([heat for heat, _ in pairs]), mass).mean()
            each.predict.bias.sub_(torch.quantile(torch.cat([logits for _, logits in pairs]), 1 - share))
        each.rule = None


def _noting(pairs: list[tuple[Tensor, Tensor]], one: Tensor, fires: Tensor, other: Tensor | None = None) -> Tensor:
    pairs.append((one, fires if other is None else other))
    return fires


def _regress(predict: nn.Linear, x: Tensor, fires: Tensor) -> None:
    wanted = SURE * (2 * fires - 1)
    centre, level = x.mean(0), wanted.mean(0)
    spread = (x - centre).T @ (x - centre)
    ridge = RIDGE * spread.diagonal().mean().clamp_min(1e-6) * torch.eye(len(centre))
    weight = torch.linalg.solve(spread + ridge, (x - centre).T @ (wanted - level)).T
    predict.weight.copy_(weight)
    predict.bias.copy_(level - weight @ centre)


def firing(usual: Objective, mass: float) -> Objective:
    """The usual objective and, per layer, the cross entropy of its predictor with the blocks that hold `mass`.

    The sum is over the blocks of a layer and the mean over layers, as in the paper.
    """

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        loss = usual(module, batch)
        return loss + torch.stack([_missed(*each.noted, mass) for each in gates(module) if each.noted]).mean()

    return objective


def _missed(logits: Tensor, heat: Tensor, mass: float) -> Tensor:
    found = functional.binary_cross_entropy_with_logits(logits.float(), targets(heat.float(), mass), reduction="none")
    return found.sum(1).mean()


def freeze(module: nn.Module) -> None:
    """Let predictors be as they are: from here on the network alone learns."""
    for each in gates(module):
        each.predict.requires_grad_(requires_grad=False)
        each.learns, each.noted = False, None


def groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups: predictors learn faster."""
    new = {id(one) for each in gates(module) for one in each.predict.parameters()}
    found: list[dict[str, Any]] = []
    for group in decayed_and_not(module, DECAY):
        for mine, share in ((False, 1.0), (True, FASTER)):
            some = [one for one in group["params"] if (id(one) in new) == mine]
            found.append({**group, "params": some, "lr": share})
    return [group for group in found if group["params"]]


def settings(params: Params, epochs: int) -> Training:
    """The settings of one of the two halves of the training."""
    rate = params.rate or RATE
    return Training(epochs=epochs, batch=params.batch, rate=rate, weight_decay=DECAY, clip=None)
