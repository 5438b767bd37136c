"""What importing a plugin costs, found out by a process of its own: `python -m edgewright.testing.imports MODULE...`.

Prints JSON: seconds that the engine and the slowest of the modules took, heavy libraries that came along, what was seen
of network and files.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from edgewright.testing.watch import Seen, watching

HEAVY = (
    *("torch", "onnx", "onnxruntime", "onnxscript", "tvm", "tensorflow", "jax", "transformers", "openvino"),
    *("scipy", "pandas", "matplotlib", "sklearn", "cv2"),
)
"""Libraries that take longer to import than the engine itself, and that listing plugins must not need."""

MOST_SECONDS = 120


@dataclass(frozen=True)
class Imported:
    """`engine_s` is what importing the engine's registry and NumPy took, `module_s` what the slowest module did."""

    engine_s: float
    slowest: str
    module_s: float
    heavy: tuple[str, ...]
    network: tuple[str, ...]
    written: tuple[str, ...]
    error: str = ""


def imported(modules: Sequence[str]) -> Imported:
    """Import them in a fresh process. Raises: OSError, or subprocess.TimeoutExpired, when that does not end well."""
    paths = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-m", __name__, *modules]
    surroundings = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=MOST_SECONDS, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Imported(0, "", 0, (), (), (), said)
    found = json.loads(lines[-1])
    heavy, network, written = (tuple(found[key]) for key in ("heavy", "network", "written"))
    return Imported(found["engine_s"], found["slowest"], found["module_s"], heavy, network, written)


def main(modules: Sequence[str]) -> dict[str, object]:
    """Import the engine, then `modules`, and call their hooks."""
    begin = time.perf_counter()
    importlib.import_module("numpy")
    importlib.import_module("edgewright.registry")
    ready = time.perf_counter()
    seen, before, took = Seen(), set(sys.modules), dict[str, float]()
    with watching(seen):
        for name in modules:
            start = time.perf_counter()
            _offers(name)
            took[name] = time.perf_counter() - start
    heavy = sorted({name.partition(".")[0] for name in set(sys.modules) - before} & set(HEAVY))
    slowest = max(took, key=took.__getitem__, default="")
    times = {"engine_s": ready - begin, "slowest": slowest, "module_s": took.get(slowest, 0.0)}
    return {**times, "heavy": heavy, "network": seen.network, "written": seen.written}


def _offers(name: str) -> None:
    from edgewright.registry.discovery import PREFIX

    module = importlib.import_module(name)
    for hook, function in inspect.getmembers(module, inspect.isfunction):
        if hook.startswith(PREFIX) and not inspect.signature(function).parameters:
            list(function())


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(main(sys.argv[1:])) + "\n")
