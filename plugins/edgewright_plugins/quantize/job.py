"""One quantisation job: the prepared graph and its ranges, and what schemes cost and score, each found once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import onnx

from edgewright import onnxkit
from edgewright.grids import Encoding, Grid, encode_closest
from edgewright.protocols import Context
from edgewright.types import Arrays, Cost, Json, Metric, Model
from edgewright_plugins.qdq import sensitivity
from edgewright_plugins.qdq.calibrate import find_ranges
from edgewright_plugins.qdq.correct import corrected, input_means
from edgewright_plugins.qdq.layers import Layer, constant, layers_of
from edgewright_plugins.qdq.place import Scheme, activations, quantised_nodes
from edgewright_plugins.qdq.prepare import prepare
from edgewright_plugins.qdq.ranges import METHODS, Range
from edgewright_plugins.qdq.weightonly import GROUP, usual_encoding
from edgewright_plugins.qdq.write import write
from edgewright_plugins.quantize.slow import Slower, slower_nodes

FLOAT = "float"
JUDGES = 32
"""Examples by which layers are ranked and, without labels, ranges chosen."""
LEAST = 1.02
"""A smaller gain is none: two runs of one file differ by as much."""


@dataclass(frozen=True)
class Trial:
    """What a scheme's speed came to: float time / its time with the 95 % interval; None when not known."""

    scheme: Scheme
    ratio: float | None
    interval: tuple[float, float]
    reason: str = ""
    kind: str = "measured"

    @property
    def faster(self) -> bool:
        """Whether the whole interval lies above float, by more than a repetition may differ.

        A prediction counts by its value: its interval is wide, and the contract judges with it anyway.
        """
        bad_end = self.interval[0] if self.kind == "measured" else self.ratio
        return bad_end is not None and self.ratio is not None and bad_end > LEAST

    def __str__(self) -> str:
        if self.ratio is None:
            return f"{self.scheme} unknown ({self.reason})"
        how = "" if self.kind == "measured" else f" {self.kind}"
        return f"{self.scheme} {self.ratio:.2f}x ({self.interval[0]:.2f}-{self.interval[1]:.2f}){how}"


