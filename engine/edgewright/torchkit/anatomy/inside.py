"""Reads one block: its attention, its MLP, its norms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod

from edgewright.torchkit.anatomy.blocks import Span
from edgewright.torchkit.anatomy.parts import Attention, Block, Mlp
from edgewright.torchkit.anatomy.trace import Attend, Layer, Names, Trace


def read_block(span: Span, trace: Trace, stage: int) -> Block:
    """The block that ran in `span`."""
    layers = [layer for layer in trace.layers if span.holds(layer.at)]
    attention = find_attention(span, trace, layers)
    mlp = find_mlp(span, trace, [layer for layer in layers if layer.path not in parts_of(attention)])
    return Block(
        path=span.first.path,
        end=span.last.path,
        kind=kind_of(attention, mlp, layers),
        stage=stage,
        attention=attention,
        mlp=mlp,
        norms=unique(norm.path for norm in trace.norms if span.holds(norm.at)),
        layers=unique(layer.path for layer in layers),
        in_shape=span.first.in_shape,
        out_shape=span.last.out_shape,
        calls=span.calls,
    )


def kind_of(attention: Attention | None, mlp: Mlp | None, layers: Sequence[Layer]) -> str:
    """What sort of block has these parts."""
    if attention:
        return "transformer" if mlp else "attention"
    if any(layer.kind == "conv" and not (mlp and layer.pointwise) for layer in layers):
        return "conv"
    return "mlp" if mlp else "other"


def parts_of(attention: Attention | None) -> set[str]:
    """The layers of an attention."""
    return {attention.query, attention.key, attention.value, attention.output} if attention else set()


def find_attention(span: Span, trace: Trace, layers: Sequence[Layer]) -> Attention | None:
    """The first attention in a block whose queries, keys and values come from layers."""
    for found in trace.attends:
        if span.holds(found.at) and found.query and found.key and found.value:
            return read_attention(found, trace.layers, output_of(found, span, layers))
    return None


def output_of(found: Attend, span: Span, layers: Sequence[Layer]) -> str:
    """The layer that works on what was attended to; empty when it leaves the block as it is."""
    return next((layer.path for layer in layers if found.mark in layer.fed and not layer.fed & span.first.fed), "")


def read_attention(found: Attend, layers: Sequence[Layer], output: str) -> Attention:
    """An attention with its heads counted."""
    query, key, value = (latest(names, layers, found.at) for names in (found.query, found.key, found.value))
    heads, kv_heads = count_heads(found, query, key, value)
    paths = (query.path, key.path, value.path)
    path = common_path([*paths, output] if output else paths)
    return Attention(path, *paths, output, heads, kv_heads, found.head_dim, found.value_dim)


def latest(names: Names, layers: Sequence[Layer], before: int) -> Layer:
    """The last of some layers to have run."""
    return [layer for layer in layers if layer.path in names and layer.at < before][-1]


def count_heads(found: Attend, query: Layer, key: Layer, value: Layer) -> tuple[int, int]:
    """Heads of queries and of keys, from the widths of the layers and, when one does all, the shape of the scores."""
    if query.path == key.path == value.path:
        return count_fused_heads(found, query.wide_out)
    with_key = found.head_dim if query.path == key.path else 0
    with_value = found.value_dim if value.path == key.path else 0
    heads = query.wide_out // (found.head_dim + with_key)
    return heads, heads if with_key else key.wide_out // (found.head_dim + with_value)


def count_fused_heads(found: Attend, width: int) -> tuple[int, int]:
    """As many of each where the width allows it; else the scores show how many queries have."""
    equal, rest = divmod(width, 2 * found.head_dim + found.value_dim)
    if len(found.scores) < 4 or (not rest and equal in found.scores[:-2]):
        return equal, equal
    heads = found.scores[-3]
    shared, rest = divmod(width - heads * found.head_dim, found.head_dim + found.value_dim)
    return (heads, shared) if shared > 0 and not rest and heads % shared == 0 else (equal, equal)


def find_mlp(span: Span, trace: Trace, layers: Sequence[Layer]) -> Mlp | None:
    """The last pair of pointwise layers that goes from the block's width to its width, with or without a gate."""
    by_path = {layer.path: layer for layer in layers}
    for down in reversed(layers):
        ups = [by_path[name] for name in sorted(through(down.fed, by_path)) if name in by_path]
        if ups and len(ups) == len(through(down.fed, by_path)) and _is_pair(ups, down, span):
            return read_mlp(ups, down, trace.activated)
    return None


def through(names: Names, layers: Mapping[str, Layer]) -> Names:
    """The same layers, those that mix no channels replaced by what fed them."""
    deep = [name for name in names if name in layers and layers[name].depthwise]
    return (names - frozenset(deep)).union(*(layers[name].fed for name in deep)) if deep else names


def _is_pair(ups: Sequence[Layer], down: Layer, span: Span) -> bool:
    """Whether these make an MLP: side by side, joined in width, one position at a time, straight to the output."""
    first, out = ups[0], span.last
    same = all((up.fed, up.wide_in, up.wide_out) == (first.fed, first.wide_in, first.wide_out) for up in ups)
    joined = down.wide_in in (first.wide_out, first.wide_out // 2)
    fits = first.wide_in in (*span.first.in_shape, *out.out_shape) and down.wide_out in out.out_shape
    leaves = down.path in out.gives and down.positions * down.wide_out == prod(out.out_shape)
    return len(ups) <= 2 and same and joined and fits and leaves and all(layer.pointwise for layer in (*ups, down))


def read_mlp(ups: Sequence[Layer], down: Layer, activated: set[str]) -> Mlp:
    """An MLP; of two layers side by side the gate is the one that passes an activation."""
    gate = ""
    up = ups[0]
    if len(ups) > 1:
        gated, up = sorted(ups, key=lambda layer: layer.path not in activated)
        gate = gated.path
    elif down.wide_in * 2 == up.wide_out:
        gate = up.path
    paths = [*(layer.path for layer in ups), down.path]
    return Mlp(common_path(paths), up.path, down.path, down.wide_in, gate)


def common_path(paths: Iterable[str]) -> str:
    """The path of the module that holds all of these."""
    common: list[str] = []
    for names in zip(*(path.split(".")[:-1] for path in paths), strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common)


def unique(paths: Iterable[str]) -> tuple[str, ...]:
    """Each path once, where it came first."""
    return tuple(dict.fromkeys(paths))
