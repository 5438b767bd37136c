"""What EoRA's branches bring back of the accuracy that 3 bits take from the ViT, and what they cost.

    EDGEWRIGHT_DATA=DIR python benchmarks/eora.py [--preset default]

Writes docs/results/eora.md. The bars: rank 16 recovers at least 30 % of the accuracy lost to plain rounding in each of
three draws of the calibration examples, and leaves less output error than the plain SVD on every layer.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from edgewright.asking.recipe import Method
from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.steps import run_step
from edgewright.environment import Environment
from edgewright.measuring.presets import PRESETS
from edgewright.measuring.timings import Measured
from edgewright.registry import TRANSFORMS, Registry
from edgewright.store import Store
from edgewright.types import Array, Model
from edgewright.verbs.subject import bench_for
from edgewright_plugins.eora import Params

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "eora.md"
BITS, RANK, RANKS, DRAWS, GROUP = 3, 16, (4, 8, 16, 32), 3, 32
FORMS = ((3, "closest", 0), (3, "min-max", 0), (3, "closest", GROUP), (2, "closest", GROUP), (2, "closest", 0))
"""Bits, ranges and values that share a scale; the first whose loss can be told from none is judged."""
BAR = 0.30


@dataclass(frozen=True, eq=False)
class Tried:
    """One form of the network: the model, its logits on the test images, and which of them are right."""

    model: Model
    logits: Array
    right: Array

    @property
    def accuracy(self) -> float:
        """Top-1 in %."""
        return 100 * float(np.mean(self.right))

    @property
    def errors(self) -> Mapping[str, float]:
        """The error of each layer's outputs, as a share of them."""
        return {name: each["compensated"] for name, each in self.model.history[-1].details["errors"].items()}


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval over the test images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.0%} [{self.low:.0%}, {self.high:.0%}]"


def tried(bench: Bench, model: Model) -> Tried:
    """A model with its answers on the test images, as the runtime computes them from the file."""
    logits = next(iter(bench.outputs(model, "test").values()))
    return Tried(model, logits, logits.argmax(1) == np.asarray(bench.labels("test")))


def compensated(bench: Bench, params: Params, draw: int = 0) -> Tried:
    """The network with branches fitted to the draw's calibration examples."""
    examples, rows = bench.task.splits["calibration"]
    drawn = np.random.default_rng(draw).permutation(np.asarray(rows))
    task = replace(bench.task, splits={**bench.task.splits, "calibration": (examples, drawn.tolist())})
    result = tried(bench, run_step(method(bench, params), bench.reference, replace(bench, task=task)))
    print(f"draw {draw} {params} {result.accuracy:.2f} %", file=sys.stderr)
    return result


def method(bench: Bench, params: Params) -> Method:
    """The method, as a recipe would hold it."""
    return Method(bench.registry.get(TRANSFORMS, "eora"), params)


def resampled(*forms: Tried) -> Array:
    """The accuracy of each form, as a share, over 1000 draws of the test images: [1000, forms]."""
    answers = np.stack([each.right for each in forms]).astype(np.float64)
    rng, count = np.random.default_rng(0), answers.shape[1]
    return np.stack([answers[:, rng.integers(0, count, count)].mean(1) for _ in range(1000)])


def recovered(floats: Tried, plain: Tried, found: Tried) -> Share:
    """How much of float - plain came back."""
    means = resampled(floats, plain, found)
    shares = (means[:, 2] - means[:, 1]) / np.maximum(means[:, 0] - means[:, 1], 1e-3)
    lost = max(floats.accuracy - plain.accuracy, 1e-3)
    return Share((found.accuracy - plain.accuracy) / lost, *map(float, np.percentile(shares, (2.5, 97.5))))


def loses(floats: Tried, plain: Tried) -> bool:
    """Whether the loss is told from none, at 95 %; a share of nothing says nothing."""
    means = resampled(floats, plain)
    return float(np.percentile(means[:, 0] - means[:, 1], 2.5)) > 0


