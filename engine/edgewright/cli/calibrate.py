"""`engine calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgewright.cli.console import (
    Console,
    meter_option,
    model_options,
    on_option,
    open_environment,
    print_json,
    request_from,
    shared_options,
)


@click.command("calibrate")
@click.option("--target", "-t", metavar="NAME|FILE.toml", help="The profile to start from. [cpu]")
@click.option(
    "--measured",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Networks that were measured: model,latency_ms,energy_mj.",
)
@click.option(
    "--out", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
    help="The profile to write.",
)  # fmt: skip
@meter_option
@on_option
@model_options
@shared_options
def command(
    *,
    target: str | None,
    measured: Path | None,
    out: Path,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
    **given: Any,
) -> int:
    """Fit the predictor to a device, and write a profile that knows it.

    Micro-networks are measured there (--on), or networks of your own are read from --measured: 10 to 20 do.
    """
    from edgewright.verbs.calibrating import calibrate

    console = Console(quiet=as_json)
    env = open_environment(console, no_plugin, cache)
    found, count = calibrate(request_from(**given, target=target), measured, out, env)
    quantities = {name: {key: entry[key] for key in ("n", "error", "source")} for name, entry in found.fitted.items()}
    if as_json:
        print_json("calibration", {"target": found.name, "profile": str(out), "networks": count, "fitted": quantities})
        return 0
    for name, entry in quantities.items():
        click.echo(f"{name}: {entry['n']} networks, mean error {entry['error']:.1%} when left out of the fit")
    click.echo(f"wrote {out}; use it with --target {out}")
    return 0
