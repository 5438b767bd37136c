"""Runs cases one after another, and says how each of them ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgewright.errors import PluginError
from edgewright.testing.rig import Rig
from edgewright.testing.suite import Case

PASSED, SKIPPED, FAILED = "passed", "skipped", "failed"


@dataclass(frozen=True)
class Outcome:
    """How one case ended: `passed`, `skipped` or `failed`, and why; `seconds` is wall-clock time."""

    offer: str
    kind: str
    check: str
    status: str
    reason: str
    seconds: float


def examine(found: Sequence[Case], rig: Rig, tell: Callable[[Outcome], object]) -> tuple[Outcome, ...]:
    """Run every case; `tell` hears of each as it ends. A check that crashes has failed, and says so."""
    outcomes: list[Outcome] = []
    for case in found:
        outcomes.append(_examine(case, rig))
        tell(outcomes[-1])
    return tuple(outcomes)


def _examine(case: Case, rig: Rig) -> Outcome:
    begin, status, reason = time.perf_counter(), PASSED, ""
    try:
        refusal = case.run(rig)
        if refusal is not None:
            status, reason = SKIPPED, refusal.reason
    except PluginError as failure:
        status, reason = FAILED, str(failure).removeprefix(f"{case}: ")
    except Exception as cause:  # noqa: BLE001 - a plugin may break in any way, and the other checks go on
        status, reason = FAILED, f"{type(cause).__name__}: {cause}"
    return Outcome(
        offer=str(case.kind.name_of(case.offer.value)),
        kind=case.kind.noun,
        check=case.check.__name__.replace("_", " "),
        status=status,
        reason=reason,
        seconds=time.perf_counter() - begin,
    )
