"""Fits one layer to its float outputs: weight, bias and scales, learned through rounding.

Hubara et al. 2021, "Accurate Post Training Quantization With Small Calibration Sets" (arXiv:2006.10518), equation 2:
min over V, bias and scales of ||f(W, X) - f(Q_w(W + V), Q_x(X))||^2, rounding passed straight through by gradients.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from edgewright.grids import Encoding
from edgewright.types import Array
from edgewright_plugins.adaquant.forward import Forward

# The paper's rates were tuned for 8 bits; as shares they fit every layer and every grid.
WEIGHT_RATE = 0.02
"""Of one step of the weight's grid."""
SCALE_RATE = 1e-3
"""Of the scale, or of the input's range."""
BIAS_RATE = 3e-3
"""Of the standard deviation of the channel's outputs."""
SMALL = 1 << 27
"""Multiplications below which a step is faster on one thread: several spend their time waiting for one another."""
LOOKS = 10
"""How often the examples held out are looked at."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer to fit: its float weight and bias, the weight's encoding to start from, inputs and float outputs.

    `x` and `y` hold `examples` on axis 0, as many rows for each; the last `held_out` of them judge. `axis` is the
    channels' axis of `y`. `input` is the encoding of `x` where it may be learned; None where `x` is what the integer
    graph feeds the layer.
    """

    forward: Forward
    weight: Array
    bias: Array | None
    encoding: Encoding
    x: Array
    y: Array
    axis: int
    examples: int
    held_out: int
    input: Encoding | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted layer; `weight` holds values of the grid of `encoding`.

    `before` and `after` are the squared errors of nearest rounding and of the fit on the examples held out, as shares
    of the outputs' energy.
    """

    weight: Array
    bias: Array | None
    encoding: Encoding
    input: Encoding | None
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class _Moves:
    """What is learned, in relative units: V in steps, scales and the input's ends by logarithm, bias in deviations."""

    steps: Tensor
    scale: Tensor
    ends: Tensor
    bias: Tensor

    @property
    def groups(self) -> list[dict[str, object]]:
        """The tensors with their rates."""
        rates = ((self.steps, WEIGHT_RATE), (self.scale, SCALE_RATE), (self.ends, SCALE_RATE), (self.bias, BIAS_RATE))
        return [{"params": [tensor], "lr": rate} for tensor, rate in rates]

    def copy(self) -> _Moves:
        """As they are now."""
        return _Moves(*(tensor.detach().clone() for tensor in (self.steps, self.scale, self.ends, self.bias)))


@dataclass(frozen=True, eq=False)
class _Fixed:
    """What stays the same while a layer is fitted: its weight and bias, V's unit, the bias's, and the loss's."""

    weight: Tensor
    bias: Tensor | None
    scale: Tensor
    zero: Tensor
    step: Tensor
    deviation: Tensor
    energy: float


def fit(problem: Problem, *, iterations: int, batch: int, seed: int) -> Fitted:
    """The layer after `iterations` of Adam on batches of `batch` examples, or nearest rounding where that is better."""
    rows = len(problem.x) // problem.examples * batch
    with _threads(rows * problem.weight.size):
        return _fit(problem, iterations=iterations, batch=batch, seed=seed)


@contextmanager
def _threads(work: int) -> Generator[None]:
    """One thread for a little work; torch's own number is put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(problem: Problem, *, iterations: int, batch: int, seed: int) -> Fitted:
    x, y = _by_example(problem.x, problem.examples), _by_example(problem.y, problem.examples)
    kept = problem.examples - problem.held_out
    fixed, moves = _fixed(problem), _at_rest(problem)
    optimizer = torch.optim.Adam(moves.groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(iterations, 1))
    before = _error(problem, fixed, moves, x[kept:].split(batch), y[kept:].split(batch))
    best, least = moves.copy(), before
    for turn, chosen in enumerate(_batches(kept, batch, iterations, seed), 1):
        optimizer.zero_grad()
        _loss(problem, fixed, moves, x[chosen], y[chosen]).backward()
        optimizer.step()
        schedule.step()
        if turn % max(iterations // LOOKS, 1) == 0:
            found = _error(problem, fixed, moves, x[kept:].split(batch), y[kept:].split(batch))
            best, least = (moves.copy(), found) if found < least else (best, least)
    return _settled(problem, fixed, best, before, least)


# ------------------------------------------------------------------ the layer as the integer graph computes it


def _loss(problem: Problem, fixed: _Fixed, moves: _Moves, x: Tensor, y: Tensor) -> Tensor:
    """The squared error as a share of the outputs' energy."""
    weight, bias = _rounded_weight(problem, fixed, moves), _bias(fixed, moves)
    found = problem.forward(_input(problem, moves, x.flatten(0, 1)), weight, bias)
    return (found - y.flatten(0, 1)).square().mean() / fixed.energy


