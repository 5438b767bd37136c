"""Finds the target a user means: by name, by family, or in a profile file of their own."""

from __future__ import annotations

from pathlib import Path

from edgewright.errors import TargetError, suggest
from edgewright.registry import TARGETS, Registry
from edgewright.targetfile import read_profile
from edgewright.types import Target


def find_target(name: str | None, registry: Registry) -> tuple[Target, str]:
    """The target, and a sentence when the name was a family's and stands for one of its members.

    Raises: TargetError with the nearest name.
    """
    if name is None:
        raise TargetError("no target was named; give --target cpu, or see `engine targets`")
    if name.endswith(".toml"):
        return read_profile(Path(name)), ""
    # Third parties come last, so that installing one never changes what a family's name stands for.
    offers = sorted(registry.all(TARGETS), key=lambda offer: offer.plugin != "edgewright")
    family = [o.value for o in offers if o.value.family == name and o.value.default]
    if family:
        return family[0], f"{name} is a family; taking {family[0].name} ({family[0].title})"
    known = {*registry.names(TARGETS), *(o.value.family for o in offers if o.value.family)}
    if "/" not in name and name not in known:
        raise TargetError(f"no target named {name!r}; {suggest(name, known)}, or a profile file my-device.toml")
    return registry.get(TARGETS, name).value, ""
