"""What `early-exit` does: chooses heads and places, cuts the network into a chain, and trains it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import cast

import torch

from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.anatomy import examine
from edgewright.torchkit.fit import Fitted
from edgewright.types import Json, Model, Stage, Step, TorchGraph
from edgewright_plugins.early_exit import Params
from edgewright_plugins.early_exit.build import cut, example_of, module_of
from edgewright_plugins.early_exit.chain import with_stages
from edgewright_plugins.early_exit.choice import Choice, family_of, from_json, to_json
from edgewright_plugins.early_exit.heads import lgvit, perceiver
from edgewright_plugins.early_exit.judge import answers_on, scores, temperatures
from edgewright_plugins.early_exit.learn import learn
from edgewright_plugins.early_exit.split import Chain, StageModule
from edgewright_plugins.early_exit.weigh import cuts_behind, places


def decide(model: Model, params: Params, context: Context) -> Json:
    """The heads and their places. Raises: RefusedError, RecipeError."""
    said = dict((context.task.anatomy if context.task else None) or {})
    anatomy = examine(module_of(model), example_of(model), said)
    if any(stage.layout == "tokens_first" for stage in anatomy.stages):
        raise RefusedError(
            f"the blocks of {model.name} keep their tokens on axis 0 and the batch on axis 1, so no row can leave "
            "early; build it with batch_first=True"
        )
    family = family_of(params, anatomy)
    choice = Choice(params, family, (), anatomy=said, seed=context.seed)
    if family == "perceiver":
        return to_json(replace(choice, cuts=perceiver.cuts(anatomy)))
    blocks, shares = places(model, anatomy, choice, context)
    cuts = cuts_behind(anatomy.blocks, blocks)
    kinds = lgvit.kinds(len(cuts)) if family == "lgvit" else ()
    return to_json(replace(choice, cuts=cuts, kinds=kinds, blocks=blocks, shares=shares))


def rewrite(model: Model, decision: Json) -> Model:
    """The chain with new heads. Raises: RefusedError when it does not compute what the network does."""
    choice = from_json(decision)
    chain = cut(model, choice)
    return replace(chain, variants=(replace(chain.variants[0], goal=choice.goal),))


def train_exits(model: Model, decision: Json, context: Context) -> Model:
    """The chain after training, with temperatures in its gates. Raises: RefusedError without a training split."""
    choice = from_json(decision)
    # One copy of all, so that the stages go on sharing their chain.
    modules = copy.deepcopy([cast("StageModule", cast("TorchGraph", stage.graph).module) for stage in model.stages])
    chain = modules[0].chain
    fitted = learn(chain, choice, context)
    names = [spec.name for spec in model.signature.inputs]
    notes = (_placed(choice), _trained(fitted), *_judged(chain, names, model.signature.outputs[0].name, context))
    stages = [_with_module(*each) for each in zip(model.stages, modules, strict=True)]
    return with_stages(model, tuple(stages)).after(
        Step("early-exit", plugin="edgewright", params=asdict(choice.params), notes=notes)
    )


def _with_module(stage: Stage, module: StageModule) -> Stage:
    return replace(stage, graph=TorchGraph(module.eval(), stage.graph.digest))


def _judged(chain: Chain, names: Sequence[str], output: str, context: Context) -> list[str]:
    """Set the temperatures, and say what every exit is worth."""
    task = context.task
    if task is None:
        return []
    notes: list[str] = []
    if task.size("calibration") and chain.rule != "patience":
        found = temperatures(answers_on(chain, task, names, "calibration"))
        for gate, value in zip(chain.gates, found, strict=True):
            cast("torch.Tensor", gate.temperature).fill_(value)
        notes.append(f"temperatures of the exits: {', '.join(f'{value:.2f}' for value in found)}")
    if task.size("selection"):
        answers = answers_on(chain, task, names, "selection")
        labels = answers.labels if task.labelled else context.outputs(context.original, "selection")
        found = scores(answers, labels, task, output)
        listed = [f"exit{number} {value:.4g}" for number, value in enumerate(found[:-1], 1)]
        metric = f"{task.metric.name} {task.metric.unit}".rstrip()
        notes.append(f"{metric} on selection if everyone left there: {', '.join(listed)}, final {found[-1]:.4g}")
    return notes


def _placed(choice: Choice) -> str:
    """Where the exits stand, and what answers there."""
    if choice.family == "perceiver":
        return "a latent beside the network (Dynamic Perceiver), with two exits and the last answer"
    heads = ", ".join(choice.kinds) or choice.family
    shares = f", at {', '.join(f'{share:.0%}' for share in choice.shares)} of the cost" if choice.shares else ""
    return f"exits after blocks {', '.join(map(str, choice.blocks))}{shares}; heads: {heads}"


def _trained(fitted: Sequence[tuple[str, Fitted]]) -> str:
    told = [
        f"{part}: loss {done.losses[0]:.3f} in the first epoch, {done.losses[-1]:.3f} in the last"
        if done.losses
        else f"{part}: own loop"
        for part, done in fitted
    ]
    return "; ".join(told)
