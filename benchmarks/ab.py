"""Checks the comparison itself: does it find nothing where there is nothing, and 5 % where there is 5 %?

    python benchmarks/ab.py [--runs 100] [--preset quick] [--model examples/digits/digits.onnx]

A model is compared with itself (A/A), and with itself under a runtime that is 5 % slower (slowed.py).
Writes docs/results/ab.md. The bars, of 100 runs: at least 90 intervals contain 1, median width at most 3 %;
the slow-down is found, which is an interval wholly on the slow side, in at least 90.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from edgewright.agents.agent import Agent
from edgewright.asking.request import Request
from edgewright.bundle import Bundle, Contents, write_bundle
from edgewright.deploying.opening import open_agent
from edgewright.environment import Environment
from edgewright.measuring.measure import Candidate, compare, device_lock
from edgewright.measuring.presets import PRESETS, Preset
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.types import Plan
from edgewright.verbs.subject import open_subject, target_at

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "ab.md"
SHARE, WIDTH = 0.90, 0.03


@dataclass(frozen=True)
class Interval:
    """A ratio, first / second, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """The intervals of all runs, and how long one comparison took."""

    same: Sequence[Interval]
    slower: Sequence[Interval]
    seconds: float

    @property
    def contained(self) -> int:
        """How many A/A intervals contain 1."""
        return sum(each.low <= 1 <= each.high for each in self.same)

    @property
    def width(self) -> float:
        """The median width of the A/A intervals."""
        return float(np.median([each.high - each.low for each in self.same]))

    @property
    def found(self) -> int:
        """How many intervals of the slower one lie wholly on the slow side."""
        return sum(each.high < 1 for each in self.slower)

    @property
    def holds(self) -> bool:
        """Whether all three bars hold."""
        enough = SHARE * len(self.same)
        return self.contained >= enough and self.found >= enough and self.width <= WIDTH


def slowed(bundle: Bundle, destination: Path) -> Candidate:
    """The same bundle under the slower runtime, which workers find beside this file."""
    plan = Plan(tuple(replace(placement, runtime="slowed") for placement in bundle.plan.placements))
    example = {"example/inputs.npz": bundle.example_inputs}
    contents = Contents(bundle.name, bundle.signature, bundle.variants, bundle.artifacts, plan, example, {})
    written = write_bundle(destination, contents)
    return Candidate(written.path, {"runtimes": {"slowed": "slowed:SLOWED"}, "path": [str(Path(__file__).parent)]})


def interval(agent: Agent, first: Candidate, second: Candidate, preset: Preset, seed: int) -> Interval:
    """One comparison."""
    found = compare(agent, {"first": first, "second": second}, preset, reference="first", seed=seed)
    ratio = found["second"].ratio
    if ratio is None or ratio.value is None or ratio.interval is None:
        sys.exit(f"the comparison with seed {seed} gave no interval")
    return Interval(ratio.value, *ratio.interval)


def measure(model: str, *, runs: int, preset: Preset, stack: ExitStack) -> tuple[Outcome, str]:
    """All runs, A/A and slow-down by turns, and the device they ran on."""
    store = Store(Path(stack.enter_context(tempfile.TemporaryDirectory())))
    env = Environment(Registry(only=()), store, lambda message, done, total: None)
    agent = open_agent("local", env, stack)
    subject = open_subject(model, Request(), target_at(agent, Request(), env), agent, env)
    usual = Candidate(subject.bundle.path, {"runtimes": subject.runtimes})
    late = slowed(subject.bundle, store.folder("slowed") / "bundle")
    stack.enter_context(device_lock(store.folder("locks"), agent.address))
    same: list[Interval] = []
    slower: list[Interval] = []
    start = time.monotonic()
    for run in range(runs):
        same.append(interval(agent, usual, usual, preset, run))
        slower.append(interval(agent, usual, late, preset, run))
        print(f"{run + 1}/{runs} same {shown(same[-1])} slower {shown(slower[-1])}", file=sys.stderr)
    device = agent.device()
    return Outcome(same, slower, (time.monotonic() - start) / (2 * runs)), f"{device.cpu}, {device.cores} cores"


def shown(each: Interval) -> str:
    """`1.001 [0.995, 1.007]`."""
    return f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]"


def page(outcome: Outcome, facts: Mapping[str, object]) -> str:
    """The results page."""
    runs = len(outcome.same)
    enough = round(SHARE * runs)
    ratios = np.array([each.value for each in outcome.same])
    late = np.array([each.value for each in outcome.slower])
    rows = (
        ("A/A: intervals that contain 1", f"{outcome.contained} of {runs}", f">= {enough}"),
        ("A/A: median width of the interval", f"{100 * outcome.width:.2f} %", f"<= {100 * WIDTH:.0f} %"),
        ("5 % slower: found", f"{outcome.found} of {runs}", f">= {enough}"),
        ("A/A: ratios, 5th to 95th percentile", spread(ratios), ""),
        ("5 % slower: ratios, 5th to 95th percentile (1 / 1.05 is 0.952)", spread(late), ""),
        ("seconds per comparison of two", f"{outcome.seconds:.1f}", ""),
    )
    table = "\n".join(f"| {what} | {value} | {bar} |" for what, value, bar in rows)
    conditions = "; ".join(f"{name} {value}" for name, value in facts.items())
    return (
        f"# Does a comparison say the truth?\n\nWritten by `benchmarks/ab.py` on {date.today().isoformat()}; "
        f"{conditions}. A model against itself, and against itself under a runtime that spins for another 5 % "
        f"of each run.\n\n| what | measured | bar |\n|---|---|---|\n{table}\n\n"
        f"All bars {'hold' if outcome.holds else '**do not hold**'}.\n"
    )


def spread(ratios: np.ndarray) -> str:
    """The middle nine tenths."""
    low, high = np.percentile(ratios, (5, 95))
    return f"{low:.3f} to {high:.3f}"


def main() -> int:
    """Exit code 0 when all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="quick")
    parser.add_argument("--model", default=str(ROOT / "examples" / "digits" / "digits.onnx"))
    settings = parser.parse_args()
    with ExitStack() as stack:
        outcome, device = measure(settings.model, runs=settings.runs, preset=PRESETS[settings.preset], stack=stack)
    load = f"{os.getloadavg()[1]:.2f}"
    facts = {"on": device, "model": Path(settings.model).name, "preset": settings.preset, "load over 5 minutes": load}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(page(outcome, facts), encoding="utf-8")
    print(page(outcome, facts))
    return 0 if outcome.holds else 1


if __name__ == "__main__":
    sys.exit(main())
