"""Which checks there are for each kind, and the cases they make with the offers of a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from edgewright.errors import PluginError
from edgewright.registry import KINDS, Kind, Registry
from edgewright.testing.attacks import crafts
from edgewright.testing.composing import composes_with_the_built_ins
from edgewright.testing.connections import carries_commands_and_files, lists_devices, says_that_nothing_is_there
from edgewright.testing.exporting import exports, exports_the_same_twice, leaves_the_model_alone, opens_what_it_wrote
from edgewright.testing.identity import can_be_imported, has_a_name
from edgewright.testing.kernels import (
    computes_what_the_graph_does,
    finds_its_examples,
    is_right_with_every_tile,
    leaves_alone_what_it_cannot_do,
    runs_in_a_whole_model,
)
from edgewright.testing.loading import loads, refuses_what_is_no_model, tells_sources_apart
from edgewright.testing.outside import stays_off_the_network, writes_where_it_may
from edgewright.testing.packages import (
    PACKAGES,
    imports_nothing_heavy,
    imports_quickly,
    is_found,
    is_quiet_when_imported,
    packages,
)
from edgewright.testing.rewriting import (
    applies,
    declares_what_it_costs,
    does_not_depend_on_order,
    goes_on_after_a_kill,
    is_the_same_twice,
    is_valid,
    keeps_dtypes,
    keeps_shapes,
    keeps_the_signature,
    leaves_its_input_alone,
    lets_errors_through,
    stays_finite,
    survives_the_export,
    writes_itself_down,
)
from edgewright.testing.rig import Rig
from edgewright.testing.running import leaves_its_feeds_alone, opens_and_runs, profiles, refuses_what_it_cannot_open
from edgewright.testing.transforms import answers_before_it_works, has_params, states_itself
from edgewright.testing.values import (
    can_be_predicted,
    figures_have_sources,
    names_what_exists,
    predicts,
    reads_or_says_why_not,
    renders,
    states_sources,
)
from edgewright.testing.watch import watching
from edgewright.types import Offer, Refusal

Check = Callable[[Offer[Any], Rig], Union[Refusal, None]]
"""Returns why it does not apply to the offer, or None. Raises: PluginError, saying where, when the offer fails."""

BESIDE = (stays_off_the_network, writes_where_it_may)
"""They look at what the checks before them saw, and so come last."""

CHECKS: Mapping[str, Sequence[Check]] = {
    "packages": (is_found, imports_nothing_heavy, imports_quickly, is_quiet_when_imported),
    "loaders": (has_a_name, tells_sources_apart, loads, refuses_what_is_no_model, *BESIDE),
    "transforms": (
        *(has_a_name, states_itself, has_params, answers_before_it_works, applies, leaves_its_input_alone),
        *(is_the_same_twice, writes_itself_down, keeps_the_signature, is_valid, survives_the_export, keeps_shapes),
        *(keeps_dtypes, stays_finite, declares_what_it_costs, lets_errors_through, goes_on_after_a_kill),
        *(does_not_depend_on_order, composes_with_the_built_ins, *BESIDE),
    ),
    "exporters": (has_a_name, exports, leaves_the_model_alone, exports_the_same_twice, opens_what_it_wrote, *BESIDE),
    "kernels": (
        *(has_a_name, finds_its_examples, computes_what_the_graph_does, leaves_alone_what_it_cannot_do),
        *(is_right_with_every_tile, runs_in_a_whole_model, *BESIDE),
    ),
    "runtimes": (
        *(has_a_name, can_be_imported, opens_and_runs, leaves_its_feeds_alone, profiles, refuses_what_it_cannot_open),
        *BESIDE,
    ),
    "meters": (has_a_name, can_be_imported, states_sources, reads_or_says_why_not),
    "targets": (has_a_name, figures_have_sources, names_what_exists, can_be_predicted),
    "predictors": (has_a_name, predicts, *BESIDE),
    "connections": (has_a_name, says_that_nothing_is_there, lists_devices, carries_commands_and_files),
    "attacks": (has_a_name, crafts, *BESIDE),
    "renderers": (has_a_name, renders, *BESIDE),
}
"""By the plural of the kind."""


@dataclass(frozen=True)
class Case:
    """One check of one offer."""

    kind: Kind[Any]
    offer: Offer[Any]
    check: Check

    @property
    def name(self) -> str:
        """What is checked, in words: `transform keeps shapes`."""
        return f"{self.kind.noun} {self.check.__name__.replace('_', ' ')}"

    def __str__(self) -> str:
        return f"{self.offer.plugin}/{self.kind.name_of(self.offer.value)}: {self.name}"

    def run(self, rig: Rig) -> Refusal | None:
        """None when the offer passes; a Refusal when the check does not apply to it.

        Raises: PluginError naming the offer, where it failed, and what was expected.
        """
        try:
            with watching(rig.seen(self.offer)):
                return self.check(self.offer, rig)
        except PluginError as failure:
            raise PluginError(f"{self}: {failure}") from failure


def cases(registry: Registry, distribution: str | None = None) -> tuple[Case, ...]:
    """Every check of every distribution and every offer, or of one distribution and what it offers."""
    return tuple(
        Case(kind, offer, check)
        for kind, offer in _offers(registry)
        if distribution in (None, offer.plugin)
        for check in CHECKS[kind.plural]
    )


def _offers(registry: Registry) -> Iterator[tuple[Kind[Any], Offer[Any]]]:
    yield from ((PACKAGES, offer) for offer in packages(registry))
    for kind in KINDS:
        yield from ((kind, offer) for offer in registry.all(kind))
