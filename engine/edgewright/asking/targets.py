"""Finds the target a user means, or the one that a device is, and tells how far a device is from what was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from edgewright.asking.targetfile import read_profile
from edgewright.errors import TargetError, suggest
from edgewright.registry import TARGETS, Registry
from edgewright.reporting.tables import amount
from edgewright.types import Device, Figure, Offer, Target

THIS_HOST = "cpu"
"""The target that stands for the machine the command runs on."""

LESS, MORE = 0.75, 1.5
"""Memory below or above these shares of the target's is told; systems keep up to a quarter for themselves."""

USUAL_RECIPE = ("simplify", "quantize")
"""What is done for a device that no profile describes."""


def find_target(name: str | None, registry: Registry) -> tuple[Target, str]:
    """The target, and a sentence when the name was a family's and stands for one of its members.

    Raises: TargetError with the nearest name.
    """
    if name is None:
        raise TargetError("no target was named; give --target cpu, or see `engine targets`")
    if name.endswith(".toml"):
        return read_profile(Path(name)), ""
    offers = _offers(registry)
    family = [o.value for o in offers if o.value.family == name and o.value.default]
    if family:
        return family[0], f"{name} is a family; taking {family[0].name} ({family[0].title})"
    known = {*registry.names(TARGETS), *(o.value.family for o in offers if o.value.family)}
    if "/" not in name and name not in known:
        raise TargetError(
            f"no target named {name!r}; write one of these, or a profile file my-device.toml; {suggest(name, known)}"
        )
    return registry.get(TARGETS, name).value, ""


def target_of(device: Device, registry: Registry) -> Target:
    """The target that a device says it is; where no profile describes it, one made of what was found there.

    Such a target has no figures of speed, so nothing can be predicted for it, and the meters of all of its kind.
    """
    targets = [offer.value for offer in _offers(registry) if offer.value.isa == device.isa]
    known = next((target for target in targets if is_model(device, target)), None)
    if known is not None:
        return known
    return Target(
        name=re.sub(r"[^a-z0-9]+", "-", device.cpu.lower()).strip("-") or device.isa,
        title=device.cpu,
        isa=device.isa,
        memory=Figure(device.memory_bytes, "B", "told by the device"),
        compute={},
        bandwidth=Figure(0.0, "GB/s", "not known: no profile describes this device"),
        cores=Figure(device.cores, "cores", "told by the device"),
        meters=tuple(dict.fromkeys(meter for target in targets for meter in target.meters)),
        recipe=USUAL_RECIPE,
        features=device.features,
    )


def _offers(registry: Registry) -> list[Offer[Target]]:
    """Third parties come last, so that installing one never changes what a name stands for."""
    return sorted(registry.all(TARGETS), key=lambda offer: offer.plugin != "edgewright")


# ------------------------------------------------------------------ asked for, and found


def is_model(device: Device, target: Target) -> bool:
    """Whether the device calls itself what such a target does."""
    names = [name.lower() for name in (device.cpu, device.soc) if name]
    return any(fnmatchcase(name, pattern.lower()) for pattern in target.models for name in names)


def offered(target: Target, device: Device) -> Target:
    """The target with those of its providers alone that the device's onnxruntime has, where it has any of them."""
    found = tuple(name for name in target.providers if name in device.providers)
    return replace(target, providers=found) if found else target


def check_device(target: Target, device: Device, address: str) -> None:
    """Raises: TargetError when the device runs other instructions than the target."""
    if device.isa != target.isa:
        raise TargetError(
            f"{address} is {device.isa}, but the target {target.name} is {target.isa}; "
            "name the target that it is, or leave out --on to get predictions"
        )


def unlike(target: Target, device: Device, registry: Registry) -> str:
    """How a device that runs differs from the target it was asked to be, in a sentence; nothing where it is alike.

    What a device of that model has more of is no difference; of another model it is.
    """
    other = bool(target.models) and not is_model(device, target)
    found = [*_model(target, device, registry)] if other else []
    found += [*_features(target, device, other=other), *_sizes(target, device, other=other)]
    found += _accelerator(target, device)
    if not found:
        return ""
    return f"this is not quite the {target.name} that was asked for: {'; '.join(found)}"


def _model(target: Target, device: Device, registry: Registry) -> Iterator[str]:
    real = target_of(device, registry)
    known = f", the target {real.name}" if real.models else ""
    yield f"it calls itself {device.cpu}{known}"


def _features(target: Target, device: Device, *, other: bool) -> Iterator[str]:
    lacking = sorted(set(target.features) - set(device.features))
    if lacking:
        yield f"it has no {', '.join(lacking)}"
    besides = sorted(set(device.features) - set(target.features))
    if other and target.features and besides:
        yield f"it has {', '.join(besides)} besides"


def _sizes(target: Target, device: Device, *, other: bool) -> Iterator[str]:
    cores = round(target.cores.value)
    if device.cores < cores or (other and device.cores > cores):
        yield f"{device.cores} CPUs instead of {cores}"
    share = device.memory_bytes / target.memory.value if device.memory_bytes else 1.0
    if share < LESS or (other and share > MORE):
        yield f"{amount(device.memory_bytes, 'B')} of memory instead of {amount(target.memory.value, 'B')}"


def _accelerator(target: Target, device: Device) -> Iterator[str]:
    """Nothing where no runtime tells its providers: then none of them is known to be missing."""
    first = target.providers[0] if target.providers else ""
    if device.providers and first and first not in device.providers:
        yield f"its onnxruntime has no {first}, and offers {', '.join(device.providers)}"
