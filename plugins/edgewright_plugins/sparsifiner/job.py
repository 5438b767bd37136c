"""What `sparsifiner` does: cuts the tokens of every attention, puts predictors in, and trains both."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.anatomy import Attention, examine
from edgewright.torchkit.data import Inputs
from edgewright.torchkit.losses import distilled
from edgewright.torchkit.train import train
from edgewright.types import Json, Model, Step, TorchGraph
from edgewright_plugins.attending import HeadedAttention, replaceable, take_over
from edgewright_plugins.rounded_training import module_of, rewritten, seen
from edgewright_plugins.sparsifiner import Params
from edgewright_plugins.sparsifiner.attention import SparseAttention
from edgewright_plugins.sparsifiner.cut import Cut, cut_for
from edgewright_plugins.sparsifiner.learn import connecting, groups, kept, settings, start, teacher_of

OTHERWISE = "sparsifiner takes networks whose attention is softmax(q k / sqrt(d)) v of separate layers; leave it out"


def decide(model: Model, params: Params, context: Context) -> Json:
    """The attentions, how each is cut, and the settings. Raises: RefusedError, RecipeError."""
    example = tuple(tensor[:1] for tensor in seen(model, context)[0])
    said = dict((context.task.anatomy if context.task else None) or {})
    found = planned(module_of(model), example, said, params)
    told = {"params": asdict(params), "attentions": [[asdict(one), asdict(cut)] for one, cut in found]}
    return cast("Json", json.loads(json.dumps(told)))


def planned(module: nn.Module, example: Inputs, said: Mapping[str, Any], params: Params) -> list[tuple[Attention, Cut]]:
    """Every attention of a network and its cut. Raises: RefusedError, RecipeError."""
    found = replaceable(module, example, said, OTHERWISE)
    anatomy = examine(module, example, said)
    stages = [anatomy.stages[block.stage] for block in anatomy.blocks if block.attention]
    cuts: list[tuple[Attention, Cut]] = []
    for one, stage, tokens in zip(found, stages, _tokens(module, found, example), strict=True):
        prefix = stage.prefix if stage.count == tokens else 0
        cuts.append((one, cut_for(tokens, prefix, params.keep, params.tile, params.block)))
    return cuts


class _Counted(HeadedAttention):
    """Dense attention that notes between how many tokens it was."""

    def attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As ever."""
        self.sizes = (q.shape[2], k.shape[2])
        return super().attended(q, k, v)


def _tokens(module: nn.Module, found: Sequence[Attention], example: Inputs) -> list[int]:
    """How many tokens each attention is between. Raises: RefusedError where queries and keys are not the same ones."""
    counted = [_Counted(each.heads) for each in found]
    made = iter(counted)
    with torch.no_grad():
        take_over(copy.deepcopy(module).eval(), found, lambda _: next(made))(*example)
    sizes = [each.sizes for each in counted]
    if any(queries != keys for queries, keys in sizes):
        raise RefusedError(f"some queries look at tokens that are not their own (cross attention); {OTHERWISE}")
    return [queries for queries, _ in sizes]


def sparse(module: nn.Module, plan: Sequence[tuple[Attention, Cut]], rank: int) -> nn.Module:
    """Put predictors into the attentions, in place."""
    cuts = {one.query: cut for one, cut in plan}

    def make(one: Attention) -> HeadedAttention:
        return SparseAttention(one.heads, one.head_dim, cuts[one.query], rank_of(one, rank))

    return take_over(module, [one for one, _ in plan], make)


def rank_of(one: Attention, rank: int) -> int:
    """How many channels a head's predictor sees."""
    return min(rank or max(1, one.head_dim // 2), one.head_dim)


def rewrite(model: Model, decision: Json) -> Model:
    """The network with predictors that have learned nothing."""
    said = cast("dict[str, Any]", decision)
    plan = [(Attention(**one), Cut(**cut)) for one, cut in said["attentions"]]
    return rewritten(model, decision, "sparsifiner", lambda module: sparse(module, plan, said["params"]["rank"]))


def train_sparse(model: Model, decision: Json, context: Context) -> Model:
    """The network after training. The teacher is the network that it was made of.

    Raises: RefusedError without a training split; what `torchkit.train` raises.
    """
    said = cast("dict[str, Any]", decision)
    params, batches = Params(**said["params"]), seen(model, context)
    module = copy.deepcopy(module_of(model)).eval()
    start(module, batches)
    how = "predictors fitted, the network not trained"
    if params.epochs:
        usual = distilled(teacher_of(module), context.task.loss if context.task else None, weight=params.distill)
        fitted = train(module, None, context, settings(params), objective=connecting(usual), groups=groups)
        losses = fitted.losses
        how = f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last" if losses else "own loop"
    step = Step("sparsifiner", plugin="edgewright", params=said["params"], notes=(_told(module, said, batches), how))
    return model.with_graph(TorchGraph(module.eval(), model.digest)).after(step)


def _told(module: nn.Module, said: dict[str, Any], batches: Sequence[Inputs]) -> str:
    share, mass = kept(module, batches)
    cuts = sorted({f"blocks of {cut['block']} keys for {cut['tile']} queries" for _, cut in said["attentions"]})
    return (
        f"{len(said['attentions'])} attentions compute {100 * share:.0f} % of the pairs of tokens, on which "
        f"{100 * mass:.0f} % of dense attention falls; {', '.join(cuts)}"
    )
