"""What a method trained: kept as weights alone, and built again from the method's decision.

A file of weights holds no code, and what wrote it need not be trusted; the structure comes from the method itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edgewright.protocols import GraphStore
from edgewright.store import key_of
from edgewright.types import Graph, GraphFile, Model, Stage, TorchGraph

WEIGHTS = "weights"
"""The format of such a file."""


def changed(model: Model, before: Model) -> bool:
    """Whether a method made modules of its own; methods leave those of their input as they are."""
    known = {id(stage.graph.module) for stage in before.stages if isinstance(stage.graph, TorchGraph)}
    return any(isinstance(s.graph, TorchGraph) and id(s.graph.module) not in known for s in model.stages)


def sealed(model: Model, key: str) -> Model:
    """The model with digests that cover the step (its `key`) and the weights, whatever the method wrote there."""
    from edgewright.torchkit.weights import digest_of

    def seal(stage: Stage) -> Graph:
        assert isinstance(stage.graph, TorchGraph)
        return replace(stage.graph, digest=key_of(key, stage.name, digest_of(stage.graph.module)))

    return _with_graphs(model, seal)


def shelved(model: Model, store: GraphStore) -> Model:
    """The model with a file of weights in the place of each module."""
    from edgewright.torchkit.weights import to_bytes

    def shelve(stage: Stage) -> Graph:
        assert isinstance(stage.graph, TorchGraph)
        return store.keep(to_bytes(stage.graph.module), WEIGHTS)

    return _with_graphs(model, shelve)


def revived(shelf: Model, rewritten: Model, key: str) -> Model:
    """The `rewritten` modules with the weights on the shelf, sealed as they were.

    Raises: RuntimeError when the weights belong to another structure.
    """
    from edgewright.torchkit.weights import read_into

    modules = {stage.name: stage.graph for stage in rewritten.stages}

    def revive(stage: Stage) -> Graph:
        graph = modules.get(stage.name)
        if not isinstance(stage.graph, GraphFile) or not isinstance(graph, TorchGraph):
            raise RuntimeError(f"the stage {stage.name!r} is not among those that were trained")
        read_into(graph.module, stage.graph.path)
        return graph

    return sealed(replace(_with_graphs(shelf, revive), example=rewritten.example), key)


def _with_graphs(model: Model, graph_of: Callable[[Stage], Graph]) -> Model:
    variants = (
        replace(variant, stages=tuple(replace(stage, graph=graph_of(stage)) for stage in variant.stages))
        for variant in model.variants
    )
    return replace(model, variants=tuple(variants))
