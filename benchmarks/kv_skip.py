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
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from charlm import CONTEXT, CharLm, Passages, Text, read_text, told, trained
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.fit import fit
from edgewright.types import Array
from edgewright_plugins.kv_skip import Params
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


@dataclass(frozen=True)
class Case:
    """One training: which tokens are stored, with which seed."""

    way: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.way}-{self.seed}"


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


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """What the command line says; `run` is the function that does it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train what is not trained yet")
    training.set_defaults(run=train)
    training.add_argument("--seeds", type=int, default=1)
    training.add_argument("--steps", type=int, default=150)
    training.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    for command in (training,):
        command.add_argument("--work", type=Path, required=True)
        command.add_argument("--data", type=Path, help="a text file; by default the standard library's source")
    return parser.parse_args(given)


if __name__ == "__main__":
    chosen = arguments(sys.argv[1:])
    chosen.run(chosen)
