"""Why a model cannot lose tokens, as far as it can be told before anything is read of its code."""

from __future__ import annotations

import importlib.util

from edgewright.types import Model, Refusal, TorchGraph


def obstacle(model: Model, method: str) -> Refusal | None:
    """Refuses models of several stages, recurrent ones, hosts without torch, and networks without attention."""
    if len(model.stages) != 1:
        return Refusal(
            f"{model.name} has {len(model.stages)} stages, and {method} takes models of one; apply it before "
            f"the method that splits the model: --apply {method} --apply early-exit"
        )
    if model.signature.state:
        return Refusal(f"{model.name} is recurrent; {method} takes networks without states")
    if importlib.util.find_spec("torch") is None:
        return Refusal(f"{method} needs PyTorch, which is not installed: pip install 'edgewright[torch]'")
    if not attentive(model):
        return Refusal(
            f"{model.name} has no attention, and nothing else takes any number of tokens; {method} is for transformers"
        )
    return None


def attentive(model: Model) -> bool:
    """Whether an attention ran in the model's example run."""
    import torch

    from edgewright.torchkit.anatomy.record import record

    graph = model.graph
    assert isinstance(graph, TorchGraph)
    return bool(
        record(graph.module, [torch.tensor(model.example[spec.name]) for spec in model.signature.inputs]).attends
    )
