"""How to train: the settings of a run, its learning rate at every step, its optimiser and its precision."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgewright.errors import RecipeError, suggest

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "bf16", "fp32")

RANGES = {
    "epochs": (1, 1e9),
    "batch": (1, 1e9),
    "rate": (1e-12, 1e6),
    "weight_decay": (0, 1e6),
    "momentum": (0, 0.9999),
    "warm_up": (0, 1),
    "final_rate": (0, 1),
    "clip": (1e-12, 1e12),
    "ema": (0, 0.999999),
    "budget_s": (1e-3, 1e9),
}
"""What each number may be, from the lowest to the highest."""

Groups = Callable[[nn.Module], Sequence[dict[str, Any]]]
"""The parameter groups of a module, as torch's optimisers take them; a group's `lr` is a share of the rate."""


@dataclass(frozen=True)
class Training:
    """The settings of one training run.

    Attributes:
        epochs: passes over the data.
        batch: examples in a step.
        optimizer: `adamw` or `sgd`.
        rate: the highest learning rate; it rises to it linearly over `warm_up` (a share of all steps), and falls
            by a cosine to `final_rate` (a share of it).
        weight_decay: for weights of two dimensions or more; biases, norms and scales have none.
        momentum: Nesterov's, of `sgd`.
        clip: the largest norm of the gradient; None for no limit.
        ema: how much of the averaged weights stays at each step; None for no average. The average is the result.
        precision: `bf16` trains under autocast; `auto` takes it on a GPU that has it, and on a CPU with AMX.
        budget_s: seconds of training after which it ends; the rate falls in time. None for no limit.
        seed: of dropout and whatever else the module draws; order and augmentation are the data's.
    """

    epochs: int = 10
    batch: int = 128
    optimizer: str = "adamw"
    rate: float = 1e-3
    weight_decay: float = 0.05
    momentum: float = 0.9
    warm_up: float = 0.05
    final_rate: float = 0.01
    clip: float | None = 1.0
    ema: float | None = None
    precision: str = "auto"
    budget_s: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises: RecipeError for an unknown optimiser or precision, or a number that means nothing."""
        for field, value, allowed in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in allowed:
                raise RecipeError(f"training has no {field} {value!r}; {suggest(value, allowed)}")
        for field, (low, high) in RANGES.items():
            value = getattr(self, field)
            if value is not None and not low <= value <= high:
                raise RecipeError(f"training takes {field} from {low} to {high:g}, not {value}")

    def rate_at(self, progress: float) -> float:
        """The share of the rate at `progress` (0 at the start, 1 at the end of all steps)."""
        if progress < self.warm_up:
            return max(progress / self.warm_up, 1e-3)
        fallen = (min(progress, 1.0) - self.warm_up) / max(1 - self.warm_up, 1e-9)
        return self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * fallen))


def optimizer_of(module: nn.Module, training: Training, groups: Groups | None) -> torch.optim.Optimizer:
    """The optimiser; each group remembers its share of the rate as `share`.

    Raises: RecipeError when no parameter can be trained.
    """
    given = groups(module) if groups else decayed_and_not(module, training.weight_decay)
    listed = [{"share": group.get("lr", 1.0), **group, "lr": training.rate} for group in given]
    if not listed:
        raise RecipeError("there is nothing to train: the network has no parameter that takes a gradient")
    if training.optimizer == "adamw":
        return torch.optim.AdamW(listed, weight_decay=training.weight_decay)
    nesterov = training.momentum > 0
    return torch.optim.SGD(listed, momentum=training.momentum, nesterov=nesterov, weight_decay=training.weight_decay)


def decayed_and_not(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights of two dimensions or more, which decay, and all the other parameters, which do not."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def place_of(module: nn.Module) -> torch.device:
    """Where a module lies; the CPU when it has no parameters."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def takes_bf16(training: Training, device: torch.device) -> bool:
    """Whether a run on `device` uses autocast to bf16."""
    if training.precision != "auto":
        return training.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # AVX-512's bf16 products alone do not pay for the casts: on a Xeon without AMX, one thread, a step of a ViT with
    # 64 tokens took 1.21 s for fp32's 0.88, and of VGG-11 0.39 s for 0.30 (batches of 128, torch 2.13).
    able = getattr(torch.cpu, "get_capabilities", dict[str, Any])()
    return device.type == "cpu" and bool(able.get("amx_bf16"))


@contextlib.contextmanager
def computing(training: Training, device: torch.device) -> Generator[None, None, None]:
    """Forward passes as `training` asks.

    Under bf16 on a CPU torch's fused attention trains at less than half the speed of the plain products.
    """
    bf16 = takes_bf16(training, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16), contextlib.ExitStack() as stack:
        if bf16 and device.type == "cpu":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield
