"""How long a convolution that computes some channels takes of what ONNX Runtime's takes for all of them.

    python benchmarks/gated_kernels.py --library FILE.so --build
    python benchmarks/gated_kernels.py --library FILE.so

The first compiles, the second measures and writes docs/results/gated-kernels.md. One thread. The bars: 1.2 with
everything kept, 0.65 with half of the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
from kernel_cases import Comparison, convolution, in_blocks
from kernel_rounds import Ratio, built_or_measured, fastest, interval, ratio, sampled
from kernel_runs import Library, ours, theirs

from edgewright_exporters.kernels import conv, gatedconv
from edgewright_exporters.kernels.gatedconv import GatedConvCase
from edgewright_exporters.tir.isa import isas_of
from edgewright_runtime.device import find_device

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "gated-kernels.md"
SHAPES = (
    *((64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8), (256, 256, 8), (512, 512, 4)),
    *((64, 128, 8), (128, 128, 8), (256, 256, 4), (256, 256, 2)),
)
"""Inputs, outputs and size of an image: VGG-11 on CIFAR-10's images, whole and of half the width; 3 x 3 all."""
LANES = isas_of(find_device())[0].lanes
BLOCK = max(8, LANES)
"""What `ftwt` leaves out together."""


@dataclass(frozen=True)
class Kept:
    """What of the outputs is wanted and what of the inputs holds something, and the most that it may take."""

    outputs: float
    inputs: float
    bar: float | None = None

    def __str__(self) -> str:
        return f"{self.outputs:.0%} of outputs, {self.inputs:.0%} of inputs"


ALL, HALF = Kept(1.0, 1.0, 1.2), Kept(0.5, 1.0, 0.65)
KEPT = (ALL, HALF, Kept(0.5, 0.5), Kept(0.25, 1.0))
ROUNDS, PAIRS = 9, 11
ORT, OURS = "ort", "ours"


def comparison(channels: int, filters: int, size: int, kept: Kept) -> Comparison:
    """Blocks of channels drawn at random; theirs is the dense convolution of the same image, in blocks as ours."""
    rng = np.random.default_rng((channels, filters, size))
    dense = convolution(channels, filters, size, 1, lanes=LANES, kernel=3)
    x = np.abs(rng.standard_normal((1, channels, size, size))).astype(np.float32)
    x *= np.repeat(_drawn(rng, channels, kept.inputs), BLOCK)[:, None, None]
    logits = 2 * _drawn(rng, filters, kept.outputs)[None] - 1
    case = GatedConvCase(channels, filters, dense.case.window, BLOCK, True, "relu")
    given = {"x": x, "logits": logits, "means": x.mean((2, 3))}
    gated = gatedconv.reference(case, **given, **dense.weights)
    whole = conv.reference(dense.case, x=x, **dense.weights)
    image = in_blocks(x, LANES)
    return replace(
        dense,
        template=gatedconv,
        case=case,
        inputs={**given, "x": image},
        expected={"y": in_blocks(gated, LANES)},
        theirs=({"x": image}, {"y": in_blocks(whole, LANES)}),
    )


def _drawn(rng: np.random.Generator, channels: int, share: float) -> np.ndarray:
    """1 for a share of the blocks, 0 for the others."""
    blocks = channels // BLOCK
    return (rng.permutation(blocks) < round(share * blocks)).astype(np.float32)


def measured(each: Comparison, number: int, tile: int, built: Library) -> tuple[float, Ratio]:
    """Microseconds of ONNX Runtime, and our ratio: rounds of fresh sessions, in each samples by turns."""
    rounds = [sampled({ORT: theirs(each), OURS: ours(each, number, tile, built)}, PAIRS) for _ in range(ROUNDS)]
    micros = 1e6 * float(np.median([np.median(found[ORT]) for found in rounds]))
    return micros, ratio([found[OURS] / found[ORT] for found in rounds])


def page(rows: Mapping[str, list[tuple[float, Ratio]]], isa: str) -> str:
    """The page of results."""
    table = [
        f"| {name} | {found[0][0]:.1f} | {' | '.join(interval(each) for _, each in found)} |"
        for name, found in rows.items()
    ]
    lines = (
        "# Convolutions that compute some channels",
        f"Written by `benchmarks/gated_kernels.py` on {date.today().isoformat()}; {find_device().cpu}, kernels for "
        f"{isa}, onnxruntime {version('onnxruntime')}, TVM {version('apache-tvm')}, one thread, float32, 3 x 3. Ours "
        f"reads logits of blocks of {BLOCK} channels and the means of its inputs, lists what is wanted, and "
        "computes that; theirs is the dense convolution. Both take and give images in blocks of channels, and end "
        "with a ReLU.",
        f"Ratios are of times, ours over ONNX Runtime's: {ROUNDS} rounds of fresh sessions, in each {PAIRS} "
        "interleaved samples of 1 ms; of a round the median of paired ratios, over rounds the trimmed mean with its "
        "95 % interval. The tile is the one that a first pass finds fastest with everything kept.",
        "\n".join((f"| case | ORT us | {' | '.join(map(str, KEPT))} |", "|---" * (2 + len(KEPT)) + "|", *table)),
        *(_verdict(kept, [found[at][1] for found in rows.values()]) for at, kept in enumerate(KEPT) if kept.bar),
    )
    return "\n\n".join(lines) + "\n"


def _verdict(kept: Kept, found: list[Ratio]) -> str:
    assert kept.bar
    held, above = sum(high <= kept.bar for _, _, high in found), sum(low > kept.bar for _, low, _ in found)
    return (
        f"{kept}: at most {kept.bar}, the whole interval: **{held} of {len(found)}**; {above} are above it, "
        f"{len(found) - held - above} undecided."
    )


def main() -> None:
    """Compile, or measure and write the page."""
    every = {shape: [comparison(*shape, kept) for kept in KEPT] for shape in SHAPES}

    def measure(built: Library) -> None:
        rows: dict[str, list[tuple[float, Ratio]]] = {}
        for number, cases in enumerate(every.values()):
            tile = fastest(cases[0], number, built, PAIRS)
            rows[cases[0].name] = [measured(each, number, tile, built) for each in cases]
        PAGE.write_text(page(rows, built.isa.name), encoding="utf-8")

    built_or_measured(__doc__ or "", [cases[0] for cases in every.values()], measure)


if __name__ == "__main__":
    main()
