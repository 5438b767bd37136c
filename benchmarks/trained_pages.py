"""The pages of methods that train: accuracies over seeds, and times of the forms that come out, measured by turns."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.exporting import exported
from edgewright.environment import Environment
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.types import Measurement, Model, Plan
from edgewright.verbs.subject import bench_for

Forms = Callable[[Bench], Mapping[str, tuple[Model, Plan]]]
"""What is timed, by name, the one that ratios refer to first."""
EARLIER = "\n## Earlier runs\n"
TITLES = "| seeds | epochs, examples | before training, selection | selection | test | loss on test | times as fast |"


def page_command(commands: Any, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
    """The command `page` of a benchmark that trains."""
    page = commands.add_parser("page", help="write the page of what is trained")
    page.set_defaults(run=run)
    page.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewright")
    return page


def speeds(
    options: argparse.Namespace, source: str, forms: Forms, task: str | None = None
) -> tuple[dict[str, str], str]:
    """How many times as fast as the first every form is, in words, and on what; measured once, and kept in `work`."""
    kept = options.work / "speeds.json"
    if not kept.exists():
        env = Environment(Registry(), Store(options.cache), lambda message, done, total: None)
        with ExitStack() as stack:
            bench = bench_for(source, Request(threads=1, task=task), env, stack)
            found = bench.timed(forms(bench), "default")
            told = {name: ratio_told(each.ratio) for name, each in found.items() if each.ratio}
            where = f"{bench.host.device().cpu}, one thread, onnxruntime {bench.versions['onnxruntime']}"
            kept.write_text(json.dumps([told, where]))
    told, where = json.loads(kept.read_text())
    return told, where


def with_kernels(model: Model, bench: Bench) -> Plan:
    """How the model runs with our kernels."""
    artifacts = exported(model, "kernels", bench)
    return Plan(tuple(bench.placements(each)[0] for each in artifacts), artifacts)


def ratio_told(ratio: Measurement) -> str:
    """In words, with its interval."""
    low, high = ratio.interval or (ratio.value, ratio.value)
    return f"{ratio.value:.2f} [{low:.2f}, {high:.2f}]"


def results(work: Path, page: Path) -> list[dict[str, Any]]:
    """What trainings that ended found, here and where the page was written before: it is kept beside the page."""
    beside = page.with_suffix(".json")
    found: dict[str, dict[str, Any]] = json.loads(beside.read_text()) if beside.exists() else {}
    found |= {path.parent.name: json.loads(path.read_text()) for path in work.glob("*/result.json")}
    rows = (f"{json.dumps(name)}: {json.dumps(result)}" for name, result in sorted(found.items()))
    beside.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    return [found[name] for name in sorted(found)]


def written(page: Path, lines: Sequence[str]) -> None:
    """The page, of these lines and of what it says of earlier runs, which were made otherwise."""
    _, mark, earlier = page.read_text().partition(EARLIER) if page.exists() else ("", "", "")
    page.write_text("\n".join(lines) + "\n" + mark + earlier)


def seeds_row(title: str, found: Sequence[Mapping[str, Any]], whole: float, speed: str) -> str:
    """A row of the table: means over seeds, and of the loss its standard deviation too."""
    if not found:
        return f"| {title} | 0 | not trained yet | | | | | {speed} |"
    before, selection, test = (np.mean([each[key] for each in found]) for key in ("before", "selection", "test"))
    trained_on = {f"{each['epochs']}, {each['examples']}" for each in found if "examples" in each}
    loss = mean_told([whole - each["test"] for each in found])
    numbers = f"{before:.2f} | {selection:.2f} | {test:.2f} | {loss} | {speed}"
    return f"| {title} | {len(found)} | {'; '.join(sorted(trained_on)) or 'none'} | {numbers} |"


def mean_told(values: Sequence[float]) -> str:
    """Their mean, and the standard deviation where there are several."""
    return f"{np.mean(values):.2f}" + (f" (deviation {np.std(values, ddof=1):.2f})" if len(values) > 1 else "")
