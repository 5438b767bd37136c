"""Compiles and times kernels in a process of its own, because TVM's failures are crashes and hangs.

    python -m edgewright_exporters.onnx_kernels.workshop < tasks.json

It says on its standard output, one JSON object a line, which task begins and how it ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from edgewright.errors import EdgewrightError, PluginError
from edgewright_exporters.onnx_kernels.machine import runs_here
from edgewright_exporters.onnx_kernels.proving import prove
from edgewright_exporters.onnx_kernels.templates import kernel_of
from edgewright_exporters.onnx_kernels.trial import callers, race
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named

PR_SET_PDEATHSIG = 1


def make(task: Mapping[str, Any], isa: Isa) -> None:
    """Compile one kernel and keep its object file, once it has run where it can run here."""
    kernel, place = kernel_of(task["kernel"]), Path(task["place"])
    if kernel.symbol(isa) != place.stem:
        raise PluginError("the templates were edited while they were in use; run again")
    content = compile_object({kernel.symbol(isa): kernel.function(isa)}, isa)
    if runs_here(isa):
        callers([kernel], [content], isa)[0]()
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    os.replace(partial, place)


def compare(task: Mapping[str, Any], isa: Isa) -> Sequence[float]:
    """The microseconds that kernels with object files take."""
    kernels = [kernel_of(entry) for entry in task["kernels"]]
    return race(callers(kernels, [Path(place).read_bytes() for place in task["places"]], isa))


TASKS = {"make": make, "compare": compare, "prove": prove}


def main() -> None:
    """Work through the tasks on standard input."""
    serve(TASKS)


def serve(tasks: Mapping[str, Callable[[Mapping[str, Any], Isa], Any]]) -> None:
    """Work through (number, task) pairs on standard input; `tasks` maps what a task says to `do` to who does it.

    Whatever else is printed goes to standard error: TVM prints too.
    """
    _end_with_parent()
    # TVM imports torch where it finds it, for nothing that is done here: that would take seconds.
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] - how Python marks what cannot be imported
    said, sys.stdout = sys.stdout, sys.stderr
    order = json.load(sys.stdin)
    isa = isa_named(order["isa"])
    for number, task in order["tasks"]:
        _say(said, {"begins": number})
        try:
            own = isa_named(task["isa"]) if "isa" in task else isa
            _say(said, {"ends": number, "value": tasks[task["do"]](task, own)})
        except EdgewrightError as error:
            _say(said, {"ends": number, "error": str(error)})


def tell(text: str) -> None:
    """Say how far a task is to whoever waits for it."""
    assert sys.__stdout__ is not None
    _say(sys.__stdout__, {"says": text})


def _say(stream: TextIO, event: Mapping[str, Any]) -> None:
    stream.write(json.dumps(event) + "\n")
    stream.flush()


def _end_with_parent() -> None:
    """Have the system kill this process when its parent dies, however that happens; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
