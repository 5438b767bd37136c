"""Fits the layers of a prepared graph one after another, each to the outputs that it had in float."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgewright.grids import Encoding, Grid, encode_closest
from edgewright.types import Arrays
from edgewright_plugins.adaquant.learn import Fitted, fit
from edgewright_plugins.adaquant.problems import problem_of
from edgewright_plugins.qdq.layers import Layer, constant, layers_of
from edgewright_plugins.qdq.place import Scheme
from edgewright_plugins.qdq.ranges import Range
from edgewright_plugins.qdq.tune import Adapted

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How layers are fitted: `iterations` steps each, on batches of `batch` examples.

    `parallel` feeds every layer as the float graph does; otherwise it gets what the integer layers before it give.
    """

    scheme: Scheme
    parallel: bool = False
    iterations: int = 200
    batch: int = 50
    seed: int = 0


def nearest(
    proto: onnx.ModelProto, grids: Mapping[str, Grid], activations: Mapping[str, Encoding] | None = None
) -> Adapted:
    """Each weight that `grids` names with the scales of least squared error; values go to the nearest codes.

    `activations` are the encodings of those that are not quantised by their range.
    """
    found: dict[str, Encoding] = dict(activations or {})
    for layer in layers_of(proto):
        grid = grids.get(layer.weight)
        if grid is not None:
            axis = layer.across if grid.per == "group" else layer.axis
            found[layer.weight] = encode_closest(grid, constant(proto, layer.weight), axis)
    return Adapted({}, found)


def adapt(
    proto: onnx.ModelProto,
    grids: Mapping[str, Grid],
    ranges: Mapping[str, Range],
    feeds: Sequence[Arrays],
    settings: Settings,
    *,
    progress: Progress,
    folder: Path,
    activations: Mapping[str, Encoding] | None = None,
) -> Adapted:
    """The layers whose weights `grids` names, fitted in running order; other weights go by the scheme.

    Args:
        proto: the prepared float graph.
        grids: by the name of a weight.
        ranges: of the activations, as for `write`.
        feeds: calibration examples; the last quarter judges, and no layer ends worse there than nearest rounding.
        settings: how layers are fitted.
        progress: called with the layers that are done and the number of all.
        folder: keeps each finished layer, so that a run that was killed goes on.
        activations: encodings of activations that are not quantised by their range.
    """
    state = nearest(proto, grids, activations)
    known = _digest(proto, settings, sorted(grids.items()), sorted(ranges.items()), len(feeds), _scales(state))
    layers = [layer for layer in layers_of(proto) if layer.weight in grids and _alone(proto, layer)]
    for done, layer in enumerate(layers):
        progress(done, len(layers))
        file = folder / f"adaquant-{known}-{done}.npz"
        fitted = (
            _read(file, layer, state)
            if file.is_file()
            else _fitted(proto, layer, state, feeds, settings, ranges=ranges)
        )
        if fitted is not None:
            _keep(file, fitted)
            state = _with(state, layer, fitted)
    progress(len(layers), len(layers))
    return state


def _fitted(
    proto: onnx.ModelProto,
    layer: Layer,
    state: Adapted,
    feeds: Sequence[Arrays],
    settings: Settings,
    *,
    ranges: Mapping[str, Range],
) -> Fitted | None:
    integers = state.written(proto, settings.scheme, ranges)
    problem = problem_of(proto, integers, layer, state.encodings, feeds, parallel=settings.parallel)
    if problem is None:
        return None
    return fit(problem, iterations=settings.iterations, batch=settings.batch, seed=settings.seed)


def _alone(proto: onnx.ModelProto, layer: Layer) -> bool:
    """Whether the layer shares weight and bias with no other: what fits one may harm the other."""
    uses = Counter(name for node in proto.graph.node for name in node.input)
    return uses[layer.weight] == 1 and (layer.bias is None or uses[layer.bias] == 1)


def _with(state: Adapted, layer: Layer, fitted: Fitted) -> Adapted:
    values, encodings = {layer.weight: fitted.weight}, {layer.weight: fitted.encoding}
    if layer.bias is not None and fitted.bias is not None:
        values[layer.bias] = fitted.bias
    if fitted.input is not None:
        encodings[layer.input] = fitted.input
    errors = {layer.name: (fitted.before, fitted.after)}
    return Adapted({**state.values, **values}, {**state.encodings, **encodings}, {**state.errors, **errors})


# ------------------------------------------------------------------ what a killed run had finished


def _keep(file: Path, fitted: Fitted) -> None:
    arrays: dict[str, Any] = {
        "weight": fitted.weight,
        "scale": fitted.encoding.scale,
        "errors": [fitted.before, fitted.after],
    }
    if fitted.bias is not None:
        arrays["bias"] = fitted.bias
    if fitted.input is not None:
        grid = json.dumps(asdict(fitted.input.grid))
        arrays |= {"input_grid": grid, "input_scale": fitted.input.scale, "input_zero": fitted.input.zero_point}
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, **arrays)
    unfinished.replace(file)


def _read(file: Path, layer: Layer, state: Adapted) -> Fitted:
    with np.load(file, allow_pickle=False) as kept:
        encoding = replace(state.encodings[layer.weight], scale=kept["scale"])
        before, after = kept["errors"].tolist()
        given = None
        if "input_scale" in kept:
            grid = Grid(**json.loads(str(kept["input_grid"])))
            given = Encoding(grid, kept["input_scale"], kept["input_zero"])
        return Fitted(kept["weight"], kept.get("bias"), encoding, given, before, after)


def _scales(state: Adapted) -> list[tuple[str, bytes, bytes]]:
    return [(name, each.scale.tobytes(), each.zero_point.tobytes()) for name, each in sorted(state.encodings.items())]


def _digest(proto: onnx.ModelProto, *parts: object) -> str:
    return hashlib.sha256(proto.SerializeToString(deterministic=True) + repr(parts).encode()).hexdigest()[:16]
