"""A target: what is expected of a device, every figure with its source."""

from __future__ import annotations

from collections.abc import Iterable

from edgewright.types import Figure, Target

BRIEF = "Raspberry Pi Zero 2 W product brief (RP3A0: four Cortex-A53 at 1 GHz, 512 MB LPDDR2)"

BOARD = Target(
    name="acme-board",
    title="ACME sensor board, built around the Raspberry Pi RP3A0",
    isa="aarch64",
    memory=Figure(512 * 2**20, "B", BRIEF),
    compute={
        "float32": Figure(
            32.0,
            "GFLOP/s",
            f"derived: 4 cores x 1 GHz x 8 FLOP per cycle (one four-lane fused multiply-add); {BRIEF}",
        ),
    },
    bandwidth=Figure(3.6, "GB/s", f"derived: 450 MHz x 2 transfers x 32 bit; {BRIEF}"),
    cores=Figure(4, "cores", BRIEF),
    recipe=("simplify",),
    notes="ACME and its board are made up; the chip and its figures are not.",
)


def edgewright_targets() -> Iterable[Target]:
    """The device profiles this module offers."""
    return (BOARD,)