def distance(floats: Tried, found: Tried) -> str:
    """How far the logits are from the float network's, as a share of them."""
    return f"{np.linalg.norm(found.logits - floats.logits) / np.linalg.norm(floats.logits):.1%}"


# ------------------------------------------------------------------ accuracy


def form_rows(bench: Bench, floats: Tried, head: str) -> tuple[list[Sequence[object]], str]:
    """Rounding alone and with rank 16, in each draw; and what became of the bar."""
    rows: list[Sequence[object]] = []
    judged = "cannot be judged: no form loses accuracy that can be told from none"
    for bits, rounding, group in reversed(FORMS):
        params = Params(bits=bits, group=group, rounding=rounding, rank=RANK, keep=(head,))
        plain = compensated(bench, replace(params, rank=0))
        found = [compensated(bench, params, draw) for draw in range(DRAWS)]
        shares = [recovered(floats, plain, each) for each in found]
        form = bits, f"group of {group}" if group else "output", rounding
        rows[:0] = [
            (*form, f"{plain.accuracy:.2f}", distance(floats, plain), draw, f"{each.accuracy:.2f}", share,
             distance(floats, each))
            for draw, (each, share) in enumerate(zip(found, shares, strict=True))
        ]  # fmt: skip
        if loses(floats, plain):
            judged = f"{verdict(all(share.value >= BAR for share in shares))}, judged at {bits} bits, {rounding}"
    return rows, judged


def rank_rows(bench: Bench, floats: Tried, params: Params) -> tuple[list[Sequence[object]], bool]:
    """EoRA and the plain SVD by rank; whether EoRA's output error is lower on every layer at every rank."""
    rows: list[Sequence[object]] = []
    closer = True
    for rank in RANKS:
        ours = compensated(bench, replace(params, rank=rank))
        svd = compensated(bench, replace(params, rank=rank, least="weights"))
        better = sum(ours.errors[name] < svd.errors[name] for name in ours.errors)
        closer = closer and better == len(ours.errors)
        columns = (text for each in (ours, svd) for text in (f"{each.accuracy:.2f}", distance(floats, each)))
        rows.append((rank, *columns, f"{better} of {len(ours.errors)}"))
    return rows, closer


# ------------------------------------------------------------------ cost


def cost_rows(bench: Bench, head: str, preset: str) -> list[Sequence[object]]:
    """Time against the same graph without branches, bytes, and the branches' share of the multiplications."""
    rows: list[Sequence[object]] = []
    for group in (0, GROUP):
        params = Params(bits=BITS, group=group, keep=(head,))
        forms = {
            "3 bits": compensated(bench, replace(params, rank=0)),
            "rank 16": compensated(bench, replace(params, rank=RANK)),
            "rank 16, float branch": compensated(bench, replace(params, rank=RANK, branch="float")),
        }
        models = {name: each.model for name, each in forms.items()} | {"float": bench.reference}
        timed = bench.timed({name: (model, bench.plan(model)) for name, model in models.items()}, preset)
        shared = f"group of {group}" if group else "output"
        for name, model in models.items():
            share = f"{model.history[-1].details['branch_share']:.1%}" if name.startswith("rank") else ""
            size = sum(stage.graph.path.stat().st_size for stage in model.stages)  # type: ignore[union-attr]
            accuracy = f"{forms[name].accuracy:.2f}" if name in forms else ""
            rows.append((shared, name, *times(timed[name]), share, f"{size:,}", accuracy))
    return rows


def times(measured: Measured) -> tuple[str, str]:
    """Median milliseconds, and how much longer than the reference with the 95 % interval."""
    median, ratio = measured.latency["p50"].value, measured.ratio
    if ratio is None or not ratio.value or ratio.interval is None:
        return f"{median:.3f}", ""
    ends = sorted(1 / end - 1 for end in ratio.interval)
    return f"{median:.3f}", f"{1 / ratio.value - 1:+.1%} [{ends[0]:+.1%}, {ends[1]:+.1%}]"


