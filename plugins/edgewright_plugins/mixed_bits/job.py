"""One search for a mix: the network, its examples, and what mixes lose, score and take, each found once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import onnx

from edgewright import onnxkit
from edgewright.errors import RefusedError
from edgewright.protocols import Context
from edgewright.types import Json, Metric, Model
from edgewright_plugins.mixed_bits.latency import Race
from edgewright_plugins.mixed_bits.losses import Judge, Losses, losses_of, measure_losses
from edgewright_plugins.mixed_bits.net import FULL, Mix, Net, written
from edgewright_plugins.qdq.sensitivity import rank_weights
from edgewright_plugins.qdq.tune import tune_norms

TOGETHER = 6
"""Mixes in one race, beside 8 bits everywhere: each is a process of its own on the device."""


@dataclass(frozen=True, eq=False)
class Job:
    """What stays the same while the mix is sought. `judges` are by split: `calibration` and `selection`."""

    model: Model
    context: Context
    net: Net
    judges: Mapping[str, Judge]

    @property
    def metric(self) -> Metric | None:
        """What the task is judged by; None when there is no task."""
        return None if self.context.task is None else self.context.task.metric

    def model_of(self, mix: Mix) -> Model:
        """The model in these bits."""
        return self._packed(self.net.made(mix))

    def _packed(self, proto: onnx.ModelProto) -> Model:
        return self.model.with_graph(self.context.keep(onnxkit.pack(proto)))

    def finished(self, mix: Mix, *, tune: bool) -> Model:
        """The model in these bits as it ships: tuned, where that is asked for and brings the outputs nearer."""
        if not tune:
            return self.model_of(mix)
        file = self.context.scratch / f"tuned-{hashlib.sha256(written(mix).encode()).hexdigest()[:16]}.onnx"
        if not file.is_file():
            unfinished = file.with_suffix(".part")
            unfinished.write_bytes(onnxkit.pack(self._tuned(mix)))
            unfinished.replace(file)
        return self.model.with_graph(self.context.keep(file.read_bytes()))

    def _tuned(self, mix: Mix) -> onnx.ModelProto:
        scheme, feeds = self.net.scheme_of(mix), self.judges["calibration"].feeds

        def progress(done: int, total: int) -> None:
            self.context.progress("mixed-bits: tuning channels", done, total)

        plain = self.net.adapted(mix)
        tuned = tune_norms(self.net.proto, scheme, self.net.ranges, plain, feeds, progress=progress)
        graph = tuned.written(self.net.proto, scheme, self.net.ranges)
        nearer = self.judges["selection"].loss_of(graph) < self.loss(mix, "selection")
        return graph if nearer else self.net.made(mix)

    def losses(self, options: Sequence[int]) -> Losses:
        """What every layer loses in every option."""

        def progress(done: int, total: int) -> None:
            self.context.progress("mixed-bits: what layers lose", done, total)

        if options[-1] != FULL:
            return measure_losses(self.net, options, self.loss, progress)
        names = [layer.name for layer in self.net.layers]

        def rank() -> Json:
            choices = [(name, bits, self.net.constants(name, bits)) for name in names for bits in options]
            ranked = rank_weights(self.net.proto, choices, self.judges["calibration"].feeds, progress)
            return [list(entry) for entry in ranked]

        ranked = cast("list[tuple[str, int, float]]", self.context.remember(f"alone {list(options)}", rank))
        return losses_of(names, options, self.loss(self.net.uniform(FULL)), ranked)

    def loss(self, mix: Mix, split: str = "calibration") -> float:
        """How far the outputs of a mix are from the float network's, on the examples of a split."""

        def measure() -> float:
            return self.judges[split].loss_of(self.net.made(mix))

        return cast("float", self.context.remember(f"loss {split} {written(mix)}", measure))

    def score(self, model: Model) -> float | None:
        """The metric on the selection split; None when there is no task."""
        if self.metric is None:
            return None
        found = self.context.remember(f"score {model.digest}", lambda: self.context.score(model).value)
        return cast("float | None", found)

    def race(self, mixes: Sequence[Mix]) -> list[Race]:
        """The latency of mixes as shares of that of 8 bits everywhere, measured a few at a time, else predicted.

        Raises: RefusedError when it is neither measured nor predicted here.
        """
        races: list[Race] = []
        for start in range(0, len(mixes), TOGETHER):
            self.context.progress("mixed-bits: racing mixes", start, len(mixes))
            races += self._raced(mixes[start : start + TOGETHER])
        return races

    def race_again(self, mix: Mix) -> Race:
        """The latency of a mix from a race of its own, beside the float network."""
        return self._raced([mix], self._packed(self.net.proto))[0]

    def _raced(self, mixes: Sequence[Mix], *beside: Model) -> list[Race]:
        """`beside` run along: another field is another race, which nothing remembers."""
        names = {f"mix {position + 1}": mix for position, mix in enumerate(mixes)}

        def measure() -> Json:
            models = {"full": self.model_of(self.net.uniform(FULL))}
            models |= {name: self.model_of(mix) for name, mix in names.items()}
            costs = self.context.cost({**models, **{f"beside {i}": model for i, model in enumerate(beside)}})
            ratios = {name: costs[name].ratio for name in names}
            return {name: [ratio.value, ratio.kind, ratio.reason] for name, ratio in ratios.items()}

        found = self.context.remember(f"race {list(map(written, mixes))} beside {len(beside)}", measure)
        entries = cast("dict[str, tuple[float | None, str, str]]", found)
        return [_race(mix, *entries[name]) for name, mix in names.items()]


def _race(mix: Mix, ratio: float | None, kind: str, reason: str) -> Race:
    if not ratio:
        raise RefusedError(f"mixed-bits: no latency is known here ({reason}); use cost=bytes or cost=bitops")
    return Race(mix, 1.0 / ratio, kind)
