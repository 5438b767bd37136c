"""Sets another goal for the gates of a chain and has them fitted anew, without training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from edgewright.protocols import Context, OnnxTransform
from edgewright.types import Goal, Model, Refusal, Stage, Step, Target


@dataclass(frozen=True)
class Params:
    """What `gates` can be told."""

    drop: float = field(
        default=0.5,
        metadata={"help": "% of the metric's full scale that may be lost to the last answer", "low": 0, "high": 100},
    )
    cost: float = field(
        default=0.0,
        metadata={"help": "share of the latency without exits to come down to; goes before drop", "low": 0, "high": 1},
    )


class Gates:
    """The transform `gates`. The engine fits whatever gate has no threshold, so it takes them away."""

    name = "gates"
    summary = "fit the thresholds of a chain's gates anew, to another goal or for another device"
    Params = Params
    takes = "onnx"
    gives = "onnx"
    needs = "calibration"
    reads: tuple[str, ...] = ()
    whole = True

    def check(self, model: Model, target: Target) -> Refusal | None:
        """Refuses models without gates."""
        if any(stage.gate for stage in model.stages):
            return None
        return Refusal(f"{model.name} has no gates to fit; add `early-exit` first, or give a bundle that has them")

    def apply(self, model: Model, params: Params, context: Context) -> Model:
        """The chain with the goal, and with no thresholds."""
        goal = Goal(cost=params.cost) if params.cost else Goal(drop=params.drop / 100)
        variants = tuple(replace(v, goal=goal, stages=tuple(map(_opened, v.stages))) for v in model.variants)
        note = f"to {goal.cost:.0%} of the latency" if goal.cost else f"to lose at most {params.drop:g} %"
        return replace(model, variants=variants).after(Step(self.name, "edgewright", asdict(params), (note,)))


def _opened(stage: Stage) -> Stage:
    return stage if stage.gate is None else replace(stage, gate=replace(stage.gate, threshold=None))


GATES = Gates()


def edgewright_transforms() -> Iterable[OnnxTransform]:
    """What this module offers."""
    return (GATES,)