# ------------------------------------------------------------------ the page


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """As Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def accuracy_part(bench: Bench, head: str) -> tuple[str, bool]:
    """What comes back of the accuracy, and whether the bars hold."""
    floats = tried(bench, bench.reference)
    params = Params(bits=BITS, rank=RANK, keep=(head,))
    forms, judged = form_rows(bench, floats, head)
    ranks, closer = rank_rows(bench, floats, params)
    form_heads = ("bits", "scale per", "ranges", "plain", "its logits off", "draw", f"rank {RANK}", "recovered",
                  "its logits off")  # fmt: skip
    rank_heads = ("rank", "EoRA", "its logits off", "SVD", "its logits off", "layers where EoRA leaves less error")
    text = (
        f"All linear layers rounded but the last one; accuracy in % over {len(floats.right)} test images, of the files "
        f"as onnxruntime runs them. Float: {floats.accuracy:.2f}. Branches are fitted to {params.examples} unlabelled "
        "images, drawn three times. `recovered`: the share of the accuracy lost to plain rounding that came back, with "
        "its 95 % interval over the test images. `closest` ranges have the least squared error of the weights: what "
        "rounding alone can do, so that no branch is praised for mending a poor range.\n\n"
        f"{table(form_heads, forms)}\n"
        f"## By rank, beside the plain SVD of the weights' error, at {BITS} bits\n\n{table(rank_heads, ranks)}\n"
        f"Each draw recovers {BAR:.0%} (on the first form above whose loss can be told from none): {judged}.\n"
        f"EoRA leaves less output error than SVD on every layer: {verdict(closer)}.\n\n"
    )
    return text, closer and judged.startswith(verdict(True))


def verdict(holds: bool) -> str:
    """In words."""
    return "**holds**" if holds else "**does not hold**"


def page(bench: Bench, source: str, preset: str) -> tuple[str, bool]:
    """The results page, and whether the bars hold."""
    head = last_layer(bench)
    accuracy, held = accuracy_part(bench, head)
    device = bench.host.device()
    heads = ("scale per", "form", "p50 ms", "longer", "multiplications", "bytes", "accuracy")
    text = (
        f"# What EoRA's branches bring back at {BITS} bits\n\n"
        f"Written by `benchmarks/eora.py` on {date.today().isoformat()}; on {device.cpu}, {device.cores} cores; "
        f"load over 5 minutes {os.getloadavg()[1]:.2f}; model {source}; preset {preset}.\n\n{accuracy}"
        "## Cost\n\nInterleaved; `longer` than the same graph without branches, with its 95 % interval. "
        "`multiplications`: the branches' as a share of the rounded layers'.\n\n"
        f"{table(heads, cost_rows(bench, head, preset))}"
    )
    return text, held


def last_layer(bench: Bench) -> str:
    """The name of the classifier: it has fewer weights than a branch of rank 16, so all forms keep it float."""
    whole = run_step(method(bench, Params(rank=RANK, examples=1)), bench.reference, bench)
    return next(name for name, why in whole.history[-1].details["left"].items() if "no smaller" in why)


def main() -> int:
    """Exit code 0 when the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=f"{ROOT / 'benchmarks' / 'networks.py'}:vit")
    parser.add_argument("--task", default=f"{ROOT / 'examples' / 'cifar10.py'}:resnet")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="default")
    parser.add_argument("--out", type=Path, default=RESULTS)
    settings = parser.parse_args()
    with ExitStack() as stack:
        store = Store(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        env = Environment(Registry(only=()), store, lambda message, done, total: None)
        bench = bench_for(settings.model, Request(task=settings.task, on="local"), env, stack)
        text, held = page(bench, Path(settings.model).name, settings.preset)
    settings.out.write_text(text, encoding="utf-8")
    print(text)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
