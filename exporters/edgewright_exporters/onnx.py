"""The exporter `onnx`: each stage as a file at the lowest versions that hold it, checked against the source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgewright.protocols import Context, Exporter
from edgewright.types import Array, Arrays, Artifact, GraphFile, Model, Refusal, Stage, Target, TorchGraph, Variant

if TYPE_CHECKING:
    from edgewright.numerics import Difference

EXAMPLES = 16
"""Calibration examples on which the numbers are compared."""


class Onnx:
    """Writes ONNX files for onnxruntime and everything else that reads them."""

    name = "onnx"
    format = "onnx"

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses a model that is still a torch module."""
        if model.format != "onnx":
            return Refusal(f"{model.name} is still a {model.format} model; add `lower` before the export")
        return None

    def export(self, model: Model, context: Context) -> Sequence[Artifact]:
        """One artifact per stage.

        The last stage of a variant carries the error of the whole variant against the source model:
        `max_abs`, `max_rel` (as a share of the output's largest value) and `n` examples.
        """
        feeds = list(context.feed(model, "calibration", limit=EXAMPLES))
        reference = source_outputs(context.original, feeds)
        artifacts: list[Artifact] = []
        for variant in model.variants:
            numerics = compare(model, variant, feeds, reference)
            for stage in variant.stages:
                artifacts.append(_artifact(variant, stage, numerics if stage is variant.stages[-1] else {}, context))
        return artifacts


def source_outputs(source: Model, feeds: Sequence[Arrays]) -> list[dict[str, Array]]:
    """What the source model makes of each feed: through onnxruntime, or the torch module itself; on this host."""
    variant = source.variants[0]
    if source.format == "torch":
        return [_run_torch(variant, feed) for feed in feeds]
    from edgewright.onnxkit import run_stages

    return run_stages(variant, feeds)


def compare(model: Model, variant: Variant, feeds: Sequence[Arrays], reference: Sequence[Arrays]) -> dict[str, float]:
    """The largest errors of the variant's outputs over all feeds; empty when there was nothing to compare."""
    from edgewright.onnxkit import run_stages

    return errors(model, feeds, reference, run_stages(variant, feeds))


def errors(model: Model, feeds: Sequence[Arrays], want: Sequence[Arrays], got: Sequence[Arrays]) -> dict[str, float]:
    """The largest differences between two computations of the model's outputs; empty when there were no feeds.

    A method may have given the model states that the source has not; there is nothing to compare them with.
    """
    from edgewright.numerics import worst

    names = [spec.name for spec in model.signature.outputs if all(spec.name in wanted for wanted in want)]
    found: list[Difference] = [
        worst(names, [wanted[name] for name in names], [given[name] for name in names])
        for wanted, given in zip(want, got, strict=True)
    ]
    if not found:
        return {}
    n = sum(len(next(iter(feed.values()))) for feed in feeds)
    return {"max_abs": max(d.max_abs for d in found), "max_rel": max(d.max_rel for d in found), "n": n}


def _run_torch(variant: Variant, feed: Arrays) -> dict[str, Array]:
    import torch

    pool = {name: torch.tensor(array) for name, array in feed.items()}
    carried: tuple[str, ...] = ()
    with torch.no_grad():
        for stage in variant.stages:
            assert isinstance(stage.graph, TorchGraph)
            result = stage.graph.module(*(pool[name] for name in (*stage.inputs, *carried)))
            tensors = [result] if isinstance(result, torch.Tensor) else list(result)
            carried = stage.carry
            pool |= dict(zip((*stage.outputs, *carried), tensors))
    return {name: tensor.numpy() for name, tensor in pool.items()}


def _artifact(variant: Variant, stage: Stage, numerics: Mapping[str, float], context: Context) -> Artifact:
    from edgewright import onnxkit

    proto = onnxkit.read(stage.graph)
    data = onnxkit.pack(proto)
    file: GraphFile = context.keep(data)
    return Artifact(
        name="-".join(dict.fromkeys((variant.name, stage.name))),
        path=file.path,
        digest=file.digest,
        size=len(data),
        format="onnx",
        variant=variant.name,
        stage=stage.name,
        ir=onnxkit.lowest_ir(proto),
        opsets=onnxkit.opsets(proto),
        operators=onnxkit.operators(proto),
        numerics=numerics,
    )


ONNX = Onnx()


def edgewright_exporters() -> Iterable[Exporter]:
    """What this module offers."""
    return (ONNX,)
