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

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.grids import WEIGHTS
from edgewright.torchkit.anatomy import Attention, examine
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import Quantizer, is_layer
from edgewright.torchkit.losses import outputs_of

FORMS = ("hamming", "masked", "linear")
SPAN = 9
"""Tokens under the convolution of values, as the paper's code has it."""
SAME = 1e-3
"""How far, over their scale, outputs may move when the attention is computed here instead of by the network's code."""


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


class SignAttention(nn.Module):
    """The attention of some heads in one of `FORMS`; softmax attention as it was until its signs are calibrated."""

    def __init__(self, form: str, heads: int, width: int) -> None:
        super().__init__()
        self.form, self.heads = form, heads
        self.query, self.key = Sign(heads, width), Sign(heads, width)
        self.gain = nn.Parameter(torch.ones(heads))
        self.values = nn.Conv2d(heads, heads, (SPAN, 1), padding=(SPAN // 2, 0), groups=heads, bias=False)
        nn.init.zeros_(self.values.weight)

    def extra_repr(self) -> str:
        """The form."""
        return self.form

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values, each [b, tokens, heads * width], to what is attended to, in their shape."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self.attended(q, k, v).transpose(1, 2).flatten(2)

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same per head, [b, heads, tokens, width]."""
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


class Held:
    """What the projections of one attention gave, until the layer behind it takes it."""

    def __init__(self) -> None:
        self.parts: dict[str, Tensor] = {}


class Projection(nn.Module):
    """A layer of queries, keys or values, whose result is held."""

    def __init__(self, layer: nn.Module, name: str, held: Held) -> None:
        super().__init__()
        self.layer, self.name, self.held = layer, name, held

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        y = self.layer(x)
        self.held.parts[self.name] = y
        return y


class Attended(nn.Module):
    """The layer behind an attention; works on what `attention` makes of the projections, not on what it is given.

    So the network's own code goes on as it was written: what it computes between the projections and this layer
    reaches nothing, and an exporter leaves it out.
    """

    def __init__(self, layer: nn.Module, attention: SignAttention, held: Held) -> None:
        super().__init__()
        self.layer, self.attention, self.held = layer, attention, held

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives; `x` is left aside."""
        parts, self.held.parts = self.held.parts, {}
        return self.layer(self.attention(parts["query"], parts["key"], parts["value"]))


def binarisable(module: nn.Module, example: Inputs, said: Mapping[str, Any]) -> list[Attention]:
    """The attentions of a network that `attend` can take over.

    Raises: RefusedError when there is none, or one does more than softmax(q k / sqrt(d)) v with layers of its own.
    """
    found = [block.attention for block in examine(module, example, said).blocks if block.attention]
    if not found:
        raise RefusedError("the network has no attention; leave attention=softmax")
    for each in found:
        layers = [each.query, each.key, each.value, each.output]
        if each.heads != each.kv_heads or len({*layers}) < 4 or not all(_is_layer_at(module, path) for path in layers):
            raise RefusedError(
                f"the attention {each.path!r} has no layers of its own for queries, keys, values and output with as "
                "many heads each; leave attention=softmax"
            )
    with torch.no_grad():
        before, after = (
            outputs_of(net.eval()(*example))[0] for net in (module, attend(copy.deepcopy(module), found, FORMS[0]))
        )
    if float((after - before).abs().max()) > SAME * float(before.abs().max()):
        raise RefusedError(
            "the network's attention masks scores, or moves queries and keys behind their layers (as rotary positions "
            "do), and signs would not; leave attention=softmax"
        )
    return found


def _is_layer_at(module: nn.Module, path: str) -> bool:
    return path in dict(module.named_modules()) and is_layer(module.get_submodule(path))


def attend(module: nn.Module, attentions: Sequence[Attention], form: str) -> nn.Module:
    """Put signs into the attentions, in place; the layers keep their weights and get `.layer` behind their paths.

    Until they are calibrated (`fakequant_prepare.calibrate`) the module gives what it gave.
    """
    for found in attentions:
        held = Held()
        attention = SignAttention(form, found.heads, found.head_dim)
        _wrap(module, found.output, lambda layer, a=attention, h=held: Attended(layer, a, h))
        for name, path in (("query", found.query), ("key", found.key), ("value", found.value)):
            _wrap(module, path, lambda layer, n=name, h=held: Projection(layer, n, h))
    return module


def _wrap(module: nn.Module, path: str, wrapper: Callable[[nn.Module], nn.Module]) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, wrapper(module.get_submodule(path)))
