"""What `token-merge` does: chooses a schedule, and says which attentions weigh tokens by what they stand for."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch

from edgewright.types import Json, Model, Step, TorchGraph
from edgewright_plugins.token_merge import Params
from edgewright_plugins.token_merge.merging import MergedNet, merged
from edgewright_plugins.tokens import decide as tokens
from edgewright_plugins.tokens.schedule import Schedule, halving, named, steady
from edgewright_plugins.tokens.shape import Shape, example_of


def schedules(params: Params, shape: Shape) -> list[Schedule]:
    """Those that are searched: some tokens after every block, or half of them after a few."""
    size = shape.tokens, len(shape.blocks)
    return list(dict.fromkeys([*steady(*size), *halving(*size)]))


METHOD = tokens.Method("token-merge", 1.3, schedules, merged, partial(named, "token-merge"))


def told(model: Model, decision: Json) -> Model:
    """The model with what was done to it in its history."""
    net = cast("MergedNet", cast("TorchGraph", model.graph).module)
    shape, schedule = net.shape, Schedule(*(tuple(cast("dict[str, Any]", decision)[key]) for key in ("at", "keep")))
    with torch.no_grad():
        weighed = net.told(*example_of(model))[1]
    fewer = len(shape.blocks) - schedule.at[0]
    keys = "keys" if all(step.key for step in net.steps) else "tokens themselves, as one layer gives queries and keys"
    notes = (
        tokens.placed(decision, shape, schedule),
        f"alike by their {keys}; {weighed} of {fewer} attentions weigh tokens by how many they stand for",
    )
    params = cast("dict[str, Any]", decision)["params"]
    return model.after(Step("token-merge", plugin="edgewright", params=params, notes=notes))
