"""Small bundles of real graphs, for every test that runs something; sample models on benches; the command line."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgewright.bench import Bench
from edgewright.bundle import Contents, file_digest, write_bundle
from edgewright.cli import main
from edgewright.registry import Registry
from edgewright.store import Store
from edgewright.testing import Rig, open_rig
from edgewright.testing.rig import chain_bench
from edgewright.types import Artifact, Gate, GraphFile, Placement, Plan, Signature, Stage, State, TensorSpec, Variant

MakeBundle = Callable[..., Path]
Engine = Callable[..., "tuple[int, str, str]"]

LINEAR = """
<ir_version: 8, opset_import: ["" : 17]>
linear (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1}> { y = MatMul(x, w) }
"""


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, str(np.dtype(dtype)), tuple(d.dim_param or d.dim_value for d in tensor.shape.dim))


def _npz(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _example(signature: Signature) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {s.name: [1 if isinstance(d, str) else d for d in s.shape] for s in signature.fed}
    return {s.name: rng.standard_normal(shapes[s.name]).astype(s.dtype) for s in signature.fed}


def ones(*shape: int) -> Any:
    """Float32 ones."""
    return np.ones(shape, np.float32)


@pytest.fixture
def make_bundle(tmp_path: Path) -> MakeBundle:
    """Writes a bundle from graphs as text, one per stage; `carries` names what each stage hands on."""

    def make(
        *graphs: str,
        name: str = "bundle",
        carries: Sequence[tuple[str, ...]] = ((),),
        state: Sequence[State] = (),
        runtime: str = "ort",
        provider: str = "CPUExecutionProvider",
        options: Mapping[str, Any] | None = None,
        raw: bytes | None = None,
        gates: Sequence[Gate | None] = (),
        exits: str = "",
        free_rows: bool | Sequence[bool] = False,
        files: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Path:
        models = [onnx.parser.parse_model(text) for text in graphs or (LINEAR,)]
        stages, artifacts, placements, before = [], [], [], ()
        free = [free_rows] * len(models) if isinstance(free_rows, bool) else free_rows
        for i, (model, carry) in enumerate(zip(models, carries, strict=True)):
            gate = gates[i] if i < len(gates) else None
            last = len(carry) + bool(gate) + bool(exits)
            file = tmp_path / f"{name}-{i}.onnx"
            file.write_bytes(raw or model.SerializeToString())
            digest, stage = file_digest(file), f"stage{i}"
            inputs = tuple(v.name for v in model.graph.input)[: len(model.graph.input) - len(before)]
            outputs = tuple(v.name for v in model.graph.output)[: len(model.graph.output) - last]
            stages.append(
                Stage(stage, GraphFile(file, digest), inputs, outputs, carry, gate=gate, free_rows=free[i], exits=exits)
            )
            artifacts.append(Artifact(stage, file, digest, file.stat().st_size, "onnx", "main", stage))
            placements.append(Placement("main", stage, stage, runtime, provider, options or {"threads": 1}))
            before = carry
        outputs = [v for v in models[-1].graph.output if v.name != exits]
        signature = Signature(tuple(map(_spec, models[0].graph.input)), tuple(map(_spec, outputs)), tuple(state))
        contents = Contents(
            name=name,
            signature=signature,
            variants=(Variant("main", tuple(stages)),),
            artifacts=tuple(artifacts),
            plan=Plan(tuple(placements)),
            files={
                "example/inputs.npz": _npz(_example(signature)),
                **{place: _npz(arrays) for place, arrays in (files or {}).items()},
            },
            extra=extra or {},
        )
        return write_bundle(tmp_path / name, contents).path

    return make


@pytest.fixture(scope="session")
def opened_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One rig for all tests: opening it starts an agent."""
    with open_rig(tmp_path_factory.mktemp("rig"), Registry()) as opened:
        yield opened


@pytest.fixture(scope="module")
def rig(opened_rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """The rig with a cache of its own for each file of tests, which so finds nothing that another one remembered."""
    store = Store(tmp_path_factory.mktemp("cache"))
    benches = {name: replace(b, env=replace(b.env, store=store)) for name, b in opened_rig.benches.items()}
    return replace(opened_rig, store=store, benches=benches)


@pytest.fixture(scope="module")
def bench(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A chain of three stages without thresholds, whose last answer is always right: 25 examples to calibrate, 75 to
    select by. Costs are predicted."""
    return chain_bench(tmp_path_factory.mktemp("chain"), rig.benches["conv"], count=1000)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Engine:
    """Run a verb in an empty folder with a cache of its own: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEWRIGHT_PLUGINS", raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run
