"""Every kernel template on the processors of two boards: compiled and linked here, equal to its reference there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewright.testing import guarded
from edgewright_exporters.tir.compiler import compile_object
from edgewright_exporters.tir.isa import Isa, isa_named
from edgewright_exporters.tir.linking import link
from samples import MAKERS, Sample, samples_of
from userland import BOARDS, PI_4, PI_5, Board, Userland

pytestmark = [pytest.mark.hardware, pytest.mark.slow]

CASES = 6
"""Of each template on each board."""

ISAS = {PI_4: isa_named("armv8-a"), PI_5: isa_named("armv8.2-a-dot")}
Answers = Mapping[str, Any]


@pytest.fixture(scope="module", params=BOARDS, ids=lambda board: board.name)
def board(request: pytest.FixtureRequest) -> Board:
    return request.param


@pytest.fixture(scope="module")
def answers(board: Board, userland: Userland, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What a board answered to every sample, by symbol: one library, one process."""
    pytest.importorskip("tvm", reason="the tvm extra is not installed")
    job, isa = tmp_path_factory.mktemp(board.name), ISAS[board]
    samples = {symbol: sample for template in MAKERS for symbol, sample in _named(template, isa).items()}
    functions = {symbol: s.template.function(s.case, s.tile, isa, symbol) for symbol, s in samples.items()}
    (job / "kernels.so").write_bytes(link([compile_object(functions, isa)], isa))
    (job / "calls.json").write_text(json.dumps([_call(symbol, sample, isa) for symbol, sample in samples.items()]))
    np.savez(job / "inputs.npz", **{f"{sym} {name}": a for sym, s in samples.items() for name, a in s.values.items()})
    for script in (Path(__file__).with_name("calls.py"), Path(guarded.__file__)):
        shutil.copy(script, job)
    done = userland.run(["python3", "calls.py"], board, job)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]}: {done.stderr}"
    with np.load(job / "outputs.npz") as outputs:
        return dict(outputs)


def _named(template: str, isa: Isa) -> Mapping[str, Sample]:
    name = template.replace(" ", "_")
    return {f"{name}_{number}": sample for number, sample in enumerate(samples_of(template, isa, CASES))}


def _call(symbol: str, sample: Sample, isa: Isa) -> Mapping[str, Any]:
    about: Sequence[Any] = (sample.case, sample.tile, isa)
    return {
        "symbol": symbol,
        "arguments": [(each.name, each.dtype, each.size) for each in sample.template.arguments(*about)],
        "given": list(sample.values),
        "items": sample.template.items(*about),
    }


@pytest.mark.parametrize("template", MAKERS)
def test_equals_its_reference(answers: Answers, board: Board, template: str) -> None:
    for symbol, sample in _named(template, ISAS[board]).items():
        found = np.asarray(sample.plain(answers[symbol])).reshape(sample.wanted.shape)
        if sample.far is None:
            np.testing.assert_array_equal(found, sample.wanted, err_msg=str(sample.case))
        else:
            assert (np.abs(found - sample.wanted) <= sample.far).all(), sample.case
