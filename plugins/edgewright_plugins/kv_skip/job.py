"""What `kv-skip` does: reads a decoder's attentions, makes it answer token by token, and trains what it stores."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgewright.errors import RecipeError
from edgewright.protocols import Context
from edgewright.torchkit.train import train
from edgewright.types import Json, Model, Signature, State, Step, TensorSpec, TorchGraph
from edgewright_plugins.kv_skip import Params
from edgewright_plugins.kv_skip.learn import learning, level, settings, skipping, told
from edgewright_plugins.kv_skip.net import Layer, Plan, Skipping, Steps, states_of
from edgewright_plugins.kv_skip.read import checked, layers_of
from edgewright_plugins.tokens.learning import groups

EXAMPLES = 32
"""Calibration texts that set the predictor's threshold."""


def decide(model: Model, params: Params, context: Context) -> Json:
    """The plan of the caches.

    Raises: RefusedError for what cannot answer token by token; RecipeError where nothing would be left to skip.
    """
    module, tokens = module_of(model), example_of(model)
    layers = layers_of(module, tokens, model.name)
    size = tokens.shape[1]
    rows = size if params.keep == 1 else round(params.keep * size)
    if params.after >= len(layers):
        raise RecipeError(
            f"kv-skip: after={params.after} leaves nothing to skip; {model.name} calls {len(layers)} attentions, and "
            f"0 to {len(layers) - 1} of them may store every token"
        )
    if rows <= params.recent:
        raise RecipeError(
            f"kv-skip: keep={params.keep:g} leaves room for {rows} of {size} tokens, and recent={params.recent} takes "
            "all of it; keep more, or longer texts"
        )
    plan = Plan(layers, size, params.after, rows, params.recent)
    checked(module, tokens, plan, model.name)
    found = {"plan": asdict(plan), "params": asdict(params), "seed": context.seed}
    return cast("Json", json.loads(json.dumps(found)))


def rewrite(model: Model, decision: Json) -> Model:
    """The model of one token a run, with keys and values as states."""
    found = cast("dict[str, Any]", decision)
    plan = planned(decision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(found["seed"])
        net = Skipping(copy.deepcopy(module_of(model)), plan).eval()
    text = f"kv-skip {model.digest} {json.dumps(decision, sort_keys=True)}"
    return stepping(model, net, hashlib.sha256(text.encode()).hexdigest())


def planned(decision: Json) -> Plan:
    """The plan of a decision."""
    plan = cast("dict[str, Any]", decision)["plan"]
    layers = tuple(Layer(**layer) for layer in plan["layers"])
    return Plan(layers, plan["context"], plan["after"], plan["rows"], plan["recent"])


def train_skips(model: Model, decision: Json, context: Context) -> Model:
    """The network after training; the teacher is the network as it came. Where all is stored nothing trains.

    Raises: RefusedError without a training split; what `torchkit.train` raises.
    """
    found = cast("dict[str, Any]", decision)
    params, plan = Params(**found["params"]), planned(decision)
    net = copy.deepcopy(cast("Steps", module_of(model)).net)
    notes = (describe(plan),)
    if plan.skips:
        teacher = copy.deepcopy(net.backbone)
        learning(net, params.keep)
        loss = context.task.loss if context.task else None
        objective = skipping(teacher, loss, keep=params.keep, distill=params.distill)
        fitted = train(net, teacher, context, settings(params), objective=objective, groups=groups)
        share = level(net, params.keep, _texts(context))
        notes = (*notes, told(share, fitted.losses))
    net.noted = None
    step = Step("kv-skip", plugin="edgewright", params=found["params"], notes=notes)
    return model.with_graph(TorchGraph(Steps(net).eval(), model.digest)).after(step)


def _texts(context: Context) -> Iterator[Tensor]:
    (name,) = (spec.name for spec in context.original.signature.fed)
    for feed in context.feed(context.original, "calibration", EXAMPLES):
        yield torch.from_numpy(np.asarray(feed[name]))


def describe(plan: Plan) -> str:
    """The caches, in words."""
    count = len(plan.layers)
    if not plan.skips:
        return f"one token a run; {count} attentions store each of {plan.context} tokens"
    return (
        f"one token a run; {plan.after} of {count} attentions store each of {plan.context} tokens, "
        f"{count - plan.after} have room for {plan.rows}, the latest {plan.recent} among them"
    )


# ------------------------------------------------------------------ the model of one token a run


def stepping(model: Model, net: Skipping, digest: str) -> Model:
    """The model whose graph is the net's steps, under `digest`."""
    (tokens,), batch = model.signature.inputs, len(next(iter(model.example.values())))
    given = states_of(net.plan, batch)
    links = tuple(State(f"{name}_next", name) for name in given)
    states = [TensorSpec(name, str(array.dtype), array.shape) for name, array in given.items()]
    after = [replace(spec, name=f"{spec.name}_next") for spec in states]
    signature = Signature(
        (replace(tokens, shape=(tokens.shape[0], 1)), *states),
        (*(replace(spec, shape=(spec.shape[0], 1, *spec.shape[2:])) for spec in model.signature.outputs), *after),
        links,
    )
    stage = replace(
        model.stages[0],
        graph=TorchGraph(Steps(net), digest),
        inputs=tuple(spec.name for spec in signature.inputs),
        outputs=tuple(spec.name for spec in signature.outputs),
    )
    variants = (replace(model.variants[0], stages=(stage,)),)
    example = {tokens.name: model.example[tokens.name][:, :1], **given}
    return replace(model, signature=signature, variants=variants, example=example)


def module_of(model: Model) -> nn.Module:
    """The model's module."""
    return cast("TorchGraph", model.graph).module


def example_of(model: Model) -> Tensor:
    """The example texts, int64 [n, t]."""
    return torch.tensor(model.example[model.signature.inputs[0].name])
