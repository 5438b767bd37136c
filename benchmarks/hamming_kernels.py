"""How long products of signs take of what ONNX Runtime's float32 product of the same shape takes.

    python benchmarks/hamming_kernels.py --library FILE.so --build
    python benchmarks/hamming_kernels.py --library FILE.so

The first compiles, the second measures and writes docs/results/hamming-kernels.md. One thread. The bar: a fifth.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from kernel_cases import Comparison
from kernel_rounds import Ratio, built_or_measured, fastest, interval, ratio, sampled
from kernel_runs import Library, empty, moving, ours, theirs
from onnx import helper

from edgewright_exporters.kernels import hamming
from edgewright_exporters.kernels.hamming_cut import HammingCase
from edgewright_runtime.device import find_device

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "hamming-kernels.md"
SHAPES = {
    "DeiT-tiny": ((3, 197, 197, 64),),
    "DeiT-small": ((6, 197, 197, 64),),
    "PVT, as the paper has it": ((1, 3136, 49, 64), (2, 784, 49, 64), (5, 196, 49, 64), (8, 49, 49, 64)),
    "PVT without spatial reduction": ((2, 784, 784, 64), (5, 196, 196, 64)),
}
"""Heads, queries, keys and size of a head (Touvron et al., arXiv:2012.12877; Wang et al., arXiv:2102.12122)."""
ROUNDS, PAIRS = 15, 15
ORT, OURS, EMPTY, MOVED, CALLED = "ort", "ours", "empty", "moved", "called"
BAR = 0.2


def comparison(heads: int, queries: int, keys: int, size: int) -> Comparison:
    """Q [tokens, heads, size] and K alike, float32: theirs is the product alone, with K transposed before."""
    rng = np.random.default_rng((heads, queries, keys))
    q, k = (rng.standard_normal((tokens, heads, size)).astype(np.float32) for tokens in (queries, keys))
    bounds = (0.1 * rng.standard_normal((2, heads, size))).astype(np.float32)
    weights = {"q_bounds": bounds[0], "k_bounds": bounds[1]}
    width = heads * size
    laid = [(tokens * width, 0, tokens * width, size, width) for tokens in (queries, keys)]
    case = HammingCase(1, heads, queries, keys, size, laid[0], laid[1])
    a, b = np.ascontiguousarray(q.transpose(1, 0, 2)), np.ascontiguousarray(k.transpose(1, 2, 0))
    return Comparison(
        f"{heads} x {queries} x {keys} x {size}",
        hamming,
        case,
        [helper.make_node("MatMul", ["q", "k"], ["y"])],
        {"q": q, "k": k},
        {"y": hamming.reference(case, q=q, k=k, **weights)[0]},
        weights=weights,
        theirs=({"q": a, "k": b}, {"y": a @ b}),
    )


@dataclass(frozen=True)
class Row:
    """Microseconds of one product with ONNX Runtime and of an empty run, and our ratios with their 95 % intervals.

    `net` is the ratio when what an empty run takes is taken from both sides; `floor` is that of an empty run and of the
    numbers read, and then written, by loops that compute nothing.
    """

    name: str
    micros: float
    empty: float
    whole: Ratio
    net: Ratio
    floor: Ratio


def measured(each: Comparison, number: int, built: Library) -> Row:
    """Rounds of fresh sessions, in each samples by turns; our tile is the one that a first pass finds fastest."""
    best, rounds = fastest(each, number, built, PAIRS), []
    moves = {
        MOVED: moving(each.case.q[0] + each.case.k[0], each.expected["y"].size, built),
        CALLED: moving(0, 0, built),
    }
    for _ in range(ROUNDS):
        runs = {ORT: theirs(each), OURS: ours(each, number, best, built), EMPTY: empty(), **moves}
        rounds.append(sampled(runs, PAIRS))
    middle = {name: 1e6 * float(np.median([np.median(found[name]) for found in rounds])) for name in (ORT, EMPTY)}
    whole = ratio([found[OURS] / found[ORT] for found in rounds])
    net = ratio([(found[OURS] - found[EMPTY]) / (found[ORT] - found[EMPTY]) for found in rounds])
    floor = ratio([(found[MOVED] - found[CALLED] + found[EMPTY]) / found[ORT] for found in rounds])
    return Row(each.name, middle[ORT], middle[EMPTY], whole, net, floor)


def page(groups: dict[str, list[Row]], isa: str) -> str:
    """The page of results."""
    rows = [row for group in groups.values() for row in group]
    table = [
        f"| {name} | {row.name} | {row.micros:.1f} | {row.empty:.1f} | "
        f"{interval(row.whole, 3)} | {interval(row.net, 3)} | {interval(row.floor, 3)} |"
        for name, group in groups.items()
        for row in group
    ]
    held, above = (sum(test(row.whole) for row in rows) for test in (lambda w: w[2] <= BAR, lambda w: w[1] > BAR))
    net = sum(row.net[2] <= BAR for row in rows)
    lines = (
        "# Products of signs (Hamming attention)",
        f"Written by `benchmarks/hamming_kernels.py` on {date.today().isoformat()}; {find_device().cpu}, kernels for "
        f"{isa}, onnxruntime {version('onnxruntime')}, TVM {version('apache-tvm')}, one thread. Heads x queries x keys "
        "x size. Ours takes float32 Q and K as projections leave them, compares every number with its bound, packs the "
        "bits, multiplies, and writes float32; theirs is `MatMul` of float32 alone, K transposed beforehand.",
        f"Ratios are of times, ours over ONNX Runtime's: {ROUNDS} rounds of fresh sessions, in each {PAIRS} "
        "interleaved samples of 1 ms; of a round the median of paired ratios, over rounds the trimmed mean with its "
        "95 % interval. `net` takes from both sides what a run takes whose node is the ReLU of one number. `floor` is "
        "such a run, and the numbers read and written by loops that compute nothing, one after the other: all that a "
        "kernel that leaves float32 can gain, but for reading while it writes. Ours are exact, number by number, "
        "against NumPy.",
        "\n".join(
            ("| network | case | ORT float32 us | empty run us | ratio | net | floor |", "|---" * 7 + "|", *table)
        ),
        f"At most {BAR}, the whole interval: **{held} of {len(rows)}**; {above} are above it, "
        f"{len(rows) - held - above} undecided. Net: **{net} of {len(rows)}**.",
    )
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Compile, or measure and write the page."""
    groups = {name: [comparison(*shape) for shape in each] for name, each in SHAPES.items()}
    every = [each for group in groups.values() for each in group]

    def measure(built: Library) -> None:
        found = {each.name: measured(each, number, built) for number, each in enumerate(every)}
        table = {name: [found[each.name] for each in group] for name, group in groups.items()}
        PAGE.write_text(page(table, built.isa.name), encoding="utf-8")

    built_or_measured(__doc__ or "", every, measure)


if __name__ == "__main__":
    main()
