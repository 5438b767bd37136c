"""One layer of a transformer whose tokens look at others: attention and MLP, with the weights of a network's block."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.anatomy import Block

SMALL = 0.1
"""What new weights that end a branch are multiplied by, so that a new layer changes little at first."""


class Looking(nn.Module):
    """x + Attn(LN x, LN seen), and to that + MLP(LN). `copied` where all weights are those of a block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.value, self.proj = (nn.Linear(width, width) for _ in range(3))
        # What a bias of keys adds is the same for all keys, and a softmax does not see it.
        self.key = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for last in (self.proj, self.down):
            nn.init.zeros_(last.bias)
            last.weight.data.mul_(SMALL)
        self.copied = False

    def forward(self, x: Tensor, seen: Tensor, guide: Tensor | None = None) -> Tensor:
        """Tokens [b, n, c] that have looked at `seen` [b, m, c]; `guide` is added to what asks alone."""
        asking = self.norm1(x if guide is None else x + guide)
        x = x + self.proj(self._attended(asking, self.norm1(seen)))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))

    def _attended(self, asking: Tensor, seen: Tensor) -> Tensor:
        queries = self.query(asking).unflatten(2, (self.heads, -1)).transpose(1, 2) * self.size**-0.5
        if folds(asking.shape[1], seen.shape[1], self.heads, self.size):
            return self._folded(queries, seen)
        keys, values = (part(seen).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.key, self.value))
        return (torch.softmax(queries @ keys.transpose(2, 3), dim=-1) @ values).transpose(1, 2).flatten(2)

    def _folded(self, queries: Tensor, seen: Tensor) -> Tensor:
        """The same without keys and values: (q W_k) x^T for q (x W_k^T)^T, and (A x) W_v^T for A (x W_v^T)."""
        keys, values = (part.weight.unflatten(0, (self.heads, -1)) for part in (self.key, self.value))
        asked = (queries @ keys).flatten(1, 2)
        found = (torch.softmax(asked @ seen.transpose(1, 2), dim=-1) @ seen).unflatten(1, (self.heads, -1))
        return (found @ values.transpose(1, 2)).transpose(1, 2).flatten(2) + self.value.bias


def folds(asking: int, seen: int, heads: int, size: int) -> bool:
    """Whether few tokens that ask are cheaper without keys and values, in products per channel."""
    width = heads * size
    return asking * width + heads * asking * seen < seen * width + asking * seen


def layer_of(network: nn.Module, block: Block, width: int) -> Looking:
    """A layer that computes what a pre-norm block does where its parts are plain layers.

    A part that is not (queries, keys and values of one layer, a gated MLP) is new; `copied` says whether none is.
    """
    attention, mlp = block.attention, block.mlp
    heads = attention.heads if attention and width % attention.heads == 0 else 1
    made = Looking(width, heads, mlp.hidden if mlp else 4 * width)
    modules = dict(network.named_modules())
    pairs: list[tuple[nn.Module, str]] = [*zip((made.norm1, made.norm2), block.norms, strict=False)]
    if attention and not attention.fused:
        pairs += [(made.query, attention.query), (made.key, attention.key)]
        pairs += [(made.value, attention.value), (made.proj, attention.output)]
    if mlp and not mlp.gate:
        pairs += [(made.up, mlp.up), (made.down, mlp.down)]
    taken = [_taken(part, modules.get(path)) for part, path in pairs]
    made.copied = len(taken) == 8 and all(taken)
    return made


def _taken(part: nn.Module, source: nn.Module | None) -> bool:
    """Copy the weights of a layer of the same kind and shape. False when there is none."""
    own = dict(part.named_parameters())
    given = dict(source.named_parameters()) if source is not None and type(source) is type(part) else {}
    if "weight" not in given or given["weight"].shape != own["weight"].shape:
        return False
    with torch.no_grad():
        for name, weights in own.items():
            weights.copy_(given.get(name, torch.zeros(())))
    if isinstance(part, nn.LayerNorm) and isinstance(source, nn.LayerNorm):
        part.eps = source.eps
    return True
