"""Runs the deployments that must reach a bar, through the command line, and writes docs/results/deploy.md.

    python benchmarks/deploy_bars.py --data ~/data [--faces ~/photographs] [--only resnet56 mobilenet_v2]

The data folder holds `models/` (resnet56_cifar10.onnx, version-slim-320.onnx) and `vision/` (cifar10*.npz).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "deploy.md"
ENGINE = (sys.executable, "-c", "from edgewright.cli import main; main()")
AGREEMENT = "agreement with the original"
ALWAYS = ("--target", "cpu", "--threads", "1")
HEAD = "| network | bar | held | exit | ships | speed-up [95 %] | metric: original, shipped (n) | change [95 %] |"


@dataclass(frozen=True)
class Bar:
    """One deployment: what to type after `engine deploy`, and what it must end in.

    A model without a folder is one of the data folder's; `data` names the folder that the task reads.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    asked: str
    exit_code: int = 0
    speedup: float | None = None
    ships: str | None = None
    data: str = ""


@dataclass(frozen=True)
class Run:
    """What a deployment ended in; `document` is empty when there is none, and `error` says why."""

    bar: Bar
    exit_code: int
    error: str
    document: Mapping[str, Any] = field(default_factory=dict)


QUANTIZED = ("--apply", "simplify", "--apply", "quantize")
BARS = (
    Bar(
        "digits",
        "digits (README)",
        ("examples/digits/digits.onnx", "--task", "examples/digits/digits.npz"),
        "contract met",
    ),
    Bar(
        "resnet56",
        "ResNet-56, CIFAR-10",
        (
            "resnet56_cifar10.onnx",
            *("--apply", "quantize"),
            *("--task", "examples/cifar10.py:test_images", "--max-drop", "1%", "--min-speedup", "2.0"),
        ),
        "2.0x, within 1 point",
        speedup=2.0,
        data="vision",
    ),
    Bar(
        "mobilenet_v2",
        "MobileNetV2, 224 x 224, random weights",
        ("examples/mobilenet_v2.py:model", *QUANTIZED, "--max-drop", "off", "--min-speedup", "1.6"),
        "1.6x",
        speedup=1.6,
    ),
    Bar(
        "deit_tiny",
        "DeiT-tiny, 224 x 224, random weights",
        ("examples/deit_tiny.py:model", *QUANTIZED, "--max-drop", "off", "--min-speedup", "1.4"),
        "1.4x",
        speedup=1.4,
    ),
    Bar(
        "faces",
        "UltraFace slim 320, two outputs, no labels",
        ("version-slim-320.onnx", "--task", "examples/faces.py:faces"),
        "contract met",
        data="faces",
    ),
    Bar(
        "slow_int8",
        "a network that int8 slows down",
        ("examples/slow_int8.py:model", "--apply", "quantize", "--max-drop", "off"),
        "ships the original, exit 3",
        exit_code=3,
        ships="original",
    ),
)


def deploy(bar: Bar, models: Path, folders: Mapping[str, str], preset: str) -> Run:
    """Runs one deployment at one thread, in a folder of its own."""
    environment = {key: value for key, value in os.environ.items() if key != "EDGEWRIGHT_DATA"}
    if folders.get(bar.data):
        environment["EDGEWRIGHT_DATA"] = folders[bar.data]
    model, *rest = bar.arguments
    where = model if "/" in model else str(models / model)
    with tempfile.TemporaryDirectory() as scratch:
        # A cache of its own: nothing that was measured before counts.
        places = ("--out", f"{scratch}/bundle", "--cache", f"{scratch}/cache")
        command = [*ENGINE, "deploy", where, *rest, *ALWAYS, "--preset", preset, *places, "--json"]
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False)
    try:
        return Run(bar, done.returncode, "", json.loads(done.stdout))
    except json.JSONDecodeError:
        return Run(bar, done.returncode, "no document; its error is on the terminal")


def held(run: Run) -> bool:
    """Whether the deployment ended as it must: exit code, what ships, and the low end of the speed-up."""
    if run.error or run.exit_code != run.bar.exit_code:
        return False
    if run.bar.ships is not None and run.document["verdict"]["shipped"] != run.bar.ships:
        return False
    return run.bar.speedup is None or speedup(run)["interval"][0] >= run.bar.speedup


