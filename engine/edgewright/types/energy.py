"""What is read of a device's energy: sources, the traces they give, and when the load ran meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Source:
    """Something on a device that tells energy or power, stated so that any runner can read it again and again.

    A reading is the product of `values`, times `scale`: joules since some moment (`kind` is `counter`) or watts now
    (`power`). They are files below each folder that the pattern `folder` finds, or, where `argv` is a command, patterns
    with one group that are searched in its output. A meter that is Python on the device gives the values itself, and
    states neither. Each folder found is one rail.

    Attributes:
        rail: What is measured; where `label` names a file of the folder, the rail is called by what stands in it.
        scope: What lies behind the rail, in words.
        kind: `counter` or `power`.
        unit: Of a raw reading, such as `µJ` or `mV mA`.
        scale: From raw readings to J or W.
        period_ns: How often there is a new value; nobody reads more often.
        period: The file of the folder that tells how often in ms, where the device may be set otherwise.
        folder: A pattern for folders, absolute.
        values: Names of files, or patterns.
        argv: A command that prints the values.
        label: The file of the folder with the rail's name.
        only: Patterns of rails that count; all do when it is empty.
        skip: Patterns of rails that are no sensors.
        whole: Patterns of rails that include the others.
        wrap: The file of the folder with the raw reading at which the counter starts again from 0.
        state: A file of the folder that tells whether the values mean anything.
        states: What may stand in that file.
        coarse_below: Raw first values below this are in thousands of the unit (phones that give mA for µA).
        fix: What to run where the user may not read it.
    """

    rail: str
    scope: str
    kind: str
    unit: str
    scale: float
    period_ns: int
    folder: str = ""
    values: tuple[str, ...] = ()
    argv: tuple[str, ...] = ()
    label: str = ""
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    wrap: str = ""
    period: str = ""
    state: str = ""
    states: tuple[str, ...] = ()
    coarse_below: float = 0.0
    fix: str = ""


@dataclass(frozen=True)
class Trace:
    """What one rail told: samples of (monotonic ns, raw reading); a reading times `scale` is in J or W.

    `whole` marks a rail that includes the others. `wrap` is the raw reading at which a counter starts again from 0.
    `missed` counts readings that failed, for the `reason`.
    """

    rail: str
    scope: str
    kind: str
    unit: str
    scale: float
    period_ns: int
    samples: tuple[tuple[int, float], ...]
    wrap: Optional[float] = None
    whole: bool = False
    missed: int = 0
    reason: str = ""

    @property
    def resolution(self) -> float:
        """One step of the raw reading, in J or W."""
        return self.scale


@dataclass(frozen=True)
class Mark:
    """When a load ran, by the clock of the traces. `what` is `idle` or a candidate, `turn` the round it belongs to."""

    what: str
    begin_ns: int
    end_ns: int
    runs: int = 0
    turn: int = 0


@dataclass(frozen=True)
class Recording:
    """The traces of one measurement, the marks written meanwhile, and what reading them cost.

    `simulated` says that the sensors were files of a test; `cost` is the share of one CPU that the poller took.
    """

    meter: str
    traces: tuple[Trace, ...]
    marks: tuple[Mark, ...]
    simulated: bool = False
    cost: float = 0.0
    conditions: Mapping[str, Any] = field(default_factory=dict)
