"""What of a network's multiply-accumulates is left, before any training: estimate(r) of FTWT (section 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgewright.torchkit.data import Inputs
from edgewright_plugins.ftwt.find import Unit
from edgewright_plugins.ftwt.gates import GatedConv, gate_, gates, targets

MASSES = tuple(number / 20 for number in range(2, 20))
"""Shares of a layer's heat that are looked at, from 0.1 to 0.95."""


def total_macs(module: nn.Module, example: Sequence[Tensor]) -> int:
    """The multiply-accumulates of a whole network for one example."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*(tensor[:1] for tensor in example))
    return counter.get_total_flops() // 2


def share_left(gated: nn.Module, units: Sequence[Unit], total: int, batches: Iterable[Inputs]) -> float:
    """The mean share of `total` that a gated network does over examples, its predictors and their means counted.

    A product counts where both its channels are computed: inputs that are empty are skipped as well.
    """
    each = [gated.get_submodule(unit.conv) for unit in units]
    found = _mean_shares(gated, [one for one in each if isinstance(one, GatedConv)], batches)
    convs = sum(unit.macs for unit in units)
    done = sum(unit.macs * share for unit, share in zip(units, found, strict=True))
    extra = sum(_predicting(one, unit) for one, unit in zip(gates(gated), units, strict=True))
    return (total - convs + done + extra) / total


def _predicting(gate: GatedConv, unit: Unit) -> int:
    return gate.predict.weight.numel() + gate.predict.in_features * unit.pixels


def _mean_shares(gated: nn.Module, each: Sequence[GatedConv], batches: Iterable[Inputs]) -> list[float]:
    for one in each:
        one.shares = []
    with torch.no_grad():
        for inputs in batches:
            gated(*inputs)
    found = [float(torch.cat(one.shares or []).mean()) for one in each]
    for one in each:
        one.shares = None
    return found


def estimate(
    module: nn.Module, units: Sequence[Unit], batches: Sequence[Inputs], masses: Iterable[float]
) -> dict[float, float]:
    """For each mass r the share of multiply-accumulates that masks of the network's own heat leave.

    The network is the trained one as it is, with the masks in place; nothing is learned.
    """
    total = total_macs(module, batches[0])
    gated = gate_(copy.deepcopy(module).eval(), units)
    found: dict[float, float] = {}
    for mass in masses:
        for one in gates(gated):
            one.rule = lambda heat, _logits, mass=mass: targets(heat, mass)
        found[mass] = share_left(gated, units, total, batches)
    return found


def mass_for(keep: float, share_of: Callable[[float], float]) -> float | None:
    """The largest mass that leaves at most `keep`, to a hundredth, by bisection; None where the least leaves more."""
    low, high = MASSES[0], 1.0
    if share_of(high) <= keep:
        return high
    if share_of(low) > keep:
        return None
    while high - low > 0.01:
        middle = round((low + high) / 2, 4)
        low, high = (middle, high) if share_of(middle) <= keep else (low, middle)
    return low
