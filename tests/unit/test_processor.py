"""What a processor says of itself, and libraries that it cannot run: refused in one sentence before they are opened."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright.errors import BundleError
from edgewright.machine import ARM_BITS, FEATURES
from edgewright.types import Companion, Needs
from edgewright_runtime import processor
from edgewright_runtime.processor import check_processor, find_features, find_isa, read_cpuinfo

X86 = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu sse4_2 avx2 fma constant_tsc\n"
ARM = "Features\t: fp asimd crc32 asimddp\n"
CORTEX_A72 = {16: 0x8FB, 26: 0}
CORTEX_A76 = {16: 0x119FFB, 26: 0}


def library(*features: str, isa: str = "") -> Companion:
    return Companion("kernels.so", Path("kernels.so"), "0", 1, Needs("some-isa", isa or find_isa(), features))


def test_x86_is_read_from_cpuinfo() -> None:
    assert find_features("x86_64", X86) == {"sse4_2", "avx2", "fma"}
    assert find_features("x86_64", "") == frozenset()


def test_the_kernel_is_believed_and_not_a_cpuinfo_of_another_machine() -> None:
    assert find_features("aarch64", X86, CORTEX_A72.__getitem__) == {"asimd"}
    assert find_features("aarch64", ARM, CORTEX_A72.__getitem__) == {"asimd"}
    assert find_features("aarch64", X86, CORTEX_A76.__getitem__) == {"asimd", "asimdhp", "asimddp"}


def test_without_an_auxiliary_vector_cpuinfo_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_auxval", lambda: None)
    assert find_features("aarch64", ARM) == {"asimd", "asimddp"}


def test_what_arm_processors_have_is_what_devices_are_described_by() -> None:
    assert {name for bits in ARM_BITS.values() for name in bits} <= FEATURES


def test_a_process_of_32_bits_is_no_aarch64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    assert find_isa() == "aarch64"
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert find_isa() == "armv8l"


def test_a_library_for_this_processor_is_let_through() -> None:
    check_processor(library(*find_features(find_isa(), read_cpuinfo())))
    check_processor(replace(library("sme"), needs=None))


def test_a_library_for_another_processor_is_refused() -> None:
    with pytest.raises(BundleError, match=f"needs a processor of riscv64, and this one is {find_isa()}; deploy again"):
        check_processor(library(isa="riscv64"))


@pytest.mark.parametrize("feature", ["avx512_vnni", "asimddp", "sme"])
def test_a_library_that_needs_more_is_refused_with_what_there_is(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "find_features", lambda *_: frozenset(("avx2", "asimd")))
    said = f"is made for some-isa and needs {feature}, which this CPU lacks \\(it has asimd, avx2\\); deploy again"
    with pytest.raises(BundleError, match=said):
        check_processor(library("avx2", feature))


def test_a_processor_that_says_nothing_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "find_features", lambda *_: frozenset())
    check_processor(library("avx2"))
