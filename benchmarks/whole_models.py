"""How long whole networks take on each back end, in float32 and int8: one thread, batch 1, interleaved in one run.

    python benchmarks/whole_models.py [--data DIR] [--only deit-tiny ...] [--prepare] [--work FILE]

The shapes of examples/ have random weights; DIR holds trained networks as .onnx files. The rows of a network are kept
in FILE as soon as they are measured; a page is written of all that FILE holds for this machine and these versions,
docs/results/whole-models.md. `--prepare` makes and checks every form and measures nothing, so that a run without it
only measures. Back ends that are not installed are rows with their reason: `pip install openvino nncf` for all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from kernel_rounds import sampled
from kernel_runs import PEAKS, peak, peak_library
from whole_model_forms import BACKENDS, REFERENCE, Backend, planned, unoptimised
from whole_model_page import page

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.cli.console import open_store
from edgewright.deploying.race import BROKEN
from edgewright.environment import Environment
from edgewright.measuring.measure import UNDISTURBED
from edgewright.measuring.timings import Measured, undisturbed_ns
from edgewright.numerics import worst
from edgewright.registry import Registry
from edgewright.task.metrics import agreement
from edgewright.types import Arrays, GraphFile, Model, Plan
from edgewright.verbs.subject import bench_for
from edgewright_devices.workload import workload
from edgewright_exporters.tir.isa import isas_of
from edgewright_runtime.device import find_device
from kernels import PAIRS, PEAK

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "whole-models.md"
SHAPES = {
    name: f"{ROOT / 'examples' / file}:model"
    for name, file in (
        ("resnet18", "resnet18.py"),
        ("mobilenet_v2", "mobilenet_v2.py"),
        ("deit_tiny", "deit_tiny.py"),
    )
}
VERSIONS = ("onnxruntime", "openvino", "nncf", "apache-tvm", "numpy")


@dataclass(frozen=True)
class Form:
    """A network on one back end, known to run there: how far its outputs are from those of unoptimised float32.

    `error` is the largest difference as a share of the largest output, `agrees` the share of examples, in %, on which
    both decide alike.
    """

    model: Model
    plan: Plan
    error: float
    agrees: float


def forms(bench: Bench) -> tuple[Mapping[Backend, Form], Mapping[Backend, str]]:
    """The network on every back end that runs it, and why others do not."""
    model, plan = planned(REFERENCE, bench)
    truth = bench.deployed_outputs(model, "test", unoptimised(plan))
    found: dict[Backend, Form] = {}
    reasons: dict[Backend, str] = {}
    for backend in BACKENDS:
        try:
            model, plan = planned(backend, bench)
            outputs = bench.deployed_outputs(model, "test", plan)
        except BROKEN as reason:
            reasons[backend] = str(reason)
        else:
            found[backend] = Form(model, plan, *_compared(truth, outputs))
    return found, reasons


def _compared(truth: Arrays, outputs: Arrays) -> tuple[float, float]:
    ordered = {name: outputs[name] for name in truth}
    return worst(list(truth), list(truth.values()), list(ordered.values())).max_rel, agreement(ordered, truth)


# ------------------------------------------------------------------ measuring


def measured(bench: Bench, preset: str) -> Mapping[str, Any]:
    """What is kept of one network: its products, the machine's peak beside it, and a row for each back end."""
    found, reasons = forms(bench)
    before = peaks()
    times = bench.timed({backend.name: (form.model, form.plan) for backend, form in found.items()}, preset)
    after = peaks()
    rows = {backend.name: _row(form, times[backend.name]) for backend, form in found.items()}
    graph = bench.reference.graph
    assert isinstance(graph, GraphFile)
    return {
        "macs": workload(graph.path).macs,
        "peaks": {kind: max(before[kind], after[kind]) for kind in PEAKS},
        "rows": rows,
        "reasons": {backend.name: reason for backend, reason in reasons.items()},
        "preset": preset,
    }


def _row(form: Form, times: Measured) -> Mapping[str, Any]:
    rounds = [undisturbed_ns(runs, (), UNDISTURBED, None) for runs in times.runs_ns]
    return {"rounds_ns": rounds, "median_ms": times.typical.value, "error": form.error, "agrees": form.agrees}


def peaks() -> Mapping[str, float]:
    """Operations per nanosecond of loops that touch registers only."""
    isa = isas_of(find_device())[0]
    with tempfile.TemporaryDirectory() as folder:
        built = peak_library(isa, Path(folder) / "peaks.so")
        loops = {kind: peak(kind, built) for kind in PEAKS}
        return {
            kind: 1e-9 * operations / float(np.median(sampled({PEAK: loop}, PAIRS)[PEAK]))
            for kind, (loop, operations) in loops.items()
        }


# ------------------------------------------------------------------ main


def conditions() -> Mapping[str, Any]:
    """What the figures hold for: results of other conditions are not mixed with them."""
    return {
        "cpu": find_device().cpu,
        "isa": isas_of(find_device())[0].name,
        **{name: _version(name) for name in VERSIONS},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def keep(place: Path, name: str, found: Mapping[str, Any]) -> None:
    """Adds the rows of one network to the file, which starts anew under new conditions; whole or not at all."""
    networks = {**kept(place), name: found}
    with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as file:
        json.dump({"conditions": conditions(), "networks": networks}, file, indent=1)
    os.replace(file.name, place)


def kept(place: Path) -> Mapping[str, Any]:
    """The networks in the file that were measured under the present conditions."""
    if not place.is_file():
        return {}
    document = json.loads(place.read_text(encoding="utf-8"))
    return document["networks"] if document["conditions"] == conditions() else {}


def sources(data: Path | None) -> Mapping[str, str]:
    """The networks by name: the shapes, then the files."""
    files = sorted(data.glob("*.onnx")) if data else []
    return {**SHAPES, **{file.stem: str(file) for file in files}}


def main() -> None:
    """Measure what was asked for, keep it, and write the page of all that is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with .onnx files")
    parser.add_argument("--only", nargs="*", help="networks to measure; nothing after it writes the page alone")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--preset", choices=("quick", "default", "thorough"), default="default")
    parser.add_argument("--cache", help="folder of the cache; the command line's own if not said")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edgewright-whole-models.json")
    options = parser.parse_args()
    networks = sources(options.data)
    wanted = list(networks) if options.only is None else options.only
    if unknown := set(wanted) - set(networks):
        sys.exit(f"no network is called {', '.join(sorted(unknown))}; there are {', '.join(networks)}")
    env = Environment(Registry(only=()), open_store(options.cache), lambda message, done, total: None)
    for name in wanted:
        with ExitStack() as stack:
            bench = bench_for(networks[name], Request(on="local"), env, stack)
            if options.prepare:
                print(name, *(f"  {backend.name}: {why}" for backend, why in forms(bench)[1].items()), sep="\n")
            else:
                keep(options.work, name, measured(bench, options.preset))
                _write(options.work)
    if not options.prepare:
        print(_write(options.work))


def _write(place: Path) -> str:
    text = page(conditions(), kept(place))
    RESULTS.write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    main()
