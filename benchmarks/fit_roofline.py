"""Fits the coefficients of the roofline predictor to public measurements, and prints how far it is off.

    python benchmarks/fit_roofline.py --data DIR [--write]

DIR holds ncnn.csv.gz, ncnn_params/, mlperf_boards.csv.gz and nasbench201_edge.csv.gz. Every device is predicted
with coefficients that were fitted without it; the spread of those errors is the predictor's interval. `--write`
replaces the predictor's own coefficients. None of it was measured with ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import NormalDist, fmean, variance

import numpy as np
import numpy.typing as npt
from roofline_cases import Case, mlperf_cases, nasbench_cases, ncnn_cases, rows, targets

from edgewright.types import Target
from edgewright_devices.roofline import FITTED, Coefficients, Spread, seconds

KINDS = ("dense", "depthwise", "other")
NOTHING = Spread(0.0, 0.0, 0, 0)
Floats = npt.NDArray[np.float64]


# ------------------------------------------------------------------ fit


def fit(cases: Sequence[Case], devices: Mapping[str, Target], unit: str) -> Coefficients:
    """The coefficients with the least mean |log(measured / predicted)|, every (device, runtime) of equal weight.

    Three numbers, found by moving one at a time in ever smaller steps: the efficiency of dense and of depthwise
    nodes, and the cost per node (operations of a core on CPUs, whose speed it follows; time on GPUs).
    """
    loss = make_loss(cases, devices, unit)
    point = np.log([0.3, 0.05, 1e6 if unit == "cpu" else 30.0])
    step = 0.7
    while step > 0.01:
        moves = [np.minimum(point + step * sign * axis, (0.0, 0.0, np.inf)) for axis in np.eye(3) for sign in (1, -1)]
        best = min(moves, key=loss)
        if loss(best) < loss(point):
            point = best
        else:
            step /= 2
    dense, depthwise, overhead = (float(f"{value:.3g}") for value in np.exp(point))
    times = (0.0, overhead) if unit == "cpu" else (overhead, 0.0)
    efficiency = {"dense": dense, "depthwise": depthwise, "other": 1.0}
    return Coefficients(efficiency, *times, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, "")


def make_loss(cases: Sequence[Case], devices: Mapping[str, Target], unit: str) -> Callable[[Floats], float]:
    """The roofline of all cases at once, as a function of the logarithms of the three coefficients."""
    nodes = [(devices[case.device], work) for case in cases for work in case.works]
    peaks = np.array([target.compute.get(w.dtype, target.compute["float32"]).value * 1e9 for target, w in nodes])
    compute = np.array([work.ops for _, work in nodes]) / peaks
    memory = np.array([work.bytes / (target.bandwidth.value * 1e9) for target, work in nodes])
    kinds = np.array([KINDS.index(work.kind) for _, work in nodes])
    counts = np.array([len(case.works) for case in cases])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    cores = np.array([devices[c.device].compute["float32"].value * 1e9 / devices[c.device].cores.value for c in cases])
    per_node = counts / cores if unit == "cpu" else counts * 1e-6
    measured = np.log([case.seconds for case in cases])
    weights = device_weights([f"{case.device} {case.runtime}" for case in cases])

    def loss(point: Floats) -> float:
        efficiency = np.array([*np.exp(point[:2]), 1.0])
        times = np.add.reduceat(np.maximum(compute / efficiency[kinds], memory), starts) + per_node * np.exp(point[2])
        return float(weights @ np.abs(measured - np.log(times)))

    return loss


def device_weights(labels: Sequence[str]) -> Floats:
    """Weights that sum to 1, the same for every label however often it occurs."""
    names, at, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / (counts[at] * len(names))
    return weights


# ------------------------------------------------------------------ errors


@dataclass(frozen=True)
class Error:
    """log(measured / predicted) of a case, with the case's device left out of the fit."""

    case: Case
    log: float


def left_out_errors(cases: Sequence[Case], devices: Mapping[str, Target], unit: str) -> list[Error]:
    """The errors of every device under coefficients that never saw it."""
    errors = []
    for device in sorted({case.device for case in cases}):
        fitted = fit([case for case in cases if case.device != device], devices, unit)
        for case in cases:
            if case.device == device:
                predicted = seconds(case.works, devices[device], fitted)
                errors.append(Error(case, math.log(case.seconds / predicted)))
    return errors


def spread(logs: Mapping[str, Sequence[float]]) -> Spread:
    """95 % of the errors of a new device: their quantiles, every device of equal weight, or the t interval if wider.

    Quantiles alone are too short when devices are few, since the next one may lie outside all of them.
    """
    labels = [device for device, values in logs.items() for _ in values]
    pooled = np.array([value for values in logs.values() for value in values])
    low, high = quantile(pooled, device_weights(labels), (0.025, 0.975))
    means = [fmean(values) for values in logs.values()]
    within = fmean(float(np.var(values)) for values in logs.values())
    reach = student(len(means) - 1) * math.sqrt(variance(means) * (1 + 1 / len(means)) + within)
    centre = fmean(means)
    return Spread(round(min(low, centre - reach), 3), round(max(high, centre + reach), 3), len(labels), len(means))


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    return z + (z**3 + z) / (4 * freedom) + second + third


