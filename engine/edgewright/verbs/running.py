"""Runs a bundle on a device: for `engine run` and `engine verify`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgewright.arrays import npz_bytes, read_npz
from edgewright.bench import holding
from edgewright.bundle import Bundle, open_bundle
from edgewright.environment import Environment
from edgewright.errors import BundleError, OutputError, TaskError
from edgewright.numerics import difference
from edgewright.pipeline import open_agent
from edgewright.types import Arrays
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


def run_bundle(bundle: Path, inputs: Path, on: str, env: Environment) -> Arrays:
    """The outputs of a bundle for the arrays of an .npz file.

    Raises: BundleError, TaskError, DeviceError, InputError when the arrays do not fit.
    """
    return _infer(open_bundle(bundle), read_npz(inputs, TaskError), on, env)


def verify_bundle(bundle: Path, on: str, env: Environment) -> Verified:
    """Check every digest, then let the bundle answer its own example.

    Raises: BundleError when it is not what its manifest says.
    """
    opened = open_bundle(bundle)
    reference = read_npz(opened.example_outputs, BundleError)
    outputs = _infer(opened, read_npz(opened.example_inputs, BundleError), on, env)
    return Verified(opened, {name: difference(name, reference[name], outputs[name]).max_rel for name in reference})


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz file. Raises: OutputError."""
    try:
        path.write_bytes(npz_bytes(arrays))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; choose another place with --out") from error


def _infer(bundle: Bundle, inputs: Arrays, on: str, env: Environment) -> Arrays:
    with ExitStack() as stack:
        agent = open_agent(on, env, stack)
        opened = stack.enter_context(holding(agent, bundle.path, runtime_entries(bundle, env.registry)))
        return agent.infer(opened, inputs)
