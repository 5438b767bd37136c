"""A mixture of primitives: each token is multiplied or shifted, as a router says that learns what either costs.

You et al. 2023, ShiftAddViT (arXiv:2306.06446), section 4.2. The released code has gates of 1 and no balance loss, so
its router never learns; here the chosen expert's output carries its probability, and the loss of equation 4 counts
latencies as they were measured on the target.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgewright.torchkit.data import Batch
from edgewright.torchkit.fakequant import QuantizedLayer
from edgewright.torchkit.losses import Objective
from edgewright_plugins.shiftadd.layers import ShiftLayer

NOISE = 0.5
"""Deviation of what is added to the router's logits in training: one over the number of experts."""
MOVES = 0.05
"""How much a step moves the share of tokens that is kept for the export."""


class Mixture(nn.Module):
    """A linear layer whose tokens are multiplied (expert 0) or shifted (expert 1).

    In training each token goes where the noisy router says. In evaluation the `share` of tokens that training ended
    with shifts, those that the router is surest of: fixed numbers of rows, so that an exported graph is static.
    """

    def __init__(self, multiply: QuantizedLayer, shift: ShiftLayer) -> None:
        super().__init__()
        self.multiply, self.shift = multiply, shift
        self.router = nn.Linear(multiply.weight.shape[1], 2)
        self.share = 0.5
        self.logits: list[Tensor] = []
        self.train(multiply.training)

    def train(self, mode: bool = True) -> Mixture:
        """As usual; once training is over nothing of its last step is held, so that the module can be copied."""
        self.logits = self.logits if mode else []
        return super().train(mode)

    def get_extra_state(self) -> Tensor:
        """The share of tokens that shift."""
        return torch.tensor(self.share, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the share."""
        self.share = float(state)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., tokens, width] to [..., tokens, width out]."""
        return self.mixed(x) if self.training and torch.is_grad_enabled() else self.sorted(x)

    def mixed(self, x: Tensor) -> Tensor:
        """Each token through the expert that the noisy router finds likeliest.

        Its probability is multiplied in over its own value: 1, but with the gradient that teaches the router.
        """
        logits = self.router(x)
        self.logits = [logits]
        likely, chosen = torch.softmax(logits + NOISE * torch.randn_like(logits), -1).max(-1, keepdim=True)
        self.share += MOVES * (float(chosen.float().mean()) - self.share)
        return torch.where(chosen == 1, self.shift(x), self.multiply(x)) * (likely / likely.detach())

    def sorted(self, x: Tensor) -> Tensor:
        """The tokens in the order of how much rather they shift, the first through one expert, the rest the other."""
        tokens = x.shape[-2]
        count = round(self.share * tokens)
        scores = self.router(x)
        order = torch.topk(scores[..., 1] - scores[..., 0], tokens, dim=-1).indices
        first, rest = _taken(x, order).split([count, tokens - count], dim=-2)
        parts = [expert(part) for expert, part in ((self.shift, first), (self.multiply, rest)) if part.shape[-2]]
        return _taken(torch.cat(parts, -2), torch.argsort(order, dim=-1))


def _taken(x: Tensor, order: Tensor) -> Tensor:
    """The tokens of `x` in another order."""
    return x.gather(-2, order.unsqueeze(-1).expand(*order.shape, x.shape[-1]))


def mixture_of(layer: nn.Module, multiply: QuantizedLayer, kind: type[ShiftLayer]) -> Mixture:
    """A mixture of a layer that rounds, and one with a weight of its own that shifts; both start from `layer`."""
    assert multiply.inputs is not None
    return Mixture(multiply, kind(copy.deepcopy(layer), multiply.inputs.grid))


def mixtures(module: nn.Module) -> list[Mixture]:
    """All mixtures of a module."""
    return [each for each in module.modules() if isinstance(each, Mixture)]


def balanced(usual: Objective, latencies: Sequence[float], weight: float) -> Objective:
    """The usual objective and `weight` times each mixture's balance loss (equation 4).

    Losses are added up: a mean would leave each router of a deep network next to nothing.
    """

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        loss = usual(module, batch)
        each = [balance(logits, latencies) for mixture in mixtures(module) for logits in mixture.logits]
        return loss + weight * torch.stack(each).sum() if each else loss

    return objective


def balance(logits: Tensor, latencies: Sequence[float]) -> Tensor:
    """CV^2 of importance and of load, each weighted by the expert's share of the latencies; [..., 2] to a number.

    Importance sums the gates; load sums the probabilities that noise makes an expert the likelier one. Both are even
    where an expert's tokens go by one over its latency.
    """
    costs = logits.new_tensor(latencies) / sum(latencies)
    importance = torch.softmax(logits, -1).flatten(0, -2).sum(0)
    over = (logits[..., 1] - logits[..., 0]).flatten() / (NOISE * math.sqrt(2))
    likely = torch.special.ndtr(over).sum()
    load = torch.stack((over.numel() - likely, likely))
    return _variation(costs * importance) + _variation(costs * load)


def _variation(values: Tensor) -> Tensor:
    """The squared coefficient of variation."""
    return values.var(correction=0) / values.mean().square()


def implied_share(latencies: Sequence[float]) -> float:
    """The share of tokens that shifts where the balance loss is least: by one over the latencies."""
    multiply, shift = latencies
    return multiply / (multiply + shift)
