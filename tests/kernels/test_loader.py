"""The operator that calls kernels, in real sessions: hand-written kernels in C, one of TVM's, and a bundle of them."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from edgewright.agents.agent import Agent, start_agent
from edgewright.bundle import Contents, file_digest, open_bundle, write_bundle
from edgewright.cli.console import open_store
from edgewright.errors import BundleError, InputError, RefusedError
from edgewright.types import (
    Artifact,
    Companion,
    GraphFile,
    Needs,
    Placement,
    Plan,
    Signature,
    Stage,
    TensorSpec,
    Variant,
)
from edgewright_devices.local import LOCAL
from edgewright_exporters.loader.build import LIBRARIES, loader_object
from edgewright_exporters.tir.isa import Isa, isa_named
from edgewright_exporters.tir.linking import find_compiler, link
from edgewright_runtime.loaded import load
from edgewright_runtime.ort_session import OrtSession

ROWS, WIDTH = 97, 8
SUMS = range(2, 17)
"""How many pointers the kernels `sum2`, `sum3`... take."""

SOURCE = """
#include <stdint.h>
/* mixed types: y = x * w by row, z = the row's number plus 1000 times a weight */
void mixed(const float *x, const uint8_t *w, float *y, int32_t *z, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; i++) {
    for (int j = 0; j < 8; j++) y[i * 8 + j] = x[i * 8 + j] * w[j];
    z[i] = w[i % 8] * 1000 + i;
  }
}
/* each row backwards, by way of scratch memory that no other call may touch */
void backwards(const float *x, float *y, float *scratch, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; i++)
    for (int again = 0; again < 200; again++) {
      for (int j = 0; j < 8; j++) scratch[j] = x[i * 8 + j];
      for (int j = 0; j < 8; j++) y[i * 8 + j] = scratch[7 - j];
    }
}
/* how many items the call that computed an item was given */
void shares(const float *x, int32_t *y, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; i++) y[i] = end - begin;
}
"""


def _sum(count: int) -> str:
    names = [f"x{i}" for i in range(count - 1)]
    pointers = ", ".join(f"const float *{name}" for name in names)
    total = " + ".join(f"{i + 1} * {name}[i]" for i, name in enumerate(names))
    loop = f"for (int32_t i = begin; i < end; i++) y[i] = {total};"
    return f"void sum{count}({pointers}, float *y, int32_t begin, int32_t end) {{ {loop} }}\n"


@pytest.fixture(scope="session")
def isa() -> Isa:
    return isa_named("x86-64-v3" if platform.machine() == "x86_64" else "armv8-a")


@pytest.fixture(scope="session")
def loader(isa: Isa, linker: str) -> bytes:
    try:
        return loader_object(isa, open_store(None).folder("loader"))
    except RefusedError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, isa: Isa, loader: bytes) -> Path:
    folder = tmp_path_factory.mktemp("library")
    (folder / "kernels.c").write_text(SOURCE + "".join(map(_sum, SUMS)))
    command = [find_compiler(isa), "-O2", "-fPIC", "-c", "kernels.c", "-o", "kernels.o"]
    subprocess.run(command, cwd=folder, check=True)
    return _linked(folder / "kernels.so", [(folder / "kernels.o").read_bytes(), loader], isa)


def _linked(place: Path, objects: Sequence[bytes], isa: Isa) -> Path:
    place.write_bytes(link(objects, isa, libraries=LIBRARIES))
    return place


# ------------------------------------------------------------------ models

FLOAT, BYTE, INT = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32
value = helper.make_tensor_value_info
MIXED = {"symbol": "mixed", "shapes": [2, ROWS, WIDTH, 1, ROWS], "types": [FLOAT, INT], "items": ROWS}


def kernel(inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    given = {name: value for name, value in attributes.items() if value is not None}
    return helper.make_node("Kernel", inputs, outputs, name="k", domain="edgewright", **given)


def model(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], *between: Any) -> ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, value_info=between)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("edgewright", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def mixed(rows: int | str = ROWS, **changed: Any) -> ModelProto:
    """A kernel of two inputs and two outputs of three types, between ordinary nodes."""
    node = kernel(["a", "w"], ["b", "c"], **{**MIXED, **changed})
    nodes = [helper.make_node("Relu", ["x"], ["a"]), node, helper.make_node("Neg", ["b"], ["y"])]
    inputs = [value("x", FLOAT, [rows, WIDTH]), value("w", BYTE, [WIDTH])]
    outputs = [value("y", FLOAT, [ROWS, WIDTH]), value("c", INT, [ROWS])]
    return model(nodes, inputs, outputs, value("b", FLOAT, [ROWS, WIDTH]))


def single(symbol: str, shape: Sequence[int], type: int = FLOAT, inputs: int = 1, **attributes: Any) -> ModelProto:
    names = [f"x{i}" for i in range(inputs)]
    node = kernel(names, ["y"], symbol=symbol, shapes=[len(shape), *shape], types=[type], **attributes)
    return model([node], [value(name, FLOAT, [ROWS, WIDTH]) for name in names], [value("y", type, shape)])


Opener = Callable[..., OrtSession]


@pytest.fixture
def opened(tmp_path: Path, library: Path) -> Opener:
    def open_model(proto: ModelProto, threads: int = 1, libraries: Sequence[Path] = (library,)) -> OrtSession:
        place = tmp_path / "model.onnx"
        place.write_bytes(proto.SerializeToString())
        return OrtSession(str(place), {"threads": threads, "libraries": [str(each) for each in libraries]})

    return open_model


@pytest.fixture
def feeds() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 256, WIDTH).astype(np.uint8)
    return {"x": rng.standard_normal((ROWS, WIDTH)).astype(np.float32), "w": weights}


def expected(feeds: Mapping[str, Any]) -> tuple[Any, Any]:
    rows = np.arange(ROWS)
    return -(np.maximum(feeds["x"], 0) * feeds["w"]), feeds["w"][rows % WIDTH].astype(np.int32) * 1000 + rows


# ------------------------------------------------------------------ runs


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kernel_of_mixed_types_works_between_ordinary_nodes(opened: Opener, feeds: dict[str, Any], threads: int):
    y, c = opened(mixed(), threads).run(feeds)
    assert [y.dtype, c.dtype] == [np.float32, np.int32]
    assert np.array_equal(y, expected(feeds)[0])
    assert np.array_equal(c, expected(feeds)[1])


@pytest.mark.parametrize("count", SUMS)
def test_every_number_of_pointers_is_passed_in_order(opened: Opener, count: int):
    proto = single(f"sum{count}", [ROWS, WIDTH], inputs=count - 1, items=ROWS * WIDTH)
    arrays = np.random.default_rng(1).integers(-9, 9, (count - 1, ROWS, WIDTH)).astype(np.float32)
    (y,) = opened(proto).run({f"x{i}": array for i, array in enumerate(arrays)})
    assert np.array_equal(y, sum((i + 1) * array for i, array in enumerate(arrays)))


@pytest.mark.parametrize(("threads", "calls", "largest"), [(1, None, ROWS), (2, None, 4), (2, 5, 20), (2, 1, ROWS)])
def test_work_is_split_only_where_threads_can_share_it(opened: Opener, threads: int, calls: Any, largest: int):
    (shares,) = opened(single("shares", [ROWS], INT, items=ROWS, calls=calls), threads).run(
        {"x0": np.zeros((ROWS, WIDTH), np.float32)}
    )
    assert shares.max() == largest
    assert sum(1 / shares) == pytest.approx(1 if largest == ROWS else (calls or 32))


def test_calls_side_by_side_have_scratch_memory_of_their_own(opened: Opener):
    session = opened(single("backwards", [ROWS, WIDTH], items=ROWS, scratch=WIDTH * 4), 2)
    arrays = np.random.default_rng(2).standard_normal((40, ROWS, WIDTH)).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda x: session.run({"x0": x})[0], arrays))
    assert np.array_equal(answers, arrays[:, :, ::-1])


def test_a_kernel_has_a_line_in_the_profile(opened: Opener, feeds: dict[str, Any]):
    rows = opened(mixed()).profile(feeds, 5)
    assert [row["operator"] for row in rows] == ["Relu", "Kernel", "Neg"]


def test_a_kernel_of_tvm_is_called_as_one_of_c(opened: Opener, isa: Isa, loader: bytes, tmp_path: Path):
    pytest.importorskip("tvm", reason="TVM is not installed")
    from edgewright_exporters.tir import builder
    from edgewright_exporters.tir.compiler import compile_object

    def double(x: Any, y: Any, begin: Any, end: Any) -> None:
        with builder.loop(begin, end) as row:
            loaded = builder.load(x, row * WIDTH, WIDTH)
            builder.store(y, row * WIDTH, loaded + loaded, WIDTH)

    arguments = [builder.Argument(name, "float32", ROWS * WIDTH) for name in "xy"]
    compiled = compile_object({"double_rows": builder.function("double_rows", arguments, double)}, isa)
    library = _linked(tmp_path / "tvm.so", [compiled, loader], isa)
    # What a user feeds lies where it likes; here at an address that no vector is aligned to.
    x = np.random.default_rng(3).standard_normal(ROWS * WIDTH + 1).astype(np.float32)[1:].reshape(ROWS, WIDTH)
    for threads in (1, 2):
        session = opened(single("double_rows", [ROWS, WIDTH], items=ROWS), threads, [library])
        assert np.array_equal(session.run({"x0": x})[0], x + x)


# ------------------------------------------------------------------ what cannot be run says so when it is opened


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"symbol": "absent"}, r"no kernel 'absent' is in the library .*kernels\.so"),
        ({"symbol": "memcpy"}, r"no kernel 'memcpy' is in the library"),
        ({"symbol": None}, "'symbol' must be a string"),
        ({"symbol": 3}, "'symbol' must be a string"),
        ({"items": None}, "'items' must be an integer from 1"),
        ({"items": 0}, "'items' must be an integer from 1"),
        ({"items": 1 << 31}, "'items' must be an integer from 1"),
        ({"items": 1.5}, "'items' must be an integer from 1"),
        ({"scratch": -1}, "'scratch' must be an integer from 0"),
        ({"scratch": 1.5}, "'scratch' must be an integer from 0"),
        ({"scratch": "1"}, "'scratch' must be an integer from 0"),
        ({"scratch": [1]}, "'scratch' must be an integer from 0"),
        ({"calls": 33}, "'calls' must be an integer from 1 to 32"),
        ({"shapes": None}, "'shapes' must be a list of integers"),
        ({"shapes": "97"}, "'shapes' must be a list of integers"),
        ({"shapes": [2, ROWS, WIDTH]}, "'shapes' is too short for its 2 outputs"),
        ({"shapes": [2, ROWS, WIDTH, 9, ROWS]}, "'shapes' is too short for its 2 outputs"),
        ({"shapes": [-1, ROWS, WIDTH, 1, ROWS]}, "'shapes' is too short for its 2 outputs"),
        ({"shapes": [2, ROWS, 0, 1, ROWS]}, "'shapes' has a size below 1"),
        ({"shapes": [2, ROWS, WIDTH, 1, ROWS, 1]}, "'shapes' tells of more than its 2 outputs"),
        ({"shapes": [2, ROWS, WIDTH, 1, ROWS + 1]}, "its output 1 another shape"),
        ({"types": [FLOAT]}, "'types' has 1 entries for 2 outputs"),
        ({"types": [FLOAT, FLOAT]}, "its output 1 the type 6, the attribute 'types' 1"),
        ({"rows": "n"}, "axis 0 of its input 0 has no fixed size"),
    ],
)
def test_a_faulty_node_is_refused_in_one_sentence(opened: Opener, changed: dict[str, Any], said: str):
    with pytest.raises(InputError, match=f"kernel node 'k': .*{said}"):
        opened(mixed(**changed))


def test_too_many_pointers_are_refused(opened: Opener):
    with pytest.raises(InputError, match="15 inputs and 1 outputs are too many; a kernel takes 16 pointers"):
        opened(single("sum16", [ROWS, WIDTH], inputs=15, items=1, scratch=4))


def test_without_its_library_a_model_is_refused(opened: Opener, tmp_path: Path):
    with pytest.raises(InputError, match=r"model\.onnx cannot be loaded"):
        opened(mixed(), libraries=[])
    (tmp_path / "kernels.so").write_bytes(b"no library")
    with pytest.raises(InputError, match=r"kernels\.so cannot be loaded by onnxruntime"):
        opened(mixed(), libraries=[tmp_path / "kernels.so"])


# ------------------------------------------------------------------ bundles


@pytest.fixture
def rows() -> dict[str, Any]:
    return {"x0": np.random.default_rng(4).standard_normal((ROWS, WIDTH)).astype(np.float32)}


@pytest.fixture
def bundle(tmp_path: Path, library: Path, rows: dict[str, Any]) -> Path:
    graph = tmp_path / "graph.onnx"
    graph.write_bytes(single("backwards", [ROWS, WIDTH], items=ROWS, scratch=WIDTH * 4).SerializeToString())
    digest, size = file_digest(graph), graph.stat().st_size
    kernels = Companion("kernels.so", library, file_digest(library), library.stat().st_size)
    np.savez(tmp_path / "inputs.npz", **rows)
    contents = Contents(
        name="net",
        signature=Signature(
            (TensorSpec("x0", "float32", (ROWS, WIDTH)),), (TensorSpec("y", "float32", (ROWS, WIDTH)),)
        ),
        variants=(Variant("main", (Stage("main", GraphFile(graph, digest), ("x0",), ("y",)),)),),
        artifacts=(Artifact("main", graph, digest, size, "onnx", "main", "main", companions=(kernels,)),),
        plan=Plan((Placement("main", "main", "main", "ort", "CPUExecutionProvider", {"threads": 2}),)),
        files={"example/inputs.npz": tmp_path / "inputs.npz"},
        extra={},
    )
    return write_bundle(tmp_path / "bundle", contents).path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    link = LOCAL.open("")
    with start_agent(link, tmp_path / "agent") as started:
        yield started
    link.close()


def test_a_bundle_brings_its_kernels(bundle: Path, rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(bundle.parent)
    assert np.array_equal(load("bundle").run(rows).outputs["y"], rows["x0"][:, ::-1])


def test_the_agent_runs_a_bundle_with_kernels(bundle: Path, rows: dict[str, Any], agent: Agent):
    outputs = agent.infer(agent.open(bundle), rows, batch=ROWS)
    assert np.array_equal(outputs["y"], rows["x0"][:, ::-1])


@pytest.mark.parametrize("verify", [True, False])
def test_a_library_that_was_changed_is_not_loaded(bundle: Path, verify: bool):
    library = open_bundle(bundle).artifacts[0].companions[0].path
    library.write_bytes(library.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"kernels\.so was changed"):
        load(bundle, verify=verify)


@pytest.fixture
def stranger(bundle: Path) -> Path:
    """The bundle, whose library says that it needs what no processor here has."""
    read = open_bundle(bundle)
    (artifact,) = read.artifacts
    needs = Needs("armv9-a-sme", "x86_64" if platform.machine() == "x86_64" else "aarch64", ("sme",))
    companions = tuple(replace(each, needs=needs) for each in artifact.companions)
    artifacts = (replace(artifact, companions=companions),)
    files = {"example/inputs.npz": read.example_inputs}
    contents = Contents(read.name, read.signature, read.variants, artifacts, read.plan, files, {})
    return write_bundle(bundle.parent / "stranger", contents).path


@pytest.mark.parametrize("verify", [True, False])
def test_a_library_for_another_processor_is_not_loaded(stranger: Path, agent: Agent, verify: bool):
    with pytest.raises(BundleError, match=r"needs .*sme, which this CPU lacks"):
        load(stranger, verify=verify)
    with pytest.raises(BundleError, match=r"needs .*sme, which this CPU lacks"):
        agent.open(stranger)


def test_a_plan_cannot_name_a_library(bundle: Path, library: Path):
    read = open_bundle(bundle)
    plan = Plan(tuple(replace(p, options={**p.options, "libraries": [str(library)]}) for p in read.plan.placements))
    artifacts = tuple(replace(artifact, companions=()) for artifact in read.artifacts)
    files = {"example/inputs.npz": read.example_inputs}
    contents = Contents(read.name, read.signature, read.variants, artifacts, plan, files, {})
    with pytest.raises(InputError, match="cannot be loaded"):
        load(write_bundle(bundle.parent / "other", contents).path)
