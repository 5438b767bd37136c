"""How long a prediction takes once the predictor is loaded: the graphs behind the public measurements, one by one.

python -m predictor.speed --data DIR [MODEL.onnx...]       (in benchmarks/)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from edgewright.types import GraphFile, Model, Signature, Stage, Variant
from edgewright_devices.predictor.predict import KERNELS
from edgewright_devices.profiles import built_in
from predictor.ncnn import read_ncnn
from predictor.nets import fbnet, mobilenet_v1, mobilenet_v2, nasbench201
from predictor.sources import rows

SOME = 40
"""Networks of each of the two large spaces."""


def graphs(data: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Networks by name: some of NAS-Bench-201 and FBNet, MobileNets, and what ncnn's files hold."""
    rng = np.random.default_rng(0)
    for name, build in (("nasbench201_edge", nasbench201), ("fbnet", fbnet)):
        archs = [row["arch_str"] for row in rows(data / f"{name}.csv.gz")]
        for at in rng.choice(len(archs), SOME, replace=False):
            yield f"{name} {at}", build(archs[at])
    for build in (mobilenet_v1, mobilenet_v2):
        for dtype in ("float32", "int8"):
            yield f"{build.__name__} {dtype}", build(1.0, 224, dtype)
    for path in sorted((data / "ncnn_params").glob("*.param")):
        model = read_ncnn(path, "int8" if "int8" in path.stem else "float32")
        if model:
            yield path.stem, model


def model_of(path: Path) -> Model:
    """A model as the engine holds it."""
    inputs = onnx.load(str(path), load_external_data=False).graph.input
    shapes = {value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim] for value in inputs}
    stage = Stage("all", GraphFile(path, path.stem), tuple(shapes), ("y",))
    example = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return Model(path.stem, Signature((), ()), (Variant("main", (stage,)),), example)


def main() -> None:
    """Build, predict five times, print what the quickest prediction took."""
    parser = argparse.ArgumentParser(description="Time the predictor.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the measurements")
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.onnx")
    asked = parser.parse_args()
    target = next(each for each in built_in() if each.name == "raspberry-pi-4")
    taken: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = list[Path](asked.models)
        for name, proto in graphs(asked.data):
            paths.append(Path(folder) / f"{name}.onnx")
            onnx.save(proto, str(paths[-1]))
        for path in paths:
            model, times = model_of(path), list[float]()
            for _ in range(5):
                start = time.perf_counter()
                found = KERNELS.predict(model, target, "latency")
                times.append((time.perf_counter() - start) * 1e3)
                assert found.value, (path, found.reason)
            taken[path.stem] = min(times)
    slowest = sorted(taken, key=lambda name: -taken[name])[:3]
    print(f"{len(taken)} graphs: median {np.median([*taken.values()]):.1f} ms, most {taken[slowest[0]]:.1f} ms")
    print("slowest:", ", ".join(f"{name} {taken[name]:.1f} ms" for name in slowest))
    print(*(f"{path.stem} {taken[path.stem]:.1f} ms" for path in asked.models), "torch loaded:", "torch" in sys.modules)


if __name__ == "__main__":
    main()
