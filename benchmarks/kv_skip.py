"""KV skip on a character model of Python source, against storing at random and the latest; goes on after a kill.

    python benchmarks/charlm.py --work DIR
    python benchmarks/kv_skip.py train --work DIR --seeds 1
    python benchmarks/kv_skip.py time --work DIR
    python benchmarks/kv_skip.py page --work DIR

`whole` stores every token; it trains as long as the others, which learn more of the text while they learn to do with
less. `skip` is the method; `random` stores tokens by the toss of a coin, in training too. `latest` is `whole` with the
room of the others, in which the latest tokens stay. `time` measures what a token takes, and `page` writes
`docs/results/kv-skip.md` of what there is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from charlm import CONTEXT, CharLm, Passages, Text, read_text, told, trained
from torch import Tensor, nn
from torch.nn import functional
from trained_pages import ratio_told
from training_runs import Case

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.steps import lowered
from edgewright.environment import Environment
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.torchkit.fit import fit
from edgewright.types import Array, Model
from edgewright.verbs.subject import bench_for
from edgewright_plugins.kv_skip import Params
from edgewright_plugins.kv_skip.job import module_of, stepping
from edgewright_plugins.kv_skip.learn import learning, level, settings, skipping
from edgewright_plugins.kv_skip.net import Plan, Skipping
from edgewright_plugins.kv_skip.read import layers_of
from edgewright_plugins.tokens.learning import groups

WAYS = ("whole", "skip", "random")
KEEP = 0.5
AFTER = 1
RECENT = 4
PASSAGE = CONTEXT // 2
"""How long the passages are that are trained on; they stand anywhere in the context."""
TEST_PASSAGES = 100
SHAPES = {"network": "4 blocks of 96 channels (the trained one)", "larger": "6 blocks of 256 channels (untrained)"}
PAGE = Path(__file__).parents[1] / "docs" / "results" / "kv-skip.md"


def plan_of(network: nn.Module, keep: float) -> Plan:
    """The caches where so many tokens are kept."""
    layers = layers_of(network, torch.zeros(1, CONTEXT, dtype=torch.int64), "charlm")
    return Plan(layers, CONTEXT, AFTER, round(keep * CONTEXT), RECENT)


def build(case: Case, network: CharLm) -> Skipping:
    """The network of a case before it trains."""
    torch.manual_seed(case.seed)
    net = Skipping(network, plan_of(network, 1.0 if case.way == "whole" else KEEP))
    learning(net, KEEP)
    if case.way == "random":
        net.rule = tossed
    return net.eval()


def tossed(logits: Tensor) -> Tensor:
    """Stored by the toss of a coin, the same for all texts when nothing trains."""
    if torch.is_grad_enabled():
        return (torch.rand_like(logits) < KEEP).to(logits.dtype)
    coins = torch.rand(logits.shape[1], generator=torch.Generator().manual_seed(0)) < KEEP
    return coins.to(logits.dtype).expand_as(logits)


def run_case(case: Case, text: Text, options: argparse.Namespace) -> None:
    """Train one case and read its perplexity; a case that is done is left alone."""
    folder = options.work / case.name
    kept = folder / "result.json"
    if kept.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    params = Params(epochs=1, batch=4)
    net = build(case, trained(options.work))
    data = Passages(text.training, params.batch, options.steps, seed=1000 + case.seed, context=PASSAGE)
    objective = skipping(trained(options.work), None, keep=KEEP, distill=params.distill)
    said = replace(settings(params), seed=case.seed)
    fitted = fit(net, data, said, objective, folder=folder, groups=groups, progress=told)
    if case.way == "skip":
        level(net, KEEP, (torch.from_numpy(each)[None] for each in passages(text.training, 32)[0]))
    torch.save(net.state_dict(), folder / "net.pt")
    result: dict[str, Any] = {**asdict(case), "steps": options.steps, "seconds": round(fitted.seconds)}
    kept.write_text(json.dumps({**result, **measured(net, text)}))
    if case.way == "whole":
        net.plan = plan_of(net.backbone, KEEP)
        net.predictor, net.rule = build(Case("skip", 0), trained(options.work)).predictor, torch.ones_like
        folder = options.work / f"latest-{case.seed}"
        folder.mkdir(exist_ok=True)
        (folder / "result.json").write_text(json.dumps({**result, "way": "latest", **measured(net, text)}))


def passages(text: Array, count: int) -> tuple[Array, Array]:
    """Passages of the context's length at equal distances, and the characters that come next, [count, context]."""
    starts = np.linspace(0, len(text) - CONTEXT - 1, count).astype(np.int64)
    some = np.stack([text[at : at + CONTEXT + 1] for at in starts])
    return some[:, :-1], some[:, 1:]


