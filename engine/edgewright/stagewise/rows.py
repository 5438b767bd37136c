"""Takes rows through the stages of a chain with nothing leaving: what each stage would answer to each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from edgewright.errors import RefusedError
from edgewright.types import Array, Arrays, GraphFile, Stage


@dataclass(frozen=True, eq=False)
class Piece:
    """A stage on this host, opened when it is first run; `batch` rows at a time, as the model is deployed."""

    stage: Stage
    batch: int

    @cached_property
    def _session(self) -> Any:
        from edgewright import onnxkit

        return onnxkit.session(cast("GraphFile", self.stage.graph).path)

    def run(self, values: Sequence[Array]) -> list[Array]:
        """What its graph returns, in order, for what it takes, in order; any number of rows.

        Raises: RefusedError when what it returns does not have a row per example.
        """
        starts = range(0, len(values[0]), self.batch)
        parts = [self._one_batch([each[start : start + self.batch] for each in values]) for start in starts]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    def _one_batch(self, values: Sequence[Array]) -> list[Array]:
        """A batch that lacks rows is filled up with its last one."""
        rows = len(values[0])
        filled = [np.concatenate([each, each[-1:].repeat(self.batch - rows, 0)]) for each in values]
        names = [value.name for value in self._session.get_inputs()]
        found = [np.asarray(each) for each in self._session.run(None, dict(zip(names, filled, strict=True)))]
        for name, each in zip(self.stage.returns, found, strict=True):
            if each.shape[:1] != (self.batch,):
                raise RefusedError(
                    f"the stage {self.stage.name!r} cannot be worked on by itself: for {self.batch} examples its "
                    f"{name!r} has the shape {list(each.shape)}, and the first size must be that of the batch"
                )
        return [each[:rows] for each in found]


def walk(pieces: Iterable[Piece], inputs: Arrays, carried: Sequence[Array] = ()) -> Iterator[list[Array]]:
    """What each stage returns for these rows, in the order of its graph.

    Args:
        pieces: stages that follow one another.
        inputs: the model's, by name.
        carried: what the stage before the first of them hands on.
    """
    for piece in pieces:
        results = piece.run([*(inputs[name] for name in piece.stage.inputs), *carried])
        yield results
        carried = carried_of(piece.stage, results)


def carried_of(stage: Stage, results: Sequence[Array]) -> Sequence[Array]:
    """What of a stage's results the next one takes."""
    first = len(stage.outputs)
    return results[first : first + len(stage.carry)]


@dataclass(frozen=True, eq=False)
class Part:
    """A stage, by its position among all stages of its chain; those before it are rewritten already."""

    pieces: Sequence[Piece]
    position: int

    @property
    def stage(self) -> Stage:
        """The stage itself."""
        return self.pieces[self.position].stage

    @property
    def before(self) -> Sequence[Piece]:
        """The stages before it."""
        return self.pieces[: self.position]

    @property
    def after(self) -> Sequence[Piece]:
        """The stages after it."""
        return self.pieces[self.position + 1 :]

    @property
    def last(self) -> Stage:
        """The last stage of the chain."""
        return self.pieces[-1].stage

    def values(self, inputs: Arrays) -> list[Array]:
        """What the stage takes when the model is given `inputs`, in the order of its graph."""
        carried: Sequence[Array] = ()
        for piece, results in zip(self.before, walk(self.before, inputs), strict=True):
            carried = carried_of(piece.stage, results)
        return [*(inputs[name] for name in self.stage.inputs), *carried]
