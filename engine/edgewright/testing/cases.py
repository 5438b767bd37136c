"""Which checks there are for each kind, and the cases they make with the offers of a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from edgewright.errors import PluginError
from edgewright.registry import KINDS, Kind, Registry
from edgewright.testing.attacks import crafts
from edgewright.testing.formats import exports, loads, opens_and_runs, refuses_what_is_no_model, tells_sources_apart
from edgewright.testing.identity import can_be_imported, has_a_name
from edgewright.testing.rig import Rig
from edgewright.testing.transforms import answers_before_it_works, applies, has_params, states_itself
from edgewright.testing.values import (
    can_be_predicted,
    figures_have_sources,
    names_what_exists,
    predicts,
    renders,
    states_sources,
)
from edgewright.types import Offer, Refusal

Check = Callable[[Offer[Any], Rig], Union[Refusal, None]]
"""Returns why it does not apply to the offer, or None. Raises: PluginError, saying where, when the offer fails."""

CHECKS: Mapping[str, Sequence[Check]] = {
    "loaders": (has_a_name, tells_sources_apart, loads, refuses_what_is_no_model),
    "transforms": (has_a_name, states_itself, has_params, answers_before_it_works, applies),
    "exporters": (has_a_name, exports),
    "kernels": (),
    "runtimes": (has_a_name, can_be_imported, opens_and_runs),
    "meters": (has_a_name, can_be_imported, states_sources),
    "targets": (has_a_name, figures_have_sources, names_what_exists, can_be_predicted),
    "predictors": (has_a_name, predicts),
    "connections": (has_a_name,),
    "attacks": (has_a_name, crafts),
    "renderers": (has_a_name, renders),
}
"""By the plural of the kind. Kernels get checks of their own with the first of their kind."""


@dataclass(frozen=True)
class Case:
    """One check of one offer."""

    kind: Kind[Any]
    offer: Offer[Any]
    check: Check

    def __str__(self) -> str:
        name = self.kind.name_of(self.offer.value)
        return f"{self.offer.plugin}/{name}: {self.kind.noun} {self.check.__name__.replace('_', ' ')}"

    def run(self, rig: Rig) -> Refusal | None:
        """None when the offer passes; a Refusal when the check does not apply to it.

        Raises: PluginError naming the offer, where it failed, and what was expected.
        """
        try:
            return self.check(self.offer, rig)
        except PluginError as failure:
            raise PluginError(f"{self}: {failure}") from failure


def cases(registry: Registry, distribution: str | None = None) -> tuple[Case, ...]:
    """Every check of every offer, or of those that one distribution makes."""
    return tuple(
        Case(kind, offer, check)
        for kind in KINDS
        for offer in registry.all(kind)
        if distribution in (None, offer.plugin)
        for check in CHECKS[kind.plural]
    )
