"""Puts what ships into a bundle: graphs, plan, a synthetic example with its answer, the recipe, and the evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgewright.arrays import npz_bytes
from edgewright.bench import Bench, holding
from edgewright.bundle import Bundle, Contents, plain, write_bundle
from edgewright.deploying.job import Candidate, Job
from edgewright.registry import RENDERERS
from edgewright.task import noise_task
from edgewright.types import Arrays, Plan, Report


def pack(job: Job, shipped: Candidate, plan: Plan, report: Report, bench: Bench) -> Bundle:
    """Write the bundle. Raises: OutputError when the place cannot take it."""
    inputs = example_inputs(job, bench)
    files = {
        "example/inputs.npz": npz_bytes(inputs),
        "example/outputs.npz": npz_bytes(example_outputs(shipped, plan, inputs, bench)),
        "measurements.json": json.dumps(plain(report.rows), indent=1, sort_keys=True).encode(),
        "report.json": bench.registry.get(RENDERERS, "json").value.render(report).encode(),
        "report.md": bench.registry.get(RENDERERS, "markdown").value.render(report).encode(),
    }
    contents = Contents(
        name=job.model.name,
        signature=shipped.model.signature,
        variants=shipped.model.variants,
        artifacts=shipped.artifacts,
        plan=plan,
        files=files,
        extra=evidence_of(job, shipped, report, bench),
    )
    return write_bundle(job.out, contents)


def evidence_of(job: Job, shipped: Candidate, report: Report, bench: Bench) -> Mapping[str, Any]:
    """What the manifest says besides the graphs: how they were made, from what, and how they were judged."""
    return {
        "native": False,
        "target": job.target.name,
        "source": {"model": job.model.source, "digest": job.model.digest},
        "recipe": {
            "methods": [{"name": m.name, "plugin": m.offer.label, "params": m.params} for m in job.recipe.methods],
            "exporters": job.recipe.exporters,
            "kernels": job.recipe.kernels,
            "runtimes": job.recipe.runtimes,
            "bounds": {**plain(job.recipe.bounds), "written": sorted(job.recipe.bounds.written)},
            "seed": job.recipe.seed,
            "batch": job.recipe.batch,
            "threads": job.recipe.threads,
        },
        "task": {
            "name": job.task.name,
            "metric": job.task.metric,
            "preprocessing": job.task.preprocessing,
            "digest": job.task.digest,
            "splits": {split: job.task.size(split) for split in job.task.splits},
        },
        "history": shipped.model.history,
        "verdict": report.verdict,
        "versions": dict(bench.versions),
        "device": (bench.device or bench.host).device(),
        "costs": stage_costs(shipped, bench),
    }


def stage_costs(shipped: Candidate, bench: Bench) -> list[Mapping[str, Any]]:
    """What deadlines are kept by on the device that it was measured on; others measure for themselves."""
    if bench.device is None or not shipped.costs:
        return []
    where = {"device": bench.device.device().fingerprint, "threads": bench.recipe.threads}
    return [{**where, "variant": shipped.model.variants[0].name, "stages": plain(shipped.costs)}]


def example_inputs(job: Job, bench: Bench) -> Arrays:
    """One seeded example, never the user's data."""
    batch = job.recipe.batch
    noise = noise_task(job.model.signature, job.recipe.seed, count=max(40, 3 * batch))
    return next(iter(noise.batches("calibration", batch))).inputs


def example_outputs(shipped: Candidate, plan: Plan, inputs: Arrays, bench: Bench) -> Arrays:
    """What the shipped model answers to the example, on the device where there is one."""
    agent = bench.device or bench.host
    plan = plan if bench.device else bench.host_plan(shipped.model)
    with holding(agent, bench.trial(shipped.model, plan), bench.entries(plan)) as opened:
        return agent.infer(opened, inputs, batch=bench.recipe.batch)
