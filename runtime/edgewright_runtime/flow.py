"""Takes rows through the stages of a chain: at each gate those that are sure leave with its answer, the rest go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from edgewright.errors import BundleError, InputError
from edgewright.gates import leaves
from edgewright.types import Arrays, Signature, Stage, Variant

if TYPE_CHECKING:
    from edgewright.protocols import Session


@dataclass(frozen=True)
class Piece:
    """A stage with its open session and the names that flow through it, worked out once.

    `takes` pairs a name of the graph with one of the model's inputs, `carried` are the graph's names for what the
    stage before hands on, `needs` the model's inputs that this stage or a later one takes. `free` says that this
    stage and all later ones take any number of rows.
    """

    stage: Stage
    session: Session
    takes: tuple[tuple[str, str], ...]
    carried: tuple[str, ...]
    needs: tuple[str, ...]
    free: bool
    threshold: Optional[float]

    def run(self, values: Arrays, carried: Sequence[Any]) -> list[Any]:
        """What the stage's graph returns, in its order."""
        return self.session.run(self.feeds(values, carried))

    def feeds(self, values: Arrays, carried: Sequence[Any]) -> dict[str, Any]:
        """What the stage's graph takes."""
        feeds = {name: values[source] for name, source in self.takes}
        feeds.update(zip(self.carried, carried))
        return feeds

    def outputs(self, results: Sequence[Any]) -> dict[str, Any]:
        """The model's outputs among the results, by name."""
        return dict(zip(self.stage.outputs, results))

    def carry(self, results: Sequence[Any]) -> Sequence[Any]:
        """What of the results goes to the next stage."""
        first = len(self.stage.outputs)
        return results[first : first + len(self.stage.carry)]


@dataclass(frozen=True)
class Limits:
    """How far a run that started at `start_ns` may go: to stage `through`, and to the next if it ends before `by_ns`.

    A stage takes `highs_ns` at most. The stages up to one take `usual_ns` together: a run that is slower than that has
    something beside it that slows it, and what slowed it will go on for a while.
    """

    through: int
    start_ns: float = 0.0
    by_ns: float = float("inf")
    highs_ns: tuple[float, ...] = ()
    usual_ns: tuple[float, ...] = ()

    def stop(self, number: int, now_ns: int) -> bool:
        """Whether nothing may run after stage `number`."""
        if number >= self.through:
            return True
        if not self.highs_ns:
            return False
        slowed = max(1.0, (now_ns - self.start_ns) / (self.usual_ns[number] or float("inf")))
        return now_ns + slowed * self.highs_ns[number + 1] > self.by_ns


@dataclass(frozen=True, eq=False)
class Passed:
    """What came of a run: outputs by name, the stage at which each row left, and when each stage ended, in ns."""

    outputs: Mapping[str, Any]
    exits: tuple[int, ...]
    ends_ns: tuple[int, ...]


def flow(pieces: Sequence[Piece], values: Arrays, rows: int, limits: Limits) -> Passed:
    """Run the stages in order until every row has left.

    Args:
        pieces: The stages.
        values: The model's inputs by name.
        rows: How many rows there are, for a model without gates; a gate counts them itself.
        limits: Where to stop; the rows that are still waiting leave there.

    Raises: InputError when only some rows leave at a stage whose outputs do not have a row for each.
    """
    ends: list[int] = []
    carried: Sequence[Any] = ()
    crowd: Optional[Crowd] = None
    number = 0
    while True:
        piece = pieces[number]
        results = piece.run(values, carried)
        leaving = _leaving(piece, results, crowd)
        count = 0 if leaving is None else np.count_nonzero(leaving)
        ends.append(perf_counter_ns())
        if limits.stop(number, ends[-1]) or (leaving is not None and count == (crowd.left if crowd else len(leaving))):
            break
        carried = piece.carry(results)
        number += 1
        if leaving is not None and count:
            crowd = crowd or Crowd(len(leaving))
            crowd.answer(number - 1, piece, results, leaving)
        if crowd is not None and pieces[number].free:
            values, carried = crowd.thin_out(pieces[number], values, carried)
    if crowd is not None:
        crowd.answer(number, piece, results, crowd.waiting)
        return Passed(crowd.outputs, tuple(crowd.exits.tolist()), tuple(ends))
    return Passed(piece.outputs(results), _exits(number, piece, results, rows), tuple(ends))


