"""`engine devices`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgewright.cli.console import Console, open_environment, print_json, shared_options

if TYPE_CHECKING:
    from edgewright.verbs.preparing import Seen


@click.command("devices")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option("--ssh-config", "configured", is_flag=True, help="Also the hosts that your ssh configuration names.")
@shared_options
def command(
    addresses: tuple[str, ...], *, configured: bool, as_json: bool, no_plugin: tuple[str, ...], cache: str | None
) -> int:
    """List the devices at hand: those that adb knows, those at ADDRESS, and hosts of your ssh configuration."""
    from edgewright.reporting.tables import table
    from edgewright.verbs.preparing import devices

    seen = devices(addresses, open_environment(Console(quiet=as_json), no_plugin, cache), configured=configured)
    if as_json:
        print_json("devices", {"devices": seen})
        return 0
    if not seen:
        click.echo("no device is at hand; name one: engine devices ssh://HOST, or plug in one that adb knows")
        return 0
    click.echo(table(("address", "state", "model", "soc", "isa", "sensors"), [_row(each) for each in seen]))
    return 0


def _row(seen: Seen) -> tuple[str, ...]:
    device = seen.device
    if device is None:
        return (seen.address, f"not usable: {seen.reason}", "", "", "", "")
    state = f"busy: {device.busy}" if device.busy else "free"
    sensors = ", ".join(device.sensors) or "none"
    return (
        seen.address,
        state + (", emulated" if device.emulation else ""),
        device.model,
        device.soc,
        device.isa,
        sensors,
    )
