"""Rows leave a chain where they should, and no row is answered otherwise than if it had come alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgewright.errors import BundleError, InputError
from edgewright.types import Gate, GraphFile, Signature, Stage, State, TensorSpec, Variant
from edgewright_runtime import Loaded, load
from edgewright_runtime.flow import Limits, Piece, flow, make_pieces

MakeBundle = Callable[..., Path]

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'

# Column k of x is the score at gate k; of the last two columns each stage makes another answer.
FIRST = f"""{HEAD}
first (float[B, 4] x) => (float[B, 2] y, int64[B] label, float[B, 4] h, float[B] score)
<int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{
  y = Slice(x, two, four, one)
  label = ArgMax<axis = 1, keepdims = 0>(y)
  h = Identity(x)
  column = Slice(x, zero, one, one)
  score = Squeeze(column, one)
}}
"""
SECOND = f"""{HEAD}
second (float[B, 4] h) => (float[B, 2] y, int64[B] label, float[B, 4] g, float[B] score)
<int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}}, float ten = {{10}}> {{
  tail = Slice(h, two, four, one)
  y = Mul(tail, ten)
  label = ArgMax<axis = 1, keepdims = 0>(y)
  g = Add(h, h)
  column = Slice(h, one, two, one)
  score = Squeeze(column, one)
}}
"""
THIRD = f"""{HEAD}
third (float[B, 4] x, float[B, 4] g) => (float[B, 2] y, int64[B] label)
<int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] four = {{4}}> {{
  both = Sub(g, x)
  tail = Slice(both, two, four, one)
  y = Neg(tail)
  label = ArgMax<axis = 1, keepdims = 0>(y)
}}
"""
CARRIES = (("h",), ("g",), ())
NAN = float("nan")


def gate(threshold: float | None) -> Gate:
    """A gate of the graphs above."""
    return Gate("score", "max-probability", threshold)


def rows(*each: tuple[float, ...]) -> Any:
    """Float32 rows of two scores and two values."""
    return np.array(each, np.float32)


@pytest.fixture
def chain(make_bundle: MakeBundle) -> Callable[..., Loaded]:
    """The chain above with the thresholds of its two gates, its batch, and whether its stages take any rows."""

    def make(*thresholds: float | None, batch: int | str = "N", free: bool | Sequence[bool] = True) -> Loaded:
        graphs = [text.replace("B", str(batch)) for text in (FIRST, SECOND, THIRD)]
        gates = [gate(each) for each in thresholds]
        name = f"chain-{batch}-{free}-{thresholds}"
        return load(make_bundle(*graphs, carries=CARRIES, gates=gates, free_rows=free, name=name))

    return make


def expected(x: Any, exits: Sequence[int]) -> Any:
    """What the stage at which each row left answers to it."""
    return np.stack([row[2:] * (1, 10, -1)[depth] for row, depth in zip(x, exits)])


@pytest.mark.parametrize(
    ("row", "leaves_at"),
    [((0.9, 0, 1, 2), 0), ((0.1, 0.8, 1, 2), 1), ((0.1, 0.1, 1, 2), 2), ((NAN, NAN, 1, 2), 2), ((0.5, 0, 1, 2), 0)],
)
def test_a_row_leaves_where_its_score_reaches_the_threshold(
    chain: Callable[..., Loaded], row: tuple[float, ...], leaves_at: int
) -> None:
    x = rows(row)
    result = chain(0.5, 0.6).run(x)
    assert result.exits == (leaves_at,)
    assert len(result.stages_ms) == leaves_at + 1
    assert 0 < sum(result.stages_ms) <= result.spent_ms
    assert np.array_equal(result.outputs["y"], expected(x, [leaves_at]))
    assert set(result.outputs) == {"y", "label"}


def test_scores_are_compared_in_float32(chain: Callable[..., Loaded]) -> None:
    assert chain(0.1, None).run(rows((0.1, 0, 1, 2))).exits == (0,)


def test_without_a_threshold_nothing_leaves(chain: Callable[..., Loaded]) -> None:
    assert chain(None, None).run(rows((1e9, 1e9, 1, 2), (2e9, 1, 1, 2))).exits == (2, 2)
    assert chain(None, 0.5).run(rows((1e9, 1e9, 1, 2), (2e9, 0, 1, 2))).exits == (1, 2)


MIXED = rows((0.9, 0, 1, 2), (0, 0, 3, 4), (0, 0.9, 5, 6), (NAN, 0.9, 8, 7))


@pytest.mark.parametrize("free", [True, False, (True, False, True), (True, True, False)])
def test_a_batch_gives_what_its_rows_give_alone(chain: Callable[..., Loaded], free: bool | tuple[bool, ...]) -> None:
    alone = chain(0.5, 0.6, batch=1)
    batch = "N" if free is True else 4
    if isinstance(free, tuple):
        batch = "N"
    result = chain(0.5, 0.6, batch=batch, free=free).run(MIXED)
    single = [alone.run(MIXED[i : i + 1]) for i in range(4)]
    assert result.exits == (0, 2, 1, 1)
    for name in ("y", "label"):
        together = np.concatenate([each.outputs[name] for each in single])
        assert np.array_equal(result.outputs[name], together)
        assert result.outputs[name].dtype == together.dtype


def test_a_batch_that_leaves_as_one_stops_there(chain: Callable[..., Loaded]) -> None:
    for free in (True, False):
        result = chain(0.5, 0.6, free=free).run(rows((0.9, 0, 1, 2), (0, 0.9, 5, 6)))
        assert result.exits == (0, 1)
        assert len(result.stages_ms) == 2
        assert chain(0.5, 0.6, free=free).run(rows((0.9, 0, 1, 2), (0.7, 0, 5, 6))).exits == (0, 0)


@pytest.mark.parametrize("through", [0, 1, 2])
def test_nothing_runs_beyond_the_stage_that_is_named(chain: Callable[..., Loaded], through: int) -> None:
    result = chain(0.5, 0.6).run(MIXED, through=through)
    assert result.exits == tuple(min(depth, through) for depth in (0, 2, 1, 1))
    assert np.array_equal(result.outputs["y"], expected(MIXED, result.exits))
    assert len(result.stages_ms) == through + 1


@pytest.mark.parametrize("through", [-1, 3])
def test_a_stage_that_is_not_there_is_refused(chain: Callable[..., Loaded], through: int) -> None:
    with pytest.raises(InputError, match=f"there is no stage {through} to stop at; allowed: 0 to 2"):
        chain(0.5, 0.6).run(MIXED, through=through)


def test_exploring_shows_every_stage_to_every_row(chain: Callable[..., Loaded]) -> None:
    found = chain(0.5, 0.6).explore(MIXED)
    assert [set(each) for each in found] == [{"y", "label", "score"}, {"y", "label", "score"}, {"y", "label"}]
    for depth, each in enumerate(found):
        assert np.array_equal(each["y"], expected(MIXED, [depth] * 4))
    assert np.array_equal(found[1]["score"], MIXED[:, 1])


COUNTING = f"""{HEAD}
counting (float[N, 2] x, int64[N] last, float[N] agreed) =>
         (float[N, 2] y, int64[N] now, float[N] more, float[N] score)
