"""Reads what a decoder's attentions store, and sees whether it answers token by token as it does over a whole text."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.errors import RefusedError
from edgewright.torchkit.losses import outputs_of
from edgewright_plugins.kv_skip.attention import Attending, Call
from edgewright_plugins.kv_skip.net import Layer, Plan, Skipping, Steps, states_of

TOLERANCE = 1e-3
"""Of the largest output."""
STEPS = 6
"""So many tokens are compared one by one."""


class _Reading(Attending):
    """Notes what each attention is given, and answers as it would."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Call] = []

    def attend(self, call: Call) -> Tensor:
        self.noted.append(call)
        heads = call.query.shape[1] != call.key.shape[1]
        return functional.scaled_dot_product_attention(
            call.query, call.key, call.value, is_causal=True, scale=call.scale, enable_gqa=heads
        )


def layers_of(module: nn.Module, tokens: Tensor, name: str) -> tuple[Layer, ...]:
    """What each attention stores per token.

    Raises: RefusedError when there is none, or one does not work on the tokens.
    """
    with torch.no_grad(), _Reading() as reading:
        outputs = outputs_of(module(tokens))
    if not reading.noted:
        raise RefusedError(
            f"{name} calls no scaled_dot_product_attention, which kv-skip stands in for; have its attentions call it "
            "(in transformers: attn_implementation='sdpa')"
        )
    for call in reading.noted:
        sizes = {part.shape[-2] for part in (call.query, call.key, call.value)}
        if call.query.ndim != 4 or sizes != {tokens.shape[1]}:
            raise RefusedError(
                f"attention {call.number} of {name} works on queries {list(call.query.shape)} and keys "
                f"{list(call.key.shape)}; kv-skip takes decoders whose attentions are all over the {tokens.shape[1]} "
                "tokens of a text"
            )
    for output in outputs:
        if output.ndim < 2 or output.shape[:2] != tokens.shape:
            raise RefusedError(
                f"{name} gives {list(output.shape)} for texts {list(tokens.shape)}; kv-skip takes decoders that answer "
                "for each token, and give nothing else (in transformers: use_cache=False)"
            )
    return tuple(Layer(call.key.shape[1], call.key.shape[3], call.value.shape[3]) for call in reading.noted)


def checked(module: nn.Module, tokens: Tensor, plan: Plan, name: str) -> None:
    """Compare, where everything is stored, whole texts and single steps with the network itself.

    Raises: RefusedError when its attentions are not causal, or a step does not answer as the whole text does.
    """
    net = Skipping(module, replace(plan, rows=plan.context)).eval()
    with torch.no_grad():
        wanted = outputs_of(module(tokens))[0]
        if not _alike(outputs_of(net(tokens))[0], wanted):
            raise RefusedError(f"{name} answers otherwise when its attentions see what came before, and that alone")
        steps = rolled(Steps(net), tokens[:, :STEPS])
    if not _alike(steps, wanted[:, :STEPS]):
        raise RefusedError(
            f"{name} answers otherwise token by token: it must number its tokens with torch.arange, and only its "
            "attentions may look at several of them"
        )


def rolled(steps: Steps, tokens: Tensor) -> Tensor:
    """The first output over texts [b, t], token by token, from nothing stored."""
    states = [torch.from_numpy(each) for each in states_of(steps.net.plan, len(tokens)).values()]
    found: list[Tensor] = []
    for at in range(tokens.shape[1]):
        first, *others = steps(tokens[:, at : at + 1], *states)
        found.append(first)
        states = others[len(others) - len(states) :]
    return torch.cat(found, 1)


def _alike(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
