"""How long our kernels take of what ONNX Runtime's own take, one operator at a time, one thread.

    python benchmarks/kernels.py [--only "int8, M=1" ...] [--work FILE]

Each group of comparisons is kept in FILE as it is done; a page is written of all that FILE holds for this machine and
these versions, docs/results/kernels.md. The bar: products of float32 and int8 take at most 1.0 times as long.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from kernel_cases import COLD, Comparison, groups
from kernel_rounds import SAMPLE, Ratio, fastest, interval, ratio, sampled
from kernel_runs import PEAKS, Library, empty, library, ours, peak, theirs

from edgewright.cli.console import open_store
from edgewright_exporters.tir.isa import Isa, isas_of
from edgewright_runtime.device import find_device

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "kernels.md"
ROUNDS, PAIRS = 8, 15
ORT, FIRST, BEST, PEAK = "ort", "first", "best", "peak"


@dataclass(frozen=True)
class Row:
    """What was found of one comparison: times in microseconds per node, ratios to ONNX Runtime with their intervals.

    `shares` are of the speed of the peak's loop in the same samples, or nothing.
    """

    name: str
    barred: bool
    tiles: Mapping[str, str]
    micros: Mapping[str, float]
    ratios: Mapping[str, Ratio]
    shares: Mapping[str, float]


# ------------------------------------------------------------------ measuring


def measured(comparison: Comparison, number: int, built: Library) -> Row:
    """Rounds of fresh sessions, so that memory lies elsewhere; in each, pairs of samples."""
    best = fastest(comparison, number, built, PAIRS)
    loop, operations = peak(comparison.kind, built)
    rounds = []
    for _ in range(ROUNDS):
        runs = {ORT: theirs(comparison), FIRST: ours(comparison, number, 0, built), PEAK: loop}
        if best:
            runs[BEST] = ours(comparison, number, best, built)
        found = sampled(runs, PAIRS)
        rounds.append({BEST: found[FIRST], **found})
    tiles = comparison.template.tiles(comparison.case, built.isa)
    work = comparison.operations * comparison.copies / operations
    return Row(
        comparison.name,
        comparison.barred,
        {FIRST: _tile(tiles[0]), BEST: _tile(tiles[best])},
        {name: 1e6 * _middle(rounds, name) / comparison.copies for name in (ORT, FIRST, BEST)},
        {name: ratio([each[name] / each[ORT] for each in rounds]) for name in (FIRST, BEST)},
        {name: work * _middle(rounds, PEAK) / _middle(rounds, name) for name in (ORT, BEST)} if work else {},
    )


def _middle(rounds: Sequence[Mapping[str, np.ndarray]], name: str) -> float:
    return float(np.median([np.median(each[name]) for each in rounds]))


def _tile(tile: Any) -> str:
    return " x ".join(str(size) for size in asdict(tile).values())


# ------------------------------------------------------------------ the page


def conditions(isa: Isa) -> Mapping[str, Any]:
    """What the figures hold for: results of other conditions are not mixed with them."""
    packages = ("onnxruntime", "apache-tvm", "numpy")
    return {"cpu": find_device().cpu, "isa": isa.name, **{name: version(name) for name in packages}}


def page(kept: Mapping[str, Any]) -> str:
    """The page of results."""
    rows = {name: [Row(**each) for each in group] for name, group in kept["groups"].items()}
    lines = (
        "# Our kernels beside ONNX Runtime's, operator by operator",
        *_how(kept["conditions"], kept["empty"]),
        f"The peak, by loops that touch registers only: {kept['peaks']['float32']:.0f} GFLOP/s of float32, "
        f"{kept['peaks']['int8']:.0f} GOP/s of int8. Shares of it are `ours (theirs)`, the loop being timed with them; "
        "products over the padding of an image count, done or not.",
        _verdict([row for group in rows.values() for row in group if row.barred]),
        *("\n".join(_table(name, group)) for name, group in rows.items()),
    )
    return "\n\n".join(lines) + "\n"


def _how(about: Mapping[str, Any], empty_run: float) -> Iterator[str]:
    """On what it was measured, what was run, and what a ratio is."""
    yield (
        f"Written by `benchmarks/kernels.py` on {date.today().isoformat()}; {about['cpu']}, kernels for "
        f"{about['isa']}, onnxruntime {about['onnxruntime']}, TVM {about['apache-tvm']}, one thread. Both sides are "
        "graphs of one operator that ONNX Runtime runs with bound inputs and outputs; ours calls a kernel through the "
        f"loader, as it is shipped. Both include the {empty_run:.1f} us that a run takes whose node is the ReLU of one "
        "number. Every result was checked against NumPy first: bytes exactly, floats to 1e-5 of the largest."
    )
    yield (
        f"Ratios are of times, ours over theirs: {ROUNDS} rounds of fresh sessions, in each {PAIRS} interleaved pairs "
        f"of samples of {1e3 * SAMPLE:.0f} ms or one run, after a run that is not timed; of a round the median of "
        "paired ratios, over rounds the trimmed mean with its 95 % interval. `first` is the template's first guess of "
        "a tile, `best` the one that a separate pass found fastest."
    )
    yield (
        "Hot is one node, run again and again, so that weights below a megabyte stay in the second cache. Cold is a "
        f"graph of so many nodes, each with weights of its own, that a run goes through {COLD >> 20} MB of weights at "
        "least (4-bit codes: half of that); times are per node. The weights of the nodes differ, because ONNX Runtime "
        "packs equal ones once."
    )
    yield (
        "What it has for each: Gemm or MatMul, then Gelu; QLinearMatMul, also beside 4-bit codes, with the same "
        "weights in bytes; MultiHeadAttention; convolutions of images in blocks of channels with their activation, "
        "without the conversions that it puts around them."
    )


def _verdict(rows: Sequence[Row]) -> str:
    """How many of the products that have a bar hold it."""
    found = [_holds(row) for row in rows]
    return (
        f"**Of {len(rows)} products of float32 and int8, {found.count('held')} hold the bar (best tile, the whole "
        f"interval at most 1.0), {found.count('not held')} do not (the whole interval above 1.0), "
        f"{found.count('undecided')} are undecided.**"
    )


def _holds(row: Row) -> str:
    _, low, high = row.ratios[BEST]
    if not row.barred:
        return ""
    return "held" if high <= 1.0 else "not held" if low > 1.0 else "undecided"


def _table(name: str, rows: Sequence[Row]) -> Iterator[str]:
    yield from (f"## {name}", "", "| case | theirs us | first | best | tile | share of peak | <= 1.0 |")
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        ratios = {tile: interval(found) for tile, found in row.ratios.items()}
        tile = row.tiles[FIRST] if row.tiles[BEST] == row.tiles[FIRST] else f"{row.tiles[FIRST]}; {row.tiles[BEST]}"
        share = f"{row.shares[BEST]:.0%} ({row.shares[ORT]:.0%})" if row.shares else ""
        cells = (row.name, f"{row.micros[ORT]:.1f}", ratios[FIRST], ratios[BEST], tile, share, _holds(row))
        yield f"| {' | '.join(cells)} |"
    value = math.exp(np.mean([math.log(row.ratios[BEST][0]) for row in rows]))
    yield from ("", f"Geometric mean of the best: {value:.2f}.")


# ------------------------------------------------------------------ main


def main() -> None:
    """Measure what was asked for, keep it, and write the page of all that is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="groups to measure; nothing after it writes the page alone")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edgewright-kernels.json")
    options = parser.parse_args()
    isa = isas_of(find_device())[0]
    found = groups(isa.lanes)
    wanted = list(found) if options.only is None else options.only
    if unknown := set(wanted) - set(found):
        sys.exit(f"no group is called {', '.join(sorted(unknown))}; there are {'; '.join(found)}")
    for name in wanted:
        with tempfile.TemporaryDirectory() as folder:
            measure_group(found[name](), isa, Path(folder) / "kernels.so", options.work, name)
    kept = json.loads(options.work.read_text(encoding="utf-8"))
    kept["groups"] = {name: kept["groups"][name] for name in found if name in kept["groups"]}
    text = page(kept)
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


def measure_group(comparisons: Sequence[Comparison], isa: Isa, place: Path, work: Path, name: str) -> None:
    """Adds the rows of one group to the file, which starts anew under new conditions."""
    built = library(comparisons, isa, place, open_store(None).folder("loader"))
    rows = [asdict(measured(each, number, built)) for number, each in enumerate(comparisons)]
    now = conditions(isa)
    before = json.loads(work.read_text(encoding="utf-8")) if work.is_file() else {}
    groups_before = before["groups"] if before.get("conditions") == now else {}
    kept = {
        "conditions": now,
        "empty": 1e6 * float(np.median(sampled({"empty": empty()}, PAIRS)["empty"])),
        "peaks": {kind: speed(kind, built) for kind in PEAKS},
        "groups": {**groups_before, name: rows},
    }
    work.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def speed(kind: str, built: Library) -> float:
    """Operations per nanosecond of the peak's loop."""
    loop, operations = peak(kind, built)
    return 1e-9 * operations / float(np.median(sampled({PEAK: loop}, PAIRS)[PEAK]))


if __name__ == "__main__":
    main()