@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same while a method decides. `ranges` maps method -> activation -> (lowest, highest).

    Everything that takes time is remembered under `key`, which names graph and calibration, and the scheme.
    """

    model: Model
    context: Context
    proto: onnx.ModelProto
    ranges: Mapping[str, Mapping[str, Range]]
    key: str
    group: int = GROUP
    known: dict[tuple[str, str], Encoding] = field(default_factory=dict)

    # ------------------------------------------------------------------ models

    def quantised(self, scheme: Scheme, method: str) -> Model:
        """The model in int8. The same scheme and method give the same bytes."""
        return self._model(self._written(scheme, method))

    @property
    def float_model(self) -> Model:
        """The prepared graph, unquantised: what every gain is measured against."""
        return self._model(self.proto)

    def _written(self, scheme: Scheme, method: str) -> onnx.ModelProto:
        encodings = self.encodings(scheme)
        proto = corrected(self.proto, encodings, self.means) if scheme.widths else self.proto
        return write(proto, scheme, self.ranges[method], encodings)

    @property
    def means(self) -> Mapping[str, list[float]]:
        """The mean of each channel that goes into a layer, for biases to take up what few bits lose."""

        def measure() -> Json:
            feeds = list(self.context.feed(self.model, "calibration", JUDGES))
            return input_means(self.proto, layers_of(self.proto), lambda: feeds)

        return cast("Mapping[str, list[float]]", self.context.remember(f"means {self.key}", measure))

    def encodings(self, scheme: Scheme) -> dict[str, Encoding]:
        """How the weights are rounded that the scheme gives fewer than 8 bits, or all in a scheme of weights alone."""
        bits = dict(scheme.widths)
        layers = [layer for layer in self.layers(scheme) if layer.name in bits or scheme.kind == "weights"]
        return {layer.weight: self.encoding(layer, scheme, bits.get(layer.name, 8)) for layer in layers}

    def encoding(self, layer: Layer, scheme: Scheme, bits: int) -> Encoding:
        """How a layer's weights are rounded to so many bits; the closest encoding that the scheme can have."""
        alone = scheme.kind == "weights"
        grid = Grid(bits, per="channel" if scheme.per_channel else "tensor")
        key = layer.name, f"{alone} {grid}"
        if key not in self.known:
            values = constant(self.proto, layer.weight)
            usual = usual_encoding(layer, values, bits, self.group) if alone else None
            self.known[key] = usual or encode_closest(grid, values, layer.axis)
        return self.known[key]

    def layers(self, scheme: Scheme) -> list[Layer]:
        """The layers whose weights the scheme quantises."""
        quantised = set(quantised_nodes(self.proto, scheme)) - scheme.kept
        return [layer for layer in layers_of(self.proto) if layer.name in quantised]

    def _model(self, proto: onnx.ModelProto) -> Model:
        return self.model.with_graph(self.context.keep(onnxkit.pack(proto)))

    # ------------------------------------------------------------------ speed

    def race(self, schemes: Sequence[Scheme]) -> list[Trial]:
        """The schemes' speed, interleaved with the float graph's; it does not depend on the ranges."""
        labels = {f"{position} {scheme}": scheme for position, scheme in enumerate(schemes)}

        def measure() -> Json:
            self.context.progress(f"quantize: racing {len(schemes)} forms of int8")
            models = {name: self.quantised(scheme, self.any_method) for name, scheme in labels.items()}
            return _plain(self.context.cost({FLOAT: self.float_model, **models}))

        found = self.context.remember(f"race {self.key} {[scheme.key for scheme in schemes]}", measure)
        costs = cast("Mapping[str, Any]", found)
        return [_trial(scheme, costs[name]) for name, scheme in labels.items()]

    def slower(self, scheme: Scheme) -> list[Slower]:
        """Nodes that are slower in int8 than in float; empty where nothing can be profiled."""

        def measure() -> Json:
            self.context.progress(f"quantize: profiling {scheme}")
            floats = self.context.profile(self.float_model)
            integers = self.context.profile(self.quantised(scheme, self.any_method))
            return [asdict(node) for node in slower_nodes(self.proto, floats, integers)]

        found = self.context.remember(f"slower {self.key} {scheme.key}", measure)
        return [Slower(**entry) for entry in cast("list[dict[str, Any]]", found)]

    @property
    def any_method(self) -> str:
        """For what does not depend on the ranges."""
        return next(iter(self.ranges))

    # ------------------------------------------------------------------ accuracy

    @property
    def metric(self) -> Metric | None:
        """What the task is judged by; None when there is no task."""
        return None if self.context.task is None else self.context.task.metric

    def score(self, scheme: Scheme, method: str) -> float | None:
        """The metric of an int8 form on the selection split; None when there is no task to judge by."""
        return self._score(self._name(scheme, method), lambda: self.quantised(scheme, method))

    def score_of(self, model: Model) -> float | None:
        """The same for a model as it is."""
        return self._score(model.digest, lambda: model)

    def _score(self, name: str, make: Callable[[], Model]) -> float | None:
        if self.metric is None:
            return None
        found = self.context.remember(f"score {name}", lambda: self.context.score(make()).value)
        return cast("float | None", found)

    def signal_to_noise(self, scheme: Scheme, method: str) -> float:
        """How close the outputs stay to the float graph's, in dB."""

        def measure() -> float:
            feeds = self._judges()
            found = sensitivity.outputs(self._written(scheme, method), feeds)
            return sensitivity.signal_to_noise(found, sensitivity.outputs(self.proto, feeds))

        return cast("float", self.context.remember(f"noise {self._name(scheme, method)}", measure))

    def ranked(self, scheme: Scheme, method: str) -> list[tuple[str, float]]:
        """The layers, most sensitive first, with the signal-to-noise ratio that each leaves alone, in dB."""

        def progress(done: int, total: int) -> None:
            self.context.progress("quantize: ranking layers", done, total)

        def measure() -> Json:
            ranges = self.ranges[method]
            found = sensitivity.rank(self.proto, scheme, ranges, self._judges(), progress)
            return [list(entry) for entry in found]

        found = self.context.remember(f"sensitivity {self._name(scheme, method)}", measure)
        return [(name, decibels) for name, decibels in cast("list[tuple[str, float]]", found)]

    def ranked_widths(self, scheme: Scheme, bits: Sequence[int]) -> list[tuple[str, int, float]]:
        """Layers with their weights in fewer bits, each alone: name, bits and divergence, the most harmful first."""

        def progress(done: int, total: int) -> None:
            self.context.progress("quantize: ranking weights", done, total)

        def measure() -> Json:
            choices = [
                (layer.name, each, {layer.weight: self.encoding(layer, scheme, each).rounded(weight)})
                for layer in self.layers(scheme)
                for weight in [constant(self.proto, layer.weight)]
                for each in bits
            ]
            return [list(entry) for entry in sensitivity.rank_weights(self.proto, choices, self._judges(), progress)]

        found = self.context.remember(f"widths {self.key} {scheme.key} {list(bits)}", measure)
        return [(name, each, loss) for name, each, loss in cast("list[tuple[str, int, float]]", found)]

    def _judges(self) -> list[Arrays]:
        return list(self.context.feed(self.model, "selection", JUDGES))

    def _name(self, scheme: Scheme, method: str) -> str:
        return f"{self.key} {scheme.key} {method}"


def start(
    model: Model, context: Context, *, methods: Sequence[str] = METHODS, examples: int, group: int = GROUP
) -> Job:
    """The job for a model of one graph: prepared, and calibrated once for all schemes and methods.

    Raises: ModelError when the graph cannot be prepared or an activation has no range.
    """
    context.progress("quantize: preparing")
    proto = prepare(onnxkit.read(model.graph))
    digest = hashlib.sha256(onnxkit.pack(proto)).hexdigest()
    key = f"{digest} {examples}"

    def calibrate() -> Json:
        context.progress("quantize: calibrating")
        names = activations(proto)
        return find_ranges(proto, names, lambda: context.feed(model, "calibration", examples), methods)

    found = context.remember(f"ranges {key} {list(methods)}", calibrate)
    ranges = {
        method: {name: (low, high) for name, (low, high) in each.items()}
        for method, each in cast("Mapping[str, Mapping[str, Range]]", found).items()
    }
    return Job(model, context, proto, ranges, key, group)


def _plain(costs: Mapping[str, Cost]) -> Json:
    """What a decision needs of costs, as JSON."""
    return {
        name: {
            "ratio": cost.ratio.value,
            "interval": list(cost.ratio.interval) if cost.ratio.interval else None,
            "reason": cost.ratio.reason,
            "kind": cost.ratio.kind,
        }
        for name, cost in costs.items()
    }


def _trial(scheme: Scheme, cost: Mapping[str, Any]) -> Trial:
    ratio = cost["ratio"]
    low, high = cost["interval"] or (ratio or 0.0, ratio or 0.0)
    return Trial(scheme, ratio, (low, high), cost["reason"], cost["kind"])
