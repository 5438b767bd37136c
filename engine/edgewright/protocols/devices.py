"""What reaches a device, and what tells of costs there: by wire, by meter, by prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional, Protocol, runtime_checkable

from edgewright.types import Device, KernelCost, Measurement, Model, Row, Source, Target


class Process(Protocol):
    """A running command on the far side of a link."""

    @property
    def stdin(self) -> IO[bytes]: ...
    @property
    def stdout(self) -> IO[bytes]: ...
    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def errors(self) -> str:
        """What it wrote on its standard error."""
        ...


class Link(Protocol):
    """An open connection to one device."""

    @property
    def address(self) -> str: ...
    @property
    def root(self) -> Path:
        """Our folder on the device."""
        ...

    @property
    def python(self) -> str:
        """The interpreter that runs our agent there; empty where there is none."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other hosts may come to the same `root`: the agent takes a lock there then."""
        ...

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> tuple[int, bytes, bytes]: ...
    def start(self, argv: Sequence[str]) -> Process: ...
    def put(self, local: Path, remote: str) -> str:
        """Copy a file or folder to the device; returns where it lies there."""
        ...

    def get(self, remote: str, local: Path) -> None:
        """Copy a file of the device to this host."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Spotted:
    """A device that a connection knows of; `reason` says what to do where it cannot be opened as it is."""

    address: str
    reason: str = ""


@runtime_checkable
class Connection(Protocol):
    """A way to reach devices. Offered with `edgewright_connections`."""

    @property
    def scheme(self) -> str: ...
    def open(self, address: str) -> Link:
        """Raises: DeviceError when nothing answers."""
        ...

    def discover(self, *, configured: bool = False) -> Iterable[Spotted]:
        """The devices that are there without being named; with `configured` those in the user's settings too.

        Nothing is connected to. Raises: DeviceError when it cannot be told.
        """
        ...


@runtime_checkable
class Predictor(Protocol):
    """Tells what a model would cost on a target it does not have. Offered with `edgewright_predictors`."""

    @property
    def name(self) -> str: ...
    def predict(self, model: Model, target: Target, quantity: str) -> Measurement:
        """A measurement of kind `predicted`, with its interval."""
        ...

    def predict_ratio(self, first: Model, other: Model, target: Target, quantity: str) -> Measurement:
        """How many times `other` is cheaper than `first`, with its own interval: the errors of a pair go together."""
        ...


@dataclass(frozen=True, eq=False)
class Measurable:
    """A network that was measured on a device: latency in ms, and energy in mJ where a meter was read.

    `kind` is that of a `Measurement`: `simulated` on an emulated device.
    """

    model: Model
    latency_ms: float
    energy_mj: Optional[float] = None
    kind: str = "measured"


@runtime_checkable
class Calibrated(Predictor, Protocol):
    """A predictor that learns from measured networks."""

    def probes(self, folder: Path) -> Sequence[Path]:
        """Write its micro-networks into `folder`; where they lie."""
        ...

    def fit(self, measured: Sequence[Measurable], base: Target) -> Target:
        """`base` with `fitted` learnt from what was measured. Raises: TargetError when that is too little."""
        ...

    def profile(self, target: Target) -> str:
        """The target as the text of a profile, which `read_profile` takes."""
        ...


@runtime_checkable
class Itemising(Predictor, Protocol):
    """A predictor that tells what each kernel takes: what a roofline is drawn from."""

    def kernels(self, model: Model, target: Target) -> Sequence[KernelCost]:
        """Every kernel of the first variant, in the order of the graph; none where `predict` gives a reason instead."""
        ...


@runtime_checkable
class Modelling(Predictor, Protocol):
    """A predictor that also models energy from what each primitive takes, whatever the device runs it with."""

    def modelled(self, first: Model, other: Model, target: Target) -> Sequence[Row]:
        """Rows of a report that compare both, their measurements of kind `modelled`."""
        ...


@runtime_checkable
class Meter(Protocol):
    """Says what tells energy on a device. Offered with `edgewright_meters`.

    One that `needs_python` is imported on the device, by the `module:object` of its offer: see `PythonMeter`.
    """

    @property
    def name(self) -> str: ...
    @property
    def needs_python(self) -> bool: ...
    def sources(self, device: Device) -> Sequence[Source]:
        """What to read there, if it is there; none where it cannot be on such a device."""
        ...


class Sampler(Protocol):
    """An open instrument on the device."""

    def read(self) -> Sequence[float]:
        """A raw reading of each source, in their order. Raises: OSError when there is none now."""
        ...


@dataclass(frozen=True)
class PowerLog:
    """What an instrument noted: (seconds of its own clock, W), ascending; rows without a number are `missed`."""

    samples: Sequence[tuple[float, float]]
    missed: int = 0


class Recorder(Protocol):
    """An instrument that is noting."""

    @property
    def period_ns(self) -> int:
        """How often it has a new value."""
        ...

    def stop(self) -> PowerLog:
        """Raises: RefusedError when nothing can be made of what it noted."""
        ...


@runtime_checkable
class HostMeter(Meter, Protocol):
    """An instrument that is connected to this host and measures the whole device; its clock is its own.

    Its `sources` are none, since nothing is read on the device. Bursts of load tell how the clocks lie to each other.
    """

    @property
    def scope(self) -> str:
        """What lies behind it, in words."""
        ...

    def start(self) -> Recorder:
        """Raises: RefusedError with the reason when it is not there."""
        ...


class PythonMeter(Meter, Protocol):
    """A meter whose readings only Python can take. It runs on the device: Python 3.9, numpy and its own library."""

    def open(self) -> Sampler:
        """Raises: RefusedError with the reason when the instrument is not there."""
        ...
