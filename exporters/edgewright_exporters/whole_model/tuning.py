"""Searches schedules for what no template of ours computes, with TVM's MetaSchedule, and has them used.

What was found lies in a folder, each batch of records written at once, beside the seconds that were spent: a search
that was killed goes on where it was. Candidates are compiled and timed by another process, for they crash and hang,
which ends with this one.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from edgewright.errors import PluginError, RefusedError
from edgewright_exporters.onnx_kernels.workers import Outcome, perform
from edgewright_exporters.tir.compiler import target_of
from edgewright_exporters.tir.isa import Isa

RECORDS, WORKLOADS, SPENT = "database_tuning_record.json", "database_workload.json", "spent.json"
"""The first two are MetaSchedule's own names."""

BATCH = 8
"""Candidates between two looks at the clock."""

POPULATION = {"population_size": 32, "init_min_unmeasured": 8, "genetic_num_iters": 2}
"""Of the evolutionary search; its usual 512 take it a minute per batch, which is better spent on timing."""

CANDIDATE_LIMIT = 20.0
"""Seconds to compile and time one; the start of its process is part of the first."""

RUNS, ROUNDS = 3, 3

Say = Callable[[str], None]


def tune(task: Mapping[str, Any], isa: Isa, command: Sequence[str], say: Say) -> Mapping[str, int]:
    """Search for the functions of the `graph` until `seconds` were spent in all, in the folder `schedules`.

    Returns: how many functions were searched for, and how many records there are.

    Raises:
        RefusedError: when another process is searching in this folder.
    """
    read_intrinsics(isa)
    from tvm.s_tir import meta_schedule

    from edgewright_exporters.whole_model.importing import CALLER, imported

    folder = Path(task["schedules"])
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        _hold(lock, folder)
        keep_whole_lines(folder)
        database = meta_schedule.database.JSONDatabase(work_dir=str(folder))
        found = meta_schedule.relax_integration.extract_tasks(
            fused(imported(onnx.load(task["graph"])), isa), target_of(isa)
        )
        own = [each for each in found if not each.task_name.startswith(CALLER)]
        clock = _Clock(folder, float(task["seconds"]))
        if not own:
            say("our kernels do all of it, so that there is nothing to tune")
        elif clock.left > 0:
            say(
                f"{len(database)} records of schedules are there; {len(own)} functions are tuned for {clock.left:.0f} s"
            )
            _search(own, database, folder, clock, _measurer(command, isa, clock, lambda: say(_state(database, clock))))
        return {"functions": len(own), "records": len(database)}


def read_intrinsics(isa: Isa) -> None:
    """Those of the machine alone. TVM would read all of its intrinsics, GPUs' too: a minute for nothing."""
    name = "tvm.s_tir.tensor_intrin"
    if name not in sys.modules:
        package, parent = ModuleType(name), find_spec("tvm.s_tir")
        places = parent.submodule_search_locations if parent else None
        package.__path__ = [str(Path(place) / "tensor_intrin") for place in places or ()]
        sys.modules[name] = package
    import_module(f"{name}.{'x86' if isa.machine == 'x86_64' else 'arm_cpu'}")


def _hold(lock: Any, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise RefusedError(f"another run is tuning this model in {folder}; start again when it is done") from None


def keep_whole_lines(folder: Path) -> None:
    """A kill may have cut the last line that was being written, and MetaSchedule would read none of the others."""
    for name in (WORKLOADS, RECORDS):
        path = folder / name
        content = path.read_bytes() if path.exists() else b""
        if content and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)


class _Clock:
    """The seconds that were spent in a folder, counted on across processes."""

    def __init__(self, folder: Path, most: float) -> None:
        self._place, self._started = folder / SPENT, perf_counter()
        self._before = json.loads(self._place.read_text(encoding="utf-8")) if self._place.exists() else 0.0
        self._most = most

    @property
    def spent(self) -> float:
        return self._before + perf_counter() - self._started

    @property
    def left(self) -> float:
        return self._most - self.spent

    def keep(self) -> None:
        partial = self._place.with_suffix(".part")
        partial.write_text(json.dumps(self.spent), encoding="utf-8")
        os.replace(partial, self._place)


def _state(database: Any, clock: _Clock) -> str:
    return f"{len(database)} records of schedules, {max(0.0, clock.left):.0f} s left"


