"""Attention that a module of ours computes in a network whose own code stays as it is: shiftadd and sparsifiner."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.torchkit.anatomy import Attention, examine
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.fakequant import is_layer
from edgewright.torchkit.losses import outputs_of

PARTS = ("query", "key", "value")
SAME = 1e-3
"""How far, over their scale, outputs may move when the attention is computed here instead of by the network's code."""


class HeadedAttention(nn.Module):
    """softmax(q k' / sqrt(d)) v of heads that lie side by side in a token's row; others override `attended`."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries, keys and values, each [b, tokens, heads * width], to what is attended to, in their shape."""
        return self.joined(self.attended(*(self.split(part) for part in (query, key, value))))

    def split(self, part: Tensor) -> Tensor:
        """[b, tokens, heads * width] by head: [b, heads, tokens, width]."""
        return part.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def joined(self, parts: Tensor) -> Tensor:
        """[b, heads, tokens, width] side by side: [b, tokens, heads * width]."""
        return parts.transpose(1, 2).flatten(2)

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same per head, [b, heads, tokens, width]."""
        return torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, dim=-1) @ v


class Held:
    """What the projections of one attention gave, until the layer behind it takes it."""

    def __init__(self) -> None:
        self.parts: dict[str, Tensor] = {}


class Projection(nn.Module):
    """A layer of queries, keys or values, or of all three side by side, whose result is held."""

    def __init__(self, layer: nn.Module, names: Sequence[str], held: Held) -> None:
        super().__init__()
        self.layer, self.names, self.held = layer, names, held

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives."""
        y = self.layer(x)
        self.held.parts.update(zip(self.names, y.chunk(len(self.names), dim=-1), strict=True))
        return y


class Attended(nn.Module):
    """The layer behind an attention; works on what `attention` makes of the projections, not on what it is given.

    So the network's own code goes on as it was written: what it computes between the projections and this layer
    reaches nothing, and an exporter leaves it out.
    """

    def __init__(self, layer: nn.Module, attention: HeadedAttention, held: Held) -> None:
        super().__init__()
        self.layer, self.attention, self.held = layer, attention, held

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives; `x` is left aside."""
        parts, self.held.parts = self.held.parts, {}
        return self.layer(self.attention(*(parts[name] for name in PARTS)))


def replaceable(module: nn.Module, example: Inputs, said: Mapping[str, Any], otherwise: str) -> list[Attention]:
    """The attentions of a network that `take_over` can take over; `otherwise` is what to do where it cannot.

    Raises: RefusedError when there is none, or one does more than softmax(q k / sqrt(d)) v with layers of its own.
    """
    found = [block.attention for block in examine(module, example, said).blocks if block.attention]
    if not found:
        raise RefusedError(f"the network has no attention; {otherwise}")
    for each in found:
        layers = [*_projections(each), each.output]
        if each.heads != each.kv_heads or len(layers) == 3 or not all(_is_layer_at(module, path) for path in layers):
            raise RefusedError(
                f"the attention {each.path!r} has no layers for queries, keys and values, one or three, and for its "
                f"output, with as many heads each; {otherwise}"
            )
    ours = take_over(copy.deepcopy(module), found, lambda each: HeadedAttention(each.heads))
    with torch.no_grad():
        before, after = (outputs_of(net.eval()(*example))[0] for net in (module, ours))
    if float((after - before).abs().max()) > SAME * float(before.abs().max()):
        raise RefusedError(
            "the network's attention masks scores, or moves queries and keys behind their layers (as rotary positions "
            f"do), which would be left out; {otherwise}"
        )
    return found


def _projections(found: Attention) -> Mapping[str, list[str]]:
    """The layers before an attention, and what each gives."""
    layers: dict[str, list[str]] = {}
    for name, path in zip(PARTS, (found.query, found.key, found.value), strict=True):
        layers.setdefault(path, []).append(name)
    return layers


def _is_layer_at(module: nn.Module, path: str) -> bool:
    return path in dict(module.named_modules()) and is_layer(module.get_submodule(path))


def take_over(
    module: nn.Module, attentions: Iterable[Attention], make: Callable[[Attention], HeadedAttention]
) -> nn.Module:
    """Let what `make` gives compute the attentions, in place; the layers keep their weights behind `.layer`."""
    for found in attentions:
        held, attention = Held(), make(found)
        _wrap(module, found.output, lambda layer, a=attention, h=held: Attended(layer, a, h))
        for path, names in _projections(found).items():
            _wrap(module, path, lambda layer, n=names, h=held: Projection(layer, n, h))
    return module


def _wrap(module: nn.Module, path: str, wrapper: Callable[[nn.Module], nn.Module]) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, wrapper(module.get_submodule(path)))
