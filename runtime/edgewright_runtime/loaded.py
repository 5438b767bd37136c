"""Loads a bundle and runs it in this process: stages in order, to a deadline if there is one, recurrent state kept."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Optional, Union, cast

from edgewright.bundle import Bundle, file_digest, open_bundle
from edgewright.errors import BundleError, InputError
from edgewright.types import Arrays, Artifact, Placement, StageCost
from edgewright_runtime.calibration import WARM_RUNS, calibrate
from edgewright_runtime.examples import cycle, open_stream, read_example, rows_of
from edgewright_runtime.feeds import explain, make_port, sizes, zeros
from edgewright_runtime.flow import Limits, Piece, flow, make_pieces
from edgewright_runtime.policy import Policy
from edgewright_runtime.processor import check_processor
from edgewright_runtime.runtimes import find_runtime

if TYPE_CHECKING:
    from edgewright.protocols import Session


@dataclass(frozen=True, eq=False)
class Result:
    """What a model answered.

    `outputs` by name; `exits` the stage at which each row left, or the number of its exit in a graph that decides
    inside; `spent_ms` from the call to the answer; `stages_ms` what each stage that ran took of it.
    """

    outputs: Arrays
    exits: tuple[int, ...]
    spent_ms: float
    stages_ms: tuple[float, ...]


class Loaded:
    """A bundle that is ready to run. Not thread-safe: it holds the recurrent state.

    With a deadline, a stage after the first starts only if it would still end in time, judged by what 999 of 1000
    calm runs of it stayed below (`costs`). What else makes a run late is the caller's to keep away: a collection of
    garbage among many objects (`gc.freeze()` after loading leaves them out), and other work on the same processor.
    """

    def __init__(
        self,
        bundle: Bundle,
        placements: Sequence[Placement],
        sessions: Sequence[Session],
        *,
        deadline_ms: Optional[float] = None,
        cache: bool = True,
    ) -> None:
        """`placements` and `sessions` belong to the stages of the first variant, in order; the rest as in `load`."""
        signature = bundle.signature
        self.bundle = bundle
        self.placements = tuple(placements)
        self.sessions = tuple(sessions)
        self._pieces = make_pieces(bundle.variants[0], signature, sessions)
        self.dynamic = len(self._pieces) > 1 or bundle.variants[0].gated
        """Whether runs may end at different places: after one of several stages, or inside a graph that decides."""
        self._ports = tuple(make_port(spec) for spec in signature.fed)
        self._links = tuple((link.output, link.input) for link in signature.state)
        recurrent = {link.input for link in signature.state}
        self._recurrent = tuple(spec for spec in signature.inputs if spec.name in recurrent)
        self._state_dims = {dim for spec in self._recurrent for dim in spec.free}
        self._state_sizes: dict[str, int] = {}
        self._state: Optional[dict[str, Any]] = None
        self._policy = Policy(bundle, placements, cap_ms=deadline_ms, cache=cache)
        if deadline_ms is not None:
            self.get_ready()

    def run(
        self, inputs: Union[Arrays, Any], *, deadline_ms: Optional[float] = None, through: Optional[int] = None
    ) -> Result:
        """Answer `inputs`: arrays by name, or one array for a model that takes one.

        Args:
            inputs: Of the types and shapes that the signature says.
            deadline_ms: Answer within so many milliseconds of this call. The first stage always runs. The first run
                with a deadline calls `get_ready`, which may take a second, before its clock starts.
            through: Nothing beyond this stage runs (they count from 0): every row leaves there at the latest.

        Raises: InputError when a name, a number type or a shape is not what the model takes, or there is no such stage.
        """
        start = perf_counter_ns()
        policy = self._policy
        if deadline_ms is None and through is None and policy.cap_ms is None:
            return self._answer(self._pieces, inputs, start, policy.whole)
        if deadline_ms is not None and not policy.ready:
            self.get_ready()
            start = perf_counter_ns()
        policy.check()
        limits = policy.limits(start, policy.deadline(deadline_ms), through)
        return self._answer(self._pieces, inputs, start, limits)

    def explore(self, inputs: Union[Arrays, Any]) -> list[dict[str, Any]]:
        """What every stage answers when no row leaves: outputs and score by name, without what is carried.

        Raises: InputError as `run` does.
        """
        found: list[dict[str, Any]] = []
        values, carried = self._values(inputs), cast("Sequence[Any]", ())
        for piece in self._pieces:
            results = piece.run(values, carried)
            carried = piece.carry(results)
            score = {piece.stage.gate.score: results[-1]} if piece.stage.gate else {}
            found.append({**piece.outputs(results), **score})
        return found

    def graph_feeds(self, inputs: Arrays, stage: int = 0) -> dict[str, Any]:
        """What the graph of a stage takes when the model is given `inputs`, zero states included, and no row leaves."""
        values, carried = self._with_state(inputs), cast("Sequence[Any]", ())
        for piece in self._pieces[:stage]:
            carried = piece.carry(piece.run(values, carried))
        return self._pieces[stage].feeds(values, carried)

    def reset(self) -> None:
        """Forget the recurrent state: the next run starts from zeros."""
        self._state = None

    # -------------------------------------------------------------- what stages take

    @property
    def costs(self) -> tuple[StageCost, ...]:
        """What each stage takes on this device; empty until it is known.

        From the manifest if it lists this device, else as it was calibrated here, by an earlier process too.
        """
        return self._policy.costs

    def get_ready(self) -> None:
        """Be ready for a run with a deadline: find out what stages take, calibrating if need be, and warm up.

        Raises: InputError when the model cannot stop before its end, or carries no example to calibrate with.
        """
        if self._policy.ready:
            return
        self._policy.check()
        if len(self._pieces) > 1 and not self.costs:
            self.calibrate()
        with self._own_state():
            for feeds in islice(open_stream(self.bundle), WARM_RUNS):
                self._answer(self._pieces, feeds, perf_counter_ns(), self._policy.whole)
        self._policy.ready = True

    def calibrate(self, seconds: float = 2.0, inputs: Optional[Arrays] = None) -> tuple[StageCost, ...]:
        """Measure what each stage takes on this device, for so long, and keep it in the user's cache.

        Args:
            seconds: How long to measure.
            inputs: By name, axis 0 counting examples, of which each run takes as many as the bundle's own example
                has; by default the stream that the bundle carries, else its example.

        Raises: InputError as `get_ready` does.
        """
        self._policy.check(answering=False)
        feeds = open_stream(self.bundle) if inputs is None else cycle(inputs, rows_of(read_example(self.bundle)))
        ajar = [replace(piece, threshold=float("inf") if piece.stage.gate else None) for piece in self._pieces]
        with self._own_state():
            costs = calibrate(partial(self._to_depth, ajar), feeds, [piece.stage.name for piece in ajar], seconds)
        self._policy.learn(costs)
        return costs

    def _to_depth(self, pieces: Sequence[Piece], feeds: Arrays, depth: int) -> list[int]:
        """What each stage took, in ns, of a run that ends at stage `depth`; the way back is the last one's."""
        start = perf_counter_ns()
        result = self._answer(pieces, feeds, start, Limits(depth))
        total = perf_counter_ns() - start
        before = [round(ms * 1e6) for ms in result.stages_ms[:-1]]
        return [*before, total - sum(before)]

    @contextmanager
    def _own_state(self) -> Generator[None, None, None]:
        """While the block runs, the recurrent state is another one than the caller's."""
        kept = self._state, self._state_sizes
        self.reset()
        try:
            yield
        finally:
            self._state, self._state_sizes = kept

    # -------------------------------------------------------------- one run

    def _answer(self, pieces: Sequence[Piece], inputs: Union[Arrays, Any], start: int, limits: Limits) -> Result:
        values = self._values(inputs)
        ports = self._ports
        shape = values[ports[0].name].shape if ports else ()
        rows = shape[0] if shape else 1
        if not self.dynamic:  # nothing to decide, so no time goes to deciding
            outputs = self._remembering(pieces[0].outputs(pieces[0].run(values, ())))
            spent_ms = (perf_counter_ns() - start) / 1e6
            return Result(outputs, (0,) * rows, spent_ms, (spent_ms,))
        passed = flow(pieces, values, rows, limits)
        outputs = self._remembering(passed.outputs)
        stages_ms = tuple((end - begin) / 1e6 for begin, end in zip((start, *passed.ends_ns), passed.ends_ns))
        return Result(outputs, passed.exits, (perf_counter_ns() - start) / 1e6, stages_ms)

    def _remembering(self, outputs: Arrays) -> Arrays:
        """The outputs, whose recurrent ones are kept for the next run."""
        if self._links:
            self._state = {name: outputs[output] for output, name in self._links}
        return outputs

    def _values(self, inputs: Union[Arrays, Any]) -> Arrays:
        """What flows into the stages, checked. Raises: InputError."""
        ports = self._ports
        feeds = cast("Arrays", inputs) if isinstance(inputs, Mapping) else self._named(inputs)
        if len(feeds) != len(ports):
            raise explain(ports, feeds)
        for port in ports:
            if port.name not in feeds or not port.accepts(feeds[port.name]):
                raise explain(ports, feeds)
        return feeds if not self._links else self._with_state(feeds)

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


