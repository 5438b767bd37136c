"""The story of EoRA: round every linear layer, then fit one branch after the other to what is still missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.protocols import Context
from edgewright.types import Arrays, Model, Step
from edgewright_plugins.eora import Params
from edgewright_plugins.eora.graph import as_kept, encodings_of, rounded, with_branch
from edgewright_plugins.eora.lowrank import Branch, Moments, closest_branch, plain_branch, remaining
from edgewright_plugins.eora.measure import Linear, linear_of, moments_of
from edgewright_plugins.eora.select import Selection, select, waves
from edgewright_plugins.qdq.layers import Layer
from edgewright_plugins.qdq.prepare import prepare

LISTED = 3
"""Layers that a note names."""
BYTES = {"float": 4, "int8": 1}
"""Per weight of a branch."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A layer's branch, and the error of its outputs without and with it, relative to the float layer's outputs."""

    layer: Layer
    branch: Branch
    before: float
    after: float


def compensate(model: Model, params: Params, context: Context) -> Model:
    """The model in its compensated form. Interrupted, it goes on with the layers that have no branch yet.

    Raises: ModelError when the graph cannot be prepared; RecipeError when `keep` names no layer.
    """
    proto = prepare(onnxkit.read(model.graph))
    selection = select(proto, params)
    if not selection.layers:
        return model.after(_step(params, selection, [], ["nothing was done: there is no layer to round"]))
    feeds = list(context.feed(model, "calibration", limit=params.examples))
    encodings = encodings_of(proto, selection.layers, params)
    deployed = rounded(proto, encodings, params, lambda: feeds)
    fitted: list[Fitted] = []
    for number, wave in enumerate(waves(proto, selection.layers)):
        context.progress("eora: fitting branches", len(fitted), len(selection.layers))
        linears = [linear_of(proto, layer, encodings[layer.weight]) for layer in wave]
        found = _fits(deployed, linears, params, feeds=feeds, file=context.scratch / f"wave{number}.npz")
        deployed = _joined(deployed, found, params)
        fitted += found
    noise = [] if context.task else ["no task: branches were fitted to noise, not to data"]
    step = _step(params, selection, fitted, [*_notes(params, selection, fitted), *noise])
    return model.with_graph(context.keep(onnxkit.pack(deployed))).after(step)


# ------------------------------------------------------------------ one wave


def _fits(
    deployed: onnx.ModelProto, linears: Sequence[Linear], params: Params, *, feeds: Sequence[Arrays], file: Path
) -> list[Fitted]:
    """The branches of one wave, kept in `file` so that they are fitted once."""
    if not file.exists():
        moments = moments_of(deployed, linears, feeds)
        _save(file, [_fit(linear, of, params) for linear, of in zip(linears, moments, strict=True)])
    with np.load(file) as kept:
        return [
            Fitted(each.layer, Branch(kept[f"down{i}"], kept[f"up{i}"]), *map(float, kept[f"errors{i}"]))
            for i, each in enumerate(linears)
        ]


def _fit(linear: Linear, moments: Moments, params: Params) -> Fitted:
    if params.least == "weights":
        branch = plain_branch(linear.delta, params.rank)
    else:
        branch = closest_branch(linear.delta, moments, params.rank)
    branch = as_kept(branch, params.branch)
    wanted = max(moments.wanted, 1e-30)
    before, after = (math.sqrt(error / wanted) for error in (moments.energy, remaining(moments, branch)))
    return Fitted(linear.layer, branch, before, after)


def _save(file: Path, fits: Sequence[Fitted]) -> None:
    """Written beside and moved, so that a kill leaves no half file."""
    arrays: dict[str, Any] = {}
    for i, each in enumerate(fits):
        arrays |= {f"down{i}": each.branch.down, f"up{i}": each.branch.up, f"errors{i}": [each.before, each.after]}
    part = file.with_suffix(".part.npz")
    np.savez(part, **arrays)
    part.replace(file)


def _joined(deployed: onnx.ModelProto, fits: Sequence[Fitted], params: Params) -> onnx.ModelProto:
    if params.rank:
        for each in fits:
            deployed = with_branch(deployed, each.layer, each.branch, kind=params.branch)
    return deployed


# ------------------------------------------------------------------ what is told


def _step(params: Params, selection: Selection, fitted: Sequence[Fitted], notes: Sequence[str]) -> Step:
    branches, weights = _sizes(fitted)
    details = {
        "errors": {each.layer.name: {"rounded": each.before, "compensated": each.after} for each in fitted},
        "left": dict(selection.others),
        "branch_bytes": branches * BYTES[params.branch],
        "branch_share": branches / max(weights, 1),
    }
    return Step("eora", "edgewright", asdict(params), tuple(notes), details)


def _sizes(fitted: Sequence[Fitted]) -> tuple[int, int]:
    """The weights of all branches and of the layers they belong to: how many, and so their multiplications too."""
    return sum(each.branch.size for each in fitted), sum(each.layer.weights for each in fitted)


def _notes(params: Params, selection: Selection, fitted: Sequence[Fitted]) -> list[str]:
    shared = f"group of {params.group}" if params.group else "output"
    told = [f"{len(fitted)} layers with {_sizes(fitted)[1]:,} weights at {params.bits} bits, a scale per {shared}"]
    if params.rank:
        told += _branch_notes(params, fitted)
    worst = max(fitted, key=lambda each: each.after)
    told.append(f"furthest off: {worst.layer.name} with {worst.after:.1%} of its outputs' size")
    if selection.others:
        left = ", ".join(f"{name} ({why})" for name, why in selection.others[:LISTED])
        more = f" and {len(selection.others) - LISTED} more" if len(selection.others) > LISTED else ""
        how = "in 8 bits where not named in keep" if params.activations else "float"
        told.append(f"left {how}: {left}{more}")
    return told


def _branch_notes(params: Params, fitted: Sequence[Fitted]) -> list[str]:
    branches, weights = _sizes(fitted)
    size = branches * BYTES[params.branch]
    before, after = (np.median(errors) for errors in zip(*((each.before, each.after) for each in fitted), strict=True))
    return [
        f"branches of rank {params.rank} add {size:,} bytes, {branches / weights:.1%} of the layers' multiplications",
        f"error of a layer's outputs, as a share of them: {before:.1%} rounded, {after:.1%} with its branch (medians)",
    ]
