"""The energy model: counts by hand, primitives found in graphs, intervals, a profile's own figures, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from edgewright.asking.targetfile import parse_profile
from edgewright.errors import TargetError
from edgewright.grids import SHIFTS
from edgewright.registry import TARGETS, Registry
from edgewright.reporting.report import modelled_rows
from edgewright.testing import open_rig
from edgewright.types import Figure, Row
from edgewright_devices.energy_model import (
    STEPS,
    TABLE,
    Counts,
    counts_of,
    ends,
    picojoules,
    primitives_of,
    row,
    table_of,
)

ROWS, WIDE, GIVEN = 32, 48, 64
MACS = ROWS * WIDE * GIVEN
FLOAT = "agraph (float[32,48] x) => (float[32,64] y) { y = MatMul(x, w) }"
INT8 = """agraph (float[32,48] x) => (float[32,64] y) {
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) v = DequantizeLinear(w, s, z) y = MatMul(d, v) }"""
SHIFT = """agraph (float[32,48] x) => (float[32,64] y) {
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
    i = Cast <to = 6> (w) c = Gather(t, i) v = DequantizeLinear(c, s, z) y = MatMul(d, v) }"""
SIGNS = """agraph (float[32,48] x, float[64,48] k) => (float[32,64] y) {
    a = Greater(x, h) b = Where(a, one, less) c = Greater(k, h) e = Where(c, one, less)
    t = Transpose <perm = [1, 0]> (e) y = MatMul(b, t) }"""


def graph(body: str, **weights: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{body}')
    usual = {"s": np.float32(0.1), "z": np.int8(0), "h": np.float32(0), "one": np.float32(1), "less": np.float32(-1)}
    for name, array in (usual | weights).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def shifting() -> onnx.ModelProto:
    table = np.array(SHIFTS, np.int8)
    model = graph(SHIFT, t=table)
    codes = onnx.helper.make_tensor("w", onnx.TensorProto.UINT4, [WIDE, GIVEN], [3] * (WIDE * GIVEN))
    model.graph.initializer.append(codes)
    return model


def counted(model: onnx.ModelProto, *, int8: bool = False) -> Counts:
    return counts_of(model, {}, batch=1, int8=int8)


@pytest.fixture(name="floats")
def float_counts() -> Counts:
    return counted(graph(FLOAT, w=np.zeros((WIDE, GIVEN), np.float32)))


def test_a_product_counts_additions_and_the_same_tiles_in_every_format(floats: Counts) -> None:
    assert floats["multiply_float32"] == floats["add_float32"] == MACS
    assert floats["dram"] == 4 * WIDE * GIVEN / 2
    assert floats["buffer"] == (4 * ROWS * (WIDE + GIVEN) + MACS * (4 / 16 + 4 / 16)) / 2
    narrow = counted(graph(FLOAT, w=np.zeros((WIDE, GIVEN), np.float32)), int8=True)
    assert narrow["multiply_int8"] == narrow["add_int32"] == MACS
    assert not narrow["multiply_float32"]
    assert (narrow["dram"], narrow["buffer"]) == (floats["dram"] / 4, floats["buffer"] / 4)


def test_an_integer_graph_and_one_of_shifts_differ_by_the_operation_and_by_four_bits() -> None:
    int8, shift = counted(graph(INT8, w=np.zeros((WIDE, GIVEN), np.int8))), counted(shifting())
    assert int8["multiply_int8"] == int8["add_int32"] == shift["shift"] == shift["add_int32"] == MACS
    assert not shift["multiply_int8"]
    assert shift["dram"] == pytest.approx(int8["dram"] / 2, rel=1e-3)
    assert int8["buffer"] - shift["buffer"] == pytest.approx(MACS / 2 / 16 / 2)


def test_products_of_signs_are_told_from_sums_that_one_sign_masks() -> None:
    both = graph(SIGNS)
    assert primitives_of(both) == {"y": "signs"}
    assert counted(both)["agree"] == MACS
    masked = graph(SIGNS.replace("MatMul(b, t)", "MatMul(x, t)"))
    assert primitives_of(masked) == {"y": "masked"}
    # Comparing and choosing costs the same in every form: an addition per result.
    assert counted(masked)["add_float32"] - counted(both)["add_float32"] == MACS


def test_a_multiply_accumulate_takes_what_the_sources_say() -> None:
    def of(primitive: str, prices: Mapping[str, float]) -> float:
        return sum(prices[step] for step in STEPS[primitive])

    points = {name: entry.pj for name, entry in TABLE.items()}
    lows, highs = ({name: getattr(e, end) for name, e in TABLE.items()} for end in ("low", "high"))
    assert of("float32", points) == pytest.approx(4.6)
    assert of("int8", points) == pytest.approx(0.3)
    assert of("int8", points) / of("shift", highs) == pytest.approx(1.3, abs=0.01)
    assert of("int8", points) / of("shift", lows) == pytest.approx(2.4, abs=0.03)
    assert all(e.low <= e.pj <= e.high and e.source for e in TABLE.values())


def test_the_interval_of_a_ratio_moves_shared_entries_together(floats: Counts) -> None:
    same = row("", floats, floats, TABLE)
    assert same.ratio is not None
    assert (same.ratio.value, same.ratio.interval) == (1, (1, 1))
    shift = counted(shifting())
    found = row("", floats, shift, TABLE)
    assert found.ratio is not None
    low, high = found.ratio.interval or (0, 0)
    assert low < (found.ratio.value or 0) < high
    alone = [ends((each,), TABLE) for each in (floats, shift)]
    assert alone[0][0] / alone[1][1] < low
    assert high < alone[0][1] / alone[1][0]
    assert {found.original.kind, found.candidate.kind, found.ratio.kind} == {"modelled"}


def test_shifts_take_less_than_int8_and_far_less_than_float(floats: Counts) -> None:
    int8, shift = counted(graph(INT8, w=np.zeros((WIDE, GIVEN), np.int8))), counted(shifting())
    assert picojoules(shift, TABLE) < picojoules(int8, TABLE)
    assert picojoules(shift, TABLE) < (1 - 0.429) * picojoules(floats, TABLE)


def test_a_profile_brings_figures_of_its_own(floats: Counts) -> None:
    figure = {"value": 1.0, "unit": "pJ", "source": "a data sheet"}
    profile = {
        "name": "own", "title": "Own", "isa": "aarch64", "operations": {"dram": figure},
        **{key: {"value": 1.0, "unit": unit, "source": "s"} for key, unit in
           (("memory", "B"), ("cores", "cores"), ("bandwidth", "GB/s"))},
        "compute": {"float32": {"value": 1.0, "unit": "GFLOP/s", "source": "s"}},
    }  # fmt: skip
    table = table_of(parse_profile(profile, "own.toml").operations)
    assert table["dram"].source == "a data sheet"
    assert picojoules(floats, TABLE) - picojoules(floats, table) == pytest.approx(199 * floats["dram"])
    with pytest.raises(TargetError, match="unknown key 'drum'; "):
        parse_profile({**profile, "operations": {"drum": figure}}, "own.toml")
    assert set(table_of({name: Figure(1, "pJ", "s") for name in TABLE})) == set(TABLE)


def test_a_report_has_a_row_against_the_original_and_one_against_int8(tmp_path: Path) -> None:
    with open_rig(tmp_path, Registry()) as rig:
        models = rig.models("onnx")
        first, other = list(models.values())[:2]
        target = rig.registry.get(TARGETS, "raspberry-pi-5").value
        rows: tuple[Row, ...] = modelled_rows(first, other, target, rig.registry)
        assert [each.quantity for each in rows] == ["modelled energy", "modelled energy, original in int8"]
        assert rows[1].original.value < rows[0].original.value
        assert modelled_rows(first, first, target, rig.registry) == ()
