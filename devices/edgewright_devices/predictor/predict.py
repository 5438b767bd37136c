"""The predictor `kernels`: latency and energy of ONNX models, kernel by kernel, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgewright.errors import TargetError
from edgewright.protocols import Measurable, Predictor
from edgewright.types import GraphFile, KernelCost, Measurement, Model, Row, Target, unknown

if TYPE_CHECKING:
    from edgewright_devices.predictor.coefficients import Known
    from edgewright_devices.predictor.fit import Floats
    from edgewright_devices.workload import Work, Workload

UNITS = {"latency": "ms", "energy": "mJ"}
SURE = 1.96
"""Standard deviations that hold 95 % of a normal distribution."""

WIDEST = 1000.0
"""How many times less or more a value may be at most: of far smaller networks than were measured nothing is known."""

WIDEN = 2.0
"""How many times less sure fitted coefficients are than their posterior says, seen on families left out of fits."""


class Kernels:
    """Predicts from coefficients in the target's profile, or from its peaks where it has none."""

    name = "kernels"

    def predict(self, model: Model, target: Target, quantity: str) -> Measurement:
        """The quantity for one run of the example's batch, every stage of the first variant (the worst case)."""
        reason = _obstacle((model,), quantity) or _peakless(target, quantity)
        loads = () if reason else _workloads(model)
        reason = reason or _opaque(model, loads)
        if reason:
            return unknown(quantity, UNITS.get(quantity, ""), reason)
        from edgewright_devices.predictor.coefficients import known_of

        known = known_of(target, quantity)
        if known is None:
            return self._energy_by_power(model, target)
        kernels = _terms(loads, known)
        terms = kernels.sum(axis=0)
        value = float(terms @ known.posterior.coefficients)
        sd = math.hypot(_unsure(terms, known) / max(value, 1e-12), known.posterior.noise)
        return _predicted(quantity, value, UNITS[quantity], sd, known, conditions=_conditions(loads, known, kernels))

    def predict_ratio(self, first: Model, other: Model, target: Target, quantity: str) -> Measurement:
        """`first` / `other`: above 1 means that `other` costs less. What is unsure of both alike cancels."""
        from edgewright_devices.predictor.coefficients import known_of, read_prior

        reason = _obstacle((first, other), quantity) or _peakless(target, quantity) or _powerless(target, quantity)
        known = None if reason else known_of(target, quantity) or known_of(target, "latency")
        if reason or known is None:
            return unknown(quantity, "", reason)
        if first.digest == other.digest:
            return _predicted(quantity, 1.0, "", 0.0, known, conditions={"source": "the same graph"})
        rows, values = list[Any](), list[float]()
        for model in (first, other):
            loads = _workloads(model)
            reason = _opaque(model, loads)
            if reason:
                return unknown(quantity, "", reason)
            terms = _terms(loads, known).sum(axis=0)
            values.append(max(float(terms @ known.posterior.coefficients), 1e-12))
            rows.append(terms / values[-1])
        unsure = math.hypot(_unsure(rows[0] - rows[1], known), math.sqrt(2) * known.posterior.noise)
        if quantity == "energy" and quantity not in target.fitted:
            unsure = math.hypot(unsure, read_prior(target.unit).power)
        return _predicted(quantity, values[0] / values[1], "", unsure, known, conditions={"source": known.source})

    def kernels(self, model: Model, target: Target) -> tuple[KernelCost, ...]:
        """What each kernel of the first variant takes, in the order of the graph; none where nothing is predicted."""
        if _obstacle((model,), "latency") or _peakless(target, "latency"):
            return ()
        from edgewright_devices.predictor.coefficients import known_of
        from edgewright_devices.predictor.itemise import itemise

        loads, latency = _workloads(model), known_of(target, "latency")
        if latency is None or _opaque(model, loads):
            return ()
        return itemise(_works(loads, latency), latency, target)

    def probes(self, folder: Path) -> Sequence[Path]:
        """The micro-networks to measure on a device."""
        from edgewright_devices.predictor.probes import write_probes

        return write_probes(folder)

    def fit(self, measured: Sequence[Measurable], base: Target) -> Target:
        """`base` with coefficients fitted to what was measured. Raises: TargetError when that is too little."""
        from edgewright_devices.predictor.calibrate import fitted_entries

        loads = [_workloads(case.model) for case in measured]
        reasons = [reason for case, each in zip(measured, loads) if (reason := _opaque(case.model, each))]
        if reasons:
            raise TargetError(reasons[0])
        return replace(base, fitted=fitted_entries(measured, loads, base))

    def profile(self, target: Target) -> str:
        """The target as the text of a profile."""
        from edgewright_devices.predictor.profile import profile_of

        return profile_of(target)

    def modelled(self, first: Model, other: Model, target: Target) -> Sequence[Row]:
        """What the table of operations says of both."""
        from edgewright_devices.energy_model import compared

        return compared(first, other, target)

    def _energy_by_power(self, model: Model, target: Target) -> Measurement:
        """Latency times the watts of the profile, whose own error is added."""
        from edgewright_devices.predictor.coefficients import known_of, read_prior

        reason, known = _powerless(target, "energy"), known_of(target, "latency")
        latency = self.predict(model, target, "latency")
        if reason or known is None or latency.value is None or latency.interval is None:
            return unknown("energy", "mJ", reason or latency.reason)
        sd = math.log(latency.interval[1] / latency.value) / SURE
        powers = {key: figure.value for key, figure in target.power.items()}
        sources = {f"{key}_source": figure.source for key, figure in target.power.items()}
        conditions = {**latency.conditions, "latency_ms": latency.value, **powers, **sources}
        sd = math.hypot(sd, read_prior(target.unit).power)
        return _predicted("energy", latency.value * powers["active_w"], "mJ", sd, known, conditions=conditions)


