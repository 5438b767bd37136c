"""The instruction sets that kernels are compiled for, and which of them a device can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.errors import TargetError, suggest
from edgewright.types import Device, Target

X86_TRIPLE = "x86_64-linux-gnu"
ARM_TRIPLE = "aarch64-linux-gnu"


@dataclass(frozen=True)
class Isa:
    """One instruction set, as templates and the compiler see it.

    `lanes` is how many float32 one vector holds, `registers` how many vectors the CPU names. `dot` is the
    instruction that multiplies bytes and adds four products to an int32: "vnni" (unsigned by signed), "sdot"
    (signed by signed) or nothing. `machine` and `requires` are what `isa` and `features` of a device must say.
    """

    name: str
    triple: str
    mcpu: str
    mattr: tuple[str, ...]
    lanes: int
    registers: int
    dot: str | None
    machine: str
    requires: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether an instruction counts the bits of each byte of a vector."""
        return self.machine == "aarch64" or "+avx512bitalg" in self.mattr


_ISAS = (
    Isa(
        "x86-64-v4-bitalg", X86_TRIPLE, "x86-64-v4", ("+avx512vnni", "+avx512bitalg"), 16, 32, "vnni", "x86_64",
        ("avx512_vnni", "avx512_bitalg"),
    ),
    Isa("x86-64-v4-vnni", X86_TRIPLE, "x86-64-v4", ("+avx512vnni",), 16, 32, "vnni", "x86_64", ("avx512_vnni",)),
    Isa("x86-64-v4", X86_TRIPLE, "x86-64-v4", (), 16, 32, None, "x86_64", ("avx512bw",)),
    Isa("x86-64-v3-vnni", X86_TRIPLE, "x86-64-v3", ("+avxvnni",), 8, 16, "vnni", "x86_64", ("avx_vnni", "fma")),
    Isa("x86-64-v3", X86_TRIPLE, "x86-64-v3", (), 8, 16, None, "x86_64", ("avx2", "fma")),
    Isa("armv8.2-a-dot", ARM_TRIPLE, "generic", ("+v8.2a", "+dotprod"), 4, 32, "sdot", "aarch64", ("asimddp",)),
    Isa("armv8-a", ARM_TRIPLE, "generic", ("+neon",), 4, 32, None, "aarch64", ()),
)  # fmt: skip
"""Best first, per machine. AVX-512BW tells the CPUs with all of x86-64-v4 from the Xeon Phi; those with
BITALG (Ice Lake and Zen 4 onwards) count the bits of bytes."""


def isa_names() -> tuple[str, ...]:
    """Every name that `isa_named` knows, the best of each machine first."""
    return tuple(isa.name for isa in _ISAS)


def isa_named(name: str) -> Isa:
    """The instruction set called `name`.

    Raises:
        TargetError: when there is none; the message lists those that exist.
    """
    found = next((isa for isa in _ISAS if isa.name == name), None)
    if found is None:
        raise TargetError(f"no instruction set is called '{name}' ({suggest(name, isa_names())})")
    return found


def isas_of(device: Device | Target) -> Sequence[Isa]:
    """The instruction sets that `device` can run, best first; empty where no kernel of ours can run."""
    return tuple(isa for isa in _ISAS if isa.machine == device.isa and set(isa.requires) <= set(device.features))
