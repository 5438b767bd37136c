"""`engine profile`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from edgewright.cli.console import (
    Console,
    device_target_option,
    meter_option,
    model_options,
    on_option,
    open_environment,
    preset_option,
    print_json,
    request_from,
    shared_options,
)

if TYPE_CHECKING:
    from edgewright.types import Measurement
    from edgewright.verbs.details import Capped
    from edgewright.verbs.leaving import Way
    from edgewright.verbs.profiling import Profile


@click.command("profile")
@click.argument("source", metavar="BUNDLE|MODEL")
@click.option("--per-op", is_flag=True, help="Time per node, and where it ran.")
@click.option("--sustained", metavar="30m", help="Go on for so long, and tell the median of each minute.")
@click.option("--deadline", metavar="3ms", help="Run with this deadline too, and count what is late.")
@click.option(
    "--examples", type=click.IntRange(1), default=1000, show_default=True, metavar="N", help="Real inputs from --task."
)
@preset_option
@meter_option
@on_option
@device_target_option
@model_options
@shared_options
def command(
    source: str,
    *,
    per_op: bool,
    sustained: str | None,
    deadline: str | None,
    examples: int,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
    **given: Any,
) -> int:
    """Measure a bundle, or a model as it is: latency by the protocol, load, first inference, peak memory.

    With --task on real inputs, of the test split: where they leave a model with exits, and what each exit takes.
    """
    from edgewright.asking.bounds import parse_time
    from edgewright.verbs.details import Asked
    from edgewright.verbs.profiling import profile

    console = Console(quiet=as_json)
    env = open_environment(console, no_plugin, cache)
    deadline_ms = None if deadline is None else parse_time("--deadline", deadline)
    found = profile(source, request_from(**given), Asked(per_op, sustained, deadline_ms, examples), env)
    if as_json:
        print_json("profile", {"source": source, **_document(found)})
    else:
        console.say("")
        _show(found)
    return 0


def _document(found: Profile) -> dict[str, object]:
    real, details = found.real, found.details
    operators = [{"stage": stage, **vars(node)} for stage, nodes in details.operators.items() for node in nodes]
    return {
        "bundle": found.subject.bundle.digest,
        "device": vars(found.device),
        "inputs": real and {"task": real.task, "split": real.split, "examples": real.count},
        "measurements": found.rows,
        "exits": found.ways,
        "deadline": details.capped,
        "operators": operators,
        "minutes": found.sustained.minutes,
        "looks": found.sustained.looks,
        "notes": found.notes,
        "runs_ns": found.measured.runs_ns,
        "depths": found.measured.depths,
        "energy": found.measured.energy and found.measured.energy.recording,
    }


def _show(found: Profile) -> None:
    from edgewright.measuring.steadiness import in_words
    from edgewright.reporting.tables import describe

    click.echo(f"{found.subject.name} on {found.device.cpu}, {found.device.cores} cores")
    if found.real:
        click.echo(f"real inputs: {found.real.count}, from the {found.real.split} split of {found.real.task}")
    for row in (*found.rows, *found.sustained.minutes):
        click.echo(describe(row))
    click.echo(in_words(found.measured.latency["p50"].conditions))
    if found.ways:
        _show_ways(found.ways)
    if found.details.capped:
        _show_capped(found.details.capped)
    if found.details.operators:
        _show_operators(found)
    if found.energies:
        _show_rails(found.energies[0])
    for note in found.notes:
        click.echo(note)


def _show_rails(energy: Measurement) -> None:
    """A line per rail: what it drew while the model ran, and what lies behind it."""
    for name, rail in energy.conditions.get("rails", {}).items():
        click.echo(
            f"rail {name}: {rail['watts']:.4g} W from {rail['samples']} samples ({rail['scope']}), {energy.kind}"
        )


def _show_ways(ways: tuple[Way, ...]) -> None:
    """A row per exit; its latency is that of the runs that ended there."""
    from edgewright.reporting.tables import table

    statistics = list(dict.fromkeys(name for way in ways for name in way.latency))
    rows = [
        [way.name, str(way.rows), f"{way.share:.1%}", str(_runs(way.latency))]
        + [_value(way.latency.get(name)) for name in statistics]
        for way in ways
    ]
    click.echo(table(("left at", "examples", "share", "runs", *statistics), rows))


def _show_capped(capped: Capped) -> None:
    from edgewright.reporting.tables import amount

    times = ", ".join(f"{name} {_value(each)}" for name, each in capped.latency.items())
    ended = "".join(f"; {count} ended at {name}" for name, count in capped.ended.items())
    limit = amount(capped.deadline_ms, "ms")
    late = f"{capped.misses} of {capped.runs} runs were late, and {capped.idle_misses} loops that did nothing"
    click.echo(f"with a deadline of {limit}: {late}{ended}; {times}")


def _show_operators(found: Profile) -> None:
    from edgewright.reporting.tables import digits, table

    operators = found.details.operators
    rows = [
        (stage, o.node, o.operator, o.provider.removesuffix("ExecutionProvider"), f"{digits(o.median_us)} µs")
        for stage, nodes in operators.items()
        for o in sorted(nodes, key=lambda o: -o.median_us)
    ]
    skipped = 0 if len(operators) > 1 else 1
    head = ("stage", "node", "operator", "provider", "median")
    click.echo(table(head[skipped:], [row[skipped:] for row in rows]))


def _runs(latency: Mapping[str, Measurement]) -> int:
    return next((each.n for each in latency.values()), 0)


def _value(measurement: Measurement | None) -> str:
    from edgewright.reporting.tables import amount

    return "-" if measurement is None or measurement.value is None else amount(measurement.value, measurement.unit)
