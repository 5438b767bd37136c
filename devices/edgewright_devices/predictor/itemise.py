"""What each kernel of a graph takes, with the roofs over it."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright.types import KernelCost, Target
from edgewright_devices.predictor.coefficients import Known, known_of
from edgewright_devices.predictor.fit import Floats
from edgewright_devices.predictor.kernels import kind_of, matrix
from edgewright_devices.workload import Work


def itemise(works: Sequence[Work], latency: Known, target: Target) -> tuple[KernelCost, ...]:
    """The cost of every kernel: energy by its own coefficients, else by the watts of the profile, else None."""
    terms = matrix(works)
    taken = (terms @ latency.posterior.coefficients).tolist()
    return tuple(_cost(work, ms, mj, target) for work, ms, mj in zip(works, taken, _energies(terms, taken, target)))


def _energies(terms: Floats, taken: Sequence[float], target: Target) -> Sequence[float | None]:
    known = known_of(target, "energy")
    if known is not None:
        return (terms @ known.posterior.coefficients).tolist()
    watts = target.power.get("active_w")
    return [ms * watts.value if watts else None for ms in taken]


def _cost(work: Work, ms: float, mj: float | None, target: Target) -> KernelCost:
    peak = target.compute.get(work.dtype, target.compute.get("float32"))
    return KernelCost(
        name=work.name,
        operator=work.operator,
        kind=kind_of(work),
        dtype=work.dtype,
        ops=work.ops,
        bytes=work.bytes,
        latency_ms=ms,
        energy_mj=mj,
        peak_gops=peak.value if peak else 0.0,
        bandwidth_gbs=target.bandwidth.value,
    )