def measured(net: Skipping, text: Text) -> dict[str, Any]:
    """Nats per character of each held-out passage, of its second half, and what share is stored."""
    tokens, labels = passages(text.test, TEST_PASSAGES)
    whole: list[float] = []
    late: list[float] = []
    stored: list[float] = []
    with torch.no_grad():
        for some, wanted in zip(torch.from_numpy(tokens), torch.from_numpy(labels), strict=True):
            losses = functional.cross_entropy(net(some[None])[0], wanted, reduction="none")
            whole.append(float(losses.mean()))
            late.append(float(losses[CONTEXT // 2 :].mean()))
            stored.append(float(net.noted[1].mean()) if net.noted else 1.0)
    return {"nats": whole, "late": late, "stored": float(np.mean(stored)), "most": max(stored)}


def train(options: argparse.Namespace) -> None:
    """Every case that is not done."""
    text = read_text(options.data)
    for seed in range(options.seeds):
        for way in options.ways:
            run_case(Case(way, seed), text, options)


# ------------------------------------------------------------------ time


def measure_time(options: argparse.Namespace) -> None:
    """What a token takes where all are stored and where few are, in networks of two shapes; weights do not matter."""
    found = {shape: timed(shape, options) for shape in SHAPES}
    (options.work / "times.json").write_text(json.dumps(found))
    print(found)


def timed(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds per token of each way at the full context, and their ratio, in interleaved runs."""
    env = Environment(Registry(), Store(options.cache), lambda message, done, total: None)
    with ExitStack() as stack:
        bench = bench_for(f"{Path(__file__).parent / 'charlm.py'}:{shape}", Request(threads=1), env, stack)
        models = {way: lowered(steps_of(bench, keep), bench) for way, keep in (("whole", 1.0), ("skip", KEEP))}
        if options.prepare:
            return {}
        found = bench.timed({way: (model, bench.plan(model)) for way, model in models.items()}, options.preset)
        told = {way: each.typical.value for way, each in found.items()}
        where = f"{bench.host.device().cpu}, one thread, onnxruntime {bench.versions['onnxruntime']}"
        ratio = found["skip"].ratio
        assert ratio is not None
        return {**told, "ratio": ratio_told(ratio), "where": where}


def steps_of(bench: Bench, keep: float) -> Model:
    """The bench's network of one token a run."""
    torch.manual_seed(0)
    net = Skipping(module_of(bench.original), plan_of(module_of(bench.original), keep)).eval()
    return stepping(bench.original, net, hashlib.sha256(f"{keep} {bench.original.digest}".encode()).hexdigest())


# ------------------------------------------------------------------ the page


def write_page(options: argparse.Namespace) -> None:
    """The page, of what has been trained and timed so far."""
    results = [json.loads(path.read_text()) for path in sorted(options.work.glob("*/result.json"))]
    times = json.loads((options.work / "times.json").read_text())
    text = read_text(options.data)
    steps = results[0]["steps"]
    lines = [
        "# KV skip on a character model",
        "",
        f"Written by `benchmarks/kv_skip.py page`. The network of `benchmarks/charlm.py` (4 blocks of 96 channels, "
        f"{CONTEXT} characters of context) learned Python's standard library: {len(text.training):,} characters, and "
        f"{len(text.test):,} of other files to test, of which {TEST_PASSAGES} passages of {CONTEXT} are read. The "
        f"first attention stores every token; the three others have room for {round(KEEP * CONTEXT)}, the latest "
        f"{RECENT} among them.",
        "",
        "| way | seeds | perplexity | beside `whole`, all characters | beside `whole`, second half of the context "
        "| stored for good |",
        "|---|---|---|---|---|---|",
        *(row(way, results) for way in (*WAYS, "latest")),
        "",
        f"All start from the same weights and train for {steps} more steps of 4 passages of {PASSAGE} characters, with "
        "the loss of the text and the distance to the network they started from, half each. `whole` stores all. `skip` "
        "is the method. `random` tosses a coin for each token, in training too. `latest` is `whole` without further "
        "training, where the latest tokens stay. Intervals are 95 %, over passages, in pairs.",
        "",
        *reading(results),
        "",
        "## Time per token",
        "",
        "| network | whole, ms | skip, ms | times as fast |",
        "|---|---|---|---|",
        *(
            f"| {SHAPES[shape]} | {each['whole']:.3f} | {each['skip']:.3f} | {each['ratio']} |"
            for shape, each in times.items()
        ),
        "",
        f"A run reads one token at a context of {CONTEXT}. {times['network']['where']}, interleaved, 95 % interval. "
        "Weights and caches are read once per token: with c channels a block has 12 c² weights, and an attention that "
        f"stores n tokens reads and writes 4 n c numbers. Where n is small beside 3 c there is little to gain, and in "
        "the smallest networks a call of an operator takes as long as its work.",
    ]
    PAGE.write_text("\n".join(lines) + "\n")


def row(way: str, results: Sequence[dict[str, Any]]) -> str:
    """A row of the table."""
    found = [each for each in results if each["way"] == way]
    if not found:
        return f"| {way} | 0 | not trained yet | | | |"
    perplexity = np.exp(np.mean([each["nats"] for each in found]))
    shares = [told_of(lost(found, results, part)) for part in ("nats", "late")]
    stored = np.mean([each["stored"] for each in found])
    return f"| {way} | {len(found)} | {perplexity:.3f} | {' | '.join(shares)} | {100 * stored:.0f} % |"


def lost(found: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], part: str, beside: str = "whole") -> Array:
    """By how much the nats of each passage are above those of another way, means over seeds."""
    other = [each[part] for each in results if each["way"] == beside]
    return np.mean([each[part] for each in found], 0) - np.mean(other, 0)


def told_of(nats: Array) -> str:
    """How much more perplexity that is, with the interval of the mean over passages."""
    error = 1.96 * nats.std(ddof=1) / len(nats) ** 0.5
    middle, low, high = (100 * np.expm1(nats.mean() + shift) for shift in (0.0, -error, error))
    return f"{middle:+.2f} % [{low:+.2f}, {high:+.2f}]"


def reading(results: Sequence[dict[str, Any]]) -> list[str]:
    """What the method is beside storing at random and beside the latest, in sentences."""
    ways = {each["way"] for each in results}
    found = [each for each in results if each["way"] == "skip"]
    told = {way: told_of(lost(found, results, "nats", way)) for way in ("random", "latest") if found and way in ways}
    lines = [f"`skip` beside `{way}`: perplexity {words}." for way, words in told.items()]
    if "latest" in told and lost(found, results, "nats", "latest").mean() > 0:
        lines.append(
            "Keeping the latest tokens is the better choice for this network, and needs no training: it was trained on "
            "short passages for the most part, and what lies far back does not help it. What skipping is worth where "
            "it does is not shown here."
        )
    return [" ".join(lines)]


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train what is not trained yet")
    training.set_defaults(run=train)
    training.add_argument("--seeds", type=int, default=1)
    training.add_argument("--steps", type=int, default=150)
    training.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    timing = commands.add_parser("time", help="measure what a token takes")
    timing.set_defaults(run=measure_time)
    timing.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "edgewright")
    timing.add_argument("--preset", default="default")
    timing.add_argument("--prepare", action="store_true", help="export alone, as that takes longer than measuring")
    page = commands.add_parser("page", help="write the page of what there is")
    page.set_defaults(run=write_page)
    for command in (training, timing, page):
        command.add_argument("--work", type=Path, required=True)
        command.add_argument("--data", type=Path, help="a text file; by default the standard library's source")
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
