"""`engine stress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.console import Console, on_option, open_environment, print_json, shared_options

if TYPE_CHECKING:
    from edgewright.types import Measurement
    from edgewright.verbs.stressing import Case, Stress


@click.command("stress")
@click.argument("bundle", type=click.Path())
@click.option("--task", metavar="FILE.py:NAME|DATA", help="Where real inputs come from: its selection split.")
@click.option("--deadline", metavar="3ms", help="Time every input with this deadline too, and count what is late.")
@click.option("--examples", type=click.IntRange(1), default=64, show_default=True, metavar="N", help="Real inputs.")
@click.option(
    "--queries", type=click.IntRange(1), default=300, show_default=True, metavar="N", help="Questions per attack."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, metavar="N", help="What every random choice starts from."
)
@on_option
@shared_options
def command(
    bundle: str,
    *,
    task: str | None,
    deadline: str | None,
    examples: int,
    queries: int,
    seed: int,
    on: str | None,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
) -> int:
    """Look for inputs that slow BUNDLE: blank, noisy, blurred, and searched for on purpose.

    An attack sees the scores of the exits and nothing else. A bundle without exits cannot be slowed by its inputs.
    """
    from edgewright.asking.bounds import parse_time
    from edgewright.verbs.stressing import Asked, stress

    deadline_ms = None if deadline is None else parse_time("--deadline", deadline)
    asked = Asked(task, on or "local", deadline_ms, examples, queries, seed)
    found = stress(Path(bundle), asked, open_environment(Console(quiet=as_json), no_plugin, cache))
    if as_json:
        print_json("stress", {"bundle": bundle, "digest": found.bundle.digest, **_document(found, asked.deadline_ms)})
    else:
        _show(found, asked.deadline_ms)
    return 0


def _document(found: Stress, deadline_ms: float | None) -> dict[str, object]:
    return {
        "deadline_ms": deadline_ms,
        "cases": found.cases,
        "refused": found.refused,
        "whole": found.whole,
        "energy": found.energy,
        "advice": found.advice,
        "notes": found.notes,
        "device": found.device and vars(found.device),
    }


def _show(found: Stress, deadline_ms: float | None) -> None:
    from edgewright.reporting.tables import describe, describe_device, table

    if found.device:
        click.echo(f"on {describe_device(found.device)}")
    head = ["inputs", "exit", "to the end", "mean", "p99", "worst"]
    if deadline_ms is not None:
        head += [f"mean in {deadline_ms:g} ms", "p99", "worst", "late", "idle"]
    if found.cases:
        click.echo(table(head, [_line(case) for case in found.cases]))
        click.echo(describe(found.whole))
        click.echo(describe(found.energy))
    for note in (*found.notes, *(f"{name}: {reason}" for name, reason in found.refused.items()), found.advice):
        click.echo(note)


def _line(case: Case) -> list[str]:
    late = [] if case.misses is None else [f"{case.misses} of {case.runs}", f"{case.idle_misses}"]
    figures = [_milliseconds(each) for each in (*case.latency, *case.capped)]
    return [case.name, f"{case.depth:.2f}", f"{case.through:.0%}", *figures, *late]


def _milliseconds(measurement: Measurement) -> str:
    from edgewright.reporting.tables import amount

    return "-" if measurement.value is None else amount(measurement.value, "ms")
