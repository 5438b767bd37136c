"""`engine compare`."""

from __future__ import annotations

from typing import Any

import click

from edgewright.cli.console import (
    Console,
    device_target_option,
    model_options,
    on_option,
    open_environment,
    preset_option,
    print_json,
    request_from,
    shared_options,
)


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--fail-if", multiple=True, metavar='"latency>+3%"', help="Exit 3 when so; latency, size or memory.")
@preset_option
@on_option
@device_target_option
@model_options
@shared_options
def command(
    first: str,
    second: str,
    *,
    fail_if: tuple[str, ...],
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
    **given: Any,
) -> int:
    """Measure two bundles or models against each other, in turns; B is judged against A."""
    from edgewright.tables import amount, describe_device, table
    from edgewright.verbs.comparing import compare, parse_condition

    conditions = [parse_condition(text) for text in fail_if]
    console = Console(quiet=as_json)
    found = compare(
        (first, second),
        conditions,
        request_from(**given),
        open_environment(console, no_plugin, cache),
    )
    if as_json:
        print_json(
            "comparison",
            {"first": first, "second": second, **vars(found)},
        )
        return 3 if found.failed else 0
    console.say("")
    click.echo(f"on {describe_device(found.device)}")
    click.echo(table(("", "A", "B", "B against A"), [_line(row, found.changes, amount) for row in found.rows]))
    for text in (*found.notes, *(f"failed: {text}" for text in found.failed)):
        click.echo(text)
    return 3 if found.failed else 0


def _line(row: Any, changes: Any, amount: Any) -> tuple[str, str, str, str]:
    cells = [amount(m.value, m.unit) if m.value is not None else "-" for m in (row.original, row.candidate)]
    name = "latency" if row.quantity == "latency p50" else row.quantity
    low, high = changes.get(name, (None, None))
    if low is None:
        return row.quantity, cells[0], cells[1], ""
    change = f"{low:+.1%}" if low == high else f"{low:+.1%} to {high:+.1%}"
    return row.quantity, cells[0], cells[1], change
