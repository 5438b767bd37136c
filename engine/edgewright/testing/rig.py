"""What conformance checks work with: small models and data, read and measured by the engine's own parts."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from edgewright.asking.request import Request
from edgewright.bench import Bench
from edgewright.deploying.context import Workbench
from edgewright.deploying.opening import open_bench
from edgewright.deploying.pipeline import prepare
from edgewright.deploying.steps import lowered
from edgewright.environment import Environment
from edgewright.registry import TARGETS, Registry
from edgewright.store import Store, key_of
from edgewright.task import load_task
from edgewright.testing import samples
from edgewright.testing.watch import Seen
from edgewright.types import Device, Graph, GraphFile, Model, Offer, Target

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Rig:
    """The sample models, each on a bench of its own, and the registry that the offers came from.

    `sources` maps a sample's name to what a loader is given; those with data have been read, and stand on `benches`.
    `on` holds addresses of devices that connections may be tried with.
    """

    folder: Path
    registry: Registry
    store: Store
    sources: Mapping[str, str]
    benches: Mapping[str, Bench]
    on: tuple[str, ...] = ()
    _found: dict[Any, tuple[Any, Any]] = field(default_factory=dict[Any, tuple[Any, Any]])

    @property
    def target(self) -> Target:
        """This host."""
        return next(iter(self.benches.values())).target

    @property
    def device(self) -> Device:
        """What was found of this host."""
        return next(iter(self.benches.values())).host.device()

    def models(self, format: str) -> Mapping[str, Model]:
        """The sample models of a format, `onnx` or `torch`, by name; what a bad plugin does to one spoils no other."""
        models = {name: bench.original for name, bench in self.benches.items()}
        place = self.folder / "given"
        return {name: _own(model, place / name) for name, model in models.items() if model.format == format}

    def once(self, what: str, offer: Offer[Any], compute: Callable[[], T]) -> T:
        """What was computed about an offer under the name `what`, the first time that a check asked."""
        key = (what, offer.plugin, id(offer.value))
        if key not in self._found:
            self._found[key] = (offer.value, compute())  # the offer too, so that no other gets its id
        return self._found[key][1]

    def seen(self, offer: Offer[Any]) -> Seen:
        """What checks saw the offer do to the network and to files."""
        return self.once("seen", offer, lambda: Seen((self.folder,)))

    def number(self, offer: Offer[Any]) -> str:
        """What tells an offer from others that were checked before it under the same name."""
        return self.once("number", offer, lambda: str(len(self._found)))

    def context(self, sample: str, *key: str) -> Workbench:
        """A context for work on a sample; another `key` remembers nothing of what the first one found."""
        return Workbench(self.benches[sample], key_of("conformance", sample, *key))


@contextmanager
def open_rig(folder: Path, registry: Registry, on: tuple[str, ...] = ()) -> Generator[Rig]:
    """A rig that works under `folder`, with an agent on this host until it is closed.

    Outputs and scores are computed on this host; costs are predicted, since a method that times its choices
    would keep a check busy for minutes, and choose otherwise the second time.

    Raises: EdgewrightError when the engine's own parts (loader, target `cpu`, connection `local`) are missing.
    """
    target = registry.get(TARGETS, "cpu").value
    store = Store(folder / "cache")
    sources = write_samples(folder)
    env = Environment(registry, store, _silent)
    with_data = {name: source for name, source in sources.items() if (folder / f"{name}.npz").is_file()}
    jobs = {name: prepare(_request(folder, name, source), target, env) for name, source in with_data.items()}
    with ExitStack() as stack:
        first = open_bench(next(iter(jobs.values())), env, stack)
        blank = replace(first, device=None)
        loaded = {n: replace(blank, original=j.model, reference=j.model, task=j.task) for n, j in jobs.items()}
        benches = {name: replace(bench, reference=lowered(bench.original, bench)) for name, bench in loaded.items()}
        yield Rig(folder, registry, store, sources, {**benches, "chain": chain_bench(folder, blank)}, on)


def chain_bench(folder: Path, bench: Bench, count: int = 200) -> Bench:
    """The bench of a chain with gates, which no loader reads: a method makes such models."""
    model = samples.chain(bench.store.keep)
    data = folder / "chain.npz"
    samples.write_chain_task(data, model, count)
    task = load_task(str(data), model.signature, bench.recipe.seed)
    return replace(bench, original=model, reference=model, task=task.checked(model.signature))


def write_samples(folder: Path) -> Mapping[str, str]:
    """Write the sample models and their data; those of torch only where it is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    sources: dict[str, str] = {}
    for name, proto in (("conv", samples.conv_net()), ("attention", samples.attention_net())):
        path = folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        samples.write_task(folder / f"{name}.npz", proto)
        sources[name] = str(path)
    if importlib.util.find_spec("torch") is not None:
        (folder / "torch_net.py").write_text(samples.TORCH_NET, encoding="utf-8")
        (folder / "torch.npz").write_bytes((folder / "conv.npz").read_bytes())
        sources["torch"] = f"{folder / 'torch_net.py'}:model"
        sources["program"] = str(samples.write_program(folder / "program.pt2"))
    return sources


def _request(folder: Path, name: str, source: str) -> Request:
    """Only to be read: no method, and this host."""
    return Request(model=source, task=str(folder / f"{name}.npz"), apply=(), on="local", out=str(folder / "out" / name))


def _own(model: Model, place: Path) -> Model:
    """The model with arrays and files of its own, in the folder `place`; the modules of torch are shared."""
    example = {name: array.copy() for name, array in model.example.items()}
    variants = (
        replace(variant, stages=tuple(replace(stage, graph=_own_graph(stage.graph, place)) for stage in variant.stages))
        for variant in model.variants
    )
    return replace(model, example=example, variants=tuple(variants))


def _own_graph(graph: Graph, place: Path) -> Graph:
    if not isinstance(graph, GraphFile):
        return graph
    place.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(dir=place, suffix=graph.path.suffix)
    with open(handle, "wb") as file:
        file.write(graph.path.read_bytes())
    return replace(graph, path=Path(path))


def _silent(message: str, done: int, total: int) -> None:
    """Nobody watches a check."""
