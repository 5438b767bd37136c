"""The story of an AdaQuant run: calibrate, fit, tune, and write what stays nearest to the float outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import cast

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.grids import Encoding, Grid, encode_range
from edgewright.protocols import Context
from edgewright.types import Arrays, Json, Model, Step
from edgewright_plugins.adaquant import Params
from edgewright_plugins.adaquant.adapt import Settings, adapt, nearest
from edgewright_plugins.adaquant.biases import tune_biases
from edgewright_plugins.adaquant.problems import HELD_OUT
from edgewright_plugins.qdq.calibrate import observe
from edgewright_plugins.qdq.layers import Layer, layers_of
from edgewright_plugins.qdq.place import Scheme, activations
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.ranges import Histogram, Range, find_range
from edgewright_plugins.qdq.sensitivity import divergence_of
from edgewright_plugins.qdq.tune import Adapted, tune_norms

CLIPS = np.linspace(1.0, 0.1, 37)
"""Shares of the extremes that the range of an activation of few bits is chosen from."""


def run(model: Model, params: Params, context: Context) -> Model:
    """The model written with fitted weights; with nearest rounding where fitting brought the outputs no nearer."""
    context.progress("adaquant: calibrating")
    proto = prepare(onnxkit.read(model.graph))
    feeds = list(context.feed(model, "calibration", params.examples))
    plan = planned(proto, params, feeds)
    stages, left = _stages(plan, params, context, feeds)
    judges = feeds[-max(len(feeds) // HELD_OUT, 1) :]
    apart = {name: _divergence(plan, stage, judges, context, name) for name, stage in stages.items()}
    best = min(apart, key=lambda name: apart[name])
    written = stages[best].written(proto, plan.scheme, plan.ranges)
    step = Step(
        "adaquant", "edgewright", asdict(params), (*_notes(plan, stages, apart, best), *left), _details(stages, apart)
    )
    return model.with_graph(context.keep(onnxkit.pack(written))).after(step)


# ------------------------------------------------------------------ what is quantised how


@dataclass(frozen=True, eq=False)
class Plan:
    """The prepared float graph, and how its weights and activations are to be quantised."""

    proto: onnx.ModelProto
    scheme: Scheme
    grids: Mapping[str, Grid]
    ranges: Mapping[str, Range]
    activations: Mapping[str, Encoding]


def planned(proto: onnx.ModelProto, params: Params, feeds: Sequence[Arrays]) -> Plan:
    """Grids of all weights, ranges of all activations, and encodings of those with less than 8 bits."""
    histograms = observe(proto, activations(proto), lambda: feeds)
    ranges = {name: find_range(histogram, params.range) for name, histogram in histograms.items()}
    grid = Grid(params.activations, symmetric=False, signed=False, per="tensor")
    few = {} if grid.bits == 8 else {name: closest(grid, histogram) for name, histogram in histograms.items()}
    return Plan(proto, Scheme(params.scheme), grids_of(layers_of(proto), params), ranges, few)


def grids_of(layers: Sequence[Layer], params: Params) -> dict[str, Grid]:
    """By weight: 8 bits for depthwise layers and, if asked for, the first and the last; else the bits asked for."""
    ends = {layers[0].weight, layers[-1].weight} if params.edges else set[str]()
    return {layer.weight: Grid(8 if layer.weight in ends or depthwise(layer) else params.bits) for layer in layers}


def depthwise(layer: Layer) -> bool:
    """Whether each of its outputs sums over one channel only: few weights to save, and each matters."""
    return layer.kind == "Conv" and layer.shape[1] == 1 and layer.shape[0] > 1


def closest(grid: Grid, histogram: Histogram) -> Encoding:
    """The encoding of an activation with the least squared error, among ranges from all its values to a tenth."""

    def error(encoding: Encoding) -> float:
        wrong = encoding.rounded(histogram.centres.astype(np.float32)) - histogram.centres
        return float(np.sum(histogram.counts * np.square(wrong)))

    return min((encode_range(grid, histogram.lowest * clip, histogram.highest * clip) for clip in CLIPS), key=error)


# ------------------------------------------------------------------ fitted, tuned, judged


def _stages(
    plan: Plan, params: Params, context: Context, feeds: Sequence[Arrays]
) -> tuple[dict[str, Adapted], list[str]]:
    """What was reached after each part of the work, by its name; and which parts were left out, with reasons."""
    settings = Settings(plan.scheme, params.order == "parallel", params.iterations, seed=context.seed)
    stages = {"nearest rounding": nearest(plan.proto, plan.grids, plan.activations)}
    stages["fitted"] = adapt(
        plan.proto,
        plan.grids,
        plan.ranges,
        feeds,
        settings,
        progress=partial(context.progress, "adaquant: fitting layers"),
        folder=context.scratch,
        activations=plan.activations,
    )
    seen = feeds[: len(feeds) - len(feeds) // HELD_OUT]
    left: list[str] = []
    for kind in params.tune:
        if kind != "none":
            last = list(stages.values())[-1]
            try:
                stages[f"{kind} tuned"] = _tuned(kind, plan, last, context, seen)
            except RefusedError as refusal:
                left.append(f"{kind} tuning was left out: {refusal}")
    return stages, left


def _tuned(kind: str, plan: Plan, last: Adapted, context: Context, feeds: Sequence[Arrays]) -> Adapted:
    progress = partial(context.progress, f"adaquant: tuning, {kind}")
    if kind == "norm":
        return tune_norms(plan.proto, plan.scheme, plan.ranges, last, feeds, progress=progress)
    return tune_biases(plan.proto, last, feeds, seed=context.seed, progress=progress)


def _divergence(plan: Plan, stage: Adapted, feeds: Sequence[Arrays], context: Context, name: str) -> float:
    def measure() -> Json:
        return divergence_of(stage.written(plan.proto, plan.scheme, plan.ranges), plan.proto, feeds)

    return cast("float", context.remember(f"divergence {name}", measure))


def _notes(plan: Plan, stages: Mapping[str, Adapted], apart: Mapping[str, float], best: str) -> list[str]:
    bits = [grid.bits for grid in plan.grids.values()]
    found = ", ".join(f"{name} {value:.4g}" for name, value in apart.items())
    errors = stages["fitted"].errors.values()
    before, after = (float(np.mean([each[side] for each in errors])) if errors else 0.0 for side in (0, 1))
    return [
        f"weights of {len(bits)} layers in {', '.join(f'{b} bits ({bits.count(b)})' for b in sorted(set(bits)))}",
        f"error of a layer's outputs on examples held out: {before:.3%} of their energy, {after:.3%} once fitted",
        f"divergence from the float outputs on examples held out: {found}",
        f"written: {best}",
    ]


def _details(stages: Mapping[str, Adapted], apart: Mapping[str, float]) -> dict[str, object]:
    return {"divergence": dict(apart), "errors": {name: list(pair) for name, pair in stages["fitted"].errors.items()}}