<float one = {{1}}, float[2] tilt = {{0, 1}}> {{
  y = Add(x, tilt)
  now = ArgMax<axis = 1, keepdims = 0>(y)
  same = Equal(now, last)
  step = Cast<to = 1>(same)
  longer = Add(agreed, one)
  more = Mul(longer, step)
  score = Identity(more)
}}
"""
OPENING = f"""{HEAD}
opening (float[N, 2] x) => (float[N, 2] y, int64[N] last, float[N] agreed, float[N] score)
<float zero = {{0}}> {{
  y = Identity(x)
  last = ArgMax<axis = 1, keepdims = 0>(y)
  some = ReduceMax<axes = [1], keepdims = 0>(x)
  agreed = Mul(some, zero)
  score = Identity(agreed)
}}
"""
CLOSING = f"""{HEAD}
closing (float[N, 2] x, int64[N] last, float[N] agreed) => (float[N, 2] y)
<float[2] tilt = {{9, 0}}, int64[1] one = {{1}}> {{
  c = Cast<to = 1>(last)
  d = Unsqueeze(c, one)
  s = Mul(d, tilt)
  a = Unsqueeze(agreed, one)
  t = Add(s, a)
  y = Add(x, t)
}}
"""


@pytest.mark.parametrize("free", [True, False])
def test_patience_is_carried_by_the_rows_that_go_on(make_bundle: MakeBundle, free: bool) -> None:
    carries = (("last", "agreed"), ("now", "more"), ())
    gates = [Gate("score", "patience", 1.0), Gate("score", "patience", 1.0), None]
    loaded = load(
        make_bundle(OPENING, COUNTING, CLOSING, carries=carries, gates=gates, free_rows=free, name=f"patience{free}")
    )
    x = rows((5, 1), (1.5, 1), (1, 5), (2, 1.5))
    result = loaded.run(x)
    assert result.exits == (1, 2, 1, 2)
    alone = [loaded.run(x[i : i + 1]).outputs["y"] for i in range(4)]
    assert np.array_equal(result.outputs["y"], np.concatenate(alone))


NESTED = f"""{HEAD}
nested (float[N, 2] x) => (float[N, 2] y, int64[N] exit)
{{ y = Neg(x) exit = ArgMax<axis = 1, keepdims = 0>(x) }}
"""


def test_a_graph_that_decides_inside_tells_the_exit(make_bundle: MakeBundle) -> None:
    result = load(make_bundle(NESTED, exits="exit")).run(rows((1, 2), (2, 1)))
    assert result.exits == (1, 0)
    assert list(result.outputs) == ["y"]
    assert len(result.stages_ms) == 1


# ------------------------------------------------------------------ what is refused


COUNTER = f"""{HEAD}
counter (float[N, 2] x, float[N, 2] h) => (float[N, 2] y, float[N, 2] h_next, int64[N] exit)
{{ y = Add(x, h) h_next = Identity(y) exit = ArgMax<axis = 1, keepdims = 0>(x) }}
"""
SILENT = f"""{HEAD}
silent (float[N, 4] x) => (float[N, 4] h, float[N] score) {{ h = Neg(x) score = ReduceMax<axes=[1], keepdims=0>(x) }}
"""
LAST = f"""{HEAD}
last (float[N, 4] h) => (float[N, 4] y, float[N] score) {{ y = Neg(h) score = ReduceMax<axes=[1], keepdims=0>(h) }}
"""
END = f"{HEAD} end (float[N, 4] h) => (float[N, 4] y) {{ y = Neg(h) }}"
PART = f"{HEAD} part (float[N, 4] x) => (float[N, 4] h) {{ h = Neg(x) }}"
POOLED = f"""{HEAD}
pooled (float[N, 4] x) => (float[1, 4] y, float[N, 4] h, float[N] score)
{{ h = Neg(x) y = ReduceMax<axes=[0]>(x) score = ReduceMax<axes=[1], keepdims=0>(x) }}
"""


def test_recurrent_state_and_gates_do_not_go_together(make_bundle: MakeBundle) -> None:
    with pytest.raises(BundleError, match="keeps 'h' from run to run, so no row may leave before the end"):
        load(make_bundle(COUNTER, exits="exit", state=[State("h_next", "h")]))


@pytest.mark.parametrize(
    ("graphs", "gates", "exits", "says"),
    [
        ((SILENT, END), [gate(0.5)], "", "rows may leave at the stage 'stage0', but it gives nothing where the last"),
        ((PART, LAST), [None, gate(0.5)], "", "the last stage 'stage1' has a gate"),
    ],
)
def test_gates_that_cannot_work_are_refused(
    make_bundle: MakeBundle, graphs: tuple[str, ...], gates: list[Gate | None], exits: str, says: str
) -> None:
    with pytest.raises(BundleError, match=says):
        load(make_bundle(*graphs, carries=[("h",), ()], gates=gates, exits=exits))


def test_a_model_without_answers_in_between_runs_to_its_end(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(PART, END, carries=[("h",), ()]))
    assert loaded.run(MIXED).exits == (1, 1, 1, 1)
    with pytest.raises(InputError, match="has to run to its end, because the stage 'stage0' gives no answer"):
        loaded.run(MIXED, through=0)


def test_outputs_without_a_row_each_cannot_leave_one_by_one(make_bundle: MakeBundle) -> None:
    loaded = load(make_bundle(POOLED, END, carries=[("h",), ()], gates=[gate(0.5)]))
    assert loaded.run(rows((1, 1, 1, 1))).exits == (0,)
    with pytest.raises(InputError, match=r"the output y of stage 'stage0' has shape \[1, 4\] for 2 rows"):
        loaded.run(rows((1, 1, 1, 1), (0, 0, 0, 0)))


# ------------------------------------------------------------------ any rows, any stages


class NumpyStage:
    """A session of numpy: answers each row's number and its own, hands the rows on, and scores them by a column."""

    def __init__(self, number: int, last: bool) -> None:
        self.number, self.last, self.seen = number, last, 0
        self.inputs = ("x",) if number == 0 else ("x", "h")
        self.outputs = ("y",) if last else ("y", "h", "score")

    def run(self, feeds: Any) -> list[Any]:
        """Column 0 names the row, column k + 1 is its score at stage k."""
        x = feeds["x"]
        if "h" in feeds:
            assert np.array_equal(feeds["h"], x, equal_nan=True)
        self.seen = len(x)
        y = np.stack([x[:, 0], np.full(len(x), self.number, np.float32)], 1)
        return [y] if self.last else [y, x, x[:, self.number + 1]]

    def profile(self, feeds: Any, runs: int) -> list[dict[str, Any]]:
        """Nothing to tell."""
        return []


