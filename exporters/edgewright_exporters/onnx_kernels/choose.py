"""Chooses the tile of each kernel: the template's best guess, or what was fastest on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from edgewright_exporters.onnx_kernels.machine import cores, cpu_name, runs_here
from edgewright_exporters.onnx_kernels.templates import Job, Kernel, entry_of, source_digest
from edgewright_exporters.onnx_kernels.workers import perform
from edgewright_exporters.tir.isa import Isa

PROCESSES = 8
"""How many kernels are compiled at once at most: a process with TVM takes some hundred megabytes."""

ENOUGH = 3
"""Kernels for which it is worth starting a process."""


def first_guess(jobs: Sequence[Job], isa: Isa) -> Mapping[Job, int]:
    """The tile that each template thinks best."""
    return dict.fromkeys(jobs, 0)


def object_place(kernel: Kernel, isa: Isa, cache: Path) -> Path:
    """Where the object file of a kernel is kept."""
    return cache / "objects" / source_digest(kernel.job.template)[:16] / f"{kernel.symbol(isa)}.o"


@dataclass(frozen=True)
class Measured:
    """Chooses by time. What was found lies in `cache`, each result written at once, so that a kill loses one.

    Calling it gives the fastest tile of each job; the best guess where the instruction set does not run here, or
    where no tile could be compiled and run.
    """

    cache: Path

    def __call__(self, jobs: Sequence[Job], isa: Isa) -> Mapping[Job, int]:
        """The fastest tile of each job."""
        if not runs_here(isa):
            return first_guess(jobs, isa)
        pending = [job for job in jobs if self.known(job, isa) is None]
        self._measure(pending, isa)
        return {job: _fastest(self.known(job, isa) or {}) for job in jobs}

    def known(self, job: Job, isa: Isa) -> Mapping[str, Any] | None:
        """What was measured: `us` by tile, and the reason `lost` of tiles that failed."""
        try:
            return json.loads(self._place(job, isa).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _measure(self, jobs: Sequence[Job], isa: Isa) -> None:
        kernels = {job: [Kernel(job, at) for at in range(len(job.module.tiles(job.case, isa)))] for job in jobs}
        lost = made([kernel for each in kernels.values() for kernel in each], isa, self.cache)
        races = {job: [kernel for kernel in each if kernel not in lost] for job, each in kernels.items()}
        tasks = [_race(each, isa, self.cache) for each in races.values()]
        for (job, each), outcome in zip(races.items(), perform(tasks, isa)):
            failed = {str(kernel.choice): lost[kernel] for kernel in kernels[job] if kernel in lost}
            times = dict(zip((str(kernel.choice) for kernel in each), outcome.value or ()))
            self._write(self._place(job, isa), {"us": times, "lost": failed, "error": outcome.error})

    def _place(self, job: Job, isa: Isa) -> Path:
        about = repr((source_digest(job.template), job, isa, cpu_name()))
        return self.cache / "choices" / f"{hashlib.sha256(about.encode()).hexdigest()}.json"

    def _write(self, place: Path, found: Mapping[str, Any]) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, encoding="utf-8") as file:
            json.dump(found, file)
        os.replace(file.name, place)


def made(kernels: Sequence[Kernel], isa: Isa, cache: Path) -> Mapping[Kernel, str]:
    """Has the object file of each kernel made where it is missing; those that cannot be are returned, with reasons."""
    missing = [kernel for kernel in kernels if not object_place(kernel, isa, cache).is_file()]
    tasks = [
        {"do": "make", "kernel": entry_of(kernel), "place": str(object_place(kernel, isa, cache))} for kernel in missing
    ]
    processes = min(cores(), PROCESSES, ceil(len(tasks) / ENOUGH))
    return {missing[each.task]: each.error for each in perform(tasks, isa, processes=processes) if each.error}


def _race(kernels: Sequence[Kernel], isa: Isa, cache: Path) -> Mapping[str, Any]:
    places = [str(object_place(kernel, isa, cache)) for kernel in kernels]
    return {"do": "compare", "kernels": [entry_of(kernel) for kernel in kernels], "places": places}


def _fastest(found: Mapping[str, Any]) -> int:
    times = found.get("us", {})
    return int(min(times, key=times.__getitem__)) if times else 0