class Crowd:
    """Rows that do not leave together: which of them still wait, and what the others were answered."""

    def __init__(self, rows: int) -> None:
        """All `rows` are waiting."""
        self.waiting = np.ones(rows, np.bool_)
        """Of the rows that are fed, those without an answer."""
        self.left = rows
        self._places = np.arange(rows)
        """Where the rows that are fed stand for the caller."""
        self.exits = np.zeros(rows, np.int64)
        self.outputs: dict[str, Any] = {}

    def answer(self, number: int, piece: Piece, results: Sequence[Any], leaving: Any) -> None:
        """The waiting rows that are `leaving` (bool [fed rows]) do so at stage `number`. Raises: InputError."""
        places = self._places[leaving]
        self.exits[places] = number
        for name, found in piece.outputs(results).items():
            if found.ndim == 0 or len(found) != len(leaving):
                raise InputError(
                    f"the output {name} of stage {piece.stage.name!r} has shape {list(found.shape)} for "
                    f"{len(leaving)} rows, so they cannot leave one by one; run one row at a time"
                )
            if name not in self.outputs:
                self.outputs[name] = np.zeros((len(self.exits), *found.shape[1:]), found.dtype)
            self.outputs[name][places] = found[leaving]
        self.waiting = self.waiting & ~leaving
        self.left -= len(places)

    def thin_out(self, piece: Piece, values: Arrays, carried: Sequence[Any]) -> tuple[Arrays, Sequence[Any]]:
        """What `piece` is fed when only the rows that wait are computed."""
        if self.left == len(self.waiting):
            return values, carried
        kept = np.flatnonzero(self.waiting)
        self._places, self.waiting = self._places[kept], np.ones(len(kept), np.bool_)
        return {name: values[name][kept] for name in piece.needs}, [each[kept] for each in carried]


def _leaving(piece: Piece, results: Sequence[Any], crowd: Optional[Crowd]) -> Optional[Any]:
    """Which of the rows that are fed leave now, bool [fed rows]; None where there is nothing to decide."""
    if piece.threshold is None:
        return None
    leaving = leaves(results[-1], piece.threshold)
    return leaving if crowd is None else leaving & crowd.waiting


def _exits(number: int, piece: Piece, results: Sequence[Any], rows: int) -> tuple[int, ...]:
    if piece.stage.exits:
        return tuple(results[-1].ravel().tolist())
    return (number,) * (len(results[-1]) if piece.stage.gate else rows)


# ------------------------------------------------------------------ putting stages together


def make_pieces(variant: Variant, signature: Signature, sessions: Sequence[Session]) -> tuple[Piece, ...]:
    """The stages of a variant with their sessions, in order.

    Raises: BundleError when graphs do not take and give what the stages say, or rows cannot leave where they should.
    """
    stages = variant.stages
    _check_gates(variant, signature)
    pieces: list[Piece] = []
    for number, (stage, session) in enumerate(zip(stages, sessions)):
        _check_arity(stage, session, len(stages[number - 1].carry) if number else 0)
        own = session.inputs[: len(stage.inputs)]
        pieces.append(
            Piece(
                stage,
                session,
                takes=tuple(zip(own, stage.inputs)),
                carried=session.inputs[len(own) :],
                needs=tuple(dict.fromkeys(name for later in stages[number:] for name in later.inputs)),
                free=all(later.free_rows for later in stages[number:]),
                threshold=stage.gate.threshold if stage.gate else None,
            )
        )
    return tuple(pieces)


def _check_gates(variant: Variant, signature: Signature) -> None:
    if variant.gated and signature.state:
        raise BundleError(
            f"the model keeps {signature.state[0].input!r} from run to run, so no row may leave before the end; "
            "deploy it without a method of early exit"
        )
    last = variant.stages[-1]
    for stage in variant.stages:
        if stage.exits and len(variant.stages) > 1:
            raise BundleError(f"the stage {stage.name!r} decides inside its graph, so it has to be the only stage")
        if stage.gate and stage is last:
            raise BundleError(f"the last stage {stage.name!r} has a gate, but nothing comes after it")
        if stage.gate and stage.outputs != last.outputs:
            raise BundleError(
                f"rows may leave at the stage {stage.name!r}, but it gives {', '.join(stage.outputs) or 'nothing'} "
                f"where the last one gives {', '.join(last.outputs)}"
            )


def _check_arity(stage: Stage, session: Session, carried: int) -> None:
    takes, gives = len(stage.inputs) + carried, len(stage.returns)
    if (len(session.inputs), len(session.outputs)) != (takes, gives):
        raise BundleError(
            f"the stage {stage.name!r} should take {takes} tensors and give {gives}, "
            f"but its graph takes {len(session.inputs)} and gives {len(session.outputs)}"
        )
