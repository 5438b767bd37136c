"""The compiler, the linker and the probe: what they make, and what they say when they cannot."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgewright.errors import PluginError, RefusedError, TargetError
from edgewright_exporters.kernels import gemm, qgemm
from edgewright_exporters.kernels.codebook import INT4
from edgewright_exporters.kernels.gemm import GemmCase
from edgewright_exporters.kernels.qgemm import QGemmCase
from edgewright_exporters.onnx_kernels.requirements import requirements
from edgewright_exporters.tir import builder
from edgewright_exporters.tir.compiler import TVM_VERSIONS, assembly, compile_object
from edgewright_exporters.tir.isa import Isa, isa_named, isa_names, isas_of
from edgewright_exporters.tir.linking import find_compiler, link
from edgewright_exporters.tir.probe import probe
from edgewright_runtime.device import find_device


def _functions(isa: Isa) -> dict[str, Any]:
    """One kernel of every template, with tails and everything after the product."""
    floats = GemmCase(13, 21, 37, bias=True, activation="relu", residual=True)
    integers = QGemmCase(13, 21, 37, takes="int8")
    nibbles = replace(integers, takes="uint8", codes=INT4)
    return {
        "floats": gemm.function(floats, gemm.tiles(floats, isa)[0], isa, "floats"),
        "integers": qgemm.function(integers, qgemm.tiles(integers, isa)[0], isa, "integers"),
        "nibbles": qgemm.function(nibbles, qgemm.tiles(nibbles, isa)[0], isa, "nibbles"),
    }


OBJECT, LIBRARY = 2, 11
"""The types of the symbol tables of ELF objects and of shared libraries."""


def _symbols(content: bytes, kind: int = OBJECT) -> tuple[set[str], set[str]]:
    """The names that an ELF file defines as strong global symbols, and those it needs."""
    offset, count = struct.unpack_from("<Q", content, 40)[0], struct.unpack_from("<H", content, 60)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, offset + 64 * number) for number in range(count)]
    table = next(section for section in sections if section[1] == kind)
    names = sections[table[6]][4]
    defined, missing = set(), set()
    for at in range(table[4], table[4] + table[5], 24):
        name_at, info, _, section = struct.unpack_from("<IBBH", content, at)
        name = content[names + name_at :].split(b"\0", 1)[0].decode()
        if name and info >> 4 == 1:
            (defined if section else missing).add(name)
    return defined, missing


@pytest.mark.parametrize("name", isa_names())
def test_every_isa_compiles_to_functions_that_need_nothing(tvm: ModuleType, name: str) -> None:
    isa = isa_named(name)
    functions = _functions(isa)
    content = compile_object(functions, isa)
    assert _symbols(content) == (set(functions), set())
    assert content == compile_object(_functions(isa), isa), "the same functions give other bytes"


def test_a_library_of_several_objects_exports_their_kernels_alone(tvm: ModuleType) -> None:
    isa = _native()
    objects = [compile_object({name: function}, isa) for name, function in _functions(isa).items()]
    content = link(objects, isa)
    assert _symbols(content, LIBRARY) == (set(_functions(isa)), set())
    assert content == link(objects, isa), "the same objects give other bytes"


def test_what_tvm_rejects_is_one_sentence(tvm: ModuleType) -> None:
    from tvm.tirx import Var

    def body(x: Any, begin: Any, end: Any) -> None:
        builder.store(x, 0, Var("free", "int32"), 1)

    wrong = builder.function("wrong", [builder.Argument("x", "int32", 4)], body)
    with pytest.raises(PluginError, match=r"TVM could not compile wrong for x86-64-v3: .+") as caught:
        compile_object({"wrong": wrong}, isa_named("x86-64-v3"))
    assert "\n" not in str(caught.value)


def test_assembly_shows_the_widest_vectors(tvm: ModuleType) -> None:
    for name, register in (("x86-64-v4", "%zmm"), ("x86-64-v3", "%ymm"), ("armv8-a", "v0.4s")):
        assert register in assembly(_functions(isa_named(name)), isa_named(name))


def test_isas_of_a_device_come_best_first() -> None:
    device = replace(find_device(), isa="x86_64", features=("avx2", "avx512bw", "avx512_vnni", "fma"))
    assert [isa.name for isa in isas_of(device)] == ["x86-64-v4-vnni", "x86-64-v4", "x86-64-v3"]
    counting = replace(device, features=(*device.features, "avx512_bitalg"))
    assert [isa.name for isa in isas_of(counting)][:2] == ["x86-64-v4-bitalg", "x86-64-v4-vnni"]
    assert [isa.name for isa in isas_of(replace(device, isa="aarch64", features=("asimd",)))] == ["armv8-a"]
    assert isas_of(replace(device, isa="riscv64")) == ()


def test_an_unknown_isa_is_named_with_its_nearest() -> None:
    with pytest.raises(TargetError, match="did you mean 'x86-64-v4'"):
        isa_named("x86_64-v4")


def test_linking_complains_in_one_sentence(linker: str) -> None:
    isa = _native()
    with pytest.raises(PluginError, match=f"could not link kernels for {isa.name}: .+"):
        link([b"not an object"], isa)


def test_a_missing_cross_compiler_says_what_to_install() -> None:
    strange = replace(
        _native(), triple="riscv64-linux-gnu", machine="aarch64" if _native().machine != "aarch64" else "x86_64"
    )
    with pytest.raises(RefusedError, match=r"apt-get install gcc-\S+ libc6-dev-\w+-cross`"):
        find_compiler(strange)


def test_doctor_tells_of_the_compilers_for_other_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {each.name: each for each in requirements()}
    name, triple = ("aarch64", "aarch64-linux-gnu") if _native().machine == "x86_64" else ("x86_64", "x86_64-linux-gnu")
    assert f"{triple}-gcc were looked for" in found[f"C compiler for {name}"].reason
    (tmp_path / f"{triple}-gcc").touch(0o755)
    assert {each.name: each for each in requirements()}[f"C compiler for {name}"].found == str(
        tmp_path / f"{triple}-gcc"
    )


def _native() -> Isa:
    return isas_of(find_device())[-1]


def test_the_probe_finds_tvm_working(tvm: ModuleType) -> None:
    assert probe() is None


def test_the_probe_names_a_wrong_version() -> None:
    refusal = probe(versions={**TVM_VERSIONS, "numpy": "0.1"})
    assert refusal is not None
    assert f"numpy {np.__version__}" in refusal.reason
    assert "pip install" in refusal.reason
