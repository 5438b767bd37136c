"""Runs a bundle on a device: for `engine run` and `engine verify`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgewright.agents.agent import Inferred
from edgewright.arrays import npz_bytes, read_npz
from edgewright.bench import holding
from edgewright.bundle import Bundle, open_bundle
from edgewright.deploying.opening import open_agent
from edgewright.environment import Environment
from edgewright.errors import BundleError, OutputError, TaskError
from edgewright.measuring.stats import percentiles
from edgewright.numerics import difference
from edgewright.types import Arrays
from edgewright.verbs.leaving import rows_by_exit
from edgewright.verbs.subject import runtime_entries

TOLERANCE = 1e-3
"""Largest |difference| / largest |reference| that `verify` takes for the same answer on the same kind of device."""


@dataclass(frozen=True)
class Verified:
    """What `verify` found: the bundle is whole, and how far its answer is from the one it carries."""

    bundle: Bundle
    differences: Mapping[str, float]

    @property
    def agrees(self) -> bool:
        """Whether every output is within the tolerance."""
        return all(difference <= TOLERANCE for difference in self.differences.values())


@dataclass(frozen=True, eq=False)
class Ran:
    """What a bundle answered, and how.

    `exits` counts the rows that left at each stage (empty for a model that always runs to its end), `times_ms` maps
    the percentiles that so many `runs` support to milliseconds, `misses` counts runs that took over `deadline_ms`.
    """

    outputs: Arrays
    exits: Mapping[str, int]
    times_ms: Mapping[str, float]
    runs: int
    deadline_ms: float | None
    misses: int | None


def run_bundle(bundle: Path, inputs: Path, on: str, env: Environment, *, deadline_ms: float | None = None) -> Ran:
    """The outputs of a bundle for the arrays of an .npz file, each run within `deadline_ms` if it is given.

    Raises: BundleError, TaskError, DeviceError; InputError when the arrays do not fit, or there is nothing to stop at.
    """
    opened = open_bundle(bundle)
    found = _infer(opened, read_npz(inputs, TaskError), on, env, deadline_ms=deadline_ms)
    return Ran(
        outputs=found.outputs,
        exits=rows_by_exit(opened, found.exits),
        times_ms={f"p{percent:g}": ms for percent, ms in percentiles(found.spent_ms).items()},
        runs=len(found.spent_ms),
        deadline_ms=deadline_ms,
        misses=None if deadline_ms is None else sum(ms > deadline_ms for ms in found.spent_ms),
    )


def verify_bundle(bundle: Path, on: str, env: Environment) -> Verified:
    """Check every digest, then let the bundle answer its own example.

    Raises: BundleError when it is not what its manifest says.
    """
    opened = open_bundle(bundle)
    reference = read_npz(opened.example_outputs, BundleError)
    outputs = _infer(opened, read_npz(opened.example_inputs, BundleError), on, env).outputs
    return Verified(opened, {name: difference(name, reference[name], outputs[name]).max_rel for name in reference})


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz file. Raises: OutputError."""
    try:
        path.write_bytes(npz_bytes(arrays))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another place with --out") from error


def _infer(bundle: Bundle, inputs: Arrays, on: str, env: Environment, *, deadline_ms: float | None = None) -> Inferred:
    with ExitStack() as stack:
        agent = open_agent(on, env, stack)
        opened = stack.enter_context(holding(agent, bundle.path, runtime_entries(bundle, env.registry)))
        return agent.infer_all(opened, inputs, deadline_ms=deadline_ms)
