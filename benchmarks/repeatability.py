"""Checks that `engine profile` gives the same answer twice, allowing for a machine that itself is not the same twice.

    python benchmarks/repeatability.py BUNDLE [--pairs 10] [--preset quick]

After each profile the same graph is timed in a bare onnxruntime session that stays open: the control, which feels
the machine and nothing of ours. It runs on the CPUs that the profile ran on. Of a pair of profiles, the ratio of
the medians is divided by that of their controls. Writes docs/results/repeatability.md. The bar: in 9 of 10 pairs it
is within 5 % of 1, or a profile is marked unstable.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgewright.bundle import Bundle, open_bundle
from edgewright.errors import EdgewrightError
from edgewright.onnxkit import ask_for_exact_products
from edgewright.types import Arrays
from edgewright.verbs.subject import example_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "repeatability.md"
ENGINE = (sys.executable, "-c", "from edgewright.cli import main; main()")
CLOSE, SHARE = 0.05, 0.9
SECONDS = {"quick": 1.0, "default": 10.0, "thorough": 60.0}


@dataclass(frozen=True)
class Reading:
    """One profile and the control after it: medians in ms, and whether the profile was marked unstable."""

    profile: float
    control: float
    unstable: bool


@dataclass(frozen=True)
class Pair:
    """Two readings, one after the other."""

    first: Reading
    second: Reading

    @property
    def ratio(self) -> float:
        """How much the second profile differs from the first, less how much the machine did."""
        return (self.second.profile / self.first.profile) / (self.second.control / self.first.control)

    @property
    def unstable(self) -> bool:
        """Whether either profile said so."""
        return self.first.unstable or self.second.unstable

    @property
    def holds(self) -> bool:
        """Whether the two agree, or were marked."""
        return self.unstable or abs(self.ratio - 1) <= CLOSE


def profile(bundle: Path, preset: str, cache: str) -> tuple[float, bool, Sequence[int]]:
    """The median latency in ms as `engine profile` gives it, whether it is marked unstable, and on which CPUs."""
    command = [*ENGINE, "profile", str(bundle), "--preset", preset, "--cache", cache, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    median = p50(json.loads(done.stdout))
    return float(median["value"]), bool(median["unstable"]), median["conditions"]["before"]["cpus"]


def p50(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The median among the measurements of a profile."""
    return next(m for m in document["measurements"] if m["quantity"] == "latency" and m["statistic"] == "p50")


def bare_session(bundle: Bundle) -> onnxruntime.InferenceSession:
    """The bundle's graph, opened without us. Raises: EdgewrightError when it is not one ONNX file."""
    if [artifact.format for artifact in bundle.artifacts] != ["onnx"]:
        raise EdgewrightError(f"{bundle.path} holds more than one ONNX file; the control runs one")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    ask_for_exact_products(options)
    graph = str(bundle.artifacts[0].path)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def control(session: onnxruntime.InferenceSession, feeds: Arrays, seconds: float) -> float:
    """The median latency in ms of so many seconds of runs."""
    spent: list[int] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.perf_counter_ns()
        session.run(None, feeds)
        spent.append(time.perf_counter_ns() - start)
    return float(np.median(spent)) / 1e6


def measure(path: Path, *, pairs: int, preset: str) -> list[Pair]:
    """All pairs, one after the other."""
    bundle = open_bundle(path)
    session, inputs = bare_session(bundle), example_of(bundle)
    feeds = {spec.name: inputs[spec.name][:1] for spec in bundle.signature.inputs}
    found: list[Pair] = []
    with tempfile.TemporaryDirectory() as cache:

        def reading() -> Reading:
            median, unstable, cpus = profile(path, preset, cache)
            if cpus:
                os.sched_setaffinity(0, cpus)
            return Reading(median, control(session, feeds, SECONDS[preset]), unstable)

        for number in range(pairs):
            found.append(Pair(reading(), reading()))
            print(f"{number + 1}/{pairs} {line(found[-1])}", file=sys.stderr)
    return found


def line(pair: Pair) -> str:
    """A row of the table."""
    a, b = pair.first, pair.second
    marked = "unstable" if pair.unstable else ""
    return (
        f"| {a.profile:.4f} | {b.profile:.4f} | {a.control:.4f} | {b.control:.4f} | {pair.ratio:.3f} | {marked} "
        f"| {'yes' if pair.holds else '**no**'} |"
    )


def page(pairs: Sequence[Pair], name: str, preset: str) -> str:
    """The results page."""
    agreed = sum(abs(pair.ratio - 1) <= CLOSE for pair in pairs)
    marked = sum(pair.unstable for pair in pairs)
    rows = "\n".join(line(pair) for pair in pairs)
    return (
        f"# Does a profile repeat?\n\nWritten by `benchmarks/repeatability.py` on {date.today().isoformat()}; "
        f"bundle {name}, preset {preset}, one thread, load over 5 minutes {os.getloadavg()[1]:.2f}. "
        "Times are medians in ms; the ratio is that of the profiles over that of the controls.\n\n"
        f"{agreed} of {len(pairs)} pairs are within {100 * CLOSE:.0f} %, {marked} marked unstable; "
        f"the bar {'holds' if holds(pairs) else '**does not hold**'}.\n\n"
        "| first | second | first control | second control | ratio | marked | holds |\n"
        f"|---|---|---|---|---|---|---|\n{rows}\n"
    )


def holds(pairs: Sequence[Pair]) -> bool:
    """Whether enough pairs agree or are marked."""
    return sum(pair.holds for pair in pairs) >= SHARE * len(pairs)


def main() -> int:
    """Exit code 0 when the bar holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--preset", choices=tuple(SECONDS), default="quick")
    settings = parser.parse_args()
    pairs = measure(settings.bundle, pairs=settings.pairs, preset=settings.preset)
    text = page(pairs, settings.bundle.name, settings.preset)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)
    return 0 if holds(pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
