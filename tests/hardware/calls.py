"""Calls kernels on the device: reads calls.json and inputs.npz beside it, writes outputs.npz; needs NumPy alone.

Arrays end where forbidden memory begins, and each kernel does its work in three calls.
"""

from __future__ import annotations

import ctypes
import json

import numpy as np
from guarded import Guarded


def main() -> None:
    """Every call in turn; its name is said before, for the one that crashes."""
    library, found = ctypes.CDLL("./kernels.so"), {}
    with open("calls.json", encoding="utf-8") as file:
        calls = json.load(file)
    with np.load("inputs.npz") as inputs:
        for call in calls:
            print(call["symbol"], flush=True)
            found[call["symbol"]] = answer(getattr(library, call["symbol"]), call, inputs)
    np.savez("outputs.npz", **found)


def answer(function, call, inputs):
    """The last argument of a kernel, once it has done all of its work."""
    buffers = {name: Guarded(size, dtype) for name, dtype, size in call["arguments"]}
    given = {name: inputs[f"{call['symbol']} {name}"].ravel() for name in call["given"]}
    for name, array in given.items():
        buffers[name].array[:] = array
    function.restype = None
    pointers = [ctypes.c_void_p(buffer.array.ctypes.data) for buffer in buffers.values()]
    edges = (0, call["items"] // 3, call["items"] // 2, call["items"])
    for begin, end in zip(edges, edges[1:]):
        function(*pointers, ctypes.c_int32(begin), ctypes.c_int32(end))
    for name, buffer in buffers.items():
        assert buffer.intact(), f"{name} was written before its beginning"
        assert name not in given or np.array_equal(buffer.array, given[name]), f"{name} was written to"
    return buffers[call["arguments"][-1][0]].array.copy()


if __name__ == "__main__":
    main()
