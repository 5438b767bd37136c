"""Compiles whole graphs, and runs what came out, in a process of its own: TVM's failures are crashes and hangs.

    python -m edgewright_exporters.whole_model.compiling < tasks.json

The order of tasks and what is said of them are those of `edgewright_exporters.onnx_kernels.workshop`.
"""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgewright import onnxkit
from edgewright.errors import PluginError, RefusedError
from edgewright_exporters.onnx_kernels.workshop import serve, tell
from edgewright_exporters.tir.compiler import TVM_VERSIONS, target_of
from edgewright_exporters.tir.isa import Isa
from edgewright_exporters.tir.linking import link
from edgewright_exporters.whole_model.tuning import scheduled, time_candidate, tune

ABOUT = "about.json"
"""What a runtime has to know before it runs anything, in a zip archive behind the shared object's last byte."""


def compile_graph(task: Mapping[str, Any], isa: Isa) -> None:
    """Make a shared object for TVM's virtual machine of the `graph`, with the `objects` that hold its kernels."""
    from edgewright_exporters.whole_model.importing import imported

    proto, place = onnx.load(task["graph"]), Path(task["place"])
    objects = [Path(each).read_bytes() for each in task["objects"]]
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(f".{os.getpid()}")
    module = imported(proto)
    if task.get("schedules"):
        module = scheduled(module, isa, Path(task["schedules"]))
    partial.write_bytes(_shared_object(module, objects, isa))
    _append(partial, json.dumps(_about(proto, isa), sort_keys=True))
    os.replace(partial, place)


def run_files(task: Mapping[str, Any], isa: Isa) -> None:
    """Write to `results` what the chain of `files` makes of the arrays in `feeds`, run by run."""
    with np.load(task["feeds"]) as given:
        pool = dict(given)
    count = len(next(iter(pool.values())))
    for file in task["files"]:
        about, machine = read_about(file), _machine(file)
        taken = [pool[spec["name"]] for spec in about["inputs"]]
        made = [_run(machine, [array[run] for array in taken]) for run in range(count)]
        names = [spec["name"] for spec in about["outputs"]]
        pool.update({name: np.stack([outputs[at] for outputs in made]) for at, name in enumerate(names)})
    np.savez(task["results"], **pool)


def read_about(file: str) -> Mapping[str, Any]:
    """What was written behind a shared object."""
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read(ABOUT))


def _shared_object(module: Any, objects: Sequence[bytes], isa: Isa) -> bytes:
    import tvm

    made: list[bytes] = []

    def linked(name: str, files: Sequence[str], **options: Any) -> None:
        if not all(file.endswith(".o") for file in files):
            raise RefusedError("it computes nothing, so that there is nothing to compile")
        made.append(link([*(Path(file).read_bytes() for file in files), *objects], isa, libraries=("m",)))

    try:
        tvm.compile(module, target=target_of(isa)).export_library("model.so", fcompile=linked)
    except (PluginError, RefusedError):
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise PluginError(f"TVM could not compile it for {isa.name}: {first.strip()}") from error
    return made[0]


def _about(proto: onnx.ModelProto, isa: Isa) -> Mapping[str, Any]:
    held = {tensor.name for tensor in proto.graph.initializer}
    fed = [value for value in proto.graph.input if value.name not in held]
    return {
        "inputs": [asdict(onnxkit.tensor_spec(value)) for value in fed],
        "outputs": [asdict(onnxkit.tensor_spec(value)) for value in proto.graph.output],
        "machine": isa.machine,
        "requires": isa.requires,
        "versions": TVM_VERSIONS,
    }


def _append(place: Path, about: str) -> None:
    """The loader of shared objects does not look behind their end, and a zip archive is read from its own end."""
    with zipfile.ZipFile(place, "a") as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT, (1980, 1, 1, 0, 0, 0)), about)


def _machine(file: str) -> Any:
    from tvm import runtime
    from tvm.runtime.vm import VirtualMachine

    module: Any = runtime.load_module(file)
    processor: Any = runtime.device("cpu", 0)
    return VirtualMachine(module, processor)


def _run(machine: Any, arrays: Sequence[Any]) -> list[Any]:
    from tvm import runtime

    found = machine["main"](*(runtime.tensor(np.ascontiguousarray(array)) for array in arrays))
    return [each.numpy() for each in (found if isinstance(found, Sequence) else [found])]


def tune_graph(task: Mapping[str, Any], isa: Isa) -> Mapping[str, int]:
    """Search schedules for a graph; see `tuning.tune`."""
    return tune(task, isa, (sys.executable, "-m", "edgewright_exporters.whole_model.compiling"), tell)


TASKS = {"compile": compile_graph, "run": run_files, "tune": tune_graph, "time": time_candidate}

if __name__ == "__main__":
    os.environ["TVM_NUM_THREADS"] = "1"
    serve(TASKS)
