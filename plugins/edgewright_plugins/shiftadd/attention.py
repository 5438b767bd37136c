"""Attention whose queries and keys are signs, so that their products are counts of bits that agree.

You et al. 2023, ShiftAddViT (arXiv:2306.06446), section 4.1. Instead of a mean over the batch, each channel has a
threshold that is calibrated once. Three forms:

- `hamming`: softmax over products of signs, b_q . b_k = d - 2 * (Hamming distance).
- `masked`: softmax over sums of a key's channels, added or subtracted as the query's signs say.
  Both add what the mean query asks of each key, which the paper has not: without it nothing tells strong keys from
  weak ones, and a network loses most of its answers before it has trained.
- `linear`: the angular kernel 1/2 + b_q . b_k / (pi d), taken apart so that keys meet values first (You et al. 2023,
  Castling-ViT, arXiv:2211.10526, equation 5): tokens cost linearly, and all products are masked sums.

Beside each runs a depthwise convolution of the values along the tokens, which brings back what signs cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.grids import WEIGHTS
from edgewright.torchkit.anatomy import Attention
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import Quantizer
from edgewright_plugins.attending import HeadedAttention, replaceable, take_over

FORMS = ("hamming", "masked", "linear")
SPAN = 9
"""Tokens under the convolution of values, as the paper's code has it."""


class Sign(Quantizer):
    """+1 above the channel's threshold (`zero`), -1 elsewhere; passes its input until it is calibrated.

    The gradient is that of a clip at one deviation (`scale`) around the threshold (straight through).
    """

    def __init__(self, heads: int, width: int) -> None:
        super().__init__(replace(WEIGHTS, bits=2), channels=heads * width, batched=True)
        self.heads = heads
        self.scale.requires_grad = False

    def extra_repr(self) -> str:
        """What it gives."""
        return f"signs of {self.heads} heads"

    def forward(self, x: Tensor) -> Tensor:
        """Signs of `x` [..., heads, tokens, width]."""
        if self.seen is not None:
            self.seen.append(x.detach().float().transpose(-3, -2).flatten(-2).flatten(0, -2))
            return x
        if not self.rounds:
            return x
        signs = torch.where(x > self.spread(self.zero), 1.0, -1.0)
        if not (self.training and torch.is_grad_enabled()):
            return signs
        near = ((x - self.spread(self.zero)) / self.spread(self.scale)).clamp(-1, 1)
        return near + (signs - near).detach()

    def spread(self, values: Tensor) -> Tensor:
        """Values per channel, in the shape in which they meet `x`: [heads, 1, width]."""
        return values.reshape(self.heads, 1, -1)

    def start(self, values: Tensor) -> None:
        """Set threshold and deviation to those of `values` [rows, heads * width]."""
        with torch.no_grad():
            self.zero.copy_(values.mean(0))
            self.scale.copy_(values.std(0).clamp_min(1e-6))
        self.rounds = True

    def nudge(self, by: float) -> None:
        """Move the thresholds by a share of the deviation."""
        with torch.no_grad():
            self.zero.add_(self.scale, alpha=by)


class SignAttention(HeadedAttention):
    """The attention of some heads in one of `FORMS`; softmax attention as it was until its signs are calibrated."""

    def __init__(self, form: str, heads: int, width: int) -> None:
        super().__init__(heads)
        self.form = form
        self.query, self.key = Sign(heads, width), Sign(heads, width)
        self.gain = nn.Parameter(torch.ones(heads))
        self.values = nn.Conv2d(heads, heads, (SPAN, 1), padding=(SPAN // 2, 0), groups=heads, bias=False)
        nn.init.zeros_(self.values.weight)

    def extra_repr(self) -> str:
        """The form."""
        return self.form

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Per head, [b, heads, tokens, width]."""
        b_q, b_k = self.query(q), self.key(k)
        scale = q.shape[-1] ** -0.5
        if not self.query.rounds:
            return torch.softmax(b_q @ b_k.transpose(2, 3) * scale, dim=-1) @ v
        if self.form == "linear":
            return self.angular(b_q, b_k, v) + self.values(v)
        # q = mean + deviation * sign: what the mean query asks of each key is no product of tokens with tokens.
        common = self.query.spread(self.query.zero) @ k.transpose(2, 3) * scale
        with_keys = b_q @ (k if self.form == "masked" else b_k).transpose(2, 3)
        return torch.softmax(with_keys * self.strength() + common, dim=-1) @ v + self.values(v)

    def strength(self) -> Tensor:
        """What a product of signs counts in the softmax, [heads, 1, 1]; at gain 1 scores spread as they did before."""
        spread = self.query.spread(self.query.scale)
        if self.form == "hamming":
            spread = spread * self.query.spread(self.key.scale)
        return self.gain.reshape(-1, 1, 1) * spread.mean(2, keepdim=True) * spread.shape[2] ** -0.5

    def angular(self, b_q: Tensor, b_k: Tensor, v: Tensor) -> Tensor:
        """Means of values, weighted by 1 + 2 / (pi d) b_q . b_k at gain 1, without ever forming the weights."""
        tokens, width = b_q.shape[2:]
        mean = v.mean(2, keepdim=True)
        gain = self.gain.reshape(-1, 1, 1) * (2 / (math.pi * tokens * width))
        return mean + b_q @ (b_k.transpose(2, 3) @ (v - mean)) * gain


def binarisable(module: nn.Module, example: Inputs, said: Mapping[str, Any]) -> list[Attention]:
    """The attentions of a network whose queries and keys can be signs. Raises: RefusedError, as `replaceable`."""
    return replaceable(module, example, said, "leave attention=softmax")


def attend(module: nn.Module, attentions: Sequence[Attention], form: str) -> nn.Module:
    """Put signs into the attentions, in place; the layers keep their weights and get `.layer` behind their paths.

    Until they are calibrated (`fakequant_prepare.calibrate`) the module gives what it gave.
    """
    return take_over(module, attentions, lambda found: SignAttention(form, found.heads, found.head_dim))
