"""A convolution of which only some channels are computed, as one operator: what exports of it skip is theirs to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional


@runtime_checkable
class Settling(Protocol):
    """A module with parts that only training needs, norms that could be folded say."""

    def settle(self) -> None:
        """Change in place to what shall be exported, which gives the same in evaluation."""
        ...


def fired(logits: Tensor) -> Tensor:
    """1 for logits of 0 or more, and for the largest of each row, so that something is computed; else 0. [n, blocks]"""
    return (logits >= logits.amax(1, keepdim=True).clamp_max(0.0)).to(logits.dtype)


def spread(blocks: Tensor, block: int, channels: int) -> Tensor:
    """[n, blocks] to [n, channels], `block` neighbours alike."""
    return blocks[:, :, None].expand(-1, -1, block).flatten(1)[:, :channels]


@torch.library.custom_op("edgewright::gated_conv", mutates_args=())
def gated_conv(  # noqa: PLR0917 - an operator takes its arguments by position
    x: Tensor, weight: Tensor, bias: Tensor, logits: Tensor, means: Tensor | None, block: int, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    """What `fired(logits)` lets through of conv(x, weight) + bias; 0 elsewhere.

    Args:
        x: [n, c, h, w].
        weight: [k, c, rows, columns].
        bias: [k].
        logits: [n, blocks], each for `block` channels.
        means: [n, c], 0 only where a channel of x is 0 everywhere; None where that is not known.
        block: how many neighbouring channels are computed together.
        stride: rows, columns.
        padding: rows, columns.
        dilation: rows, columns.
    """
    y = functional.conv2d(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation))
    return y * spread(fired(logits), block, len(weight))[:, :, None, None]


@gated_conv.register_fake
def _(  # noqa: PLR0917 - as above
    x: Tensor, weight: Tensor, bias: Tensor, logits: Tensor, means: Tensor | None, block: int, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    return functional.conv2d(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation))
