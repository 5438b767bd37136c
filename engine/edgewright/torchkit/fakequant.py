"""Layers that round their weights and inputs while they train, with steps that are learned (LSQ).

Esser et al. 2020, Learned Step Size Quantization (arXiv:1902.08153), section 2; the learned offset of asymmetric grids
is that of LSQ+ (Bhalgat et al. 2020, arXiv:2004.09576, equation 5). What is rounded here, an exported graph rounds to
the same integers: `torch.export` sees one operator, `edgewright::fake_quantize`, for each rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import ModelError
from edgewright.grids import SMALLEST, Encoding, Grid, encode_closest
from edgewright.types import Array

SAMPLE = 2**16
"""How many values of a tensor are enough to find the step that it starts with."""

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(input, weight, bias) -> what a layer gives."""

CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}


@torch.library.custom_op("edgewright::fake_quantize", mutates_args=())
def fake_quantize(  # noqa: PLR0917 - an operator takes its arguments by position
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, low: int, high: int
) -> Tensor:
    """(clip(round(x / scale) + zero_point, low, high) - zero_point) * scale, as ONNX rounds, in float32.

    Args:
        x: any shape.
        scale: positive, [] or one per channel of `axis`.
        zero_point: int32, in the scale's shape.
        axis: of the channels; ignored for one scale.
        low: the lowest code.
        high: the highest code.
    """
    shape = spread_shape(x.ndim, axis, scale)
    return _rounded(x, scale.reshape(shape), zero_point.reshape(shape), low, high)


@fake_quantize.register_fake
def _(  # noqa: PLR0917 - as above
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, low: int, high: int
) -> Tensor:
    return torch.empty_like(x)


def spread_shape(dimensions: int, axis: int, scale: Tensor) -> list[int]:
    """The shape in which a scale meets a tensor of so many dimensions."""
    if scale.ndim == 0:
        return []
    return [-1 if i == axis % dimensions else 1 for i in range(dimensions)]


def _rounded(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    codes = x.float().div(scale).round_().add_(zero).clamp_(low, high)
    return codes.sub_(zero).mul_(scale).to(x.dtype)


class _Round(torch.autograd.Function):
    """Rounding with LSQ's gradients: straight through inside the range, to step and offset as equation 3 has them."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch calls it so
        ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, grid: Grid, share: float
    ) -> Tensor:
        """`zero` holds whole numbers; `share` is the factor of the gradients of `scale` and `zero`."""
        low, high = grid.low, grid.high
        if scale.ndim == 0:
            # One pass over memory instead of five; it multiplies by 1 / scale, which now and then falls another way.
            y = torch.fake_quantize_per_tensor_affine(x, scale, zero.to(torch.int32), low, high)
        else:
            y = _rounded(x, scale, zero, low, high)
        ctx.save_for_backward(x, y, scale, zero)
        ctx.low, ctx.high, ctx.share = low, high, share
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Inside, y moves with the step by (y - x) / scale; outside by y / scale, and with the offset by -scale."""
        grad, (x, y, scale, zero) = grads[0], ctx.saved_tensors
        passed = _inside(grad, x, (ctx.low - zero) * scale, (ctx.high - zero) * scale)
        to_scale = (_dot(grad, y, scale) - _dot(passed, x, scale)) / scale * ctx.share
        to_zero = None
        if ctx.needs_input_grad[2]:
            to_zero = -(grad - passed).float().sum_to_size(scale.shape) * scale * ctx.share
        return passed, to_scale, to_zero, None, None


def _inside(grad: Tensor, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    if low.ndim == 0:
        return torch.ops.aten.hardtanh_backward(grad, x, float(low), float(high))
    return grad * ((x > low) & (x < high))


def _dot(first: Tensor, second: Tensor, like: Tensor) -> Tensor:
    """The sum of products, in the shape of `like`; a tensor's own layout is read straight through."""
    if like.ndim:
        return (first * second).float().sum_to_size(like.shape)
    if first.ndim == 4:
        first, second = first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)
    return torch.dot(first.reshape(-1), second.reshape(-1)).float()


class Quantizer(nn.Module):
    """Rounds a tensor to a grid whose step is learned.

    Until `start` has set the step it passes its input on. `scale` is [] or [channels]; its sign means nothing.
    `batched` tensors have examples on axis 0.
    """

    def __init__(self, grid: Grid, *, axis: int = 0, channels: int = 1, batched: bool = False) -> None:
        """Raises: ModelError for a grid of groups, or one found anew at each run."""
        super().__init__()
        if grid.per == "group" or grid.dynamic:
            raise ModelError(f"a step cannot be learned for {grid}; use a grid per tensor or per channel")
        self.grid, self.axis, self.batched = grid, axis, batched
        shape = () if grid.per == "tensor" else (channels,)
        self.scale = nn.Parameter(torch.ones(shape))
        self.zero = nn.Parameter(torch.zeros(shape), requires_grad=not grid.symmetric)
        self.rounds = False
        self.seen: list[Tensor] | None = None

    def extra_repr(self) -> str:
        """The grid."""
        return str(self.grid)

    def get_extra_state(self) -> Tensor:
        """Whether it rounds."""
        return torch.tensor(self.rounds)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over whether it rounds."""
        self.rounds = bool(state)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, rounded; in its own precision, computed in float32."""
        if self.seen is not None:
            self.seen.append(_sample(x))
            return x
        if not self.rounds:
            return x
        if self.training and torch.is_grad_enabled():
            return self._learned(x)
        return fake_quantize(x, self.positive(), self.codes_zero(), self.axis, self.grid.low, self.grid.high)

    def _learned(self, x: Tensor) -> Tensor:
        shape = spread_shape(x.ndim, self.axis, self.scale)
        scale, zero = self.positive().reshape(shape), self.zero.reshape(shape)
        # The offset is learned as a real number and used as the nearest integer (straight through).
        zero = zero + (zero.round().clamp(self.grid.low, self.grid.high) - zero).detach()
        values = x.numel() / self.scale.numel() / (x.shape[0] if self.batched else 1)
        share = (values * self.grid.high) ** -0.5
        with torch.autocast(x.device.type, enabled=False):
            return cast("Tensor", _Round.apply(x, scale, zero, self.grid, share))

    def positive(self) -> Tensor:
        """The step: positive, however training moved its parameter."""
        return self.scale.abs().clamp_min(SMALLEST)

    def codes_zero(self) -> Tensor:
        """The zero point, int32."""
        return self.zero.round().clamp(self.grid.low, self.grid.high).to(torch.int32)

    def start(self, values: Tensor) -> None:
        """Set the step (and offset) for such values."""
        self.take(starting(self.grid, values.detach().float().cpu().numpy(), self.axis))

    def take(self, encoding: Encoding) -> None:
        """Set the step and the offset, and round from here on."""
        with torch.no_grad():
            self.scale.copy_(torch.from_numpy(np.asarray(encoding.scale)))
            self.zero.copy_(torch.from_numpy(np.asarray(encoding.zero_point)))
        self.rounds = True

    def widen(self, factor: Tensor) -> None:
        """Multiply the step by a factor per channel; one step for the tensor becomes one per channel.

        Channels of factor 0 keep their step, since all their values are 0 on any grid.
        """
        factor = torch.where(factor > 0, factor, 1)
        self.grid = replace(self.grid, per="channel")
        self.scale = nn.Parameter((self.positive() * factor).detach())
        self.zero = nn.Parameter(self.zero.detach().expand_as(factor).clone(), requires_grad=self.zero.requires_grad)

    def nudge(self, by: float) -> None:
        """Move the edges between codes by a share of the step: what a runtime's last bits may do."""
        with torch.no_grad():
            self.scale.mul_(1 + by)

    def encoding(self) -> Encoding:
        """How it rounds, as the exporter takes it."""
        scale, zero = self.positive().detach().cpu().numpy(), self.codes_zero().detach().cpu().numpy()
        return Encoding(self.grid, scale, zero, self.axis)


def starting(grid: Grid, values: Array, axis: int) -> Encoding:
    """The encoding to start from: the one with the least squared error.

    LSQ starts from 2 mean|x| / sqrt(highest code) instead (section 2.1), which is close to it at 3 and 4 bits, and
    reaches several times too far at 8.
    """
    return encode_closest(grid, values, axis)


def _sample(x: Tensor) -> Tensor:
    """Values spread evenly over the tensor."""
    flat = x.detach().float().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLE)].clone()


