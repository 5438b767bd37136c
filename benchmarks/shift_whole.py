"""How long DeiT-tiny takes whose weights shift and whose attention is of signs, beside its int8: one thread, batch 1.

    python benchmarks/shift_whole.py --work DIR --build
    python benchmarks/shift_whole.py --work DIR

The first makes graphs and kernels and keeps them in DIR; the second measures them, interleaved, and writes
docs/results/shift-whole.md. Weights are random and nothing trains: times depend on neither. The bar: 0.9 times what
int8 takes, in the faster of its forms.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from deit_apart import example_inputs
from kernel_rounds import Ratio, interval, ratio, sampled
from kernel_runs import Run, one_thread
from whole_model_forms import Backend, original, placed

from edgewright.asking.recipe import Method
from edgewright.asking.request import Request
from edgewright.bench import Bench, stage_artifacts
from edgewright.deploying.steps import lowered, run_step
from edgewright.environment import Environment
from edgewright.registry import TRANSFORMS, Registry
from edgewright.store import Store
from edgewright.types import Model
from edgewright.verbs.subject import bench_for
from edgewright_exporters.tir.isa import isas_of
from edgewright_runtime.device import find_device

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "shift-whole.md"
BAR, ROUNDS, PAIRS = 0.9, 6, 8
LEAST = 0.3
"""Milliseconds from which on a kind of node is listed by itself."""


@dataclass(frozen=True)
class Row:
    """Milliseconds of a form, and its ratios to others with their 95 % intervals."""

    millis: float
    ratios: Mapping[Backend, Ratio]


# ------------------------------------------------------------------ making


def trained(method: str, settings: Mapping[str, Any], bench: Bench) -> Model:
    """The network as a method that trains leaves it when it only calibrates: what lies between layers stays float."""
    offer = bench.registry.get(TRANSFORMS, method)
    return lowered(run_step(Method(offer, offer.value.Params(**settings, epochs=0)), bench.original, bench), bench)


SHIFTS: Mapping[str, Any] = {"layers": "all"}
GRAPHS: Mapping[str, Callable[[Bench], Model]] = {
    "float32": original,
    "int8": partial(trained, "lsq", {"bits": 7, "activations": 8}),
    "shifts": partial(trained, "shiftadd", SHIFTS),
    "shifts, hamming": partial(trained, "shiftadd", {**SHIFTS, "attention": "hamming"}),
    "shifts, linear": partial(trained, "shiftadd", {**SHIFTS, "attention": "linear"}),
}
BACKENDS = (
    Backend("ONNX Runtime", "float32", "ort"),
    Backend("ONNX Runtime", "int8", "ort"),
    *(Backend("our kernels", graph, "ort", "kernels") for graph in GRAPHS),
)
INT8 = tuple(each for each in BACKENDS if each.graph == "int8")
BESIDE = (BACKENDS[0], *INT8)
"""What the others are held to."""
OURS, SHIFTED = (Backend("our kernels", graph, "ort", "kernels") for graph in ("int8", "shifts"))
WHOLE = tuple(each for each in BACKENDS if each.graph.startswith("shifts"))


def build(work: Path) -> None:
    """Every form as a file in `work`, with the library of its kernels beside it."""
    # Layers are small: beside other work, threads that wait for one another make a build many times as long.
    torch.set_num_threads(1)
    env = Environment(Registry(only=()), Store(work.absolute()), _told)
    with ExitStack() as stack:
        bench = bench_for(f"{ROOT / 'benchmarks' / 'deit_apart.py'}:apart", Request(on="local", threads=1), env, stack)
        models = {name: make(bench) for name, make in GRAPHS.items()}
        for each in BACKENDS:
            model = models[each.graph]
            artifact = (placed(model, each, bench).artifacts or stage_artifacts(model))[0]
            shutil.copy(artifact.path, _file(work, each))
            for companion in artifact.companions:
                shutil.copy(companion.path, _file(work, each).with_suffix(".so"))


def _told(message: str, done: int, total: int) -> None:
    print(message, done, total, flush=True)


def _file(work: Path, form: Backend) -> Path:
    return work / f"{form.name}.onnx"


# ------------------------------------------------------------------ measuring


def session(form: Backend, work: Path, profile: str = "") -> tuple[Any, Run]:
    """A form, opened afresh, and a run of it; `profile` is where onnxruntime is to write what nodes took."""
    file = _file(work, form)
    settings = one_thread(file.with_suffix(".so") if form.exporter else None)
    if profile:
        settings.enable_profiling, settings.profile_file_prefix = True, profile
    opened = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    feed = {"image": example_inputs()["image"].numpy()}
    return opened, lambda: opened.run(None, feed)


def measured(work: Path) -> Mapping[Backend, Row]:
    """Rounds of fresh sessions, in each runs by turns."""
    rounds = [sampled({each: session(each, work)[1] for each in BACKENDS}, PAIRS) for _ in range(ROUNDS)]
    return {
        each: Row(
            1e3 * float(np.median([np.median(found[each]) for found in rounds])),
            {other: ratio([found[each] / found[other] for found in rounds]) for other in BESIDE},
        )
        for each in BACKENDS
    }


def spent(form: Backend, work: Path, runs: int = 8) -> Mapping[str, float]:
    """Milliseconds of each kind of node in the median run; a kernel's kind is the template that it comes from."""
    with tempfile.TemporaryDirectory() as folder:
        opened, run = session(form, work, f"{folder}/profile")
        for _ in range(runs):
            run()
        events = json.loads(Path(opened.end_profiling()).read_text(encoding="utf-8"))
    nodes = [each for each in events if each.get("cat") == "Node" and each["name"].endswith("_kernel_time")]
    per, turns = len(nodes) // runs, list[Counter[str]]()
    for start in range(per, runs * per, per):
        turns.append(Counter())
        for each in nodes[start : start + per]:
            turns[-1][_kind(each)] += each["dur"]
    return {kind: 1e-3 * float(np.median([each[kind] for each in turns])) for kind in turns[0]}


