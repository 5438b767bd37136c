"""What each activation looks like on the calibration examples: exact ends and a histogram, in two passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from edgewright import onnxkit
from edgewright.errors import ModelError
from edgewright.types import Arrays
from edgewright_plugins.qdq.ranges import METHODS, Histogram, Range, find_range

BINS = 2048
SAMPLE = 1 << 16
"""The most values of one tensor that one batch adds to its histogram; ends are taken over all values."""

Feeds = Callable[[], Iterable[Arrays]]


def find_ranges(
    proto: onnx.ModelProto, names: Sequence[str], feeds: Feeds, methods: Sequence[str] = METHODS
) -> dict[str, dict[str, Range]]:
    """The range of each named activation by each method: method -> activation -> (lowest, highest)."""
    histograms = observe(proto, names, feeds)
    return {
        method: {name: find_range(histogram, method) for name, histogram in histograms.items()} for method in methods
    }


def observe(proto: onnx.ModelProto, names: Sequence[str], feeds: Feeds) -> dict[str, Histogram]:
    """A histogram of each named activation.

    Memory: the activations of one batch. Values beyond `SAMPLE` per tensor and batch are taken evenly.
    Raises: ModelError naming the activation that is NaN or infinite.
    """
    graph = _with_outputs(proto, names)
    ends = _ends(_activations(graph, names, feeds()))
    counts = {name: np.zeros(BINS) for name in ends}
    for name, values in _activations(graph, names, feeds()):
        low, high = ends[name]
        if low < high:
            sample = values.reshape(-1)[:: max(1, values.size // SAMPLE)]
            counts[name] += np.histogram(sample, BINS, (low, high))[0]
    return {name: Histogram(*ends[name], counts[name]) for name in ends}


def channel_means(proto: onnx.ModelProto, axes: Mapping[str, int], feeds: Feeds) -> dict[str, list[float]]:
    """The mean of each channel of activations; `axes` says along which axis their channels lie."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts = dict.fromkeys(axes, 0)
    names = list(axes)
    for name, values in _activations(_with_outputs(proto, names), names, feeds()):
        rows = np.moveaxis(values, axes[name], -1).reshape(-1, values.shape[axes[name]])
        sums[name] = sums.get(name, np.zeros(rows.shape[1])) + rows.sum(axis=0, dtype=np.float64)
        counts[name] += len(rows)
    return {name: (total / counts[name]).tolist() for name, total in sums.items()}


def _ends(activations: Iterator[tuple[str, npt.NDArray[np.float32]]]) -> dict[str, tuple[float, float]]:
    ends: dict[str, tuple[float, float]] = {}
    for name, values in activations:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise ModelError(
                f"the activation {name!r} is NaN or infinite on the calibration data, so it has no range; "
                "check the model and the pre-processing of the data"
            )
        before = ends.get(name, (low, high))
        ends[name] = min(before[0], low), max(before[1], high)
    return ends


def _activations(
    graph: bytes, names: Sequence[str], feeds: Iterable[Arrays]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Name and values, batch by batch; empty arrays are left out."""
    session = onnxkit.session(graph)
    taken = [value.name for value in session.get_inputs()]
    inner = [name for name in names if name not in taken]
    for feed in feeds:
        given = {name: feed[name] for name in taken}
        # Asked for no output, a session gives all of them.
        computed = session.run(inner, given) if inner else []
        found = {**dict(zip(inner, computed, strict=True)), **given}
        for name in names:
            values = np.asarray(found[name], np.float32)
            if values.size:
                yield name, values


def _with_outputs(proto: onnx.ModelProto, names: Sequence[str]) -> bytes:
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    known = {value.name for value in (*graph.graph.output, *graph.graph.input)}
    graph.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names if name not in known
    )
    return onnxkit.pack(graph)
