"""What we expect of a device (`Target`), and what was found of one (`Device`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A number about a device, with its unit and where it was read."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Target:
    """What we expect of a device. `compute` is the peak per dtype, `recipe` what runs when nothing is asked.

    `default` marks the one target of a `family` that the family's name stands for.
    `models` are patterns of what such a device calls itself: its board, or its system on a chip.
    `fitted` holds, by quantity, what a predictor learnt from measurements of such a device.
    `meters` are tried in order, and the first that finds its sensor is read.
    `operations` are what primitives take, in the place of the built-in table's entries (pJ).
    Units: memory in bytes, compute in GFLOP/s (or GOP/s for integers), bandwidth in GB/s, power in W;
    each Figure repeats its own.
    """

    name: str
    title: str
    isa: str
    memory: Figure
    compute: Mapping[str, Figure]
    bandwidth: Figure
    cores: Figure
    unit: str = "cpu"
    family: str = ""
    default: bool = False
    power: Mapping[str, Figure] = field(default_factory=dict)
    operations: Mapping[str, Figure] = field(default_factory=dict)
    runtimes: tuple[str, ...] = ("ort",)
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    meters: tuple[str, ...] = ()
    predictor: str = "kernels"
    recipe: tuple[str, ...] = ("simplify",)
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    notes: str = ""
    fitted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """What was found behind a connection. `fingerprint` changes when anything that moves a latency does.

    `cpu` is what the board or the processor calls itself, `soc` the system on a chip; empty where nothing tells.
    """

    fingerprint: str
    isa: str
    cpu: str
    cores: int
    memory_bytes: int
    os: str
    libc: str
    python: str
    features: tuple[str, ...]
    versions: Mapping[str, str]
    providers: tuple[str, ...]
    governor: str
    emulated: bool
    soc: str = ""