def numpy_chain(free: Sequence[bool]) -> tuple[Piece, ...]:
    """A chain of numpy stages whose gates let scores of 1 and more leave."""
    last = len(free) - 1
    stages = [
        Stage(
            f"s{i}",
            GraphFile(Path(), str(i)),
            ("x",),
            ("y",),
            () if i == last else ("h",),
            gate=None if i == last else gate(1.0),
            free_rows=each,
        )
        for i, each in enumerate(free)
    ]
    spec = TensorSpec("x", "float32", ("N", len(free)))
    return make_pieces(
        Variant("main", tuple(stages)), Signature((spec,), ()), [NumpyStage(i, i == last) for i in range(len(free))]
    )


@given(
    st.lists(st.booleans(), min_size=1, max_size=5).flatmap(
        lambda free: st.tuples(
            st.just(free),
            hnp.arrays(
                np.float32,
                st.tuples(st.integers(1, 9), st.just(len(free))),
                elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, NAN]),
            ),
            st.integers(0, len(free) - 1),
        )
    )
)
def test_rows_keep_their_place_and_leave_at_their_gate(case: tuple[list[bool], Any, int]) -> None:
    free, x, through = case
    x[:, 0] = np.arange(len(x))
    pieces = numpy_chain(free)
    passed = flow(pieces, {"x": x}, len(x), Limits(through))
    wanted = [next((k for k in range(len(free) - 1) if row[k + 1] >= 1), len(free) - 1) for row in x]
    wanted = [min(depth, through) for depth in wanted]
    assert list(passed.exits) == wanted
    assert np.array_equal(passed.outputs["y"], np.stack([x[:, 0], wanted], 1))
    assert len(passed.ends_ns) == max(wanted) + 1
    for number, piece in enumerate(pieces[: max(wanted) + 1]):
        fed = sum(depth >= number for depth in wanted) if all(free[number:]) else len(x)
        assert piece.session.seen == fed


def test_a_run_that_is_slowed_expects_the_next_stage_to_be_slowed_too() -> None:
    limits = Limits(2, start_ns=0, by_ns=100, highs_ns=(15, 20, 30), usual_ns=(10, 30, 60))
    assert not limits.stop(0, 10)
    assert not limits.stop(0, 8), "a run that was lucky so far is not trusted with more"
    assert limits.stop(0, 40), "four times as slow as usual: the next may take 80, not 20"
    assert limits.stop(2, 10), "nothing comes after the last stage"
