"""Layers whose weights are 0 or a sign times a power of two: their products are shifts (DeepShift).

Elhoushi et al. 2021, DeepShift: Towards Multiplication-Less Neural Networks (arXiv:1905.13298), sections 3.1 and 3.2.
A weight is  scale * s * 2^p  with s in {-1, 0, 1} and p in 0..6, so that it takes four bits and fits int8 exactly.
`scale` is a power of two for each output channel; there the paper has 1 for all, and so needs |w| <= 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgewright.grids import WEIGHTS, Encoding, Grid
from edgewright.torchkit.fakequant import QuantizedLayer, Quantizer, fake_quantize, spread_shape

TOP = 6
"""The highest power; its weight is 64 steps."""
LEAST = 2.0**-40
"""The step of a channel of zeros."""


class Shift(Quantizer):
    """Rounds weights to shifts; the gradient passes straight through (DeepShift-Q, section 3.1)."""

    def __init__(self, axis: int, channels: int) -> None:
        super().__init__(WEIGHTS, axis=axis, channels=channels)
        self.scale.requires_grad = False

    def extra_repr(self) -> str:
        """What it rounds to."""
        return f"shifts by 0 to {TOP} per channel"

    def start(self, values: Tensor) -> None:
        """Set the steps to the powers of two with the least squared error."""
        rows = values.detach().float().movedim(self.axis, 0).flatten(1)
        highest = torch.exp2(rows.abs().amax(1).clamp_min(LEAST).log2().round())
        steps = torch.stack([highest * 2.0 ** (lower - TOP) for lower in (0, -1)])
        errors = torch.stack([(shifted(rows / step[:, None]) * step[:, None] - rows).square().sum(1) for step in steps])
        scale = steps.gather(0, errors.argmin(0, keepdim=True))[0]
        self.take(Encoding(self.grid, scale.numpy(), torch.zeros_like(scale, dtype=torch.int32).numpy(), self.axis))

    def forward(self, x: Tensor) -> Tensor:
        """The weight as shifts."""
        if not self.rounds:
            return x
        step = self.step(x)
        y = shifted(x / step) * step
        if self.training and torch.is_grad_enabled():
            return x + (y - x).detach()
        # Changes nothing, and tells the exporter which integers these are.
        return fake_quantize(y, self.positive(), self.codes_zero(), self.axis, self.grid.low, self.grid.high)

    def step(self, like: Tensor) -> Tensor:
        """The scale, in the shape in which it meets a weight like this."""
        return self.positive().reshape(spread_shape(like.ndim, self.axis, self.scale))


def shifted(x: Tensor) -> Tensor:
    """sgn(x) * 2^round(log2 |x|), with powers from 0 to TOP, and 0 for less than a half: integers.

    By comparisons alone, which every runtime answers alike.
    """
    size = x.abs()
    whole = (size >= 0.5).to(x.dtype)
    for power in range(TOP):
        whole = whole + (size >= math.sqrt(2) * 2.0**power).to(x.dtype) * 2.0**power
    return whole * x.sign()


class ShiftLayer(QuantizedLayer):
    """A convolution or linear layer whose weight is rounded to shifts, which its float weight learns (DeepShift-Q)."""

    def __init__(self, layer: nn.Module, inputs: Grid | None) -> None:
        """Raises: ModelError for a layer that is neither."""
        super().__init__(layer, WEIGHTS, inputs)
        self.weights = Shift(self.axis, self.weight.shape[self.axis])
        self.weights.start(self.weight)
        self.train(layer.training)


class PowerLayer(ShiftLayer):
    """The same, with powers and signs as its parameters (DeepShift-PS, section 3.2).

    `shift` and `sign` have the weight's shape. `weight` is what they make, as it was when training last ended.
    """

    def __init__(self, layer: nn.Module, inputs: Grid | None) -> None:
        """Raises: ModelError for a layer that is neither."""
        super().__init__(layer, inputs)
        steps = (self.weight / self.weights.step(self.weight)).detach()
        self.weight = nn.Parameter(self.weight.detach().clone(), requires_grad=False)
        self.shift = nn.Parameter(steps.abs().clamp_min(0.5).log2().clamp(0, TOP))
        self.sign = nn.Parameter(steps.clamp(-1, 1))

    def rounded(self) -> Tensor:
        """The weight that powers and signs make while they are trained."""
        return self.made() if self.training and self.weights.rounds else super().rounded()

    def made(self) -> Tensor:
        """step * sgn(round(sign)) * 2^round(shift); the sign's gradient is the weight's own, as in the paper."""
        shift = self.shift.clamp(0, TOP)
        shift = shift + (shift.round() - shift).detach()
        sign = self.sign.round().sign().detach()
        return self.weights.step(self.weight) * sign * torch.exp2(shift) + (self.sign - self.sign.detach())

    def train(self, mode: bool = True) -> PowerLayer:
        """As for any module; when training ends the weight is brought up to date."""
        if self.training and not mode and hasattr(self, "shift"):
            with torch.no_grad():
                self.weight.copy_(self.made())
        super().train(mode)
        return self
