"""Finds how far the probabilities of an exit have to be softened, so that they say how often it is right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RANGE = (0.05, 20.0)
STEPS = 40
"""Each leaves 0.62 of the interval, on a logarithmic scale."""
GOLDEN = (math.sqrt(5) - 1) / 2


def temperature_of(logits: Tensor, wanted: Tensor) -> float:
    """The T from 0.05 to 20 with the least -sum(wanted * log softmax(logits / T)), by golden section on log T.

    The loss has one minimum, since it is convex in 1 / T (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    Args:
        logits: [n, classes].
        wanted: the class of each row, int64 [n], or its probabilities [n, classes].
    """
    logits = logits.double()
    shares = smoothed(wanted, logits.shape[1]) if wanted.ndim == 1 else wanted.double()

    def loss(position: float) -> float:
        return -float((shares * torch.log_softmax(logits / math.exp(position), 1)).sum(1).mean())

    low, high = (math.log(end) for end in RANGE)
    for _ in range(STEPS):
        inner = GOLDEN * (high - low)
        if loss(high - inner) <= loss(low + inner):
            high = low + inner
        else:
            low = high - inner
    return math.exp((low + high) / 2)


def smoothed(labels: Tensor, classes: int) -> Tensor:
    """Probabilities [n, classes] that allow for mistakes yet unseen: (n + 1) / (n + 2) for the label of each of n rows.

    An exit that is right on all of a few examples would else be taken for always right, and all its scores would be 1
    (Platt 1999, Probabilistic Outputs for Support Vector Machines, section 2.2).
    """
    rest = 1 / (len(labels) + 2)
    shares = torch.full((len(labels), classes), rest / (classes - 1), dtype=torch.float64)
    return shares.scatter_(1, labels[:, None], 1 - rest)