def _moved_weight(fixed: _Fixed, moves: _Moves) -> Tensor:
    """W + V."""
    return fixed.weight + moves.steps * fixed.step


def _rounded_weight(problem: Problem, fixed: _Fixed, moves: _Moves) -> Tensor:
    """Q_w(W + V)."""
    scale = _over(problem.encoding, fixed.scale * moves.scale.exp(), problem.weight.shape)
    return _rounded(_moved_weight(fixed, moves), scale, fixed.zero, problem.encoding)


def _bias(fixed: _Fixed, moves: _Moves) -> Tensor | None:
    return None if fixed.bias is None else fixed.bias + moves.bias * fixed.deviation


def _input(problem: Problem, moves: _Moves, x: Tensor) -> Tensor:
    """Q_x(X)."""
    if problem.input is None:
        return x
    return _rounded(x, *_input_scale(problem.input, moves), problem.input)


def _input_scale(encoding: Encoding, moves: _Moves) -> tuple[Tensor, Tensor]:
    """Scale and zero point of the input. Its ends are learned by their logarithms: an end at 0 stays there."""
    grid, scale, zero = encoding.grid, float(encoding.scale), int(encoding.zero_point)
    low = (grid.low - zero) * scale * moves.ends[0].exp()
    high = (grid.high - zero) * scale * moves.ends[0 if grid.symmetric else 1].exp()
    learned = (high - low) / (grid.high - grid.low)
    return learned, _round(grid.low - low / learned).clamp(grid.low, grid.high)


def _rounded(values: Tensor, scale: Tensor, zero: Tensor, encoding: Encoding) -> Tensor:
    codes = (_round(values / scale) + zero).clamp(encoding.grid.low, encoding.grid.high)
    return (codes - zero) * scale


def _round(values: Tensor) -> Tensor:
    """Rounded, with the gradient of no rounding."""
    return values + (values.round() - values).detach()


def _over(encoding: Encoding, parameter: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A parameter per channel or group, ready to meet an array of `shape`."""
    if encoding.grid.per == "tensor":
        return parameter.reshape(())
    if encoding.grid.per == "channel":
        return parameter.reshape([-1 if axis == encoding.axis else 1 for axis in range(len(shape))])
    wide = parameter.repeat_interleave(encoding.grid.group, dim=encoding.axis)
    return wide.narrow(encoding.axis, 0, shape[encoding.axis])


# ------------------------------------------------------------------ before and after


def _fixed(problem: Problem) -> _Fixed:
    encoding, shape = problem.encoding, problem.weight.shape
    scale, zero = torch.tensor(encoding.scale), torch.tensor(encoding.zero_point)
    others = tuple(axis for axis in range(problem.y.ndim) if axis != problem.axis)
    return _Fixed(
        torch.tensor(problem.weight),
        None if problem.bias is None else torch.tensor(problem.bias),
        scale,
        _over(encoding, zero, shape),
        _over(encoding, scale, shape),
        torch.tensor(problem.y.std(axis=others, dtype=np.float64).astype(np.float32)),
        max(float(np.square(problem.y).mean(dtype=np.float64)), 1e-30),
    )


def _at_rest(problem: Problem) -> _Moves:
    sizes = (problem.weight.shape, problem.encoding.scale.shape, (2,), (problem.y.shape[problem.axis],))
    return _Moves(*(torch.zeros(size, requires_grad=True) for size in sizes))


def _by_example(values: Array, examples: int) -> Tensor:
    """[examples * rows, ..] to [examples, rows, ..]."""
    return torch.tensor(values).unflatten(0, (examples, -1))


def _batches(examples: int, batch: int, count: int, seed: int) -> Iterator[Tensor]:
    """`count` batches of positions, from one random order of the examples after another."""
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(examples, generator=generator) for _ in range(count))
    return islice((part for order in orders for part in order.split(batch)), count)


@torch.no_grad()
def _error(problem: Problem, fixed: _Fixed, moves: _Moves, x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    losses = [float(_loss(problem, fixed, moves, *pair)) * len(pair[0]) for pair in zip(x, y, strict=True)]
    return sum(losses) / sum(map(len, x))


@torch.no_grad()
def _settled(problem: Problem, fixed: _Fixed, moves: _Moves, before: float, after: float) -> Fitted:
    """The fit in numpy: the codes of the weight returned are those that were judged."""
    encoding = replace(problem.encoding, scale=(fixed.scale * moves.scale.exp()).numpy())
    bias = _bias(fixed, moves)
    found = None
    if problem.input is not None:
        learned, zero = _input_scale(problem.input, moves)
        found = replace(problem.input, scale=learned.numpy(), zero_point=zero.to(torch.int32).numpy())
    weight = encoding.rounded(_moved_weight(fixed, moves).numpy())
    return Fitted(weight, None if bias is None else bias.numpy(), encoding, found, before, after)
