"""What `token-slim` does: chooses a schedule, slims the network, and trains it to recover all tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from edgewright.protocols import Context
from edgewright.torchkit.train import train
from edgewright.types import Json, Model, Step, TorchGraph
from edgewright_plugins.token_slim import Params
from edgewright_plugins.token_slim.learn import recalibrated
from edgewright_plugins.token_slim.net import SlimNet, slimmed
from edgewright_plugins.tokens import decide as tokens
from edgewright_plugins.tokens.learning import groups, settings, trained
from edgewright_plugins.tokens.schedule import Schedule, halving, named
from edgewright_plugins.tokens.shape import Shape


def schedules(params: Params, shape: Shape) -> list[Schedule]:
    """Those that are searched: half of the tokens after a few blocks."""
    return halving(shape.tokens, len(shape.blocks))


METHOD = tokens.Method("token-slim", 1.5, schedules, slimmed, partial(named, "token-slim"))


def train_slims(model: Model, decision: Json, context: Context) -> Model:
    """The network after training, without what only training needs.

    The teacher is the network before it was slimmed, with the weights that both start with.

    Raises: RefusedError without a training split; what `torchkit.train` raises.
    """
    said = cast("dict[str, Any]", decision)
    params = Params(**{name: _tupled(value) for name, value in said["params"].items()})
    net = copy.deepcopy(cast("SlimNet", cast("TorchGraph", model.graph).module))
    schedule = Schedule(tuple(said["at"]), tuple(said["keep"]))
    teacher, shape = copy.deepcopy(net.backbone).eval(), net.shape
    net.learning(schedule, seed=context.seed)
    loss = context.task.loss if context.task else None
    objective = recalibrated(teacher, loss, distill=params.distill, recalibrate=params.recalibrate)
    fitted = train(net, teacher, context, settings(params), objective=objective, groups=groups)
    net.finish()
    notes = (tokens.placed(decision, shape, schedule), trained(fitted.losses))
    step = Step("token-slim", plugin="edgewright", params=said["params"], notes=notes)
    return model.with_graph(TorchGraph(net.eval(), model.digest)).after(step)


def _tupled(value: Any) -> Any:
    return tuple(cast("Sequence[Any]", value)) if isinstance(value, list) else value
