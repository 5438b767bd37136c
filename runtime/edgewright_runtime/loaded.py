"""Loads a bundle and runs it in this process: stages in order, recurrent state kept inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Optional, Union, cast

from edgewright.bundle import Bundle, open_bundle
from edgewright.errors import BundleError, InputError
from edgewright.types import Arrays, Artifact, Placement, Stage, Variant
from edgewright_runtime.feeds import explain, make_port, sizes, zeros
from edgewright_runtime.runtimes import find_runtime

if TYPE_CHECKING:
    from edgewright.protocols import Session


@dataclass(frozen=True, eq=False)
class Result:
    """What a model answered: outputs by name, the stage at which each row left, milliseconds spent."""

    outputs: Arrays
    exits: tuple[int, ...]
    spent_ms: float


@dataclass(frozen=True)
class Piece:
    """A stage with its open session and the names that flow through it, worked out once."""

    session: Session
    takes: tuple[tuple[str, str], ...]
    carried: tuple[str, ...]
    outputs: tuple[str, ...]
    final: bool


class Loaded:
    """A bundle that is ready to run. Not thread-safe: it holds the recurrent state."""

    def __init__(self, bundle: Bundle, placements: Sequence[Placement], sessions: Sequence[Session]) -> None:
        """`placements` and `sessions` belong to the stages of the first variant, in order."""
        self.bundle = bundle
        self.placements = tuple(placements)
        self.sessions = tuple(sessions)
        self._pieces = _pieces(bundle.variants[0], sessions)
        signature = bundle.signature
        self._ports = tuple(make_port(spec) for spec in signature.fed)
        self._links = tuple((link.output, link.input) for link in signature.state)
        recurrent = {link.input for link in signature.state}
        self._recurrent = tuple(spec for spec in signature.inputs if spec.name in recurrent)
        self._state_dims = {dim for spec in self._recurrent for dim in spec.free}
        self._state_sizes: dict[str, int] = {}
        self._state: Optional[dict[str, Any]] = None
        self.reset()

    def run(self, inputs: Union[Arrays, Any]) -> Result:
        """Answer `inputs`: arrays by name, or one array for a model that takes one.

        Raises: InputError when a name, a number type or a shape is not what the model takes.
        """
        start = perf_counter_ns()
        ports = self._ports
        feeds = cast("Arrays", inputs) if isinstance(inputs, Mapping) else self._named(inputs)
        if len(feeds) != len(ports):
            raise explain(ports, feeds)
        for port in ports:
            if port.name not in feeds or not port.accepts(feeds[port.name]):
                raise explain(ports, feeds)
        outputs = self._flow(feeds if not self._links else self._with_state(feeds))
        shape = feeds[ports[0].name].shape if ports else ()
        exits = (len(self._pieces) - 1,) * (shape[0] if shape else 1)
        return Result(outputs, exits, (perf_counter_ns() - start) / 1e6)

    def graph_feeds(self, inputs: Arrays) -> dict[str, Any]:
        """What the first stage's graph takes when the model is given `inputs`, zero states included."""
        values = self._with_state(inputs)
        return {name: values[source] for name, source in self._pieces[0].takes}

    def reset(self) -> None:
        """Forget the recurrent state: the next run starts from zeros."""
        self._state = None

    def _named(self, array: Any) -> dict[str, Any]:
        if len(self._ports) != 1:
            raise InputError(
                f"the model takes {len(self._ports)} inputs, so give a dict: "
                + ", ".join(port.described for port in self._ports)
            )
        return {self._ports[0].name: array}

    def _with_state(self, feeds: Arrays) -> dict[str, Any]:
        free = {dim: size for dim, size in sizes(self._ports, feeds).items() if dim in self._state_dims}
        if self._state is None:
            self._state = {spec.name: zeros(spec, free) for spec in self._recurrent}
            self._state_sizes = free
        elif free != self._state_sizes:
            raise InputError(
                f"the recurrent state was kept for {self._state_sizes}, now fed {free}; call reset() first"
            )
        return {**feeds, **self._state}

    def _flow(self, values: Arrays) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        carried: Sequence[Any] = ()
        for piece in self._pieces:
            feeds = {name: values[source] for name, source in piece.takes}
            feeds.update(zip(piece.carried, carried))
            results = piece.session.run(feeds)
            carried = results[len(piece.outputs) :]
            if piece.final:
                outputs = dict(zip(piece.outputs, results))
        if self._links:
            self._state = {name: outputs[output] for output, name in self._links}
        return outputs


def load(
    path: Union[str, Path],
    *,
    threads: Optional[int] = None,
    allow_fallback: Optional[bool] = None,
    runtimes: Optional[Mapping[str, str]] = None,
    verify: bool = True,
) -> Loaded:
    """Open a bundle and the sessions its plan asks for.

    Args:
        path: The bundle's folder; its files are checked against their digests unless `verify` is False.
        threads: Overrides the number of threads that the plan says.
        allow_fallback: Overrides whether a provider may hand nodes to another one.
        runtimes: `module:object` of runtimes that are not built in, by name.

    Raises: BundleError, InputError.
    """
    bundle = open_bundle(Path(path), verify=verify)
    asked = {"threads": threads, "allow_fallback": allow_fallback}
    overrides = {key: value for key, value in asked.items() if value is not None}
    placements = [replace(p, options={**p.options, **overrides}) for p in _placements(bundle)]
    return Loaded(bundle, placements, [_open(bundle, placement, runtimes or {}) for placement in placements])


def _placements(bundle: Bundle) -> list[Placement]:
    """Where each stage of the first variant runs, in order."""
    placements = {(p.variant, p.stage): p for p in bundle.plan.placements}
    variant = bundle.variants[0]
    missing = [stage.name for stage in variant.stages if (variant.name, stage.name) not in placements]
    if missing:
        raise BundleError(f"{bundle.path}: the plan does not say where the stage {missing[0]!r} runs")
    return [placements[variant.name, stage.name] for stage in variant.stages]


def _open(bundle: Bundle, placement: Placement, runtimes: Mapping[str, str]) -> Session:
    artifact = _artifact(bundle, placement)
    options = {**placement.options, "provider": placement.provider}
    return find_runtime(placement.runtime, runtimes).open(str(artifact.path), options)


def _artifact(bundle: Bundle, placement: Placement) -> Artifact:
    for artifact in bundle.artifacts:
        if artifact.name == placement.artifact:
            return artifact
    raise BundleError(f"{bundle.path}: the plan names the artifact {placement.artifact!r}, which is not there")


def _pieces(variant: Variant, sessions: Sequence[Session]) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    before: tuple[str, ...] = ()
    for stage, session in zip(variant.stages, sessions):
        _check_arity(stage, session, len(before))
        own = session.inputs[: len(stage.inputs)]
        takes = tuple(zip(own, stage.inputs))
        final = stage is variant.stages[-1]
        pieces.append(Piece(session, takes, session.inputs[len(own) :], stage.outputs, final))
        before = stage.carry
    return tuple(pieces)


def _check_arity(stage: Stage, session: Session, carried: int) -> None:
    takes, gives = len(stage.inputs) + carried, len(stage.outputs) + len(stage.carry)
    if (len(session.inputs), len(session.outputs)) != (takes, gives):
        raise BundleError(
            f"the stage {stage.name!r} should take {takes} tensors and give {gives}, "
            f"but its graph takes {len(session.inputs)} and gives {len(session.outputs)}"
        )
