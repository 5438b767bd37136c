"""Decides how far a run may go: what stages take on this device, and what still fits before a deadline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Optional

from edgewright.bundle import Bundle
from edgewright.errors import InputError
from edgewright.types import Placement, StageCost
from edgewright_runtime.costs import cost_place, keep_costs, listed_costs, read_costs
from edgewright_runtime.device import find_device
from edgewright_runtime.flow import Limits

LEEWAY = 1.1
"""Room left beside what 999 of 1000 runs stay below: of the few runs that were timed that is nearly the slowest."""


class Policy:
    """What is known of a bundle's stages here, and the limits that follow from it."""

    def __init__(
        self, bundle: Bundle, placements: Sequence[Placement], *, cap_ms: Optional[float], cache: bool
    ) -> None:
        """`cap_ms` is the deadline of every run; `cache` says whether costs are kept for the next process."""
        self.cap_ms = checked_deadline(cap_ms)
        self.whole = Limits(len(placements) - 1)
        self.ready = False
        """Whether the costs are known and the sessions warm."""
        self._bundle = bundle
        self._recurrent = _recurrent(bundle)
        self._silent = _silent(bundle)
        self._threads = max(int(p.options.get("threads") or 1) for p in placements)
        self._cache = cache
        self._fingerprint = ""
        self._costs: tuple[StageCost, ...] = ()
        self._highs_ns: tuple[float, ...] = ()
        self._usual_ns: tuple[float, ...] = ()

    @property
    def costs(self) -> tuple[StageCost, ...]:
        """What each stage takes on this device: as the manifest or an earlier process says; empty when unknown."""
        if not self._costs:
            listed = listed_costs(self._bundle, self._device(), self._threads)
            kept = read_costs(self._place(), self._bundle) if self._cache and not listed else ()
            self._take(listed or kept)
        return self._costs

    def learn(self, costs: tuple[StageCost, ...]) -> None:
        """From now on these are the costs, for later processes too."""
        self._take(costs)
        if self._cache:
            keep_costs(self._place(), costs)

    def deadline(self, asked_ms: Optional[float]) -> Optional[float]:
        """The tighter of the deadline that is asked for and the cap, in ms. Raises: InputError."""
        asked_ms = checked_deadline(asked_ms)
        if self.cap_ms is None or asked_ms is None:
            return self.cap_ms if asked_ms is None else asked_ms
        return min(asked_ms, self.cap_ms)

    def limits(self, start_ns: int, deadline_ms: Optional[float], through: Optional[int]) -> Limits:
        """How far a run that started at `start_ns` may go. Raises: InputError for a stage that is not there."""
        last = self.whole.through
        if through is not None and not 0 <= through <= last:
            raise InputError(f"there is no stage {through} to stop at; allowed: 0 to {last}")
        if deadline_ms is None:
            return Limits(last if through is None else through)
        through = last if through is None else through
        return Limits(through, start_ns, start_ns + deadline_ms * 1e6, self._highs_ns, self._usual_ns)

    def check(self, *, answering: bool = True) -> None:
        """Raises: InputError when runs cannot stop before the end; with an answer, unless nobody wants one."""
        reason = self._recurrent or (self._silent if answering else "")
        if reason:
            raise InputError(
                f"the model has to run to its end, because {reason}; leave out the deadline and the last stage"
            )

    def _take(self, costs: tuple[StageCost, ...]) -> None:
        self._costs = costs
        self._highs_ns = tuple(LEEWAY * cost.high_ms * 1e6 for cost in costs)
        self._usual_ns = tuple(accumulate(cost.median_ms * 1e6 for cost in costs))

    def _device(self) -> str:
        self._fingerprint = self._fingerprint or find_device().fingerprint
        return self._fingerprint

    def _place(self) -> Path:
        return cost_place(self._bundle, self._device(), self._threads)


def checked_deadline(deadline_ms: Optional[float]) -> Optional[float]:
    """`deadline_ms` itself. Raises: InputError unless it is 0 or more."""
    if deadline_ms is not None and not deadline_ms >= 0:
        raise InputError(f"a deadline of {deadline_ms} ms cannot be met; give 0 or more")
    return deadline_ms


def _recurrent(bundle: Bundle) -> str:
    """The state that only the end of a run renews; empty when there is none, or only one stage."""
    state = bundle.signature.state
    return f"it keeps {state[0].input!r} from run to run" if state and len(bundle.variants[0].stages) > 1 else ""


def _silent(bundle: Bundle) -> str:
    """The stage at which a run cannot stop, because nothing comes out; empty when there is none."""
    stages = bundle.variants[0].stages
    silent = next((stage.name for stage in stages if stage.outputs != stages[-1].outputs), "")
    return f"the stage {silent!r} gives no answer" if silent else ""
