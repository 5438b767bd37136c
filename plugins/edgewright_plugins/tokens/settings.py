"""The settings that methods of fewer tokens share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def faster(default: float) -> Any:
    """The field `speedup` of a method that aims at `default` when nobody says."""
    return field(
        default=None,
        metadata={
            "help": "how many times as fast the network shall be; the schedule that does it and loses least is chosen "
            f"by latency as measured (default: {default:g}, where nothing else says the schedule)",
            "low": 1.01,
            "high": 100,
        },
    )


@dataclass(frozen=True)
class Scheduled:
    """Where tokens become fewer: by a speed-up, or as the user says."""

    speedup: float | None = faster(1.5)
    keep: tuple[int, ...] = field(
        default=(), metadata={"help": "how many tokens stay each time, as in 48+32; none to halve them", "low": 1}
    )
    at: tuple[int, ...] = field(
        default=(), metadata={"help": "after which blocks, from 1, as in 2+4; none for even distances", "low": 1}
    )


@dataclass(frozen=True)
class Learned:
    """How a network learns to do with fewer tokens."""

    epochs: int = field(default=10, metadata={"help": "passes over the training split", "low": 1})
    batch: int = field(default=128, metadata={"help": "examples in a step", "low": 1})
    rate: float = field(
        default=1e-3,
        metadata={"help": "highest learning rate, of what is new; the network has 0.3 of it", "low": 1e-9},
    )
    distill: float = field(
        default=0.5,
        metadata={"help": "share of the answers' loss that compares with the original", "low": 0, "high": 1},
    )
