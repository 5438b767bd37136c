"""`engine device`: what is done to a device itself."""

from __future__ import annotations

import click

from edgewright.cli.console import Console, open_environment, print_json, shared_options


@click.group("device")
def command() -> None:
    """Prepare a device."""


@command.command("setup")
@click.option("--on", required=True, metavar="ADDRESS", help="The device: ssh://user@host, adb://serial.")
@click.option("--package", multiple=True, metavar="NAME==VERSION", help="Another version than the newest that runs.")
@shared_options
def setup(on: str, package: tuple[str, ...], as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """Install numpy and onnxruntime for the agent where the device lacks them; it needs no network for that."""
    from edgewright.verbs.checkup import set_up

    found = set_up(on, package, open_environment(Console(quiet=as_json), no_plugin, cache))
    if as_json:
        print_json("device setup", {"address": on, **vars(found)})
        return 0
    for name in found.kept:
        click.echo(f"{on}: {name} is the device's own, and stays as it is")
    click.echo(f"{on}: installed {', '.join(found.installed)}" if found.installed else f"{on}: nothing was missing")
    for name, each in found.device.found.items():
        click.echo(f"{on}: {name} {each.version or each.trouble or 'is missing'}")
    return 0
