"""Reads what surrounds the blocks: the stem, the head, and the positions that each stage gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, prod

from edgewright.torchkit.anatomy.blocks import Span
from edgewright.torchkit.anatomy.inside import unique
from edgewright.torchkit.anatomy.parts import Block, Head, TokenGrid
from edgewright.torchkit.anatomy.trace import Layer, Norm, Shape, Trace

STRIDES = (2, 3, 4)
TOKENS = ("tokens", "tokens_first")


def in_order(trace: Trace) -> list[Layer | Norm]:
    """Layers and norms in call order."""
    return sorted([*trace.layers, *trace.norms], key=lambda part: part.at)


# ------------------------------------------------------------------ stages


def stage_numbers(spans: Sequence[Span]) -> list[int]:
    """A new stage starts where the shape that a block gives changes."""
    numbers = [0]
    for before, span in zip(spans, spans[1:], strict=False):
        numbers.append(numbers[-1] + (span.last.out_shape != before.last.out_shape))
    return numbers


def find_stages(
    spans: Sequence[Span], blocks: Sequence[Block], trace: Trace, fixed: Mapping[str, int], grid: Shape = ()
) -> list[TokenGrid]:
    """What each stage gives.

    Args:
        spans: the blocks as they ran.
        blocks: the same, read.
        trace: the whole run.
        fixed: per block, how many of the first tokens that it takes stand for no part of the input.
        grid: the grid of the first stage where the user told it.
    """
    stages: list[TokenGrid] = []
    for span, block in zip(spans, blocks, strict=True):
        if block.stage == len(stages):
            stage = read_stage(span, block, trace, fixed.get(block.path, 0), stages[-1] if stages else None)
            stages.append(replace(stage, grid=grid) if grid and not stages else stage)
    return stages


def read_stage(span: Span, block: Block, trace: Trace, fixed: int, before: TokenGrid | None) -> TokenGrid:
    """The positions and channels of what one block gives."""
    shape = block.out_shape
    layout = find_layout(block, span, trace)
    if layout == "map":
        return TokenGrid(prod(shape[2:]), shape[1], layout, grid=shape[2:])
    *positions, width = shape[1:]
    if layout == "map_last":
        return TokenGrid(prod(positions), width, layout, grid=tuple(positions))
    count = shape[0] if layout == "tokens_first" else prod(positions)
    prefix = before.prefix if before and not fixed and before.count == count else fixed
    return TokenGrid(count, width, layout, prefix, find_grid(count - prefix, span, trace, before))


def find_layout(block: Block, span: Span, trace: Trace) -> str:
    """What the dimensions of a block's output are; see `TokenGrid.layout`."""
    shape = block.out_shape
    kinds = [layer.kind for layer in trace.layers if layer.path in block.layers]
    if len(shape) > 3:
        return "map" if "conv" in kinds else "map_last"
    if len(shape) == 3 and block.attention is None and kinds[-1:] == ["conv"]:
        return "map"
    scores = [attend.scores for attend in trace.attends if span.holds(attend.at)]
    swapped = len(shape) == 3 and shape[0] != shape[1] and any((s[-1], s[0]) == shape[:2] for s in scores)
    return "tokens_first" if swapped else "tokens"


def find_grid(count: int, span: Span, trace: Trace, before: TokenGrid | None) -> Shape | None:
    """The sizes of the map that the tokens were: of the last convolution to give as many, or the last grid reduced."""
    paths = {layer.path for layer in trace.layers if layer.kind == "conv"}
    maps = [call.out_shape[2:] for call in trace.calls if call.path in paths and call.end < span.first.at]
    reduced = [tuple(ceil(size / by) for size in before.grid) for by in (1, *STRIDES)] if before and before.grid else []
    return next((sizes for sizes in [*reversed(maps), *reduced] if len(sizes) > 1 and prod(sizes) == count), None)


# ------------------------------------------------------------------ stem and head


def find_stem(first: Span, trace: Trace) -> tuple[str, ...]:
    """Layers and norms that ran before the first block."""
    return unique(part.path for part in in_order(trace) if part.at < first.first.at)


def find_head(last: Span, trace: Trace, stage: TokenGrid, said: tuple[str, ...] = ()) -> Head | None:
    """What runs after the last block and gives the result, or the layers that the user named; None without any.

    Its `pooling` is empty where only a trial can tell which tokens it reads.
    """
    after = [part for part in in_order(trace) if part.at > last.done]
    outputs = said or unique(part.path for part in after if isinstance(part, Layer) and part.path in trace.gives)
    if not outputs:
        return None
    before = unique(part.path for part in after if part.path not in outputs)
    layers = [part for part in after if isinstance(part, Layer)]
    return Head(outputs, before, find_pooling(layers, prod(last.last.out_shape) // stage.width, stage))


def find_pooling(layers: Sequence[Layer], positions: int, stage: TokenGrid) -> str:
    """What the layers after the last block see of its positions; empty for tokens that are chosen or averaged."""
    if layers and stage.count > 1 and layers[-1].positions >= positions:
        return "each"
    if flattens(layers, positions, stage):
        return "flatten"
    return "" if stage.layout in TOKENS and stage.count > 1 else "all"


def flattens(layers: Sequence[Layer], positions: int, stage: TokenGrid) -> bool:
    """Whether the first layer that sees fewer positions has weights for each."""
    width = stage.width
    for layer in layers:
        if layer.positions < positions:
            joined, rest = divmod(layer.wide_in, width)
            return not rest and joined > 1 and (stage.layout not in TOKENS or joined == stage.count)
        width = layer.wide_out
    return False


def with_reads(head: Head, reads: Sequence[int] | None, stage: TokenGrid) -> Head:
    """The head with the tokens that it reads; half of them or more are a mean or the like."""
    if not reads:
        return head
    return replace(head, pooling="token" if 2 * len(reads) < stage.count else "all", reads=tuple(reads))
