"""What a pattern found: the kernel that computes some values of a graph, and where its pointers come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgewright.protocols import Kernel
from edgewright.types import Array, Offer
from edgewright_exporters.onnx_kernels.blocks import Blocks
from edgewright_exporters.onnx_kernels.templates import Job


@dataclass(frozen=True, eq=False)
class Match:
    """One kernel to be called in the place of nodes.

    `inputs` and `outputs` map the names of a template's pointers to values of the graph; the pointers that are in
    neither are constants, which the template packs from `weights`. Those in `blocked` are images in blocks of channels,
    see `kernels.window`; the values of the graph are not. `by` found it: nobody says so of what was put in between.
    """

    job: Job
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    weights: Mapping[str, Array]
    blocked: frozenset[str] = frozenset()
    by: Offer[Kernel] | None = None

    def value(self, pointer: str, blocks: Blocks) -> str:
        """The value behind an input or output, as the rewritten graph calls it."""
        name = {**self.inputs, **self.outputs}[pointer]
        return blocks.name(name) if pointer in self.blocked else name

    def reads(self, blocks: Blocks) -> Sequence[str]:
        """The values that it takes."""
        return [self.value(pointer, blocks) for pointer in self.inputs]

    def makes(self, blocks: Blocks) -> Sequence[str]:
        """The values that it gives."""
        return [self.value(pointer, blocks) for pointer in self.outputs]


def match(
    template: str,
    case: Any,
    *,
    inputs: Mapping[str, str],
    output: str,
    blocked: frozenset[str] = frozenset(),
    **weights: Array | None,
) -> Match:
    """A match with one output, `y`; weights that are None are left out.

    `template` is the name of one of ours, or that of the module which is one: `match(__name__, Case(...), ...)`.
    """
    held = {name: weight for name, weight in weights.items() if weight is not None}
    return Match(Job(template, case), inputs, {"y": output}, held, blocked)
