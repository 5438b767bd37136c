"""Predicts latency and energy from operations and bytes, for devices that are not at hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import TargetError, suggest
from edgewright.protocols import Predictor
from edgewright.types import GraphFile, Measurement, Model, Target, Variant, unknown
from edgewright_devices.workload import Work, Workload, workload

FITTED = Path(__file__).parent / "roofline.json"
"""The coefficients, as benchmarks/fit_roofline.py wrote them."""

UNITS = {"latency": "ms", "energy": "mJ"}


@dataclass(frozen=True)
class Spread:
    """The range that holds 95 % of log(measured / predicted), seen in `n` cases on `devices` devices."""

    low: float
    high: float
    n: int
    devices: int

    def around(self, value: float) -> tuple[float, float]:
        """The interval of a predicted value."""
        return value * math.exp(self.low), value * math.exp(self.high)

    def widened(self, other: Spread) -> Spread:
        """The spread of a product of two quantities whose errors have nothing to do with each other."""
        return Spread(-math.hypot(self.low, other.low), math.hypot(self.high, other.high), self.n, self.devices)


@dataclass(frozen=True)
class Coefficients:
    """What was fitted for one kind of unit (`cpu` or `gpu`), and how far it was off on devices left out of the fit.

    `efficiency` is the share of the peak that a kind of node reaches. A node costs besides `overhead_us`
    and what one core needs for `overhead_ops` float32 operations. `ratio` is the spread of the ratio of two
    models in one dtype, `mixed` of two in different ones; `power` and `power_ratio` are those of watts.
    """

    efficiency: Mapping[str, float]
    overhead_us: float
    overhead_ops: float
    latency: Spread
    ratio: Spread
    mixed: Spread
    power: Spread
    power_ratio: Spread
    source: str


def read_coefficients(unit: str, path: Path = FITTED) -> Coefficients:
    """The coefficients for `cpu` or `gpu`. Raises: TargetError for another unit."""
    fitted: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    if unit not in fitted:
        raise TargetError(f"the roofline predictor knows no unit {unit!r}; {suggest(unit, fitted)}")
    spreads = ("latency", "ratio", "mixed", "power", "power_ratio")
    entry: dict[str, Any] = {key: Spread(**value) if key in spreads else value for key, value in fitted[unit].items()}
    return Coefficients(**entry)


def seconds(works: Iterable[Work], target: Target, fitted: Coefficients) -> float:
    """How long the nodes take one after another on `target`, in seconds.

    The roofline of Williams, Waterman, Patterson (Communications of the ACM 52(4), 2009) for each node, with a
    share of the peak that depends on the kind of node, and a fixed cost:
    t = sum over nodes of max(ops / (efficiency x peak), bytes / bandwidth) + overhead.
    """
    core = target.compute["float32"].value * 1e9 / target.cores.value
    overhead = fitted.overhead_us * 1e-6 + fitted.overhead_ops / core
    bandwidth = target.bandwidth.value * 1e9
    total = 0.0
    for work in works:
        peak = fitted.efficiency[work.kind] * _peak(target, work.dtype)
        total += max(work.ops / peak, work.bytes / bandwidth) + overhead
    return total


def _peak(target: Target, dtype: str) -> float:
    """Operations per second in `dtype`; a device that states none computes in float32."""
    return target.compute.get(dtype, target.compute["float32"]).value * 1e9


class Roofline:
    """The predictor `roofline`: latency (ms) and energy (mJ) of ONNX models, with 95 % intervals."""

    name = "roofline"

    def predict(self, model: Model, target: Target, quantity: str) -> Measurement:
        """The quantity for one run of the example's batch, every stage of the first variant (the worst case)."""
        reason = _obstacle((model,), target, quantity)
        if reason:
            return unknown(quantity, UNITS.get(quantity, ""), reason)
        fitted = read_coefficients(target.unit)
        loads = _workloads(model)
        reason = _opaque(model, loads)
        if reason:
            return unknown(quantity, UNITS[quantity], reason)
        value, spread = 1e3 * _latency(loads, target, fitted), fitted.latency
        conditions: dict[str, Any] = {"macs": sum(load.macs for load in loads), "source": fitted.source}
        uncounted = [name for load in loads for name in load.uncounted]
        if uncounted:
            conditions["uncounted"] = uncounted
        if quantity == "energy":
            conditions["latency_ms"] = value
            value, spread = value * target.power["active_w"].value, spread.widened(fitted.power)
            conditions |= _power_sources(target)
        return _predicted(quantity, value, UNITS[quantity], spread, conditions)

    def predict_ratio(self, first: Model, other: Model, target: Target, quantity: str) -> Measurement:
        """`first` / `other`: above 1 means that `other` costs less. The device's own error cancels."""
        reason = _obstacle((first, other), target, quantity)
        if reason:
            return unknown(quantity, "", reason)
        if first.digest == other.digest:
            exact = Spread(0.0, 0.0, 0, 0)
            return _predicted(quantity, 1.0, "", exact, {"source": "the same graph"})
        fitted = read_coefficients(target.unit)
        loads = [_workloads(model) for model in (first, other)]
        for model, load in zip((first, other), loads):
            reason = _opaque(model, load)
            if reason:
                return unknown(quantity, "", reason)
        value = _latency(loads[0], target, fitted) / _latency(loads[1], target, fitted)
        spread = fitted.ratio if _dtypes(loads[0]) == _dtypes(loads[1]) else fitted.mixed
        if quantity == "energy":
            spread = spread.widened(fitted.power_ratio)
        return _predicted(quantity, value, "", spread, {"source": fitted.source})


