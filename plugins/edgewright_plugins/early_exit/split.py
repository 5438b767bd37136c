"""Cuts a backbone with exits into the stages of a chain, each a module of its own that computes its part alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgewright_plugins.early_exit.gate import Gate, Memory
from edgewright_plugins.early_exit.net import Change, MultiExit, Seen, answer_of, changed
from edgewright_plugins.early_exit.side import Answer, Cut, State, ask


@dataclass(frozen=True)
class Part:
    """The sides `start` to `stop` of a net, `stop` excluded, and the blocks around them.

    All parts but the first begin at the cut before `start`, with what came by there; all but the last end at their
    last cut, where `gate` is the number of the exit. The first `inputs` tensors that a part takes are the model's,
    `states` come from the sides before. `tells` says what the next part needs besides the block's output: the state of
    the sides, and the memory of the gates. `done` are the modules that end the blocks before the one that the part
    begins behind.
    """

    start: int
    stop: int
    gate: int | None
    inputs: int
    states: int = 0
    tells: tuple[bool, bool] = (True, True)
    done: tuple[str, ...] = ()


class Chain(nn.Module):
    """What all stages share: the net, its gates, the modules that end its blocks, and the shapes of its inputs.

    It is the same module in every stage, so that the weights of a chain are kept once.
    """

    def __init__(
        self,
        net: MultiExit,
        blocks: Sequence[str],
        exits: Sequence[int],
        example: Sequence[Tensor],
        *,
        rule: str,
        soft: bool,
    ) -> None:
        """A new gate of one `rule` for each of the sides that are `exits`.

        Args:
            net: what is cut.
            blocks: the modules that end its blocks.
            exits: the numbers of the sides whose answers may be taken; that of a final answer is none.
            example: inputs.
            rule: of `gates.RULES`.
            soft: the chain answers with probabilities, as the backbone does.
        """
        super().__init__()
        self.net, self.blocks, self.exits, self.rule, self.soft = net, tuple(blocks), tuple(exits), rule, soft
        self.gates = nn.ModuleList(Gate(rule) for _ in exits)
        self.shapes = [(tuple(tensor.shape[1:]), tensor.dtype) for tensor in example]

    def answer(self, logits: Tensor) -> Tensor:
        """What an exit says, in the form in which the network's own head says it."""
        return torch.softmax(logits, 1) if self.soft else logits

    def answers(self, seen: Seen) -> list[Tensor]:
        """What every exit of the net said, the final answer last."""
        count = len(seen.logits) - (not self.net.final)
        return [*(self.answer(logits) for logits in seen.logits[:count]), *seen.logits[count:]]

    def nothing(self, rows: int, device: torch.device) -> list[Tensor]:
        """Inputs of zeros."""
        return [torch.zeros((rows, *shape), dtype=dtype, device=device) for shape, dtype in self.shapes]


class StageModule(nn.Module):
    """One stage of a chain.

    The whole backbone runs; what came before the stage works on zeros, and its result is replaced at the cut where
    the stage begins. So nothing of it reaches the stage's outputs, an exporter leaves it out, and the backbone's own
    code decides how its blocks are called.
    """

    def __init__(self, chain: Chain, part: Part) -> None:
        super().__init__()
        self.chain, self.part = chain, part

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The stage's answer, what it hands on, and its score where it has a gate.

        Args:
            tensors: the model's inputs that this part is given, then what the stage before handed on.
        """
        part, net = self.part, self.chain.net
        inputs, carried = tensors[: part.inputs], tensors[part.inputs :]
        state, memory = carried[1 : 1 + part.states], carried[1 + part.states :]
        answers: list[Answer] = []
        changes: list[tuple[Cut, Change]] = []
        if part.start:
            # A later block that needs more than its own input must be noticed, not served by doing all again.
            changes += [(Cut(path), torch.zeros_like) for path in part.done]
            changes.append((net.cuts[part.start - 1], _instead(carried[0])))
            inputs = inputs or self.chain.nothing(carried[0].shape[0], carried[0].device)
        changes += [(net.cuts[number], _asking(net, number, answers, state)) for number in range(part.start, part.stop)]
        with changed(net.backbone, changes):
            own = answer_of(net.backbone(*inputs))
        if part.gate is not None:
            return self._handed_on(part.gate, answers[-1], memory)
        last = answers[-1].logits if net.final else None
        return (own if last is None else self.chain.answer(last),)

    def _handed_on(self, gate: int, last: Answer, memory: Memory) -> tuple[Tensor, ...]:
        """An exit's answer, what the next part needs, and the score."""
        logits = cast("Tensor", last.logits)
        score, memory = self.chain.gates[gate](logits, memory)
        state, remembers = self.part.tells
        # A block after the cut may change its input in place.
        carried = (last.x.clone(), *(last.state if state else ()), *(memory if remembers else ()))
        return (self.chain.answer(logits), *carried, score)


def _instead(x: Tensor) -> Change:
    return lambda _: x.clone()


def _asking(net: MultiExit, number: int, answers: list[Answer], state: State) -> Callable[[Tensor], Tensor]:
    """Asks the side of a number, and notes its answer."""

    def met(x: Tensor) -> Tensor:
        answers.append(ask(net.side(number), x, answers[-1].state if answers else state))
        return answers[-1].x

    return met
