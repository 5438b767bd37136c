"""What each kernel of a graph takes, with the roofs over it."""

from __future__ import annotations

from collections.abc import Iterable

from edgewright.types import KernelCost, Target
from edgewright_devices.predictor.coefficients import Known, known_of
from edgewright_devices.predictor.kernels import design, kind_of
from edgewright_devices.workload import Work


def itemise(works: Iterable[Work], latency: Known, target: Target) -> tuple[KernelCost, ...]:
    """The cost of every kernel: energy by its own coefficients, else by the watts of the profile, else None."""
    energy = known_of(target, "energy")
    return tuple(_cost(work, latency, energy, target) for work in works if latency.idle or not work.idle)


def _cost(work: Work, latency: Known, energy: Known | None, target: Target) -> KernelCost:
    terms = design([work], idle=True)
    ms = float(terms @ latency.posterior.coefficients)
    watts = target.power.get("active_w")
    spent = ms * watts.value if watts else None
    peak = target.compute.get(work.dtype, target.compute.get("float32"))
    return KernelCost(
        name=work.name,
        operator=work.operator,
        kind=kind_of(work),
        dtype=work.dtype,
        ops=work.ops,
        bytes=work.bytes,
        latency_ms=ms,
        energy_mj=float(terms @ energy.posterior.coefficients) if energy else spent,
        peak_gops=peak.value if peak else 0.0,
        bandwidth_gbs=target.bandwidth.value,
    )
