"""How long products with shift weights take of what ONNX Runtime's int8 takes, and a literal shift-and-add loop beside.

    python benchmarks/shift_kernels.py --library FILE.so --build
    python benchmarks/shift_kernels.py --library FILE.so

The first compiles, the second measures and writes docs/results/shift-kernels.md. One thread. The bars: at most 1.0
times as long on every shape, and half as long at one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import shift_loop
from kernel_cases import COLD, Comparison, quantised_product
from kernel_rounds import Ratio, built_or_measured, fastest, interval, ratio, sampled
from kernel_runs import Library, empty, ours, theirs

from edgewright.grids import SHIFTS
from edgewright_exporters.kernels import qgemm
from edgewright_runtime.device import find_device

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "shift-kernels.md"
PAPER = ((3136, 64, 512), (3136, 512, 64), (784, 128, 1024), (784, 1024, 128))
"""Rows, depth and columns of ShiftAddViT's own measurements (arXiv:2306.06446)."""
DEIT = ((192, 768), (768, 192), (192, 576), (192, 192))
"""Depth and columns of DeiT-tiny's layers."""
ROWS = (1, 16, 196)
ROUNDS, PAIRS = 12, 7
NAMES = CODED, EIGHT, LOOP = "ours, 4 bits", "ours, the same in int8", "shift and add"
ORT, EMPTY = "ort", "empty"


def comparison(rows: int, depth: int, columns: int, *, copies: int = 1) -> Comparison:
    """Bytes to bytes with weights of shifts; ONNX Runtime has them in a byte each, as a shift is decoded at load."""
    rng = np.random.default_rng((rows, depth, columns))
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    weight = rng.choice(SHIFTS, (depth, columns)).astype(np.int8)
    steps = (2.0 ** rng.integers(-9, -6, columns)).astype(np.float32)
    case = qgemm.QGemmCase(rows, depth, columns, codes=SHIFTS, gentle=True)
    found = quantised_product(case, x, weight, steps, spread=1 / 4)
    return replace(found, name=f"{found.name}{', cold' if copies > 1 else ''}", copies=copies)


def comparisons() -> list[Comparison]:
    """Every shape; one row also with weights from beyond the second cache."""
    shapes = [(rows, *shape) for rows in ROWS for shape in DEIT] + list(PAPER)
    cold = [comparison(1, *shape, copies=math.ceil(COLD / math.prod(shape))) for shape in DEIT]
    return [*cold, *(comparison(*shape) for shape in shapes)]


def ways(each: Comparison) -> dict[str, Comparison]:
    """The same product in our three ways."""
    plain = replace(each, case=replace(each.case, codes=()))
    return {CODED: each, EIGHT: plain, LOOP: replace(each, template=shift_loop)}


@dataclass(frozen=True)
class Row:
    """Microseconds of one product with ONNX Runtime, and each way's ratio to it with its 95 % interval.

    `empty` are those of an empty run, shared by the products of a run; `net` is the ratio of four bits when they are
    taken from both sides.
    """

    name: str
    micros: float
    empty: float
    ratios: dict[str, Ratio]
    net: Ratio


def measured(each: Comparison, first: int, built: Library) -> Row:
    """Rounds of fresh sessions, in each samples by turns; our tiles are those that a first pass finds fastest."""
    listed = list(ways(each).items())
    best = {name: fastest(way, first + number, built, PAIRS) for number, (name, way) in enumerate(listed)}
    rounds = []
    for _ in range(ROUNDS):
        runs = {name: ours(way, first + number, best[name], built) for number, (name, way) in enumerate(listed)}
        rounds.append(sampled({ORT: theirs(each), EMPTY: empty(), **runs}, PAIRS))
    ratios = {name: ratio([found[name] / found[ORT] for found in rounds]) for name in best}
    net = ratio([(found[CODED] - found[EMPTY]) / (found[ORT] - found[EMPTY]) for found in rounds])
    middle = {name: 1e6 * float(np.median([np.median(found[name]) for found in rounds])) for name in (ORT, EMPTY)}
    return Row(each.name, middle[ORT] / each.copies, middle[EMPTY] / each.copies, ratios, net)


def page(rows: Sequence[Row], isa: str) -> str:
    """The page of results."""
    table = [
        f"| {row.name} | {row.micros:.1f} | {row.empty:.1f} | "
        + " | ".join(interval(each) for each in (*(row.ratios[name] for name in NAMES), row.net))
        + " |"
        for row in rows
    ]
    held = sum(row.ratios[CODED][2] <= 1 for row in rows)
    above = sum(row.ratios[CODED][1] > 1 for row in rows)
    single = [row for row in rows if row.name.startswith("1 x")]
    half, net = (sum(row[2] <= 0.5 for row in each) for each in zip(*((r.ratios[CODED], r.net) for r in single)))
    beyond = sum(row.empty > row.micros / 2 for row in single)
    middle = math.exp(np.mean([math.log(row.ratios[CODED][0]) for row in rows]))
    lines = (
        "# Products with shift weights",
        f"Written by `benchmarks/shift_kernels.py` on {date.today().isoformat()}; {find_device().cpu}, kernels for "
        f"{isa}, onnxruntime {version('onnxruntime')}, TVM {version('apache-tvm')}, one thread. Rows x depth x "
        "columns, bytes to bytes, weights of 0 or a sign and a power of two from 1 to 64. ONNX Runtime's QLinearMatMul "
        "has them in a byte each, which is what it makes of the four bits when it loads a file.",
        f"Ratios are of times, ours over ONNX Runtime's: {ROUNDS} rounds of fresh sessions, in each {PAIRS} "
        "interleaved samples of 1 ms or one run; of a round the median of paired ratios, over rounds the trimmed mean "
        "with its 95 % interval. Ours are exact, byte by byte against NumPy. Cold goes through 8 MB of int8 weights. "
        "`net` takes from both sides what a run takes whose node is the ReLU of one number: the run of a session, "
        "and not the product, is most of a single row.",
        "\n".join(
            (f"| case | ORT int8 us | empty run us | {' | '.join(NAMES)} | 4 bits, net |", "|---" * 7 + "|", *table)
        ),
        f"Geometric mean of four bits: {middle:.2f}. At most 1.0, the whole interval: **{held} of {len(rows)}**; "
        f"{above} are above it, {len(rows) - held - above} undecided. Half the time at one row, the whole interval: "
        f"**{half} of {len(single)}**; net **{net} of {len(single)}**. In {beyond} of these cases an empty run alone "
        "takes more than half of ONNX Runtime's time: no kernel could hold them in a graph of one node.",
    )
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Compile, or measure and write the page."""
    listed = comparisons()

    def measure(built: Library) -> None:
        rows = [measured(each, len(NAMES) * number, built) for number, each in enumerate(listed)]
        PAGE.write_text(page(rows, built.isa.name), encoding="utf-8")

    built_or_measured(__doc__ or "", [way for each in listed for way in ways(each).values()], measure)


if __name__ == "__main__":
    main()