def quantile(values: Floats, weights: Floats, levels: Sequence[float]) -> list[float]:
    """Weighted quantiles."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return [float(values[order][min(np.searchsorted(reached, level), len(order) - 1)]) for level in levels]


def ratio_spread(errors: Sequence[Error], *, mixed: bool) -> Spread | None:
    """The spread of ratios of two networks on one device and runtime, in one dtype or (`mixed`) in two."""
    logs: dict[str, list[float]] = {}
    for first, other in combinations(errors, 2):
        here = (first.case.device, first.case.runtime) == (other.case.device, other.case.runtime)
        if here and (first.case.dtype != other.case.dtype) == mixed:
            logs.setdefault(first.case.device, []).extend((first.log - other.log, other.log - first.log))
    if len(logs) < 3:
        return None
    seen = spread(logs)
    return replace(seen, n=seen.n // 2)


def power_spreads(data: Path) -> tuple[Spread, Spread]:
    """How far the watts of a run lie from a board's TFLite mean; how far the watts of two runs differ."""
    watts: dict[tuple[str, str, str], list[float]] = {}
    for row in rows(data / "mlperf_boards.csv.gz"):
        if row["power_w_mean"] and "opencl" not in row["system"]:
            board, runtime = row["system"].split("-")[0], row["framework"].split()[0]
            watts.setdefault((board, row["round"], runtime), []).append(math.log(float(row["power_w_mean"])))
    means = {key: fmean(logs) for key, logs in watts.items()}
    single: dict[str, list[float]] = {}
    pairs: dict[str, list[float]] = {}
    for (board, edition, _), logs in watts.items():
        reference = means[board, edition, "TFLite"]
        single.setdefault(board, []).extend(log - reference for log in logs)
        pairs.setdefault(board, []).extend(a - b for a in logs for b in logs if a is not b)
    return spread(single), spread(pairs)


# ------------------------------------------------------------------ report


def study(
    unit: str, cases: Sequence[Case], devices: Mapping[str, Target], power: tuple[Spread, Spread]
) -> Coefficients:
    """Coefficients from all cases, spreads from the cases of left-out devices; prints both."""
    errors = left_out_errors(cases, devices, unit)
    fitted = fit(cases, devices, unit)
    logs: dict[str, list[float]] = {}
    for error in errors:
        logs.setdefault(error.case.device, []).append(error.log)
    latency = spread(logs)
    # two predictions that know nothing of each other, where too few devices were measured in two dtypes
    apart = math.hypot(latency.low, latency.high)
    unrelated = Spread(-round(apart, 3), round(apart, 3), latency.n, latency.devices)
    source = (
        f"benchmarks/fit_roofline.py on {len(cases)} public measurements of {len(logs)} devices "
        f"({', '.join(sorted({case.runtime for case in cases}))}); intervals from devices left out of the fit"
    )
    ratio, mixed = ratio_spread(errors, mixed=False), ratio_spread(errors, mixed=True)
    result = Coefficients(
        fitted.efficiency,
        fitted.overhead_us,
        fitted.overhead_ops,
        latency,
        ratio or unrelated,
        mixed or unrelated,
        *power,
        source,
    )
    show(unit, errors, result)
    return result


def show(unit: str, errors: Sequence[Error], fitted: Coefficients) -> None:
    """Print the residuals by device, runtime and dtype, then the constants."""
    print(f"== {unit}: log(measured / predicted), device left out of the fit")
    groups: dict[tuple[str, str, str], list[float]] = {}
    for error in errors:
        groups.setdefault((error.case.device, error.case.runtime, error.case.dtype), []).append(error.log)
    for (device, runtime, dtype), logs in sorted(groups.items()):
        median, low, high = np.quantile(logs, [0.5, 0.025, 0.975])
        print(f"{device:22} {runtime:16} {dtype:8} n {len(logs):4}  median {median:+.2f}  95 % {low:+.2f} {high:+.2f}")
    print(json.dumps(asdict(fitted), indent=2), "\n")


def main() -> None:
    """Read, fit, print, and write if asked to."""
    parser = argparse.ArgumentParser(description="Fit the roofline predictor to public measurements.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the measurements")
    parser.add_argument("--write", action="store_true", help=f"replace {FITTED.name}")
    asked = parser.parse_args()
    devices, power = targets(), power_spreads(asked.data)
    cases = [*ncnn_cases(asked.data), *mlperf_cases(asked.data), *nasbench_cases(asked.data)]
    by_unit = {unit: [case for case in cases if devices[case.device].unit == unit] for unit in ("cpu", "gpu")}
    results = {unit: asdict(study(unit, part, devices, power)) for unit, part in by_unit.items()}
    if asked.write:
        FITTED.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
