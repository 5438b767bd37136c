"""Reports that have every section: the example's own, deployed nowhere, with values drawn from a seed."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from edgewright.types import (
    Closeup,
    Entrant,
    Exit,
    Exits,
    Judgement,
    KernelCost,
    Mark,
    Measurement,
    Operator,
    Recording,
    Report,
    Row,
    Spread,
    Step,
    Trace,
    Tradeoff,
    Verdict,
    unknown,
)

MODELS = ("mobilenet-v2", "resnet-18", "deit-tiny", "keyword-spotting", "person-detection")
TARGETS = ("cpu", "raspberry-pi-5", "jetson-orin-nano", "pixel-8")
KERNELS = 40


def png(seed: int) -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = {number: png(number) for number in (3, 4, 17, 18)}


def many(count: int) -> list[Report]:
    """Reports of several models on several targets."""
    return [a_report(number) for number in range(count)]


def a_report(seed: int = 0) -> Report:
    """A report in which nothing is missing."""
    rng = np.random.default_rng(seed)
    model, target = MODELS[seed % len(MODELS)], TARGETS[seed // len(MODELS) % len(TARGETS)]
    speedup, ms, drop = 1.2 + 2 * rng.random(), 2 + 8 * rng.random(), -1.5 * rng.random()
    shipped = "simplify+quantize"
    status = ("met", "met", "not met", "predicted met")[seed % 4]
    return Report(
        model=model,
        target=target,
        device=f"{target}, 4 cores, Linux 6.12",
        rows=_rows(ms, speedup, drop),
        verdict=Verdict(
            status,
            shipped,
            (Judgement("max-drop", True, True, f"top-1 accuracy dropped by {-drop:.2f} [0.01, 1.20] %, allowed 1.00"),),
            3,
            ("half: speed-up 0.98x [0.97, 0.99], asked 1x",),
        ),
        steps=(
            Step("simplify", "edgewright 0.1.0", {}, ("73 nodes before, 54 after",)),
            Step("quantize", "edgewright 0.1.0", {"bits": 4}, ("static u8",), _sensitivity(rng)),
        ),
        candidates=_candidates(speedup, drop),
        skipped=("half: the target has no 16-bit arithmetic",),
        settings={"model": f"{model}.onnx", "target": target, "methods": "simplify quantize:bits=4", "seed": seed},
        bundle=f"{model}-{target}",
        notes=("split by seed 0: calibration 81, selection 135, test 324",),
        exits=_exits(ms),
        race=(Entrant(shipped, "onnx", "ort CPU graph=all", _ratio(speedup), won=True),),
        recording=_recording(rng),
        closeups=(_closeup("original", ms, rng, "float32"), _closeup(shipped, ms / speedup, rng, "int8")),
    )


def bare_report() -> Report:
    """A report that has what every report has, and nothing else."""
    full = a_report()
    nothing: dict[str, tuple[()]] = {
        "steps": (),
        "candidates": (),
        "skipped": (),
        "notes": (),
        "race": (),
        "closeups": (),
    }
    return replace(full, exits=None, recording=None, **nothing)


def _ratio(value: float) -> Measurement:
    return Measurement("speed-up", value, "x", 10, (0.96 * value, 1.04 * value), "paired")


def _rows(ms: float, speedup: float, drop: float) -> tuple[Row, ...]:
    latency = [Measurement("latency", value, "ms", 1000, (0.98 * value, 1.02 * value)) for value in (ms, ms / speedup)]
    accuracy = [Measurement("top-1 accuracy", value, "%", 324) for value in (91.5, 91.5 + drop)]
    energy = [Measurement("energy", 3 * m.value, "mJ", 1000, kind="simulated") for m in latency if m.value]
    nothing = unknown("peak memory", "B", "this system does not tell a process's peak memory")
    return (
        Row("latency p50", *latency, _ratio(speedup)),
        Row("top-1 accuracy", *accuracy, Measurement("change", drop, "%", 324, (drop - 0.5, drop + 0.5), "paired")),
        Row("size", Measurement("size", 14.2e6, "B", 1), Measurement("size", 3.6e6, "B", 1), _ratio(3.9)),
        Row("energy", *energy, _ratio(speedup)),
        Row("peak memory", nothing, nothing),
    )


def _candidates(speedup: float, drop: float) -> tuple[dict[str, object], ...]:
    made = (("original", 1.0, 0.0), ("simplify", 1.05, 0.0), ("simplify+quantize", speedup, drop), ("half", 0.97, -0.2))
    return tuple(
        {
            "name": name,
            "size": 14.2e6 / gain,
            "speedup": vars(_ratio(gain)),
            "metric": vars(Measurement("top-1 accuracy", 91.5 + lost, "%", 324)),
            "numerics": {"main": {"max_rel": 0.01}},
            "placements": [],
        }
        for name, gain, lost in made
    )


def _sensitivity(rng: np.random.Generator) -> dict[str, object]:
    decibels = np.sort(10 + 30 * rng.random(KERNELS))
    return {"sensitivity": [[f"/features/features.{i}/conv/Conv", float(db)] for i, db in enumerate(decibels)]}


def _exits(ms: float) -> Exits:
    ways = (Exit("first", 0.83, 0.6, 194, 97.0, 88.0, ms / 3, ms / 2), Exit("last", None, 0.4, 130, 83.0, 92.0, ms, ms))
    choices = tuple(Tradeoff((0.99 - 0.02 * i,), ms - 0.04 * i * ms, 92 - 0.02 * i * i, i == 6) for i in range(20))
    return Exits("test", "top-1 accuracy %", ways, choices, early=(3, 4), late=(17, 18), notes=("two exits",))


def _recording(rng: np.random.Generator) -> Recording:
    seconds = np.arange(0, 12, 0.01)
    busy = np.where(seconds < 2, 2.0, np.where(seconds // 2 % 2 == 1, 6.0, 4.5)) + 0.2 * rng.standard_normal(
        len(seconds)
    )
    samples = tuple((int(s * 1e9), float(round(1000 * w))) for s, w in zip(seconds, busy, strict=True))
    trace = Trace("VDD_IN", "the whole board", "power", "mW", 1e-3, 10_000_000, samples, whole=True)
    whats = ("idle", "original", "simplify+quantize", "original", "simplify+quantize", "original")
    marks = tuple(Mark(what, int(2e9 * i), int(2e9 * (i + 1)), 100, i) for i, what in enumerate(whats))
    return Recording("ina3221", (trace,), marks, simulated=True, cost=0.012)


def _closeup(name: str, ms: float, rng: np.random.Generator, dtype: str) -> Closeup:
    runs = np.sort(ms * (1 + 0.1 * rng.gamma(1.2, 1.0, 1000)))
    ops = (10 ** rng.uniform(4, 8, KERNELS)).astype(int)
    moved = (ops / 10 ** rng.uniform(-0.5, 2, KERNELS)).astype(int) + 1
    share = ops / ops.sum()
    names = [f"/features/features.{i}/conv/Conv" for i in range(KERNELS)]
    peak = {"float32": 60.0, "int8": 180.0}[dtype]
    kernels = [
        KernelCost(names[i], "Conv", "window", dtype, int(ops[i]), int(moved[i]), ms * share[i], None, peak, 12.0)
        for i in range(KERNELS)
    ]
    operators = [
        Operator(
            "main",
            f"{names[i]}_nchwc",
            "Conv",
            "CPUExecutionProvider",
            1e3 * ms * share[i] * rng.uniform(0.8, 1.5),
            names[i],
        )
        for i in range(KERNELS - 4)
    ]
    told = Measurement("latency", 1.1 * ms, "ms", interval=(0.6 * ms, 2.0 * ms), kind="predicted")
    spread = Spread(tuple(map(float, np.percentile(runs, range(101)))), len(runs))
    reason = unknown("energy", "mJ", "the profile gives no power")
    return Closeup(name, spread, tuple(operators), "", tuple(kernels), (told, reason))
