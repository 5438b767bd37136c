"""What sparse attention takes of the time of dense attention, predictors counted: masked in a plain graph, and skipped.

    python benchmarks/sparse_attention.py --work DIR --build
    python benchmarks/sparse_attention.py --work DIR

The first compiles, the second measures and writes docs/results/sparse-attention.md. One thread, batch 1, weights of no
meaning: time does not depend on them. `--cases` names some.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import torch
from kernel_rounds import interval, ratio, sampled
from kernel_runs import Run
from networks import trained
from torch import nn

from edgewright.toolchain.ortheader import headers_place
from edgewright.types import Arrays
from edgewright_exporters.onnx_kernels.choose import first_guess
from edgewright_exporters.onnx_kernels.library import library_of
from edgewright_exporters.onnx_kernels.rewrite import packed, rewrite
from edgewright_exporters.onnx_kernels.running import session
from edgewright_exporters.tir.isa import isas_of
from edgewright_plugins.attending import PARTS, HeadedAttention
from edgewright_plugins.lower.export import lower_module
from edgewright_plugins.sparsifiner import Params
from edgewright_plugins.sparsifiner.attention import SparseAttention
from edgewright_plugins.sparsifiner.cut import cut_for
from edgewright_plugins.sparsifiner.job import planned, sparse
from edgewright_runtime.device import find_device

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "sparse-attention.md"
KEEP = 0.5
ROUNDS, PAIRS = 9, 5
ATTENTIONS = {"64 tokens": (64, 3, 32, 0), "197 tokens": (197, 3, 64, 1), "1025 tokens": (1025, 3, 64, 1)}
"""Tokens, heads, numbers of a head and class tokens: of the ViT of `networks.py`, of DeiT-tiny, and of four times
DeiT-tiny's resolution with one patch more.
"""
NETWORKS = ("ViT, 64 tokens", "DeiT-tiny, 197 tokens")
FORMS = ("dense, plain", "sparse, plain", "dense, kernels", "sparse, kernels")


@dataclass(frozen=True)
class Pair:
    """A module, the same with sparse attention, and what both take."""

    dense: nn.Module
    sparse: nn.Module
    inputs: Arrays


def pair_of(name: str) -> Pair:
    """What a case compares."""
    torch.manual_seed(0)
    if name in ATTENTIONS:
        tokens, heads, size, prefix = ATTENTIONS[name]
        few = SparseAttention(heads, size, cut_for(tokens, prefix, KEEP), size // 2)
        inputs = {part: torch.randn(1, tokens, heads * size).numpy() for part in PARTS}
        return Pair(HeadedAttention(heads).eval(), few.eval(), inputs)
    network, size = (trained("vit"), 32) if name == NETWORKS[0] else (_deit_tiny(), 224)
    image = torch.randn(1, 3, size, size)
    few = copy.deepcopy(network)
    sparse(few, planned(network, (image,), {}, Params(keep=KEEP)), 0)
    return Pair(network.eval(), few.eval(), {"image": image.numpy()})


def _deit_tiny() -> nn.Module:
    sys.path.insert(0, str(ROOT / "examples"))
    from deit_tiny import model

    return model()


def build(name: str, work: Path) -> None:
    """Write the four graphs of a case, and the library that the last two call."""
    pair, isa = pair_of(name), isas_of(find_device())[0]
    np.savez(work / "inputs.npz", **pair.inputs)
    kernels = {}
    for form, module in (("dense", pair.dense), ("sparse", pair.sparse)):
        graph = lower_module(module, pair.inputs, ["y"])
        onnx.save(graph, work / f"{form}, plain.onnx")
        result = rewrite(graph, isa, first_guess)
        kernels |= result.kernels
        (work / f"{form}, kernels.onnx").write_bytes(packed(result))
        print(name, form, dict(result.replaced), flush=True)
    (work / "kernels.so").write_bytes(library_of(kernels, isa, work.parent / "objects", headers=headers_place()))


def runs(work: Path) -> Mapping[str, Run]:
    """Fresh sessions of the four forms, ready to run; all give the same where they are dense or sparse alike."""
    with np.load(work / "inputs.npz") as file:
        inputs = dict(file)
    opened = {form: session(work / f"{form}.onnx", work / "kernels.so") for form in FORMS}
    found = {form: each.run(None, inputs)[0] for form, each in opened.items()}
    for kind in ("dense", "sparse"):
        np.testing.assert_allclose(found[f"{kind}, kernels"], found[f"{kind}, plain"], rtol=1e-3, atol=1e-3)
    return {form: lambda each=each: each.run(None, inputs) for form, each in opened.items()}


def row(name: str, work: Path) -> str:
    """A case as a row of the page: ratios are over the dense network of the same form, and over the best dense one."""
    rounds = [sampled(runs(work), PAIRS) for _ in range(ROUNDS)]
    micros = {form: 1e6 * float(np.median([np.median(each[form]) for each in rounds])) for form in FORMS}
    best = min(FORMS[0], FORMS[2], key=lambda form: micros[form])
    told = [
        interval(ratio([each[one] / each[other] for each in rounds]))
        for one, other in ((FORMS[1], FORMS[0]), (FORMS[3], FORMS[2]), (FORMS[3], best))
    ]
    line = f"| {name} | {' | '.join(f'{micros[form]:.0f}' for form in FORMS)} | {' | '.join(told)} |"
    print(line, flush=True)
    return line


def page(rows: Sequence[str]) -> str:
    """The page of results."""
    device = find_device()
    return "\n".join([
        "# Sparse attention, in time",
        "",
        f"Written by `benchmarks/sparse_attention.py` on {date.today().isoformat()}; {device.cpu}, kernels for "
        f"{isas_of(device)[0].name}, onnxruntime {version('onnxruntime')}, TVM {version('apache-tvm')}, one thread, "
        "float32, batch 1. At most half of all pairs of tokens are computed, by tiles of 16 queries and blocks of 8 "
        "keys; predictors are counted. `plain` is a graph of standard operators, where sparse attention is a mask; "
        "`kernels` calls ours, `attention` where it is dense and `blockattention` where it is sparse, each with the "
        "tile that is guessed best.",
        "",
        "Microseconds are medians; ratios are of times, below 1 where sparse is faster: "
        f"{ROUNDS} rounds of fresh sessions, in each {PAIRS} interleaved samples; the trimmed mean over rounds with "
        "its 95 % interval.",
        "",
        f"| case | {' | '.join(f'{form}, us' for form in FORMS)} | sparse over dense, plain | sparse over dense, "
        "kernels | sparse with kernels over the best dense form |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "A row of so many tokens alone is one attention, from queries, keys and values on; a row with a name is a "
        "whole network.",
    ]) + "\n"  # fmt: skip


def main() -> None:
    """Compile, or measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--build", action="store_true")
    every = (*ATTENTIONS, *NETWORKS)
    parser.add_argument("--cases", nargs="+", choices=every, default=list(every))
    options = parser.parse_args()
    folders = {name: options.work / name for name in options.cases}
    if options.build:
        for name, folder in folders.items():
            folder.mkdir(parents=True, exist_ok=True)
            build(name, folder)
        return
    PAGE.write_text(page([row(name, folder) for name, folder in folders.items()]), encoding="utf-8")


if __name__ == "__main__":
    main()
