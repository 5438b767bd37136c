"""The host's side of the agent: packs it, starts it over a link, and asks it to open, run and time bundles."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import queue
import tempfile
import threading
import zipfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgewright.bundle import open_bundle
from edgewright.errors import DeviceError
from edgewright.protocol import VERSION, decode, encode, read_array, result_of, write_array
from edgewright.protocols import Link, OperatorTime, Process
from edgewright.types import Arrays, Device

CORE_FILES = ("errors.py", "types.py", "gates.py", "protocols.py", "bundle.py", "protocol.py")
"""What crosses of the core: the device set, and the protocols that third parties import to be typed."""

ANSWER_S = 600.0
"""How long a device may take to answer; the slowest thing asked of it is to load a large model."""


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


# ------------------------------------------------------------------ packing


def build_agent(folder: Path) -> Path:
    """The agent as one zip application in `folder`, named by its content; the same code is packed once."""
    sources = {"__main__.py": b"from edgewright_runtime.agent import main\n\nraise SystemExit(main())\n"}
    sources["edgewright/__init__.py"] = b'"""The part of the core that runs on devices."""\n'
    core = _package("edgewright")
    sources.update({f"edgewright/{name}": (core / name).read_bytes() for name in CORE_FILES})
    for path in sorted(_package("edgewright_runtime").glob("*.py")):
        if path.name != "plugin.py":
            sources[f"edgewright_runtime/{path.name}"] = path.read_bytes()
    sha = hashlib.sha256()
    for name in sorted(sources):
        sha.update(f"{name}\0{len(sources[name])}\0".encode() + sources[name])
    goal = folder / f"agent-{sha.hexdigest()[:16]}.pyz"
    if not goal.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{goal.name}.{os.getpid()}"
        partial.write_bytes(_zipped(sources))
        os.replace(partial, goal)
    return goal


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DeviceError(f"the package {name} is not installed, so no agent can be packed; reinstall edgewright")
    return Path(next(iter(spec.submodule_search_locations)))


def _zipped(sources: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), sources[name])
    return buffer.getvalue()


def _threads(bundle: Path, threads: int | None) -> int:
    """How many threads the bundle will run with."""
    if threads is not None:
        return threads
    return max(int(p.options.get("threads", 1)) for p in open_bundle(bundle, verify=False).plan.placements)


# ------------------------------------------------------------------ talking


@contextmanager
def start_agent(link: Link, cache: Path) -> Generator[Agent]:
    """An agent that runs on the far side of `link` until the block ends; `cache` keeps the packed agent.

    Raises: DeviceError when it does not start or speaks another protocol.
    """
    package = build_agent(cache)
    place = link.put(package, package.name)
    with tempfile.TemporaryDirectory(prefix="edgewright-arrays-") as arrays:
        agent = Agent(link, link.start([link.python, place]), Path(arrays))
        try:
            agent.ask("hello", protocol=VERSION)
            yield agent
        finally:
            agent.stop()


class Agent:
    """A conversation with one agent. Every method raises DeviceError when the agent is lost or too slow."""

    def __init__(self, link: Link, process: Process, arrays: Path) -> None:
        """`arrays` is a folder of this host, for arrays on their way."""
        self._link = link
        self._process = process
        self._arrays = arrays
        self._sent: dict[str, str] = {}
        self._bundles: dict[tuple[Path, str], str] = {}
        self._count = 0
        self._stopped = False
        self._device: Device | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def address(self) -> str:
        """Where the agent runs."""
        return self._link.address

    def device(self) -> Device:
        """What the agent found the device to be; asked once."""
        if self._device is None:
            found = self.ask("device")
            found.update({key: tuple(found[key]) for key in ("features", "providers")})
            self._device = Device(**found)
        return self._device

    def open(
        self,
        bundle: Path,
        *,
        threads: int | None = None,
        allow_fallback: bool | None = None,
        runtimes: Mapping[str, str] | None = None,
        path: Sequence[str] = (),
        turn: int | None = None,
    ) -> Opened:
        """Load a bundle in a process of its own, and let it answer its example once.

        Args:
            bundle: The bundle's folder on this host; copied once, and its digests are checked there.
            threads: Overrides the plan's number of threads.
            allow_fallback: Overrides whether a provider may hand nodes to another one.
            runtimes: `module:object` of runtimes that are not built in, by name.
            path: Folders on the device in which to look for them first.
            turn: Keeps the process on as many CPUs as it has threads, the same ones for all who say this turn.

        Raises: BundleError, InputError for what cannot be loaded; PluginError when the process dies.
        """
        digest = open_bundle(bundle, verify=False).digest
        known = (bundle, digest) in self._bundles
        place = self._bundles[bundle, digest] if known else self._link.put(bundle, f"bundles/{digest[:16]}")
        handle = f"{digest[:8]}-{self._count + 1}"
        found = self.ask(
            "open",
            handle=handle,
            bundle=place,
            threads=threads,
            allow_fallback=allow_fallback,
            runtimes=dict(runtimes or {}),
            path=list(path),
            verify=not known,
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
        found = self.ask(
            "infer",
            timeout=timeout,
            handle=opened.handle,
            inputs=self._send(inputs),
            batch=batch,
            folder=str(self._link.root / "arrays"),
        )
        return {name: self._receive(place) for name, place in found["outputs"].items()}

    def warm(
        self, opened: Opened, *, rules: Mapping[str, float] | None = None, inputs: Arrays | None = None
    ) -> tuple[list[int], bool]:
        """Warm up; the nanoseconds of each run, and whether they settled.

        `rules` overrides fields of `edgewright_runtime.timing.WarmUp`, by name.
        """
        found = self.ask("warm", handle=opened.handle, inputs=self._send(inputs or {}), rules=dict(rules or {}))
        return found["ns"], found["settled"]

    def time(
        self,
        opened: Opened,
        *,
        least_runs: int,
        least_ns: int,
        settle_ns: int = 0,
        inputs: Arrays | None = None,
    ) -> list[int]:
        """The nanoseconds of each run of one block, timed on the device; on the bundle's example by default."""
        limits = {"least_runs": least_runs, "least_ns": least_ns, "settle_ns": settle_ns}
        return self.ask("time", handle=opened.handle, inputs=self._send(inputs or {}), **limits)["ns"]

    def profile(self, opened: Opened, *, runs: int = 20, inputs: Arrays | None = None) -> list[OperatorTime]:
        """Mean time per executed node. Raises: InputError for a model of several stages."""
        found = self.ask("profile", handle=opened.handle, inputs=self._send(inputs or {}), runs=runs)
        return [OperatorTime(**node) for node in found["nodes"]]

    def memory(self, opened: Opened) -> dict[str, int | None]:
        """`baseline_bytes` before the model was loaded and `peak_bytes` until now, of its own process."""
        return self.ask("memory", handle=opened.handle)

    def close(self, opened: Opened) -> None:
        """End the process that holds the bundle; one that has crashed counts as closed, as does a stopped agent's."""
        if not self._stopped:
            self.ask("close", handle=opened.handle)

    # -------------------------------------------------------------- the conversation itself

    def ask(self, operation: str, *, timeout: float = ANSWER_S, **fields: Any) -> dict[str, Any]:
        """The result of one request. Raises: the error that the answer carries, or DeviceError."""
        self._count += 1
        try:
            self._process.stdin.write(encode({"id": self._count, "op": operation, **fields}))
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._lost(operation) from None
        try:
            answer = decode(self._next(operation, timeout))
        except KeyboardInterrupt:
            self.stop()  # its answer is still to come, and would be taken for that of the next request
            raise
        if answer.get("id") != self._count:
            raise DeviceError(f"the agent at {self.address} answered another request than {operation!r}")
        return result_of(answer)

    def stop(self) -> None:
        """End the agent and everything it started; closing its input is enough, killing makes sure."""
        self._stopped = True
        with suppress(OSError):
            self._process.stdin.close()
        self._process.kill()

    def _next(self, operation: str, timeout: float) -> bytes:
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            raise DeviceError(
                f"the agent at {self.address} did not answer {operation!r} within {timeout:g} s; it was stopped"
            ) from None
        if not line:
            raise self._lost(operation)
        return line

    def _lost(self, operation: str) -> DeviceError:
        said = self._process.errors().strip().splitlines()
        last = f"; it last said: {said[-1][:200]}" if said else ""
        return DeviceError(
            f"the agent at {self.address} was lost during {operation!r} (exit status {self._process.poll()}){last}"
        )

    def _listen(self) -> None:
        with suppress(ValueError):  # the stream was closed while it was read: the process is being stopped
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(b"")

    def _send(self, arrays: Arrays) -> dict[str, str]:
        places: dict[str, str] = {}
        for name, array in arrays.items():
            file = write_array(self._arrays, array)
            if file not in self._sent:
                self._sent[file] = self._link.put(self._arrays / file, f"arrays/{file}")
            places[name] = self._sent[file]
        return places

    def _receive(self, place: str) -> Any:
        local = self._arrays / Path(place).name
        if not local.exists():
            self._link.get(place, local)
        return read_array(local)
