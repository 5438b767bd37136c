"""What is known of each candidate, what the contract decided, and the report that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from edgewright.types.energy import Recording
from edgewright.types.measurements import KernelCost, Measurement
from edgewright.types.models import Step


@dataclass(frozen=True)
class Spread:
    """How long `n` runs took: the share i / (len(ms) - 1) of them took `ms[i]` or less."""

    ms: tuple[float, ...]
    n: int
    kind: str = "measured"


@dataclass(frozen=True)
class Evidence:
    """What was found out about one candidate.

    `latency` maps a statistic (`p50`, `mean`, `p99`) to its measurement in ms; `drop` is in the metric's unit,
    positive when the candidate is worse than the original. `others` are shown and judged by nothing.
    `saving` is the original's energy over this one's, where both were read; `recording` what the meter told, `spread`
    how far runs differed.
    """

    name: str
    latency: Mapping[str, Measurement]
    speedup: Measurement
    energy: Measurement
    size: Measurement
    metric: Measurement
    drop: Measurement
    others: tuple[Measurement, ...] = ()
    saving: Optional[Measurement] = None
    recording: Optional[Recording] = None
    spread: Optional[Spread] = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a quantity of the original, of the candidate, and their ratio."""

    quantity: str
    original: Measurement
    candidate: Measurement
    ratio: Optional[Measurement] = None


@dataclass(frozen=True)
class Judgement:
    """One bound of the contract and whether it holds; `holds` is None when it could not be judged."""

    bound: str
    written: bool
    holds: Optional[bool]
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """What the contract decided: `met`, `not met` or `predicted ...`, and which candidate ships."""

    status: str
    shipped: str
    judgements: tuple[Judgement, ...]
    test_reads: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exit:
    """One way out of a model with gates, as rows really took it.

    `n` rows, the `share` of all, left here; `metric` is the task's, of these rows alone; `everyone` is the metric if
    every row left here. `cost_ms` is the mean time from the start to this exit in the running chain, `high_ms` what
    999 of 1000 stayed below.
    """

    stage: str
    threshold: Optional[float]
    share: float
    n: int
    metric: Optional[float]
    everyone: Optional[float]
    cost_ms: Optional[float]
    high_ms: Optional[float]


@dataclass(frozen=True)
class Tradeoff:
    """A choice of thresholds, what it costs on average (ms, from the calibrated stages) and the metric it reaches."""

    thresholds: tuple[Optional[float], ...]
    cost_ms: float
    metric: float
    chosen: bool = False


@dataclass(frozen=True)
class Exits:
    """How a model with gates was used: its ways out, the choices there were, and which examples left first and last.

    `metric` and `cost` say what the numbers are (`top-1 %`), `split` where exits were counted; `tradeoffs` were found
    on the splits that thresholds are fitted on. `early` and `late` are example ids of `split`.
    """

    split: str
    metric: str
    exits: tuple[Exit, ...]
    tradeoffs: tuple[Tradeoff, ...]
    early: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entrant:
    """One way to run a candidate, and what came of it in the race.

    `form` is the exporter that wrote it, `runs` the runtime with its options. `speedup` is against the original as it
    usually runs; None where it did not race, for the `reason`.
    """

    candidate: str
    form: str
    runs: str
    speedup: Optional[Measurement]
    won: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Operator:
    """What one node took as it ran: the median over runs, in microseconds.

    `kernel` is the node of the graph that it computes; empty where the runtime's own name does not tell.
    """

    stage: str
    node: str
    operator: str
    provider: str
    median_us: float
    kernel: str = ""


@dataclass(frozen=True)
class Closeup:
    """How one model spends its time.

    `operators` are the nodes as the device ran them; none are there for the `reason`. `kernels` and `predicted`
    (latency and energy) are what the target's predictor says, whether or not the device was at hand.
    """

    name: str
    spread: Optional[Spread] = None
    operators: tuple[Operator, ...] = ()
    reason: str = ""
    kernels: tuple[KernelCost, ...] = ()
    predicted: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Report:
    """Original and candidate side by side, and everything that was skipped or left out, with reasons.

    `closeups` are of the original and, where another one ships, of that.
    """

    model: str
    target: str
    device: str
    rows: tuple[Row, ...]
    verdict: Verdict
    steps: tuple[Step, ...]
    candidates: tuple[Mapping[str, Any], ...]
    skipped: tuple[str, ...]
    settings: Mapping[str, Any]
    bundle: str = ""
    notes: tuple[str, ...] = ()
    exits: Optional[Exits] = None
    race: tuple[Entrant, ...] = ()
    recording: Optional[Recording] = None
    closeups: tuple[Closeup, ...] = ()