def _kind(event: Mapping[str, Any]) -> str:
    kind = event["args"]["op_name"]
    return f"our {event['name'].partition(':')[0]}" if kind in ("Kernel", "FloatKernel") else kind


# ------------------------------------------------------------------ the page


def page(rows: Mapping[Backend, Row], kinds: Mapping[Backend, Mapping[str, float]]) -> str:
    """The page of results."""
    heads = ["form", "run by", "ms", *(f"of {each.graph}, {each.title}" for each in BESIDE)]
    table = [
        f"| {each.graph} | {each.title} | {row.millis:.2f} | "
        + " | ".join(interval(row.ratios[other], 3) for other in BESIDE)
        + " |"
        for each, row in rows.items()
    ]
    lines = (
        "# DeiT-tiny with shifts and signs, whole",
        f"Written by `benchmarks/shift_whole.py` on {date.today().isoformat()}: the shape of `examples/deit_tiny.py` "
        "with layers of their own for queries, keys and values, 197 tokens, batch 1, one thread, "
        f"{find_device().cpu}, kernels for {isas_of(find_device())[0].name}, onnxruntime {version('onnxruntime')}, "
        f"TVM {version('apache-tvm')}. Weights are random and nothing was trained: this page is about time alone. "
        "`int8` is what `lsq` makes: bytes in layers and floats between them, as with shifts; weights have 7 bits, "
        "which multiply faster where the CPU has no dot product of bytes. (What `quantize:mode=static` makes, with "
        "bytes between layers too, is on [the page of whole networks](whole-models.md).) Of `shifts` all layers but "
        "the first and the last shift (4 bits a weight), with attention as it was, or of signs (`hamming`, `linear`).",
        f"Ratios are of times: {ROUNDS} rounds of fresh sessions, in each {PAIRS} runs by turns; of a round the median "
        "of paired ratios, over rounds the trimmed mean with its 95 % interval; below 1 is faster.",
        "\n".join((f"| {' | '.join(heads)} |", "|---|---|--:" + "|---" * len(BESIDE) + "|", *table)),
        *(
            f"At most {BAR} of what int8 takes with {other.title}, the whole interval: "
            + "; ".join(f"{each.graph}: **{_judged(rows[each].ratios[other])}**" for each in WHOLE)
            + "."
            for other in INT8
        ),
        "## Where the time goes",
        "Milliseconds by kind of node in the median of a few runs under onnxruntime's profiler, apart from those "
        "above; `our` are kernels of ours, by template. "
        f"`qgemm` takes {_share(kinds[OURS]):.0%} of int8 and {_share(kinds[SHIFTED]):.0%} of shifts: it "
        "looks shifts up and multiplies them as it does int8, so four bits gain nothing where weights fit the caches, "
        "and only what is around it can be saved.",
        "\n".join(_kinds(kinds)),
    )
    return "\n\n".join(lines) + "\n"


def _share(kinds: Mapping[str, float]) -> float:
    """Of all the time, what products with weights take."""
    return kinds["our qgemm"] / sum(kinds.values())


def _judged(found: Ratio) -> str:
    _, low, high = found
    return "held" if high <= BAR else "not held" if low > BAR else "undecided"


def _kinds(kinds: Mapping[Backend, Mapping[str, float]]) -> Iterator[str]:
    """A table of the kinds of nodes that matter in any form; the others are added up."""
    most = Counter[str]()
    for each in kinds.values():
        most |= Counter(each)
    listed = [kind for kind, millis in most.most_common() if millis >= LEAST]
    yield "| kind of node | " + " | ".join(f"{each.graph}, {each.title}" for each in kinds) + " |"
    yield "|---|" + "--:|" * len(kinds)
    for kind in listed:
        yield f"| {kind} | " + " | ".join(f"{each[kind]:.2f}" if kind in each else "" for each in kinds.values()) + " |"
    rest = (sum(each.values()) - sum(each.get(kind, 0.0) for kind in listed) for each in kinds.values())
    yield "| others | " + " | ".join(f"{millis:.2f}" for millis in rest) + " |"
    yield "| all | " + " | ".join(f"{sum(each.values()):.2f}" for each in kinds.values()) + " |"


def main() -> None:
    """Build, or measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--build", action="store_true")
    options = parser.parse_args()
    if options.build:
        build(options.work)
        return
    rows = measured(options.work)
    text = page(rows, {each: spent(each, options.work) for each in BACKENDS[1:]})
    PAGE.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
