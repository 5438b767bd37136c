"""`engine predict`."""

from __future__ import annotations

from typing import Any

import click

from edgewright.cli.console import (
    Console,
    model_options,
    open_environment,
    print_json,
    request_from,
    shared_options,
)


@click.command("predict")
@click.argument("model")
@click.option("--target", "-t", required=True, metavar="NAME|FILE.toml", help="What to predict for.")
@model_options
@shared_options
def command(
    model: str, target: str, *, as_json: bool, no_plugin: tuple[str, ...], cache: str | None, **given: Any
) -> int:
    """Predict what MODEL costs on a target that is not at hand, with an interval for each number."""
    from edgewright.reporting.tables import describe
    from edgewright.verbs.predicting import predict

    console = Console()
    env = open_environment(console, no_plugin, cache)
    found_for, note, found = predict(model, request_from(**given, target=target), env)
    if as_json:
        print_json("prediction", {"model": model, "target": found_for.name, "predictions": found})
        return 0
    if note:
        console.say(note)
    for measurement in found:
        click.echo(describe(measurement))
    return 0
