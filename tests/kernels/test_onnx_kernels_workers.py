"""Processes that crash, hang and are left alone: what each costs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from edgewright_exporters.onnx_kernels.workers import Outcome, perform
from edgewright_exporters.tir.isa import Isa, isa_named
from kills import descendants, left_of

WORKER = """
import json, os, sys, time
order = json.load(sys.stdin)
for number, task in order["tasks"]:
    print(json.dumps({"begins": number}), flush=True)
    if task["do"] == "crash": os.abort()
    if task["do"] == "hang": time.sleep(60)
    if task["do"] == "raise": raise ValueError("no such thing")
    print(json.dumps({"ends": number, "value": [order["isa"], os.getpid()]}), flush=True)
"""
PARENT = """
import sys
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import isa_named
task = {"do": "make", "kernel": {"template": "gemm", "case": {"rows": 1, "depth": 1, "columns": 1}, "choice": 0}}
for outcome in perform([{**task, "place": sys.argv[1] + str(n)} for n in range(1000)], isa_named("armv8-a")):
    print(outcome.task, flush=True)
"""


@pytest.fixture
def isa() -> Isa:
    return isa_named("armv8-a")


def outcomes(isa: Isa, *tasks: str, limit: float = 30.0, processes: int = 1) -> Sequence[Outcome]:
    command = (sys.executable, "-c", WORKER)
    return list(perform([{"do": task} for task in tasks], isa, limit=limit, command=command, processes=processes))


def test_tasks_share_one_process_while_all_is_well(isa: Isa):
    found = outcomes(isa, "work", "work", "work")
    assert [each.task for each in found] == [0, 1, 2]
    assert len({tuple(each.value) for each in found}) == 1
    assert found[0].value[0] == isa.name


def test_a_crash_costs_its_own_task(isa: Isa):
    found = outcomes(isa, "work", "crash", "work")
    assert [bool(each.error) for each in found] == [False, True, False]
    assert found[1] == Outcome(1, error="its process died of SIGABRT")


def test_a_hang_costs_its_own_task(isa: Isa):
    found = outcomes(isa, "hang", "work", limit=2.0)
    assert found[0] == Outcome(0, error="it was not done after 2 s")
    assert not found[1].error


def test_several_processes_share_the_tasks_and_lose_only_what_breaks(isa: Isa):
    tasks = ("work", "crash", "work", "hang", "crash", "work", "work")
    found = {each.task: each for each in outcomes(isa, *tasks, limit=2.0, processes=3)}
    assert sorted(found) == list(range(7))
    assert {tasks[at] for at, each in found.items() if each.error} == {"crash", "hang"}
    assert sum(bool(each.error) for each in found.values()) == 3
    assert len({each.value[1] for each in found.values() if each.value}) > 1


def test_an_exception_is_told(isa: Isa):
    (found,) = outcomes(isa, "raise")
    assert found.error == "its process ended with 1: ValueError: no such thing"


def test_a_program_that_cannot_start_is_a_reason(isa: Isa):
    (found,) = perform([{"do": "work"}], isa, command=(sys.executable, "-c", "import nothing_of_that_name"))
    assert "nothing_of_that_name" in found.error


@pytest.mark.parametrize("processes", [1, 2])
def test_no_process_is_left_when_nobody_asks_for_more(isa: Isa, processes: int):
    command = (sys.executable, "-c", WORKER)
    tasks = [{"do": do} for do in ("work",) * processes + ("hang",) * processes]
    going = perform(tasks, isa, command=command, processes=processes)
    pids = {next(iter(going)).value[1] for _ in range(processes)}
    assert len(pids) == processes
    going.close()  # pyright: ignore[reportAttributeAccessIssue]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_the_workshop_ends_with_a_parent_that_is_killed(tvm: ModuleType, tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path / "k")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"0\n"
        (child,) = descendants(parent.pid)
        parent.send_signal(signal.SIGKILL)
    assert not left_of([child])