def load(
    path: Union[str, Path],
    *,
    threads: Optional[int] = None,
    allow_fallback: Optional[bool] = None,
    runtimes: Optional[Mapping[str, str]] = None,
    verify: bool = True,
    deadline_ms: Optional[float] = None,
    cache: bool = True,
) -> Loaded:
    """Open a bundle and the sessions its plan asks for.

    Args:
        path: The bundle's folder; its files are checked against their digests unless `verify` is False.
        threads: Overrides the number of threads that the plan says.
        allow_fallback: Overrides whether a provider may hand nodes to another one.
        runtimes: `module:object` of runtimes that are not built in, by name.
        verify: Whether to check.
        deadline_ms: Every run answers within so many milliseconds; the model gets ready for that now.
        cache: Whether what stages take is kept in the user's cache (`~/.cache/edgewright/costs`), and read from there.

    Raises: BundleError, InputError.
    """
    bundle = open_bundle(Path(path), verify=verify)
    asked = {"threads": threads, "allow_fallback": allow_fallback}
    overrides = {key: value for key, value in asked.items() if value is not None}
    placements = [replace(p, options={**p.options, **overrides}) for p in _placements(bundle)]
    sessions = [_open(bundle, placement, runtimes or {}) for placement in placements]
    return Loaded(bundle, placements, sessions, deadline_ms=deadline_ms, cache=cache)


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
    several = len(bundle.variants[0].stages) > 1
    own = {"provider": placement.provider, "share_memory": several, "libraries": _libraries(artifact)}
    options = {**placement.options, **own}
    return find_runtime(placement.runtime, runtimes).open(str(artifact.path), options)


def _libraries(artifact: Artifact) -> list[str]:
    """The libraries that an artifact calls. What will be executed is checked even where the bundle was not."""
    libraries = [companion for companion in artifact.companions if companion.name.endswith(".so")]
    for library in libraries:
        check_processor(library)
        if file_digest(library.path) != library.digest:
            raise BundleError(f"{library.path} was changed after the bundle was written (its digest does not match)")
    return [os.path.abspath(library.path) for library in libraries]


def _artifact(bundle: Bundle, placement: Placement) -> Artifact:
    for artifact in bundle.artifacts:
        if artifact.name == placement.artifact:
            return artifact
    raise BundleError(f"{bundle.path}: the plan names the artifact {placement.artifact!r}, which is not there")
