"""`engine compare`."""

from __future__ import annotations

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
    from edgewright.verbs.comparing import Comparison


@click.command("compare")
@click.argument("first", metavar="OLD")
@click.argument("second", metavar="NEW")
@click.option(
    "--fail-if",
    multiple=True,
    metavar='"latency>+3%"',
    help="Exit 3 when so, at every point of the interval: latency, energy, memory, size, accuracy.",
)
@click.option("--strict", is_flag=True, help="Exit 3 for a condition that noise leaves undecided, too.")
@click.option("--junit", metavar="FILE.xml", help="Write a JUnit file: a test case per --fail-if.")
@click.option("--summary", metavar="FILE.md|github", help="Write Markdown; github adds it to $GITHUB_STEP_SUMMARY.")
@preset_option
@meter_option
@on_option
@device_target_option
@model_options
@shared_options
def command(
    first: str,
    second: str,
    *,
    fail_if: tuple[str, ...],
    strict: bool,
    junit: str | None,
    summary: str | None,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
    **given: Any,
) -> int:
    """Measure two bundles or models against each other, in turns; NEW is judged against OLD.

    A condition fails when the whole 95 % interval lies beyond it, holds when none of it does, and is undecided
    in between.
    """
    from edgewright.verbs.announcing import announcer, verdict
    from edgewright.verbs.comparing import compare
    from edgewright.verbs.judging import parse_condition

    conditions = [parse_condition(text) for text in fail_if]
    announce = announcer(junit, summary, conditions)
    console = Console(quiet=as_json)
    found = compare((first, second), conditions, request_from(**given), open_environment(console, no_plugin, cache))
    announce((first, second), found)
    if as_json:
        print_json("comparison", {"first": first, "second": second, **vars(found), "failed": found.failed})
    else:
        console.say("")
        _show(found)
    return 3 if verdict(found, strict=strict) else 0


def _show(found: Comparison) -> None:
    from edgewright.reporting.tables import describe_device, table
    from edgewright.verbs.announcing import HEADER, cells

    click.echo(f"on {describe_device(found.device)}")
    click.echo(table(HEADER, [cells(row, found) for row in found.rows]))
    for note in found.notes:
        click.echo(note)
    for each in found.judged:
        click.echo(f"{each.outcome}: {each.condition} ({each.sentence})")
