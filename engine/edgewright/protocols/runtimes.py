"""What runs artifacts on a device; part of the device set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from edgewright.types import Artifact, Device, Refusal, Target


@runtime_checkable
class Runtime(Protocol):
    """Runs artifacts on a device; part of the device set. Offered with `edgewright_runtimes`.

    It may have `prepare() -> None` too, which imports what `open` needs: that is done before a clock starts, and once
    for many processes where it starts no threads.
    """

    @property
    def name(self) -> str: ...
    @property
    def formats(self) -> tuple[str, ...]: ...
    def probe(self, device: Device) -> Refusal | None:
        """Whether it can work on this device."""
        ...

    def options(self, artifact: Artifact, target: Target) -> Sequence[Mapping[str, Any]]:
        """The settings worth racing, the usual one first. Each holds `provider`."""
        ...

    def open(self, path: str, options: Mapping[str, Any]) -> Session:
        """Load one artifact. Raises: InputError when the runtime cannot hold it."""
        ...


class Session(Protocol):
    """One loaded artifact."""

    def run(self, feeds: Mapping[str, Any]) -> list[Any]:
        """The outputs, in the graph's order."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    def profile(self, feeds: Mapping[str, Any], runs: int) -> list[dict[str, Any]]:
        """Per executed node: `node`, `operator`, `provider`, `median_us`."""
        ...
