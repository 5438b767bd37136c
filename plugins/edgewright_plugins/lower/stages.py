"""Lowers every stage of a model, each on what the stages before it hand over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import onnx
from torch import nn

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.numerics import Difference, worst
from edgewright.types import Array, Arrays, GraphFile, Model, Stage, TorchGraph, Variant
from edgewright_plugins.lower.export import lower_module, run_module, settled
from edgewright_plugins.lower.rounding import rounds, wobble

Keep = Callable[[bytes, str], GraphFile]

LIMIT = 1e-3
"""The largest error of an output over its scale: well above float32 noise, well below a changed decision."""


def lower_stages(model: Model, keep: Keep) -> tuple[tuple[Variant, ...], Difference]:
    """The variants in ONNX, and the output that came out worst.

    Raises: RefusedError when a stage cannot be lowered, or an output is further off than `LIMIT`.
    """
    lowered = [_lower_variant(variant, model.example, keep) for variant in model.variants]
    differences = [each for _, found in lowered for each in found]
    return tuple(variant for variant, _ in lowered), max(differences, key=lambda each: each.max_rel)


def _lower_variant(variant: Variant, example: Arrays, keep: Keep) -> tuple[Variant, list[Difference]]:
    values: dict[str, Array] = dict(example)
    carry: tuple[str, ...] = ()
    stages: list[Stage] = []
    found: list[Difference] = []
    for stage in variant.stages:
        feed = {name: values[name] for name in (*stage.inputs, *carry)}
        carry, names = stage.carry, stage.returns
        module = settled(cast("TorchGraph", stage.graph).module, feed)
        want = [tensor.numpy() for tensor in run_module(module, feed)]
        free = with_free_rows(module, feed, names) if stages and variant.gated else None
        proto = free or lower_module(module, feed, names)
        found.append(check_numerics(proto, feed, names, want, limit=max(LIMIT, wobble(module, feed, want))))
        stages.append(replace(stage, graph=keep(onnxkit.pack(proto), "onnx"), free_rows=free is not None))
        values.update(zip(names, want, strict=True))
    return replace(variant, stages=tuple(stages)), found


def with_free_rows(module: nn.Module, feed: Arrays, names: Sequence[str]) -> onnx.ModelProto | None:
    """The graph for any number of rows, so that rows that left before need not be computed.

    None where there is only one row, the module rounds, or it cannot be captured without a fixed number of them.
    """
    rows = len(next(iter(feed.values())))
    if rows < 2 or rounds(module):
        return None
    fewer = {name: array[: rows - 1] for name, array in feed.items()}
    try:
        proto = lower_module(module, feed, names, free_rows=True)
        if not _rows_are_free(proto):
            return None
        check_numerics(proto, fewer, names, [tensor.numpy() for tensor in run_module(module, fewer)])
    except RefusedError:
        return None
    return proto


def _rows_are_free(proto: onnx.ModelProto) -> bool:
    """Whether axis 0 of all inputs and outputs is open; then it gets a name that says what it is."""
    axes = [value.type.tensor_type.shape.dim[:1] for value in (*proto.graph.input, *proto.graph.output)]
    if not all(axis and axis[0].dim_param for axis in axes):
        return False
    for axis in axes:
        axis[0].dim_param = "rows"
    return True


def check_numerics(
    proto: onnx.ModelProto, feed: Arrays, names: Sequence[str], want: Sequence[Array], *, limit: float = LIMIT
) -> Difference:
    """The worst output of `proto` against `want`. Raises: RefusedError beyond `limit`."""
    got = next(iter(onnxkit.run(onnxkit.pack(proto), [feed], names)))
    found = worst(names, want, got)
    if found.max_rel > limit:
        raise RefusedError(
            f"the lowered output {found.name!r} differs from the torch module by {found.max_abs:.3g}, "
            f"{found.max_rel:.2g} of its scale (allowed: {limit:.3g}); see that the module is deterministic in eval "
            "mode"
        )
    return found
