"""Makes what whole_models.py times: each network in float32, in int8 and in NNCF's int8, for each back end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from edgewright import onnxkit
from edgewright.asking.recipe import Method
from edgewright.bench import Bench, stage_artifacts
from edgewright.bench.placing import placements_of
from edgewright.deploying.exporting import exported
from edgewright.deploying.steps import run_step
from edgewright.errors import RefusedError
from edgewright.registry import TRANSFORMS
from edgewright.store import key_of
from edgewright.types import Model, Plan
from edgewright_plugins.quantize import Params

FLOAT, INT8, NNCF = "float32", "int8", "int8 by NNCF"
EVERYTHING = 1.0
"""What int8 may lose of the metric: speed alone is compared, so no layer is put back for its accuracy."""


@dataclass(frozen=True)
class Backend:
    """One way to run a network: which of its graphs, on which runtime, in the form of which exporter (or as it is)."""

    title: str
    graph: str
    runtime: str
    exporter: str = ""

    @property
    def name(self) -> str:
        """What no other back end is called."""
        return f"{self.title}, {self.graph}"


REFERENCE = Backend("ONNX Runtime", FLOAT, "ort")
BACKENDS = (
    REFERENCE,
    Backend("ONNX Runtime + our kernels", FLOAT, "ort", "kernels"),
    Backend("TVM, whole", FLOAT, "tvm", "tvm"),
    Backend("OpenVINO", FLOAT, "openvino"),
    Backend("ONNX Runtime", INT8, "ort"),
    Backend("ONNX Runtime + our kernels", INT8, "ort", "kernels"),
    Backend("TVM, whole", INT8, "tvm", "tvm"),
    Backend("OpenVINO", INT8, "openvino"),
    Backend("OpenVINO", NNCF, "openvino"),
)


def original(bench: Bench) -> Model:
    """The network as it came, in ONNX."""
    return bench.reference


def quantised(bench: Bench) -> Model:
    """Static int8 by our `quantize`, from the same examples as NNCF's."""
    method = Method(bench.registry.get(TRANSFORMS, "quantize"), Params(mode="static", drop=EVERYTHING))
    return run_step(method, bench.reference, bench)


def quantised_by_nncf(bench: Bench) -> Model:
    """Post-training int8 by NNCF with its own defaults, from the calibration split; kept in the cache.

    Its ONNX back end writes QDQ, which OpenVINO runs as it runs what NNCF's OpenVINO back end makes.

    Raises: RefusedError when NNCF is not installed or cannot take the network.
    """
    nncf = _import_nncf()
    key = key_of("nncf", version("nncf"), bench.reference.digest, bench.task.digest)
    known = bench.store.load_model(key, bench.reference.example)
    if known is not None:
        return known
    size = bench.task.size("calibration")
    examples = [batch.inputs for batch in bench.task.batches("calibration", bench.recipe.batch, limit=size)]
    try:
        proto = nncf.quantize(onnxkit.read(bench.reference.graph), nncf.Dataset(examples), subset_size=size)
    except (nncf.ValidationError, nncf.UnsupportedModelError, RuntimeError, ValueError) as error:
        raise RefusedError(f"NNCF cannot quantise it: {' '.join(str(error).split())[:200]}") from error
    model = bench.reference.with_graph(bench.store.keep(onnxkit.pack(proto)))
    bench.store.save_model(key, model)
    return model


def _import_nncf() -> Any:
    """NNCF without its telemetry, which it does without where that package cannot be imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
    try:
        version("nncf")
    except PackageNotFoundError:
        raise RefusedError("NNCF is not installed; pip install nncf") from None
    import nncf

    nncf.set_log_level("ERROR")
    return nncf


GRAPHS: Mapping[str, Callable[[Bench], Model]] = {FLOAT: original, INT8: quantised, NNCF: quantised_by_nncf}


def planned(backend: Backend, bench: Bench) -> tuple[Model, Plan]:
    """The network's graph for a back end, and the plan that runs it there.

    Raises: RefusedError with the reason when the graph cannot be made, written, or run there.
    """
    model = GRAPHS[backend.graph](bench)
    return model, placed(model, backend, bench)


def placed(model: Model, backend: Backend, bench: Bench) -> Plan:
    """The plan that runs a graph on a back end.

    Raises: RefusedError with the reason when the graph cannot be written or run there.
    """
    artifacts = exported(model, backend.exporter, bench) if backend.exporter else stage_artifacts(model)
    assert bench.device is not None
    device, names = bench.device.device(), (backend.runtime,)
    placements = tuple(
        placements_of(each, names, registry=bench.registry, recipe=bench.recipe, target=bench.target, device=device)[0]
        for each in artifacts
    )
    return Plan(placements, artifacts if backend.exporter else ())


def unoptimised(plan: Plan) -> Plan:
    """ONNX Runtime without graph optimisations: what all outputs are compared with."""
    return Plan(tuple(replace(each, options={**each.options, "graph": "none"}) for each in plan.placements))
