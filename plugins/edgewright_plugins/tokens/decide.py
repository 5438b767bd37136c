"""Decides a schedule: as the user says it, or the one that is fast enough on the target and loses least."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgewright.errors import RecipeError, RefusedError
from edgewright.protocols import Context
from edgewright.torchkit.losses import outputs_of
from edgewright.types import Json, Measurement, Model, TorchGraph
from edgewright_plugins.token_merge.merging import merged
from edgewright_plugins.tokens.schedule import Schedule
from edgewright_plugins.tokens.shape import Shape, checked, example_of, module_of, shape_of

EXAMPLES = 16
"""Calibration examples on which schedules are compared before any is timed."""
BANDS = ((0.7, 1.15), (0.0, 0.7))
"""Tokens times blocks, as shares of what would do if nothing else took time."""


class Asked(Protocol):
    """What the parameters of these methods have in common."""

    @property
    def speedup(self) -> float | None: ...


@dataclass(frozen=True)
class Method:
    """One way to leave out tokens.

    `speedup` is what it aims at when nobody says, `family` gives the schedules it has, `said` the one that parameters
    name, if they do, and `build` the network. `shape` reads a network, or refuses it.
    """

    name: str
    speedup: float
    family: Callable[[Any, Shape], list[Schedule]]
    build: Callable[[nn.Module, Shape, Schedule], nn.Module]
    said: Callable[[Any, Shape], Schedule | None]
    shape: Callable[[nn.Module, Sequence[Tensor], Mapping[str, Any], str], Shape] = shape_of


@dataclass(frozen=True)
class Search:
    """A search under way: the network, and what it is to become."""

    method: Method
    model: Model
    shape: Shape
    family: Sequence[Schedule]
    context: Context

    def chosen(self, speedup: float) -> tuple[Schedule, str]:
        """The mildest schedule of a front that is measured to be fast enough, and what was measured.

        Time is nearly a share of tokens times blocks, so schedules of about the share that is asked for are looked at
        first, and stronger ones only where none of these is fast enough.

        Raises: RecipeError when none is; RefusedError when no latency is known here.
        """
        size = self.shape.tokens, len(self.shape.blocks)
        shares = {each: speedup * each.work(*size) / (size[0] * size[1]) for each in self.family}
        reached = 0.0
        for low, high in BANDS:
            front = self.front([each for each, share in shares.items() if low <= share < high])
            if front and (reached := self.ratio(front[-1])[0]) >= speedup:
                return self._mildest(front, speedup)
        strongest = reached or self.ratio(min(self.family, key=lambda each: each.work(*size)))[0]
        raise RecipeError(
            f"{self.method.name}: no schedule makes {self.model.name} {speedup:g} times as fast; the strongest "
            f"reaches {strongest:.2f}: ask for less, or say keep=..."
        )

    def _mildest(self, front: Sequence[Schedule], speedup: float) -> tuple[Schedule, str]:
        """The first of a front that is fast enough, by bisection; the last is."""
        slow, fast = -1, len(front) - 1
        while fast - slow > 1:
            middle = (fast + slow) // 2
            slow, fast = (slow, middle) if self.ratio(front[middle])[0] >= speedup else (middle, fast)
        return front[fast], self.ratio(front[fast])[1]

    def front(self, schedules: Sequence[Schedule]) -> list[Schedule]:
        """Those that lose less than all that do as little work or less, from the mildest to the strongest.

        Where the network's blocks need all tokens, nothing can be joined to compare, and all are in it.
        """
        size = self.shape.tokens, len(self.shape.blocks)
        rising = sorted(schedules, key=lambda each: each.work(*size))
        if self.shape.window:
            return rising[::-1]
        losses = cast("list[float]", self.context.remember(f"losses {rising}", lambda: [*self._losses(rising)]))
        kept: list[Schedule] = []
        least = float("inf")
        for schedule, loss in zip(rising, losses, strict=True):
            if loss < least:
                kept, least = [schedule, *kept], loss
        return kept

    def _losses(self, schedules: Sequence[Schedule]) -> list[float]:
        """How far tokens joined by each schedule, which nothing is trained for, take the outputs."""
        module, inputs = module_of(self.model), self._inputs()
        found: list[float] = []
        with torch.no_grad():
            wanted = outputs_of(module(*inputs))[0].float()
            for number, schedule in enumerate(schedules):
                self.context.progress(f"{self.method.name}: what schedules lose", number, len(schedules))
                got = outputs_of(merged(module, self.shape, schedule)(*inputs))[0].float()
                found.append(float((got - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)))
        return found

    def _inputs(self) -> list[Tensor]:
        feeds = list(self.context.feed(self.model, "calibration", EXAMPLES))
        return [
            torch.from_numpy(np.concatenate([feed[spec.name] for feed in feeds]))
            for spec in self.model.signature.inputs
        ]

    def ratio(self, schedule: Schedule) -> tuple[float, str]:
        """How many times as fast the network is with a schedule, in a race with itself, and that in words."""

        def measure() -> Json:
            self.context.progress(f"{self.method.name}: timing {schedule.told(self.shape.tokens)}")
            module = self.method.build(module_of(self.model), self.shape, schedule)
            fewer = with_module(self.model, module.eval(), f"{self.method.name} {schedule}")
            found = self.context.cost({"whole": self.model, "fewer": fewer})["fewer"].ratio
            return [found.value, _words(found), found.reason]

        value, words, reason = cast("tuple[float | None, str, str]", self.context.remember(f"{schedule}", measure))
        if value is None:
            raise RefusedError(f"{self.method.name}: no latency is known here ({reason}); say keep=... and at=...")
        return value, words


def _words(ratio: Measurement) -> str:
    spread = f" [{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}]" if ratio.interval else ""
    return f"{ratio.value or 0:.2f}x{spread} ({ratio.kind})"


def decide(model: Model, params: Asked, context: Context, method: Method) -> Json:
    """The schedule, and all that is needed to build the network again.

    Raises: RefusedError, RecipeError.
    """
    anatomy = dict((context.task.anatomy if context.task else None) or {})
    module, example = module_of(model), example_of(model)
    shape = method.shape(module, example, anatomy, model.name)
    family = method.family(params, shape)
    least = next(iter(family), Schedule((len(shape.blocks) - 1,), (shape.tokens - 1,)))
    checked(method.build(module, shape, least).eval(), module_of(model), example, model.name)
    schedule, measured = _schedule(params, Search(method, model, shape, family, context))
    found = {"at": schedule.at, "keep": schedule.keep, "measured": measured, "anatomy": anatomy, "seed": context.seed}
    return cast("Json", json.loads(json.dumps({**found, "params": asdict(cast("Any", params))})))


def _schedule(params: Asked, search: Search) -> tuple[Schedule, str]:
    method = search.method
    named = method.said(params, search.shape)
    if named is None:
        return search.chosen(params.speedup or method.speedup)
    if params.speedup is not None:
        raise RecipeError(f"{method.name}: speedup chooses the schedule, which keep and at say; write one of them")
    return named, ""


def rebuild(model: Model, decision: Json, method: Method) -> Model:
    """The network that was decided on, before it trains. Raises: RefusedError when its code needs all tokens."""
    module, example = module_of(model), example_of(model)
    shape, schedule = planned(model, decision, method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cast("dict[str, Any]", decision)["seed"])
        reduced = method.build(module, shape, schedule).eval()
    checked(reduced, module_of(model), example, model.name)
    return with_module(model, reduced, f"{method.name} {json.dumps(decision, sort_keys=True)}")


def planned(model: Model, decision: Json, method: Method) -> tuple[Shape, Schedule]:
    """The network's shape and the schedule of a decision."""
    found = cast("dict[str, Any]", decision)
    shape = method.shape(module_of(model), example_of(model), found["anatomy"], model.name)
    return shape, Schedule(tuple(found["at"]), tuple(found["keep"]))


def with_module(model: Model, module: nn.Module, text: str) -> Model:
    """The model with another module. `text` is all that it depends on besides the model."""
    return model.with_graph(TorchGraph(module, hashlib.sha256(f"{text} {model.digest}".encode()).hexdigest()))


def placed(decision: Json, shape: Shape, schedule: Schedule) -> str:
    """What a step says of its schedule."""
    measured = cast("dict[str, Any]", decision)["measured"]
    return schedule.told(shape.tokens) + (f"; {measured}" if measured else "")
