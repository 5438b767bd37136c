"""The metrics that come with the engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgewright.types import Array, Arrays, Metric

TOP1 = Metric("top-1 accuracy", unit="%", direction="higher", full_scale=100.0)
AGREEMENT = Metric("agreement with the original", unit="%", direction="higher", full_scale=100.0)


def top1(outputs: Arrays, labels: Any) -> float:
    """The share of examples whose largest first-output value stands at the label, in %."""
    return float(np.mean(top1_each(outputs, labels)))


def top1_each(outputs: Arrays, labels: Any) -> Array:
    """100 for each example that is right, 0 for one that is wrong: the parts of `top1`."""
    return 100.0 * (decisions(outputs) == np.asarray(labels).reshape(-1))


def agreement(outputs: Arrays, reference: Any) -> float:
    """The share of examples on which the first output decides as the reference's does, in %.

    A float output of two or more values per example decides by its largest; anything else must be equal.
    """
    return float(np.mean(agreement_each(outputs, reference)))


def agreement_each(outputs: Arrays, reference: Any) -> Array:
    """100 for each example on which both decide alike, 0 elsewhere: the parts of `agreement`."""
    return 100.0 * (decisions(outputs) == decisions(reference))


def decisions(outputs: Arrays) -> Array:
    """One decision per example: the arg-max of the first output over its last axis, flattened per example."""
    first = next(iter(outputs.values()))
    if first.ndim >= 2 and first.shape[-1] > 1:
        first = np.argmax(first, axis=-1)
    return first.reshape(len(first), -1)[:, 0] if first.ndim > 1 else first
