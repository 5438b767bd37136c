"""What decides at an exit: the score of an answer, higher where it may be trusted, and what patience remembers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

Memory = tuple[Tensor, ...]
"""Of patience: the last exit's answer, int64 [b], and how many exits in a row gave it, float32 [b]; else nothing."""

MEMORY = {"max-probability": (), "entropy": (), "patience": ("answer", "streak")}
"""What each rule hands on to the next exit."""


class Gate(nn.Module):
    """The score of an exit's logits under one rule; `temperature` [] softens them first.

    Guo et al. 2017, On Calibration of Modern Neural Networks (arXiv:1706.04599), section 4.2, for the temperature;
    Zhou et al. 2020, BERT Loses Patience (arXiv:2006.04152), section 3.2, for patience.
    """

    temperature: Tensor

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, logits: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """The score, float32 [b], and what the next exit is told.

        Args:
            logits: [b, classes].
            memory: what the exit before handed on; nothing at the first.
        """
        if self.rule == "patience":
            return patience(logits, memory)
        logits = logits.float() / self.temperature
        if self.rule == "entropy":
            logs = torch.log_softmax(logits, dim=1)
            return (logs.exp() * logs).sum(1), ()
        return torch.softmax(logits, dim=1).amax(1), ()


def patience(logits: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """How many exits in a row have given this answer, this one included."""
    answer = logits.argmax(1)
    if not memory:
        streak = torch.ones_like(answer, dtype=torch.float32)
        return streak, (answer, streak)
    before, streak = memory
    streak = torch.where(answer == before, streak + 1, torch.ones_like(streak))
    return streak, (answer, streak)
