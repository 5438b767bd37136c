"""What `stvit` does: chooses from where semantic tokens go on, makes the network, and trains it."""

from __future__ import annotations

import copy
from math import prod
from typing import Any, cast

from edgewright.errors import RecipeError
from edgewright.protocols import Context
from edgewright.torchkit.losses import distilled
from edgewright.torchkit.train import train
from edgewright.types import Json, Model, Step, TorchGraph
from edgewright_plugins.stvit import Params
from edgewright_plugins.stvit.net import SemanticNet, semantic
from edgewright_plugins.stvit.shape import Semantic, semantic_shape
from edgewright_plugins.tokens import decide as tokens
from edgewright_plugins.tokens.learning import groups, settings, trained
from edgewright_plugins.tokens.schedule import Schedule
from edgewright_plugins.tokens.shape import Shape

GLOBAL, WINDOW = 16, 9
"""Semantic tokens of a whole image and of a window of 7 x 7, as in the paper."""


def said(params: Params, shape: Shape) -> Schedule | None:
    """From which block how many tokens go on, where the user says it. Raises: RecipeError where it does not fit."""
    if not params.at:
        return None
    if params.speedup is not None:
        raise RecipeError("stvit: speedup chooses the block, which at says; write one of them")
    if params.at >= len(shape.blocks):
        raise RecipeError(
            f"stvit: at={params.at} does not fit; {len(shape.blocks)} blocks work on {shape.tokens} tokens each, and "
            f"semantic tokens may go on after 1 to {len(shape.blocks) - 1}"
        )
    return Schedule((params.at,), (count_of(params, shape),))


def count_of(params: Params, shape: Shape) -> int:
    """How many semantic tokens there are in all. Raises: RecipeError where they are no fewer than the image's."""
    assert isinstance(shape, Semantic)
    size = prod(shape.window or shape.places)
    count = params.tokens or max(1, min(WINDOW if shape.window else GLOBAL, size // 4))
    if count >= size:
        where = "each window has" if shape.window else "the network has"
        raise RecipeError(f"stvit: tokens={count} does not fit; {where} {size} tokens, and fewer must go on")
    return count * shape.windows


def family(params: Params, shape: Shape) -> list[Schedule]:
    """Those that are searched: after every block."""
    return [Schedule((at,), (count_of(params, shape),)) for at in range(1, len(shape.blocks))]


METHOD = tokens.Method("stvit", 1.5, family, semantic, said, semantic_shape)


def train_tokens(model: Model, decision: Json, context: Context) -> Model:
    """The network after training. The teacher is the network that it was made of.

    Raises: RefusedError without a training split; what `torchkit.train` raises.
    """
    found = cast("dict[str, Any]", decision)
    params = Params(**found["params"])
    net = copy.deepcopy(cast("SemanticNet", cast("TorchGraph", model.graph).module))
    (teacher,) = net.whole
    objective = distilled(teacher, context.task.loss if context.task else None, weight=params.distill)
    fitted = train(net, teacher, context, settings(params), objective=objective, groups=groups)
    notes = (told(net, decision), trained(fitted.losses))
    net.finish()
    step = Step("stvit", plugin="edgewright", params=found["params"], notes=notes)
    return model.with_graph(TorchGraph(net.eval(), model.digest)).after(step)


def told(net: SemanticNet, decision: Json) -> str:
    """What was made, in words."""
    found, shape = cast("dict[str, Any]", decision), net.shape
    schedule = Schedule(tuple(found["at"]), tuple(found["keep"]))
    windows = f" ({shape.windows} windows)" if shape.window else ""
    last = f", all again after block {len(shape.blocks)}" if net.recover else ""
    return tokens.placed(decision, shape, schedule) + windows + last
