"""What a pattern found: the kernel that computes some values of a graph, and where its pointers come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgewright.types import Array
from edgewright_exporters.onnx_kernels.templates import Job


@dataclass(frozen=True, eq=False)
class Match:
    """One kernel to be called in the place of nodes.

    `inputs` and `outputs` map the names of a template's pointers to values of the graph; the pointers that are in
    neither are constants, which the template packs from `weights`.
    """

    job: Job
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    weights: Mapping[str, Array]


def match(template: str, case: Any, *, inputs: Mapping[str, str], output: str, **weights: Array | None) -> Match:
    """A match with one output, `y`; weights that are None are left out."""
    return Match(Job(template, case), inputs, {"y": output}, {n: w for n, w in weights.items() if w is not None})
