"""The parts of a network as values: blocks with their attention, MLP and norms, the stem, the head, the tokens.

A part is named by the path of its module (`module.get_submodule(path)`). Where a module keeps several weights to
itself, as `nn.MultiheadAttention` does with `in_proj_weight`, the path is the weight's (`module.get_parameter(path)`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attention:
    """The projections of one attention.

    `heads` counts the heads of queries, `kv_heads` those of keys and values (fewer when queries share them). Queries
    and keys have `head_dim` channels per head, values `value_dim`. `output` is empty when no layer follows.
    """

    path: str
    query: str
    key: str
    value: str
    output: str
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int

    @property
    def fused(self) -> bool:
        """Whether one layer computes queries, keys and values."""
        return self.query == self.key == self.value


@dataclass(frozen=True)
class Mlp:
    """Two layers with `hidden` channels in between. `gate` is multiplied with `up`, and is `up` itself when fused."""

    path: str
    up: str
    down: str
    hidden: int
    gate: str = ""


@dataclass(frozen=True)
class Block:
    """One step of the network's main sequence.

    `kind` is `transformer` (attention and MLP), `attention`, `mlp`, `conv` or `other`. `end` is the module whose output
    leaves the block: the block itself, or the last of the plain layers that make it up. `layers` are the weights it
    multiplies by, in call order; `norms` likewise. Shapes are the example's, batch included. Blocks in a row that give
    the same shape are one `stage`. `calls` is above 1 when the same block runs several times.
    """

    path: str
    end: str
    kind: str
    stage: int
    attention: Attention | None
    mlp: Mlp | None
    norms: tuple[str, ...]
    layers: tuple[str, ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    calls: int = 1


@dataclass(frozen=True)
class TokenGrid:
    """What the blocks of one stage give: `count` positions of `width` channels.

    `layout` is `tokens` [batch, count, width], `tokens_first` [count, batch, width], `map` [batch, width, *grid] or
    `map_last` [batch, *grid, width]. The first `prefix` tokens stand for no part of the input (class, distillation and
    register tokens). `grid` holds the sizes, height first, along which the rest lie row by row; None for text, and
    where some were dropped.
    """

    count: int
    width: int
    layout: str
    prefix: int = 0
    grid: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Head:
    """What follows the last block: `outputs` are the layers that give the answer, several when answers are averaged.

    `before` lists layers and norms between the last block and them, in call order. `pooling` says what they see of the
    last block: `token` (the positions in `reads`), `all` (positions mixed: a mean, say), `flatten` (every position by
    weights of its own), `each` (one answer per position), or nothing when it could not be told.
    """

    outputs: tuple[str, ...]
    before: tuple[str, ...]
    pooling: str
    reads: tuple[int, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """The parts of a network.

    `stem` lists the layers and norms before the first block, `blocks` come in call order, `head` is None when the
    network ends with its blocks. `stages[block.stage]` tells what a block gives.
    """

    stem: tuple[str, ...]
    blocks: tuple[Block, ...]
    head: Head | None
    stages: tuple[TokenGrid, ...]

    @property
    def tokens(self) -> TokenGrid | None:
        """The tokens of the first stage; None when it works on feature maps."""
        return None if self.stages[0].layout == "map" else self.stages[0]
