"""Builds what was chosen: the net with its new sides, as a chain."""

from __future__ import annotations

import copy
import json
from typing import cast

import torch
from torch import Tensor, nn

from edgewright.torchkit.anatomy import Anatomy, examine
from edgewright.torchkit.losses import logits_of
from edgewright.types import Model, TorchGraph
from edgewright_plugins.early_exit.chain import stages_of, with_stages
from edgewright_plugins.early_exit.choice import Choice, to_json
from edgewright_plugins.early_exit.heads import lgvit, linear, perceiver
from edgewright_plugins.early_exit.net import MultiExit
from edgewright_plugins.early_exit.split import Chain


def module_of(model: Model) -> nn.Module:
    """The module of the only stage."""
    return cast("TorchGraph", model.graph).module


def example_of(model: Model) -> list[Tensor]:
    """The example inputs, by position."""
    return [torch.tensor(model.example[spec.name]) for spec in model.signature.inputs]


def cut(model: Model, choice: Choice) -> Model:
    """The model as a chain with new heads. Raises: RefusedError when it does not compute what the network does."""
    text = f"early-exit {json.dumps(to_json(choice), sort_keys=True)}"
    return with_stages(model, stages_of(model, chain_of(model, choice), text))


def chain_of(model: Model, choice: Choice) -> Chain:
    """A copy of the model's network, with new sides at the chosen cuts."""
    backbone, example = copy.deepcopy(module_of(model)).eval(), example_of(model)
    anatomy = examine(backbone, example, choice.anatomy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(choice.seed)
        sides = sides_of(choice, anatomy, int(model.signature.outputs[0].shape[1]))
    ends = [block.end for block in anatomy.blocks]
    net = MultiExit(backbone, choice.cuts, sides, last=ends[-1], final=choice.family == "perceiver").eval()
    with torch.no_grad():
        seen = net(*example)
    exits = seen.at[:-1] if net.final else seen.at
    return Chain(net, ends, exits, example, rule=choice.params.gate, soft=logits_of(seen.own) is not seen.own)


def sides_of(choice: Choice, anatomy: Anatomy, classes: int) -> list[nn.Module]:
    """A new side for each cut."""
    if choice.family == "perceiver":
        return perceiver.sides(anatomy, classes)
    grids = {block.end: anatomy.stages[block.stage] for block in anatomy.blocks}
    reads = anatomy.head.reads if anatomy.head else ()
    if choice.family == "linear":
        return [linear.LinearHead(grids[cut.path], classes, reads) for cut in choice.cuts]
    return [
        lgvit.head(kind, grids[cut.path], classes, reads) for kind, cut in zip(choice.kinds, choice.cuts, strict=True)
    ]