def _search(found: Sequence[Any], database: Any, folder: Path, clock: _Clock, measurer: tuple[Any, Any]) -> None:
    from tvm.s_tir import meta_schedule

    builder, runner = measurer
    tasks, weights = meta_schedule.relax_integration.extracted_tasks_to_tune_contexts(
        list(found), str(folder), strategy=meta_schedule.search_strategy.EvolutionarySearch(**POPULATION), num_threads=1
    )
    try:
        meta_schedule.tune.tune_tasks(
            tasks=tasks,
            task_weights=weights,
            work_dir=str(folder),
            max_trials_global=2**31 - 1,
            num_trials_per_iter=BATCH,
            builder=builder,
            runner=runner,
            database=database,
            cost_model="random",
            # Not the usual ones: they remove the folder that a candidate lies in.
            measure_callbacks=[meta_schedule.measure_callback.AddToDatabase()],
        )
    except Exception:
        if clock.left > 0:
            raise


def _measurer(command: Sequence[str], isa: Isa, clock: _Clock, tell: Callable[[], None]) -> tuple[Any, Any]:
    """What MetaSchedule hands candidates to: both steps are done by one process, in which they may crash."""
    from tvm import ir
    from tvm.ir.utils import derived_object
    from tvm.s_tir import meta_schedule

    folder = TemporaryDirectory()

    @derived_object
    class Builder(meta_schedule.builder.PyBuilder):
        def build(self, build_inputs: Any) -> Any:
            places = [Path(folder.name) / f"{number}.json" for number in range(len(build_inputs))]
            for place, each in zip(places, build_inputs):
                place.write_text(ir.save_json(each.mod), encoding="utf-8")
            return [meta_schedule.builder.BuilderResult(str(place), None) for place in places]

    @derived_object
    class Future(meta_schedule.runner.PyRunnerFuture):
        def __init__(self, outcome: Outcome) -> None:
            super().__init__()
            self._outcome = outcome

        def done(self) -> bool:
            return True

        def result(self) -> Any:
            return meta_schedule.runner.RunnerResult(self._outcome.value, self._outcome.error or None)

    @derived_object
    class Runner(meta_schedule.runner.PyRunner):
        def run(self, runner_inputs: Any) -> Any:
            tell()
            if clock.left <= 0:
                raise TimeoutError  # MetaSchedule knows no clock; it makes another exception of this one
            tasks = [{"do": "time", "module": str(each.artifact_path)} for each in runner_inputs]
            outcomes = list(perform(tasks, isa, limit=CANDIDATE_LIMIT, command=command))
            clock.keep()
            return [Future(outcome) for outcome in outcomes]

    return Builder(), Runner()


def time_candidate(task: Mapping[str, Any], isa: Isa) -> Sequence[float]:
    """The seconds that one run of the `module` took, round by round."""
    import tvm
    from tvm import ir
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo

    module: Any = ir.load_json(Path(task["module"]).read_text(encoding="utf-8"))
    arguments = [tvm.runtime.tensor(_filled(each)) for each in ArgInfo.from_entry_func(module)]
    try:
        compiled: Any = tvm.compile(module, target=target_of(isa))
    except Exception as error:  # TVM raises of every kind
        raise PluginError(f"a candidate cannot be compiled: {type(error).__name__}") from error
    clock = compiled.mod.time_evaluator("main", tvm.runtime.device("cpu", 0), number=RUNS, repeat=ROUNDS)
    return [float(each) for each in clock(*arguments).results]


def _filled(argument: Any) -> Any:
    """Numbers that no operator chokes on: integers may be indices, and 0 is one."""
    shape, dtype = [int(size) for size in argument.shape], np.dtype(str(argument.dtype))
    return np.full(shape, 0.5 if dtype.kind == "f" else 0, dtype)


def scheduled(module: Any, isa: Isa, folder: Path) -> Any:
    """The module with the best schedules that were found in `folder`; functions without one stay as they are."""
    from tvm import relax

    with target_of(isa):
        return relax.transform.MetaScheduleApplyDatabase(str(folder))(fused(module, isa))


def fused(module: Any, isa: Isa) -> Any:
    """The module as `tvm.compile` makes it before it looks at schedules: the functions that a search is for."""
    from tvm import relax

    with target_of(isa):
        return relax.get_pipeline("zero")(module)
