"""What every step of one run shares; what was measured once is kept, under everything that it depends on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgewright.agents.agent import Agent
from edgewright.arrays import npz_bytes
from edgewright.asking.recipe import Recipe
from edgewright.bench.answers import CHUNK, EXITS, by_stage, explored, holding, inferred
from edgewright.bench.costs import predicted, predicted_stages, read_cost
from edgewright.bench.placing import placements_of, stage_artifacts
from edgewright.bundle import Contents, plain, write_bundle
from edgewright.environment import Environment, Progress
from edgewright.errors import RefusedError
from edgewright.measuring import measure
from edgewright.measuring.metering import metered, with_energy
from edgewright.measuring.presets import find_preset, in_passing
from edgewright.measuring.timings import Measured
from edgewright.realinputs import draw_inputs
from edgewright.registry import RUNTIMES, TARGETS, Registry
from edgewright.store import Store, key_of
from edgewright.task import Task
from edgewright.types import Array, Arrays, Artifact, Cost, Device, Model, Placement, Plan, StageCost, Target, unknown

STREAM = 256
"""Real inputs that a model is timed on where each takes a way of its own, or asks for work of its own."""

CALIBRATE_S = 2.0
"""How long the stages of a chain are timed."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What every step of one run shares: where to keep, what to measure with, and what is asked.

    `reference` is the original as ONNX, what everything is compared with.
    `device` is the agent on the target; None when there is no device at hand, and costs are predicted.
    `host` is the agent on this machine, which computes outputs while methods are still choosing.
    """

    env: Environment
    target: Target
    recipe: Recipe
    task: Task
    original: Model
    reference: Model
    host: Agent
    device: Agent | None

    @property
    def registry(self) -> Registry:
        """The plugins."""
        return self.env.registry

    @property
    def store(self) -> Store:
        """The cache."""
        return self.env.store

    @property
    def progress(self) -> Progress:
        """How to tell what goes on."""
        return self.env.progress

    @property
    def versions(self) -> Mapping[str, str]:
        """The libraries whose version a result depends on."""
        return self.host.device().versions

    # ------------------------------------------------------------------ outputs and scores

    def outputs(self, model: Model, split: str, limit: int | None = None) -> Arrays:
        """The outputs over a split, joined on the example axis, computed on this host."""
        return self._kept_outputs(model, split, limit, self.host, self.host_plan(model))

    def deployed_outputs(self, model: Model, split: str, plan: Plan) -> Arrays:
        """The outputs over a split as the device computes them; on this host when there is no device."""
        if self.device is None:
            return self.outputs(model, split)
        return self._kept_outputs(model, split, None, self.device, plan)

    def deployed_exits(self, model: Model, split: str, plan: Plan) -> Array:
        """The stage at which each row of a split leaves, int64 [rows], where `deployed_outputs` was computed."""
        agent, plan = (self.device, plan) if self.device else (self.host, self.host_plan(model))
        return self._kept(model, split, None, agent, plan)[EXITS]

    def explored(self, model: Model, split: str) -> Sequence[Arrays]:
        """Per stage its outputs and the score of its gate over a split, with nothing leaving; on this host."""
        plan = self.host_plan(model)
        key = key_of("explored", _graphs(model), plan, self.task.digest, split, self.host.device().fingerprint)
        found = self.store.remember_arrays(key, lambda: self._explore(model, split, plan))
        return by_stage(found, len(model.variants[0].stages))

    def _explore(self, model: Model, split: str, plan: Plan) -> Arrays:
        with holding(self.host, self.trial(model, plan), self.entries(plan)) as opened:
            return explored(self.host, opened, self._chunks(split, None), self.recipe.batch)

    def _kept_outputs(self, model: Model, split: str, limit: int | None, agent: Agent, plan: Plan) -> Arrays:
        found = self._kept(model, split, limit, agent, plan)
        return {name: array for name, array in found.items() if name != EXITS}

    def _kept(self, model: Model, split: str, limit: int | None, agent: Agent, plan: Plan) -> Arrays:
        key = key_of("outputs", model.digest, plan, self.task.digest, split, limit, agent.device().fingerprint)
        return self.store.remember_arrays(key, lambda: self._infer(model, split, limit, agent, plan))

    def _infer(self, model: Model, split: str, limit: int | None, agent: Agent, plan: Plan) -> Arrays:
        with holding(agent, self.trial(model, plan), self.entries(plan)) as opened:
            return inferred(agent, opened, self._chunks(split, limit), self.recipe.batch)

    def _chunks(self, split: str, limit: int | None) -> Iterator[Arrays]:
        """The inputs of a split, chunk by chunk; tells how many were answered."""
        done, total = 0, min(self.task.size(split), limit or self.task.size(split))
        for batch in self.task.batches(split, CHUNK, limit=limit):
            yield batch.inputs
            done += len(batch.ids)
            self.progress(f"outputs on {split}", done, total)

    def score(self, outputs: Arrays, split: str, limit: int | None = None) -> float:
        """The metric over a split; without labels the original's outputs stand in for them."""
        return self.task.judge(outputs, self.labels(split, limit))

    def labels(self, split: str, limit: int | None = None) -> Any:
        """What outputs are judged against: labels, else what the original answered."""
        if self.task.labelled:
            labels = self.task.labels(split)
            return labels if limit is None else labels[:limit]
        return self.outputs(self.reference, split, limit)

    # ------------------------------------------------------------------ costs

    def costs(self, models: Mapping[str, Model], quantity: str = "latency") -> Mapping[str, Cost]:
        """The cost of each model under its default plan, relative to the first; measured when a device is there."""
        return self.plan_costs({name: (model, self.plan(model)) for name, model in models.items()}, quantity)

    def plan_costs(self, plans: Mapping[str, tuple[Model, Plan]], quantity: str = "latency") -> Mapping[str, Cost]:
        """As `costs`, for plans that are not the default. Measured ones are kept, and not measured again."""
        if self.device is None:
            return predicted({name: model for name, (model, _) in plans.items()}, quantity, self.registry, self.target)
        if quantity not in ("latency", "energy"):
            raise RefusedError(f"{quantity} cannot be measured on {self.target.name}: it has no meter for it")
        what = {name: (model.digest, plan) for name, (model, plan) in plans.items()}
        read = self.recipe.meters if quantity == "energy" else ()
        preset = in_passing(self.recipe.preset)
        key = key_of("cost", what, preset, self.device.device().fingerprint, *([read] if read else ()))
        work = self._quickly if quantity == "latency" else self._sparingly
        found = self.store.remember(key, quantity, lambda: plain(work(plans, preset)))
        return {name: read_cost(entry) for name, entry in cast("Mapping[str, Any]", found).items()}

    def _quickly(self, plans: Mapping[str, tuple[Model, Plan]], preset: str) -> Mapping[str, Cost]:
        return {
            name: Cost(found.typical, found.ratio or unknown("speed-up", "x", "measured alone"))
            for name, found in self.timed(plans, preset, race=True).items()
        }

    def _sparingly(self, plans: Mapping[str, tuple[Model, Plan]], preset: str) -> Mapping[str, Cost]:
        energies = {name: found.energy for name, found in self.timed(plans, preset).items()}
        return {
            name: Cost(each.total, each.ratio or unknown("energy ratio", "x", each.total.reason))
            for name, each in energies.items()
            if each is not None
        }

    def stage_costs(self, model: Model, plan: Plan | None = None) -> tuple[StageCost, ...]:
        """What each stage of a chain takes while the chain runs, on real inputs; predicted without a device.

        With thresholds rows leave as they say; without, runs end anywhere, so that every stage is seen.
        """
        if self.device is None:
            return predicted_stages(model, self.registry, self.target)
        plan = plan or self.plan(model)
        key = key_of("stage costs", model.digest, plan, self.device.device().fingerprint, self.task.digest)
        found = self.store.remember(key, "stages", lambda: plain(self._calibrated(model, plan)))
        return tuple(StageCost(**entry) for entry in cast("Sequence[Any]", found))

    def _calibrated(self, model: Model, plan: Plan) -> Sequence[StageCost]:
        assert self.device is not None
        lock = measure.device_lock(self.store.folder("locks"), self.device.address, self.progress)
        with lock, holding(self.device, self.trial(model, plan), self.entries(plan)) as opened:
            self.progress(f"timing the stages of {model.name}", 0, 0)
            self.device.warm(opened)
            return self.device.calibrate(opened, seconds=CALIBRATE_S)

    def timed(
        self, plans: Mapping[str, tuple[Model, Plan]], preset: str, *, race: bool = False
    ) -> Mapping[str, Measured]:
        """Everything that timing and meters tell, interleaved on the device (`measure.compare`); of a race the times.

        Ratios refer to the first.
        """
        assert self.device is not None
        candidates = {
            name: measure.Candidate(self.trial(model, plan), {"runtimes": self.entries(plan)})
            for name, (model, plan) in plans.items()
        }
        reference, meters = next(iter(plans)), () if race else self.recipe.meters
        with (
            measure.device_lock(self.store.folder("locks"), self.device.address, self.progress),
            metered(self.device, meters, self.registry) as meter,
        ):
            found = measure.compare(
                self.device,
                candidates,
                find_preset(preset),
                reference=reference,
                seed=self.recipe.seed,
                race=race,
                progress=self.progress,
                meter=meter,
            )
        return with_energy(found, meter, reference)

    def sample(self) -> Arrays:
        """A real input to time with; never from the test split."""
        split = "calibration" if self.task.size("calibration") else "selection"
        return next(iter(self.task.batches(split, self.recipe.batch))).inputs

    def stream(self) -> Arrays:
        """Real inputs, joined on the example axis, to time a model on whose cost depends on them; never of the test."""
        size = self.task.size("selection") // self.recipe.batch * self.recipe.batch
        return draw_inputs(self.task, "selection", min(size, STREAM * self.recipe.batch))

    # ------------------------------------------------------------------ plans and trials

    def plan(self, model: Model) -> Plan:
        """The default plan on the target: the first runtime that accepts each stage, with its usual options."""
        return Plan(tuple(self.placements(artifact)[0] for artifact in stage_artifacts(model)))

    def host_plan(self, model: Model) -> Plan:
        """The default plan on this host, which computes outputs while methods are still choosing."""
        if self.device is self.host:
            return self.plan(model)
        here = self.registry.get(TARGETS, "cpu").value
        device = self.host.device()
        return Plan(tuple(self._placements(a, here, here.runtimes, device)[0] for a in stage_artifacts(model)))

    def placements(self, artifact: Artifact) -> Sequence[Placement]:
        """Every way worth racing to run an artifact on the target, the usual one first.

        Raises: RefusedError when no runtime of the recipe takes it, with each one's reason.
        """
        device = None if self.device is None else self.device.device()
        return self._placements(artifact, self.target, self.recipe.runtimes, device)

    def _placements(
        self, artifact: Artifact, target: Target, names: Sequence[str], device: Device | None
    ) -> Sequence[Placement]:
        return placements_of(artifact, names, registry=self.registry, recipe=self.recipe, target=target, device=device)

    def entries(self, plan: Plan) -> Mapping[str, str]:
        """Where the agent finds the runtimes of a plan: name to `module:object`."""
        return {p.runtime: self.registry.get(RUNTIMES, p.runtime).entry for p in plan.placements}

    def trial(self, model: Model, plan: Plan) -> Path:
        """A bundle for measuring alone, kept in the cache."""
        path = self.store.folder("trials") / key_of(model.digest, model.signature, plan, self.task.digest)[:32]
        if not (path / "manifest.json").is_file():
            artifacts = plan.artifacts or stage_artifacts(model)
            files = {"example/inputs.npz": npz_bytes(self._example(model))}
            if self._inputs_matter(model):
                files["example/stream.npz"] = npz_bytes(self.stream())
            write_bundle(
                path,
                Contents(model.name, model.signature, model.variants, artifacts, plan, files, {}),
            )
        return path

    def _inputs_matter(self, model: Model) -> bool:
        """Whether what a run costs depends on what it is given, by gates or inside a graph."""
        if len(model.stages) > 1 or model.variants[0].gated:
            return True
        from edgewright import onnxkit

        return self._task_fits(model) and any(onnxkit.data_dependent(onnxkit.read(s.graph)) for s in model.stages)

    def _example(self, model: Model) -> Arrays:
        """A real input; of a model that takes something else than the task gives, a part of a network, its own."""
        if self._task_fits(model) or not model.example:
            return self.sample()
        return {spec.name: model.example[spec.name] for spec in model.signature.fed}

    def _task_fits(self, model: Model) -> bool:
        own = model.example
        return all(name in own and array.shape[1:] == own[name].shape[1:] for name, array in self.sample().items())


def _graphs(model: Model) -> list[str]:
    return [stage.graph.digest for stage in model.stages]
