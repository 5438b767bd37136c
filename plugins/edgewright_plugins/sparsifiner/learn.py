"""Teaches predictors which blocks of keys attention would go to, and the network to do with these."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.torchkit.data import Batch, Inputs
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.training import Training, decayed_and_not
from edgewright_plugins.sparsifiner import Params
from edgewright_plugins.sparsifiner.attention import SparseAttention, dense_, divergence, sparse_attentions

RATE = 5e-4
DECAY = 0.05
FASTER = 10.0
"""How many times the network's rate predictors learn with."""
STEPS, START_RATE = 100, 3e-2
"""Of the start of predictors, with Adam."""


def start(module: nn.Module, batches: Sequence[Inputs]) -> None:
    """Fit each predictor, in place, to the dense attention that the network gives in the examples.

    In the place of the paper's 5 epochs with dense attention: means of queries and keys are noted once, and nothing
    else of the network has to run.
    """
    for each, noted in zip(sparse_attentions(module), _looked(dense_(module, dense=True), batches), strict=True):
        _fit(each, *noted[:3])
    dense_(module, dense=False)


def _looked(module: nn.Module, batches: Sequence[Inputs]) -> list[list[Tensor]]:
    """What each attention notes over examples."""
    found = list(sparse_attentions(module))
    for each in found:
        each.noted = []
    with torch.no_grad():
        for inputs in batches:
            module(*inputs)
    noted = [[torch.cat(parts) for parts in zip(*(each.noted or []), strict=True)] for each in found]
    for each in found:
        each.noted = None
    return noted


def _fit(attention: SparseAttention, tiles: Tensor, blocks: Tensor, mass: Tensor) -> None:
    with torch.no_grad():
        attention.bias.copy_(mass.mean(0).clamp_min(1e-6).log())
        attention.bias.sub_((tiles.mean(0) @ attention.query) @ (blocks.mean(0) @ attention.key).transpose(1, 2))
    optimizer = torch.optim.Adam(attention.predictor(), START_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            loss = divergence(attention.connectivity(tiles, blocks), mass)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    optimizer.zero_grad()


def kept(module: nn.Module, batches: Sequence[Inputs]) -> tuple[float, float]:
    """The share of pairs of tokens that is computed, and the share of dense attention that falls on them, in means."""
    shares, masses = [], []
    for each, (_, _, mass, mask) in zip(sparse_attentions(module), _looked(module, batches), strict=True):
        sees = mask.index_select(2, each.row).index_select(3, each.column)
        shares.append(float(sees.mean()))
        masses.append(float((mass * mask).sum(3).mean()))
    return sum(shares) / len(shares), sum(masses) / len(masses)


def teacher_of(module: nn.Module) -> nn.Module:
    """The network as it was before its attention became sparse."""
    return dense_(copy.deepcopy(module), dense=True)


def connecting(usual: Objective) -> Objective:
    """The usual objective, and how far predictors are from the attention that their own queries and keys would give.

    The paper compares with the teacher's attention by squared errors; the network's own is there already, and stays
    the right one as the network moves.
    """

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        loss = usual(module, batch)
        missed = [each.missed for each in sparse_attentions(module) if each.missed is not None]
        return loss + torch.stack(missed).mean() if missed else loss

    return objective


def groups(module: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups: predictors learn faster."""
    new = {id(one) for each in sparse_attentions(module) for one in each.predictor()}
    found: list[dict[str, Any]] = []
    for group in decayed_and_not(module, DECAY):
        for mine, share in ((False, 1.0), (True, FASTER)):
            some = [one for one in group["params"] if (id(one) in new) == mine]
            found.append({**group, "params": some, "lr": share})
    return [group for group in found if group["params"]]


def settings(params: Params) -> Training:
    """The settings of the training."""
    return Training(epochs=params.epochs, batch=params.batch, rate=params.rate or RATE, weight_decay=DECAY)
