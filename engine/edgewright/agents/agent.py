"""The host's side of the agent: starts it over a link, and asks it to open, run and time bundles."""

from __future__ import annotations

import getpass
import os
import platform
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgewright.agents.agentfile import build_agent
from edgewright.agents.conversation import ANSWER_S, Conversation
from edgewright.agents.exchange import Exchange
from edgewright.agents.runnerfile import build_runner, machine_of
from edgewright.agents.travel import in_the_agent
from edgewright.bundle import open_bundle
from edgewright.errors import InputError
from edgewright.protocol import VERSION
from edgewright.protocols import Link, OperatorTime, Process
from edgewright.toolchain.ortheader import headers_place
from edgewright.types import Array, Arrays, Device, Source, StageCost

IDLE_S = 300.0
"""An agent on a device that hears nothing for so long ends: its host is gone, and the way to it may be too."""

LOCAL = "local"
"""The address of this host."""


@dataclass(frozen=True)
class Opened:
    """A bundle that a worker on the device holds. Times in ms; memory None where the system does not tell.

    `placements` says where each stage runs and with which options; `conditions` what the device was like.
    """

    handle: str
    digest: str
    load_ms: float
    first_ms: float
    baseline_bytes: int | None
    peak_bytes: int | None
    placements: tuple[Mapping[str, Any], ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Timed:
    """Runs that were timed on the device, in nanoseconds.

    Of a bundle whose runs end at different places, `depths` is the last stage that ran (the latest exit where the
    graph decides inside) and `stages_ns` what each stage took, per run; else both are empty.
    The block lasted from `begin_ns` to `end_ns` of the clock that a meter's samples are timed by.
    """

    ns: list[int]
    depths: list[int]
    stages_ns: list[list[int]]
    begin_ns: int = 0
    end_ns: int = 0


@dataclass(frozen=True, eq=False)
class Inferred:
    """What examples were answered: outputs stacked by name, exits int64 [examples], milliseconds of each run."""

    outputs: Arrays
    exits: Array
    spent_ms: tuple[float, ...]


# ------------------------------------------------------------------ talking


@contextmanager
def start_agent(link: Link, cache: Path) -> Generator[Agent]:
    """An agent that runs on the far side of `link` until the block ends; `cache` keeps the packed agent.

    Where the device has no Python it is the native runner, which is built for it.

    Raises: DeviceError when it does not start or speaks another protocol; RefusedError when no runner can be built.
    """
    command = _put_agent(link, cache)
    with tempfile.TemporaryDirectory(prefix="edgewright-arrays-") as arrays:
        agent = Agent(link, link.start(command), Path(arrays), cache / "travelling")
        try:
            agent.greet()
            yield agent
        finally:
            agent.stop()


def _put_agent(link: Link, cache: Path) -> list[str]:
    """The command that starts the agent on the device, which has all it needs then."""
    if link.python:
        package = build_agent(cache)
        return [link.python, link.put(package, f"agents/{package.name}")]
    runner = build_runner(machine_of(link), headers_place())
    return [link.put(runner, f"runner/{runner.name}")]


class Agent:
    """A conversation with one agent. Every method raises DeviceError when the agent is lost or too slow."""

    def __init__(self, link: Link, process: Process, arrays: Path, packed: Path) -> None:
        """`arrays` and `packed` are folders of this host, for arrays and distributions on their way."""
        self._link = link
        self._talk = Conversation(process, link.address)
        self._files = Exchange(link, arrays, packed)
        self._bundles: dict[tuple[Path, str], str] = {}
        self._opened = 0
        self._device: Device | None = None

    @property
    def address(self) -> str:
        """Where the agent runs."""
        return self._link.address

    @property
    def here(self) -> bool:
        """Whether it runs on this host."""
        return self._link.address == LOCAL

    def greet(self) -> None:
        """Agree on the protocol; of a device that others may come to, take the lock and keep it.

        Raises: DeviceError when another client holds it, or the agent speaks another protocol.
        """
        if not self._link.shared:
            self.ask("hello", protocol=VERSION)
            return
        lock = str(self._link.root / "lock")
        self.ask("hello", protocol=VERSION, lock=lock, owner=_owner(), idle_s=IDLE_S)
        self._talk.keep_alive(IDLE_S)

    def device(self) -> Device:
        """What the agent found the device to be; asked once."""
        if self._device is None:
            found = self.ask("device")
            found.update({key: tuple(found[key]) for key in ("features", "providers")})
            self._device = Device(**found)
        return self._device

    def conditions(self) -> Mapping[str, Any]:
        """What the device is like now; see `edgewright_runtime.circumstances`."""
        return self.ask("conditions")

    def check_threads(self, threads: int) -> None:
        """Raises: InputError when the device has fewer CPUs than that: threads that wait for one are slower."""
        check_threads(threads, self.device().cores, f"the device at {self.address}")

    def open(
        self,
        bundle: Path,
        *,
        threads: int | None = None,
        allow_fallback: bool | None = None,
        runtimes: Mapping[str, str] | None = None,
        path: Sequence[str] = (),
        turn: int | None = None,
        fresh: bool = False,
    ) -> Opened:
        """Load a bundle in a process of its own, and let it answer its example once.

        Args:
            bundle: The bundle's folder on this host; copied once, and its digests are checked there.
            threads: Overrides the plan's number of threads.
            allow_fallback: Overrides whether a provider may hand nodes to another one.
            runtimes: `module:object` of runtimes by name; those that are built in are found without it too.
            path: Folders on the device in which to look for them first.
            turn: Keeps the process on as many CPUs as it has threads, the same ones for all who say this turn.
            fresh: In a process that is started anew, not forked from one that has imported the libraries already:
                only such a one shows the memory that the model takes where it runs alone.

        Raises: BundleError, InputError for what cannot be loaded; PluginError when the process dies.
        """
        digest = open_bundle(bundle, verify=False).digest
        known = (bundle, digest) in self._bundles
        place = self._bundles[bundle, digest] if known else self._link.put(bundle, f"bundles/{digest[:16]}")
        self._opened += 1
        handle = f"{digest[:8]}-{self._opened}"
        named = self._named(runtimes or {})
        found = self.ask(
            "open",
            handle=handle,
            bundle=place,
            threads=threads,
            allow_fallback=allow_fallback,
            runtimes=named,
            path=[*path, *self._files.carry(named.values())],
            verify=not known,
            fresh=fresh,
            cpus=None if turn is None else {"turn": turn, "count": _threads(bundle, threads)},
        )
        self._bundles[bundle, digest] = place
        return Opened(
            handle,
            digest=found["digest"],
            load_ms=found["load_ns"] / 1e6,
            first_ms=found["first_ns"] / 1e6,
            baseline_bytes=found["baseline_bytes"],
            peak_bytes=found["peak_bytes"],
            placements=tuple(found["placements"]),
            conditions=found["conditions"],
        )

    def infer(self, opened: Opened, inputs: Arrays, *, batch: int = 1, timeout: float = 6 * ANSWER_S) -> Arrays:
        """The outputs of every example (axis 0), stacked; `batch` examples at a time where the graph is free.

        Raises: InputError when the inputs are not what the model takes.
        """
        return self.infer_all(opened, inputs, batch=batch, timeout=timeout).outputs

    def infer_exits(self, opened: Opened, inputs: Arrays, **how: Any) -> tuple[Arrays, Array]:
        """The outputs and the stage at which each example left, int64 [examples]; `how` as `infer_all` takes it."""
        found = self.infer_all(opened, inputs, **how)
        return found.outputs, found.exits

    def infer_all(
        self,
        opened: Opened,
        inputs: Arrays,
        *,
        batch: int = 1,
        deadline_ms: float | None = None,
        through: int | None = None,
        timeout: float = 6 * ANSWER_S,
    ) -> Inferred:
        """As `infer`, with exits and the time of each run.

        Args:
            opened: The bundle.
            inputs: By name, axis 0 counting examples.
            batch: Examples per run where the graph is free.
            deadline_ms: Of each run: a stage after the first starts only if it would end in time.
            through: Nothing beyond this stage runs.
            timeout: Seconds to wait for the answer.

        Raises: InputError when the inputs are not what the model takes, or it cannot stop before its end.
        """
        found = self.ask(
            "infer",
            timeout=timeout,
            handle=opened.handle,
            inputs=self._files.send(inputs),
            batch=batch,
            folder=self._files.folder,
            deadline_ms=deadline_ms,
            through=through,
        )
        return Inferred(
            self._files.fetch(found["outputs"]), self._files.receive(found["exits"]), tuple(found["spent_ms"])
        )

    def explore(self, opened: Opened, inputs: Arrays, *, batch: int = 1, timeout: float = 6 * ANSWER_S) -> list[Arrays]:
        """What every stage answers to every example when none leaves: outputs by name, scores by their gate's name.

        Raises: InputError when the inputs are not what the model takes.
        """
        fields = {"inputs": self._files.send(inputs), "batch": batch, "folder": self._files.folder}
        found = self.ask("explore", timeout=timeout, handle=opened.handle, **fields)
        return [self._files.fetch(stage) for stage in found["stages"]]

    def warm(
        self, opened: Opened, *, rules: Mapping[str, float] | None = None, inputs: Arrays | None = None
    ) -> tuple[list[int], bool]:
        """Warm up; the nanoseconds of each run, and whether they settled.

        `rules` overrides fields of `edgewright_runtime.timing.WarmUp`, by name.
        """
        found = self.ask("warm", handle=opened.handle, inputs=self._files.send(inputs or {}), rules=dict(rules or {}))
        return found["ns"], found["settled"]

    def time(
        self,
        opened: Opened,
        *,
        least_runs: int,
        least_ns: int,
        settle_ns: int = 0,
        inputs: Arrays | None = None,
        deadline_ms: float | None = None,
        through: Sequence[int] = (),
    ) -> Timed:
        """The runs of one block, timed on the device.

        Args:
            opened: The bundle.
            least_runs: As many runs at least.
            least_ns: For so long at least.
            settle_ns: Runs before, that are not reported.
            inputs: Of every run. By default the bundle's example; where runs end at different places the stream that
                it carries, from where the block before it stopped.
            deadline_ms: Of each run.
            through: The last stage to run, one per run and then from the start again.
        """
        block = {"least_runs": least_runs, "least_ns": least_ns, "settle_ns": settle_ns}
        limits: dict[str, Any] = {"deadline_ms": deadline_ms, "through": list(through)}
        found = self.ask("time", handle=opened.handle, inputs=self._files.send(inputs or {}), **block, **limits)
        return Timed(found["ns"], found["depths"], found["stages_ns"], found.get("begin_ns", 0), found.get("end_ns", 0))

    def calibrate(self, opened: Opened, *, seconds: float) -> tuple[StageCost, ...]:
        """What each stage takes on the inputs that the bundle carries, in runs that end at depths drawn at random."""
        found = self.ask("calibrate", handle=opened.handle, seconds=seconds)
        return tuple(StageCost(**stage) for stage in found["stages"])

    def spin(self, opened: Opened, *, ms: float, runs: int) -> list[float]:
        """Milliseconds of loops beside the bundle that look at the clock for `ms`: how late the machine makes work."""
        found = self.ask("spin", handle=opened.handle, ns=ms * 1e6, runs=runs)
        return [ns / 1e6 for ns in found["ns"]]

    def profile(
        self, opened: Opened, *, runs: int = 20, inputs: Arrays | None = None, stage: int | None = None
    ) -> list[OperatorTime]:
        """Median time per executed node, of `stage` whatever the gates before it say.

        Raises: InputError for a model of several stages when none is named.
        """
        found = self.ask("profile", handle=opened.handle, inputs=self._files.send(inputs or {}), runs=runs, stage=stage)
        return [OperatorTime(**node) for node in found["nodes"]]

    def memory(self, opened: Opened) -> dict[str, int | None]:
        """`baseline_bytes` before the model was loaded and `peak_bytes` until now, of its own process."""
        return self.ask("memory", handle=opened.handle)

    def meter(
        self, sources: Sequence[Source], *, entry: str = "", root: str = ""
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[str]]:
        """Begin to read a meter, in a process of its own, and say which rails were found and why others were not.

        Args:
            sources: What to read.
            entry: `module:object` of a meter that is Python.
            root: Where the device's file system begins, for tests.
        """
        stated = [asdict(source) for source in sources]
        found = self.ask("meter", sources=stated, meter=entry, path=self._files.carry([entry]), root=root)
        return found["rails"], found["absent"]

    def unmeter(self) -> dict[str, Any]:
        """End reading it: `samples` of each rail (ns and raw values), `missed` by reason, `cpu` as a share of one."""
        return self.ask("unmeter")

    def rest(self, seconds: float, *, busy: bool = False) -> tuple[int, int]:
        """Let the device do nothing for so long, or `busy` keep one core at work; when that began and ended, in ns."""
        found = self.ask("rest", ns=round(seconds * 1e9), busy=busy, timeout=seconds + ANSWER_S)
        return found["begin_ns"], found["end_ns"]

    def close(self, opened: Opened) -> None:
        """End the process that holds the bundle; one that has crashed counts as closed, as does a stopped agent's."""
        if not self._talk.ended:
            self.ask("close", handle=opened.handle)

    def ask(self, operation: str, *, timeout: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        """The result of one request. Raises: the error that the answer carries, or DeviceError."""
        return self._talk.ask(operation, timeout=timeout, **fields)

    def stop(self) -> None:
        """End the agent and everything it started."""
        self._talk.stop()

    def _named(self, runtimes: Mapping[str, str]) -> dict[str, str]:
        """Those that the agent is told of. The native runner has ours as no modules of Python."""
        return {name: entry for name, entry in runtimes.items() if self._link.python or not in_the_agent(entry)}


def check_threads(threads: int, cores: int, who: str) -> None:
    """Raises: InputError when `who` has fewer CPUs than that."""
    if not 1 <= threads <= cores:
        raise InputError(f"--threads {threads} is out of range; allowed: 1 to {cores}, the CPUs of {who}")


def _owner() -> str:
    """Whom a second client of the device is told of."""
    with suppress(OSError, KeyError):  # a user without a name
        return f"{getpass.getuser()}@{platform.node()}, process {os.getpid()}"
    return f"{platform.node()}, process {os.getpid()}"


def _threads(bundle: Path, threads: int | None) -> int:
    """How many threads the bundle will run with."""
    if threads is not None:
        return threads
    return max(int(p.options.get("threads", 1)) for p in open_bundle(bundle, verify=False).plan.placements)
