"""`engine profile`."""

from __future__ import annotations

from typing import Any

import click

from edgewright.cli.console import (
    Console,
    model_options,
    on_option,
    open_environment,
    preset_option,
    print_json,
    request_from,
    shared_options,
)


@click.command("profile")
@click.argument("source", metavar="BUNDLE|MODEL")
@click.option("--per-op", is_flag=True, help="Time per node, and where it ran.")
@click.option("--sustained", metavar="30m", help="Go on for so long, and tell the median of each minute.")
@preset_option
@on_option
@model_options
@shared_options
def command(
    source: str,
    *,
    per_op: bool,
    sustained: str | None,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
    **given: Any,
) -> int:
    """Measure a bundle, or a model as it is: latency by the protocol, load, first inference, peak memory."""
    from edgewright.tables import describe, digits, table
    from edgewright.verbs.profiling import profile

    console = Console(quiet=as_json)
    env = open_environment(console, no_plugin, cache)
    found = profile(source, request_from(**given), env, per_op=per_op, sustained=sustained)
    if as_json:
        document = {"source": source, "bundle": found.subject.bundle.digest, "device": vars(found.device)}
        lists = {"measurements": found.rows, "operators": found.operators, "minutes": found.minutes}
        print_json("profile", {**document, **lists, "runs_ns": found.measured.runs_ns})
        return 0
    console.say("")
    click.echo(f"{found.subject.name} on {found.device.cpu}, {found.device.cores} cores")
    for row in (*found.rows, *found.minutes):
        click.echo(describe(row))
    if found.operators:
        rows = [
            (o.node, o.operator, o.provider.removesuffix("ExecutionProvider"), f"{digits(o.median_us)} µs")
            for o in sorted(found.operators, key=lambda o: -o.median_us)
        ]
        click.echo(table(("node", "operator", "provider", "median"), rows))
    return 0
