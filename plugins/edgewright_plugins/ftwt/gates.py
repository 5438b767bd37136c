"""Convolutions that compute the channels which a predictor expects to fire (FTWT: Elkerdawy et al. 2022, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.fold import fold_pair
from edgewright.torchkit.gated import fired, gated_conv, spread
from edgewright_plugins.ftwt.find import Unit

SURE = 2.0
"""The logit with which every predictor starts: everything fires."""
DEAD = 1e-5
"""What an output is at most that a mass of 1 leaves out."""

Rule = Callable[[Tensor, Tensor], Tensor]
"""(heat, logits), both [n, blocks] -> which blocks are computed, 1 or 0."""


class GatedConv(nn.Module):
    """A convolution and its norm, of whose outputs a linear layer says from the means of the inputs which are computed.

    m = W softmax(mean over pixels of x) c + b has a number for each block of `block` output channels; blocks of m >= 0
    are computed, the one of the largest m always, and the others are 0. The factor c, the number of inputs, is not in
    the paper: it keeps what the predictor sees near to 1 in layers of any width.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module | None, block: int, *, signless: bool) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm or nn.Identity()
        self.block, self.signless = block, signless
        self.predict = nn.Linear(conv.in_channels, ceil(conv.out_channels / block))
        nn.init.zeros_(self.predict.weight)
        nn.init.constant_(self.predict.bias, SURE)
        self.joint, self.learns, self.settled = False, True, False
        self.rule: Rule | None = None
        self.noted: tuple[Tensor, Tensor] | None = None
        self.shares: list[Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] to what convolution and norm give, 0 in the channels that are left out."""
        means = x.mean((2, 3))
        seen = torch.softmax(means if self.joint else means.detach(), 1)
        logits = self.predict(seen if self.settled else seen * seen.shape[1])
        if self.settled:
            conv: Any = self.conv
            empty = means if self.signless else None
            return gated_conv(
                x, conv.weight, conv.bias, logits, empty, self.block, conv.stride, conv.padding, conv.dilation
            )
        y = self.norm(self.conv(x))
        return y * self._gate(y, means, logits)[:, :, None, None]

    def _gate(self, y: Tensor, means: Tensor, logits: Tensor) -> Tensor:
        """1 for channels that are computed, 0 for the others; its gradient is that of a sigmoid (straight through)."""
        heat, channels = self._heat(y), y.shape[1]
        hard = fired(logits) if self.rule is None else self.rule(heat, logits)
        gate = spread(hard, self.block, channels)
        if self.shares is not None:
            self.shares.append(gate.mean(1) * ((means > 0).float().mean(1) if self.signless else 1.0))
        if not (self.training and self.learns):
            return gate
        self.noted = logits, heat
        soft = spread(logits.sigmoid(), self.block, channels)
        return gate + soft - soft.detach() if self.rule is None else gate

    def _heat(self, y: Tensor) -> Tensor:
        """The largest value of each output channel once activated, summed over blocks: [n, blocks]."""
        peaks = functional.relu(y.detach()).amax((2, 3))
        return functional.pad(peaks, (0, -peaks.shape[1] % self.block)).unflatten(1, (-1, self.block)).sum(2)

    def settle(self) -> None:
        """Fold the norm into the convolution, and the factor into the predictor, in place and once."""
        conv: Any = self.conv
        if self.settled:
            return
        if not isinstance(self.norm, nn.Identity):
            fold_pair(conv, self.norm)
        if conv.bias is None:
            conv.bias = nn.Parameter(torch.zeros_like(conv.weight[:, 0, 0, 0]))
        with torch.no_grad():
            self.predict.weight *= self.predict.in_features
        self.norm, self.settled = nn.Identity(), True


def targets(heat: Tensor, mass: float) -> Tensor:
    """1 for the hottest blocks that hold `mass` of all heat, 0 for the others; [n, blocks] as `heat`.

    A mass of 1 leaves out only what is dead.
    """
    if mass >= 1:
        return (heat > DEAD).to(heat.dtype)
    ranked, order = heat.sort(dim=1, descending=True)
    above = ranked.cumsum(1) - ranked
    wanted = (above < mass * ranked.sum(1, keepdim=True)).to(heat.dtype)
    return torch.zeros_like(heat).scatter(1, order, wanted)


def gate_(module: nn.Module, units: Sequence[Unit]) -> nn.Module:
    """Replace the convolutions of `units` in place; the norms behind them move into the new modules."""
    for unit in units:
        conv: Any = module.get_submodule(unit.conv)
        norm = None if unit.norm is None else module.get_submodule(unit.norm)
        _put(module, unit.conv, GatedConv(conv, norm, unit.block, signless=unit.signless))
        if unit.norm is not None:
            _put(module, unit.norm, nn.Identity())
    return module


def gates(module: nn.Module) -> Iterator[GatedConv]:
    """Every gated convolution of a network, in the order in which it holds them."""
    return (each for each in module.modules() if isinstance(each, GatedConv))


def _put(module: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new.train(module.training))
