"""The page of whole_models.py: every back end beside ONNX Runtime's float32, and ours beside OpenVINO's best int8."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from whole_model_forms import BACKENDS, FLOAT, INT8, NNCF, REFERENCE, Backend

from edgewright.measuring.stats import ratio_over_rounds

OURS = next(each for each in BACKENDS if each.graph == INT8 and each.exporter == "kernels")
THEIRS = next(each for each in BACKENDS if each.graph == NNCF)
BARRED = ("resnet18", "mobilenet_v2", "deit_tiny")
MEAN_BAR, WORST_BAR, ERROR_BAR = 1.1, 1.25, 1e-4

Network = Mapping[str, Any]
Ratio = tuple[float, float, float]


def page(about: Mapping[str, Any], networks: Mapping[str, Network]) -> str:
    """The page of results of all networks measured so far."""
    parts = (
        "# Whole networks on each back end",
        _how(about, networks),
        "\n".join(_summary(networks)),
        "\n".join(_beside(networks)),
        *("\n".join(_network(name, each)) for name, each in networks.items()),
    )
    return "\n\n".join(parts) + "\n"


def ratio(network: Network, one: Backend, other: Backend) -> Ratio | None:
    """Time of one back end over that of another, with its 95 % interval; None where either is missing."""
    rows = network["rows"]
    if one.name not in rows or other.name not in rows:
        return None
    pairs = zip(rows[one.name]["rounds_ns"], rows[other.name]["rounds_ns"], strict=True)
    value, interval = ratio_over_rounds([math.log(first / second) for first, second in pairs])
    return (value, *(interval or (value, value)))


# ------------------------------------------------------------------ the parts


def _how(about: Mapping[str, Any], networks: Mapping[str, Network]) -> str:
    presets = ", ".join(sorted({each["preset"] for each in networks.values()}))
    packages = ", ".join(f"{name} {about[name]}" for name in about if name not in {"cpu", "isa"})
    return (
        f"Written by `benchmarks/whole_models.py` on {date.today().isoformat()}; {about['cpu']} ({about['isa']}), "
        f"{packages}; one thread, batch 1, preset {presets}. All back ends of a network take turns in one run. A ratio "
        "is of undisturbed times, the trimmed mean over rounds of fresh processes with its 95 % interval; below 1 is "
        "faster. `int8` is what our `quantize` writes (static, QDQ), `int8 by NNCF` its default post-training "
        "quantisation from the same examples. Inputs are noise, and so are the weights of resnet18, mobilenet_v2 and "
        "deit_tiny; the other networks are trained. Errors are shares of the largest output of unoptimised float32; "
        "`decides alike` is the share of test inputs with the same arg-max. Shares of the peak count the network's "
        "products once, in whatever form they are computed, against a loop that touches registers only."
    )


def _summary(networks: Mapping[str, Network]) -> Iterator[str]:
    yield "| network | ms | " + " | ".join(f"{each.title}, {each.graph}" for each in BACKENDS[1:]) + " |"
    yield "|---" * (len(BACKENDS) + 1) + "|"
    for name, network in networks.items():
        ratios = (ratio(network, each, REFERENCE) for each in BACKENDS[1:])
        cells = (f"{each[0]:.2f}" if each else "-" for each in ratios)
        yield f"| {name} | {network['rows'][REFERENCE.name]['median_ms']:.2f} | {' | '.join(cells)} |"
    yield from ("", f"`ms` is {REFERENCE.name}; the others are shares of its time.")


def _beside(networks: Mapping[str, Network]) -> Iterator[str]:
    yield from (f"## {OURS.name}, beside {THEIRS.title} with {THEIRS.graph}", "")
    found = {name: each for name in BARRED if name in networks and (each := ratio(networks[name], OURS, THEIRS))}
    yield from (
        "| network | of its time |",
        "|---|---|",
        *(f"| {n} | {_interval(each)} |" for n, each in found.items()),
    )
    if len(found) < len(BARRED):
        yield from ("", f"Not measured: {', '.join(sorted(set(BARRED) - set(found)))}.")
        return
    mean = math.exp(np.mean([math.log(each[0]) for each in found.values()]))
    held = mean <= MEAN_BAR and max(each[0] for each in found.values()) <= WORST_BAR
    yield from (
        "",
        f"Geometric mean {mean:.2f} (bar {MEAN_BAR}, none over {WORST_BAR}): {'held' if held else 'not held'}.",
    )


def _network(name: str, network: Network) -> Iterator[str]:
    yield from (f"## {name}", "", f"{network['macs'] / 1e6:.1f} million products; {_peaks(network)}.", "")
    yield from (
        "| back end | ms | of ONNX Runtime float32 | share of peak | largest error | decides alike |",
        "|---|---|---|---|---|---|",
    )
    for backend in BACKENDS:
        row = network["rows"].get(backend.name)
        if row is not None:
            yield f"| {' | '.join(_cells(backend, row, network))} |"
    reasons = network["reasons"]
    yield from ("", *(f"- {name}: {reason}" for name, reason in reasons.items())) if reasons else ()


def _cells(backend: Backend, row: Mapping[str, Any], network: Network) -> Sequence[str]:
    found = ratio(network, backend, REFERENCE)
    kind = FLOAT if backend.graph == FLOAT else INT8
    share = 2 * network["macs"] / float(np.median(row["rounds_ns"])) / network["peaks"][kind]
    far = " (above the bar)" if kind == FLOAT and row["error"] > ERROR_BAR else ""
    return (
        backend.name,
        f"{row['median_ms']:.3f}",
        _interval(found) if found and backend is not REFERENCE else "",
        f"{share:.0%}",
        f"{row['error']:.2g}{far}",
        f"{row['agrees']:.0f} %",
    )


def _peaks(network: Network) -> str:
    return f"peak {network['peaks'][FLOAT]:.0f} GFLOP/s of float32, {network['peaks'][INT8]:.0f} GOP/s of int8"


def _interval(each: Ratio) -> str:
    value, low, high = each
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