KERNELS = Kernels()


def edgewright_predictors() -> Iterable[Predictor]:
    """What this module offers."""
    return (KERNELS,)


def _obstacle(models: Sequence[Model], quantity: str) -> str:
    """Why nothing can be predicted, as a sentence; empty when it can."""
    if quantity not in UNITS:
        return f"kernels predicts {' and '.join(UNITS)}, not {quantity}"
    for model in models:
        if model.format != "onnx":
            return f"{model.name} is a {model.format} model; lower it to ONNX first"
    return ""


def _peakless(target: Target, quantity: str) -> str:
    """Why nothing is known of its speed, as a sentence; empty when something is."""
    if target.compute or quantity in target.fitted:
        return ""
    return f"no profile tells how fast {target.name} is; name one with --target, or make one with engine calibrate"


def _powerless(target: Target, quantity: str) -> str:
    """Why no energy can be predicted, as a sentence; empty when it can."""
    if quantity != "energy" or quantity in target.fitted or "active_w" in target.power:
        return ""
    return (
        f"the profile of {target.name} gives no power, since no measured figure is known; "
        "give power.active_w in a profile of your own, with its source, or measure on the device"
    )


def _workloads(model: Model) -> tuple[Workload, ...]:
    from edgewright_devices.workload import workload

    shapes = {name: tuple(int(size) for size in array.shape) for name, array in model.example.items()}
    batch = next((shape[0] for shape in shapes.values() if shape), 1)
    graphs = [stage.graph for stage in model.variants[0].stages]
    return tuple(workload(graph.path, shapes, batch=batch) for graph in graphs if isinstance(graph, GraphFile))


def _opaque(model: Model, loads: Iterable[Workload]) -> str:
    """Why the work of a model cannot be counted, as a sentence; empty when it can."""
    names = [name for load in loads for name in load.opaque]
    if not names:
        return ""
    return f"the work of {len(names)} nodes of {model.name} is not known, the first is {names[0]}; measure it instead"


def _works(loads: Iterable[Workload], known: Known) -> list[Work]:
    return [work for load in loads for work in load.works if known.idle or not work.idle]


def _terms(loads: Iterable[Workload], known: Known) -> Floats:
    """The terms of each kernel."""
    from edgewright_devices.predictor.kernels import matrix

    return matrix(_works(loads, known))


def _unsure(terms: Floats, known: Known) -> float:
    """The standard deviation of a sum of terms, for what is unsure of the coefficients."""
    import numpy as np

    return float(np.linalg.norm(terms @ known.posterior.spread)) * (WIDEN if known.fitted else 1.0)


def _conditions(loads: Sequence[Workload], known: Known, terms: Floats) -> dict[str, Any]:
    """What the number rests on, and the kernels (`terms` of each) with their shares, the dearest first."""
    taken = (terms @ known.posterior.coefficients).tolist()
    each = [(work.name, work.operator, cost) for work, cost in zip(_works(loads, known), taken)]
    found: dict[str, Any] = {
        "macs": sum(load.macs for load in loads),
        "fitted": known.fitted,
        "source": known.source,
        "kernels": sorted(each, key=lambda kernel: -kernel[2]),
    }
    uncounted = [name for load in loads for name in load.uncounted]
    return found | ({"uncounted": uncounted} if uncounted else {})


def _predicted(
    quantity: str, value: float, unit: str, sd: float, known: Known, *, conditions: dict[str, Any]
) -> Measurement:
    times = math.exp(min(SURE * sd, math.log(WIDEST)))
    return Measurement(
        quantity=quantity,
        value=value,
        unit=unit,
        n=known.n,
        interval=(value / times, value * times),
        statistic="p50",
        instrument="kernels",
        kind="predicted",
        conditions=conditions,
    )
