"""What reads models from the formats they come in, and writes them in the formats that runtimes open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgewright.protocols.context import Context
from edgewright.types import Artifact, GraphFile, Model, Refusal, Target

if TYPE_CHECKING:
    from edgewright.task import Task


@dataclass(frozen=True)
class LoadRequest:
    """What a loader may need besides the source: sizes for free dimensions, batch, task, a place for files."""

    store: GraphStore
    shapes: Mapping[str, tuple[int, ...]]
    batch: int = 1
    seed: int = 0
    task: Task | None = None


class GraphStore(Protocol):
    """Where graphs are kept by content."""

    def keep(self, data: bytes, format: str) -> GraphFile:
        """Store the bytes of a graph; the same bytes are stored once."""
        ...


@runtime_checkable
class Loader(Protocol):
    """Reads a model. Offered with `edgewright_loaders`."""

    @property
    def name(self) -> str: ...

    def accepts(self, source: str) -> bool:
        """Whether the source looks like this loader's, judged by its name alone."""
        ...

    def load(self, source: str, request: LoadRequest) -> Model:
        """Read it. Raises: ModelError with one sentence a user can act on."""
        ...


@dataclass(frozen=True)
class Requirement:
    """Something that an exporter needs of this host.

    `found` says what is there; it is empty where the thing is missing, and `reason` says why and what to do. `fix`
    gets it without asking anything, and raises RefusedError when it cannot; None where only people can.
    """

    name: str
    found: str = ""
    reason: str = ""
    fix: Callable[[], object] | None = None


@runtime_checkable
class Exporter(Protocol):
    """Writes a model in a format that runtimes open. Offered with `edgewright_exporters`.

    One that needs more of the host than Python packages has `requirements() -> Sequence[Requirement]` too, which
    `engine doctor` shows and `engine doctor --fix` gets. One that calls `context.kernels` says `calls_kernels = True`,
    so that `--kernel` may be written; one with `trials(kernel, models, folder)` is what checks kernels.
    """

    @property
    def name(self) -> str: ...
    @property
    def format(self) -> str: ...
    def check(self, model: Model, target: Target) -> Refusal | None: ...
    def export(self, model: Model, context: Context) -> Sequence[Artifact]:
        """One artifact per stage of each variant, numerics against the source model included."""
        ...