ROOFLINE = Roofline()


def edgewright_predictors() -> Iterable[Predictor]:
    """What this module offers."""
    return (ROOFLINE,)


def _obstacle(models: Sequence[Model], target: Target, quantity: str) -> str:
    """Why nothing can be predicted, as a sentence; empty when it can."""
    if quantity not in UNITS:
        return f"roofline predicts {' and '.join(UNITS)}, not {quantity}"
    for model in models:
        if model.format != "onnx":
            return f"{model.name} is a {model.format} model; lower it to ONNX first"
    if not target.compute:
        return f"no profile tells how fast {target.name} is; name one with --target"
    if quantity == "energy" and "active_w" not in target.power:
        return (
            f"the profile of {target.name} gives no power, since no measured figure is known; "
            "give power.active_w in a profile of your own, with its source, or measure on the device"
        )
    return ""


def _workloads(model: Model) -> tuple[Workload, ...]:
    variant: Variant = model.variants[0]
    shapes = {name: tuple(int(size) for size in array.shape) for name, array in model.example.items()}
    batch = next((shape[0] for shape in shapes.values() if shape), 1)
    graphs = [stage.graph for stage in variant.stages]
    return tuple(workload(graph.path, shapes, batch=batch) for graph in graphs if isinstance(graph, GraphFile))


def _opaque(model: Model, loads: Iterable[Workload]) -> str:
    """Why the work of a model cannot be counted, as a sentence; empty when it can."""
    names = [name for load in loads for name in load.opaque]
    if not names:
        return ""
    return f"the work of {len(names)} nodes of {model.name} is not known, the first is {names[0]}; measure it instead"


def _latency(loads: Iterable[Workload], target: Target, fitted: Coefficients) -> float:
    return sum(seconds(load.works, target, fitted) for load in loads)


def _dtypes(loads: Iterable[Workload]) -> frozenset[str]:
    """What the products of a model are computed in."""
    return frozenset(work.dtype for load in loads for work in load.works if work.macs)


def _power_sources(target: Target) -> dict[str, Any]:
    figures = {f"{key}_source": figure.source for key, figure in target.power.items()}
    return {key: figure.value for key, figure in target.power.items()} | figures


def _predicted(quantity: str, value: float, unit: str, spread: Spread, conditions: Mapping[str, Any]) -> Measurement:
    return Measurement(
        quantity=quantity,
        value=value,
        unit=unit,
        n=spread.n,
        interval=spread.around(value),
        statistic="p50",
        instrument="roofline",
        kind="predicted",
        conditions=conditions,
    )
