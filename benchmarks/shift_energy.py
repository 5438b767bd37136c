"""Modelled energy of the ViT of `networks.py` with shifts and signs, against float32 and against int8.

    python benchmarks/shift_energy.py

Writes the table of `docs/results/shiftadd.md`. Nothing is trained: energies depend on shapes and formats alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from networks import trained
from torch import nn
from training_runs import RESULTS

from edgewright import onnxkit
from edgewright.torchkit.fakequant_prepare import calibrate, layers_of, observe, usual_grids
from edgewright_devices.energy_model import TABLE, Counts, counts_of, picojoules, row
from edgewright_devices.prepare import read
from edgewright_plugins.lower.export import lower_module
from edgewright_plugins.shiftadd.attention import attend, binarisable
from edgewright_plugins.shiftadd.job import chosen, shifting

PAGE = RESULTS / "shiftadd.md"
BEGIN, END = "<!-- benchmarks/shift_energy.py writes from here -->", "<!-- to here (energy) -->"
WAYS = {
    "int8, nothing shifts": ("none", "softmax"),
    "MLPs shift, others int8": ("mlp", "softmax"),
    "all but the ends shift": ("all", "softmax"),
    "all but the ends shift, attention by signs": ("all", "hamming"),
}
PAPER = 42.9


def built(layers: str, attention: str) -> nn.Module:
    """The network as `shiftadd` has it before it trains."""
    module = trained("vit")
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = layers_of(module, [(images,)])
    first = (images[:1],)
    paths = chosen(module, [layer.path for layer in found], layers, first, {})
    attentions = [] if attention == "softmax" else binarisable(module, first, {})
    attend(shifting(module, usual_grids(found, 8, 8), paths), attentions, attention)
    calibrate(module, [(images,)])
    observe(module, [(images,)])
    return module.eval()


def counted(module: nn.Module, *, int8: bool = False) -> Counts:
    """How often each entry of the table is used for one image."""
    proto = lower_module(module, {"image": torch.zeros(1, 3, 32, 32).numpy()}, ["logits"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vit.onnx"
        path.write_bytes(onnxkit.pack(proto))
        return counts_of(read(path), {}, batch=1, int8=int8)


def main() -> None:
    """Count every way and write the table."""
    plain = trained("vit")
    whole, narrow = counted(plain), counted(plain, int8=True)
    rows = [
        ("float32", whole),
        ("int8 throughout", narrow),
        *((name, counted(built(*way))) for name, way in WAYS.items()),
    ]
    lines = [
        "| | compute, uJ | memory, uJ | all, uJ | below float32, % | int8 / it | [interval] |",
        "|---|" + "--:|" * 6,
    ]
    for name, counts in rows:
        memory = sum(counts[each] * TABLE[each].pj for each in ("dram", "buffer")) * 1e-6
        total = picojoules(counts, TABLE) * 1e-6
        below = 100 * (1 - picojoules(counts, TABLE) / picojoules(whole, TABLE))
        ratio = row("", narrow, counts, TABLE).ratio
        low, high = ratio.interval
        lines.append(
            f"| {name} | {total - memory:.1f} | {memory:.1f} | {total:.1f} | {below:.1f} | {ratio.value:.2f} | "
            f"[{low:.2f}, {high:.2f}] |"
        )
        print(lines[-1])
    page = PAGE.read_text()
    text = "\n".join((BEGIN, *lines, END))
    PAGE.write_text(page[: page.index(BEGIN)] + text + page[page.index(END) + len(END) :])


if __name__ == "__main__":
    main()