def speedup(run: Run) -> Mapping[str, Any]:
    """The measured ratio of the medians, original over shipped."""
    return row(run, "latency p50")["ratio"]


def row(run: Run, quantity: str) -> Mapping[str, Any]:
    """The report's row of one quantity."""
    return next(row for row in run.document["rows"] if row["quantity"] == quantity)


def judged(run: Run) -> Mapping[str, Any]:
    """The row of the metric; without a task, of the agreement on noise."""
    found = {row["quantity"]: row for row in run.document["rows"]}
    accuracy = found.get(run.document["settings"]["metric"]) or found["accuracy"]
    return accuracy if accuracy["original"]["value"] is not None else found.get(AGREEMENT, accuracy)


def line(run: Run) -> str:
    """A row of the table."""
    ends = f"| {run.bar.title} | {run.bar.asked} | {'yes' if held(run) else '**no**'} | {run.exit_code} "
    if run.error:
        return f"{ends}| {run.error} | | | |"
    metric = judged(run)
    return (
        f"{ends}| {run.document['verdict']['shipped']} | {number(speedup(run), 'x')} "
        f"| {metric['original']['quantity']}: {pair(metric)} | {number(metric['ratio'])} |"
    )


def number(measurement: Mapping[str, Any] | None, unit: str = "") -> str:
    """Value and interval; a dash where there is no value."""
    if measurement is None or measurement["value"] is None:
        return "-"
    interval = measurement["interval"]
    ends = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    return f"{measurement['value']:.2f}{unit}{ends}"


def pair(metric: Mapping[str, Any]) -> str:
    """The metric of the original and of what ships, with its unit and n; or why there is none."""
    original, shipped = metric["original"], metric["candidate"]
    if original["value"] is None or shipped["value"] is None:
        return original["reason"] or shipped["reason"]
    return f"{original['value']:.2f}, {shipped['value']:.2f} {original['unit']} (n = {shipped['n']})"


def page(runs: Sequence[Run]) -> str:
    """The whole results page."""
    device = next((run.document["device"] for run in runs if run.document), platform.platform())
    commands = "\n".join(f"    {shown(run.bar)}" for run in runs)
    reasons = [f"- {run.bar.title}: {reason}\n" for run in runs for reason in left_out(run)]
    table = "\n".join([HEAD, "|" + "---|" * (HEAD.count("|") - 1), *(line(run) for run in runs)])
    return (
        "# Deployments and their bars\n\n"
        f"Written by `benchmarks/deploy_bars.py` on {date.today().isoformat()}; {device}; one thread, batch 1. "
        "Original and candidate are timed interleaved; a speed-up holds when the low end of its interval does.\n\n"
        f"{table}\n\n{''.join(reasons)}\nThe commands:\n\n{commands}\n"
    )


def left_out(run: Run) -> list[str]:
    """What was not done or not shipped, and why."""
    if not run.document:
        return []
    verdict = run.document["verdict"]
    return [
        *run.document["skipped"],
        *verdict["left_out"],
        *(j["sentence"] for j in verdict["judgements"] if not j["holds"]),
    ]


def shown(bar: Bar) -> str:
    """The command as anyone could type it beside the model, with the data folder by name."""
    data = f"EDGEWRIGHT_DATA={bar.data} " if bar.data else ""
    return data + " ".join(("engine", "deploy", *bar.arguments, *ALWAYS))


def main() -> int:
    """Runs the bars; the exit code is the number that did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with models/ and vision/")
    parser.add_argument("--faces", type=Path, help="folder of photographs with faces; else scikit-image's")
    parser.add_argument("--only", nargs="+", default=[], help="names of bars; printed, not written")
    parser.add_argument("--preset", choices=("quick", "default", "thorough"), default="default")
    settings = parser.parse_args()
    data = settings.data.resolve()
    folders = {"vision": str(data / "vision"), "faces": str(settings.faces.resolve()) if settings.faces else ""}
    chosen = [bar for bar in BARS if not settings.only or bar.name in settings.only]
    runs = [deploy(bar, data / "models", folders, settings.preset) for bar in chosen]
    if not settings.only:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(page(runs), encoding="utf-8")
    print(page(runs))
    return sum(not held(run) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