class QuantizedLayer(nn.Module):
    """A convolution or linear layer that rounds its weight, and its input where `inputs` is there.

    `weight` and `bias` are the layer's own parameters under their old names. `least` and `most`, [channels], are the
    ends of what it gave, once they were observed; `outputs` rounds that where `settle` finds it necessary.
    """

    least: Tensor
    most: Tensor

    def __init__(self, layer: nn.Module, weights: Grid, inputs: Grid | None) -> None:
        """Raises: ModelError for a layer that `product_of` does not know."""
        super().__init__()
        known: Any = layer
        self.product, self.title = product_of(layer), str(layer)
        self.weight, self.bias = known.weight, known.bias
        self.axis = output_axis(layer)
        self.weights = Quantizer(weights, axis=self.axis, channels=self.weight.shape[self.axis])
        self.weights.start(self.weight)
        self.inputs = Quantizer(inputs, batched=True) if inputs else None
        self.outputs: Quantizer | None = None
        for name, nothing in (("least", torch.inf), ("most", -torch.inf)):
            self.register_buffer(name, torch.full((self.weight.shape[self.axis],), nothing))
        self.train(layer.training)

    def extra_repr(self) -> str:
        """The layer that it was."""
        return self.title

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives for rounded numbers."""
        if self.inputs is not None:
            x = self.inputs(x)
        y = self.product(x, self.rounded(), self.bias)
        return y if self.outputs is None else self.outputs(y)

    def rounded(self) -> Tensor:
        """The weight as it is multiplied by."""
        return self.weights(self.weight)


def product_of(layer: nn.Module) -> Product:
    """What the layer computes, as a function of its weight. Raises: ModelError for any other layer."""
    if not is_layer(layer):
        raise ModelError(f"a {type(layer).__name__} cannot be trained with rounded weights; leave it as it is")
    if isinstance(layer, nn.Linear):
        return functional.linear
    if output_axis(layer) == 1:
        return _transposed_linear
    run = CONVOLUTIONS[type(layer)]
    return partial(run, **{name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")})


def is_layer(module: nn.Module) -> bool:
    """Whether `QuantizedLayer` can stand for it: exactly these types, since others compute something else."""
    plain = type(module) in CONVOLUTIONS and getattr(module, "padding_mode", "") == "zeros"
    return plain or type(module) is nn.Linear or output_axis(module) == 1


def output_axis(layer: nn.Module) -> int:
    """The weight's axis of output channels: 1 for the Conv1D of transformers, which is [in, out]."""
    return 1 if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf") else 0


def _transposed_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return functional.linear(x, weight.t(), bias)
