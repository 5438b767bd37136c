"""How long products with shift weights take of what ONNX Runtime's int8 takes, and a literal shift-and-add loop beside.

    python benchmarks/shift_kernels.py --library FILE.so --build
    python benchmarks/shift_kernels.py --library FILE.so

The first compiles, the second measures and writes docs/results/shift-kernels.md. One thread. The bars: at most 1.0
times as long on every shape, and half as long at one row.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import shift_loop
from kernel_cases import COLD, Comparison
from kernel_runs import Library, empty, library, ours, theirs
from onnx import helper

from edgewright.grids import SHIFTS
from edgewright.ortheader import headers_place
from edgewright.stats import ratio_over_rounds
from edgewright_exporters.kernels import qgemm
from edgewright_exporters.tir.isa import isas_of
from edgewright_runtime.device import find_device
from kernels import sampled

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "shift-kernels.md"
PAPER = ((3136, 64, 512), (3136, 512, 64), (784, 128, 1024), (784, 1024, 128))
"""Rows, depth and columns of ShiftAddViT's own measurements (arXiv:2306.06446)."""
DEIT = ((192, 768), (768, 192), (192, 576), (192, 192))
"""Depth and columns of DeiT-tiny's layers."""
ROWS = (1, 16, 196)
ROUNDS, PAIRS = 5, 7
CODED, EIGHT, LOOP, ORT, EMPTY = "ours, 4 bits", "ours, the same in int8", "shift and add", "ort", "empty"


def comparison(rows: int, depth: int, columns: int, *, copies: int = 1) -> Comparison:
    """Bytes to bytes with weights of shifts; ONNX Runtime has them in a byte each, as a shift is decoded at load."""
    rng = np.random.default_rng((rows, depth, columns))
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    weight = rng.choice(SHIFTS, (depth, columns)).astype(np.int8)
    steps = (2.0 ** rng.integers(-9, -6, columns)).astype(np.float32)
    x_scale, y_scale = np.float32(0.02), np.float32(0.02 * depth**0.5 / 4)
    constants = {
        "x_scale": x_scale,
        "x_zero": np.uint8(117),
        "weight": weight,
        "scales": steps,
        "zeros": np.zeros(columns, np.int8),
        "y_scale": y_scale,
        "y_zero": np.uint8(128),
    }
    zeros = {name: np.asarray(constants[name]) for name in ("x_zero", "y_zero")}
    weights = {"weight": weight, "scale": (x_scale * steps / y_scale).astype(np.float32), **zeros}
    case = qgemm.QGemmCase(rows, depth, columns, codes=SHIFTS, gentle=True)
    return Comparison(
        f"{rows} x {depth} x {columns}{', cold' if copies > 1 else ''}",
        qgemm,
        case,
        [helper.make_node("QLinearMatMul", ["x", *constants], ["y"])],
        {"x": x},
        {"y": qgemm.reference(case, x=x, **weights)},
        constants={name: np.asarray(value) for name, value in constants.items()},
        weights=weights,
        copies=copies,
        kind="int8",
    )


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

    `net` is that of four bits when what an empty run takes is taken from both sides.
    """

    name: str
    micros: float
    ratios: dict[str, tuple[float, float, float]]
    net: tuple[float, float, float]


def measured(each: Comparison, first: int, built: Library) -> Row:
    """Rounds of fresh sessions, in each samples by turns; our tiles are those that a first pass finds fastest."""
    listed = list(ways(each).items())
    best = {name: fastest(way, first + number, built) for number, (name, way) in enumerate(listed)}
    rounds = []
    for _ in range(ROUNDS):
        runs = {name: ours(way, first + number, best[name], built) for number, (name, way) in enumerate(listed)}
        rounds.append(sampled({ORT: theirs(each), EMPTY: empty(), **runs}, PAIRS))
    ratios = {name: ratio([found[name] / found[ORT] for found in rounds]) for name in best}
    net = ratio([(found[CODED] - found[EMPTY]) / (found[ORT] - found[EMPTY]) for found in rounds])
    micros = 1e6 * float(np.median([np.median(found[ORT]) for found in rounds])) / each.copies
    return Row(each.name, micros, ratios, net)


def ratio(rounds: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The trimmed mean over rounds of the median of paired ratios, with its interval."""
    value, ends = ratio_over_rounds([math.log(np.median(each)) for each in rounds])
    return (value, *(ends or (value, value)))


def fastest(each: Comparison, number: int, built: Library) -> int:
    """The tile of the least median."""
    count = len(each.template.tiles(each.case, built.isa))
    runs = {str(tile): ours(each, number, tile, built) for tile in range(count)}
    found = sampled(runs, 3) if count > 1 else {"0": np.zeros(1)}
    return int(min(found, key=lambda tile: float(np.median(found[tile]))))


def page(rows: Sequence[Row], isa: str) -> str:
    """The page of results."""
    names = (CODED, EIGHT, LOOP)
    table = [
        f"| {row.name} | {row.micros:.1f} | "
        + " | ".join(
            "{:.2f} [{:.2f}, {:.2f}]".format(*each) for each in (*(row.ratios[name] for name in names), row.net)
        )
        + " |"
        for row in rows
    ]
    held = sum(row.ratios[CODED][2] <= 1 for row in rows)
    above = sum(row.ratios[CODED][1] > 1 for row in rows)
    single = [row for row in rows if row.name.startswith("1 x")]
    half, net = (sum(row[2] <= 0.5 for row in each) for each in zip(*((r.ratios[CODED], r.net) for r in single)))
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
        "\n".join((f"| case | ORT int8 us | {' | '.join(names)} | 4 bits, net |", "|---" * 6 + "|", *table)),
        f"Geometric mean of four bits: {middle:.2f}. At most 1.0, the whole interval: **{held} of {len(rows)}**; "
        f"{above} are above it, {len(rows) - held - above} undecided. Half the time at one row, the whole interval: "
        f"**{half} of {len(single)}**; net **{net} of {len(single)}**.",
    )
    return "\n\n".join(lines) + "\n"


def main() -> None:
    """Compile, or measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--build", action="store_true")
    options = parser.parse_args()
    isa, listed = isas_of(find_device())[0], comparisons()
    every = [way for each in listed for way in ways(each).values()]
    if options.build:
        library(every, isa, options.library, headers_place())
        return
    built, rows = Library(options.library, isa), []
    for number, each in enumerate(listed):
        rows.append(measured(each, 3 * number, built))
        print(rows[-1], flush=True)
    PAGE.write_text(page(rows, isa.name), encoding="utf-8")


if __name__ == "__main__":
    main()
