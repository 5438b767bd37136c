"""Trains a net with exits: network and heads together, then the heads alone."""

from __future__ import annotations

import copy

from torch import nn

from edgewright.protocols import Context
from edgewright.torchkit.fit import Fitted
from edgewright.torchkit.losses import Objective
from edgewright.torchkit.train import train
from edgewright.torchkit.training import Training
from edgewright.types import TorchGraph
from edgewright_plugins.early_exit import Params
from edgewright_plugins.early_exit.choice import Choice
from edgewright_plugins.early_exit.objectives import groups, heads_only, joint, perceiver
from edgewright_plugins.early_exit.split import Chain

DECAY = 0.05


def learn(chain: Chain, choice: Choice, context: Context) -> list[tuple[str, Fitted]]:
    """Train the net of a chain in place. Returns: each part of the training, and how it went.

    A latent beside the network changes what the network works on, so both are trained together to the end.

    Raises: RefusedError without a training split; what `torchkit.train` raises.
    """
    net, params = chain.net, choice.params
    task = context.task
    loss = task.loss if task else None
    done: list[tuple[str, Fitted]] = []

    def run(part: str, epochs: int, objective: Objective) -> None:
        training = _settings(params, epochs)
        done.append((part, train(net, None, context, training, objective=objective, groups=groups(DECAY), part=part)))

    if params.train == "heads":
        net.freeze()
    if choice.family == "perceiver":
        run("all", params.epochs + params.head_epochs, perceiver(loss, distill=params.distill))
        return done
    if params.train == "both":
        teacher = teacher_of(net.backbone, context)
        run("both", params.epochs, joint(teacher, loss, distill=params.distill))
        net.freeze()
    run("heads", params.head_epochs, heads_only(loss, distill=params.distill))
    return done


def _settings(params: Params, epochs: int) -> Training:
    return Training(epochs=epochs, batch=params.batch, rate=params.rate, weight_decay=DECAY)


def teacher_of(backbone: nn.Module, context: Context) -> nn.Module:
    """The original where it is a torch module, else the network as it is before it trains."""
    graph = context.original.graph
    return copy.deepcopy(graph.module if isinstance(graph, TorchGraph) else backbone)
