"""`engine device`: what is done to a device itself."""

from __future__ import annotations

import click

from edgewright.cli.console import Console, open_environment, print_json, shared_options


@click.group("device")
def command() -> None:
    """Prepare a device."""


@command.command("setup")
@click.option("--on", required=True, metavar="ADDRESS", help="The device: ssh://user@host, adb://serial.")
@click.option(
    "--with", "extra", multiple=True, metavar="DIST", help="Another distribution: a requirement, wheel or folder."
)
@click.option("--upgrade", is_flag=True, help="Look for newer versions than those set up before.")
@shared_options
def setup(
    on: str, extra: tuple[str, ...], *, upgrade: bool, as_json: bool, no_plugin: tuple[str, ...], cache: str | None
) -> int:
    """Install numpy and onnxruntime for our agent where the device lacks them; it needs no network for that.

    What works on the device stays as it is. Distributions named with --with come without what they depend on: name
    that too. A device without Python gets the native runner and onnxruntime's library.
    """
    from edgewright.onboarding.findings import describe
    from edgewright.onboarding.preflight import onnxruntime_of
    from edgewright.reporting.tables import amount
    from edgewright.verbs.preparing import set_up

    done = set_up(on, open_environment(Console(quiet=as_json), no_plugin, cache), extra, upgrade=upgrade)
    if as_json:
        print_json("device setup", {"address": on, **vars(done)})
        return 0
    click.echo(f"{on}: {describe(done.device)}")
    for note in done.notes:
        click.echo(f"note: {note}")
    sent = f"installed {', '.join(done.installed)} ({amount(done.sent_bytes, 'B')})"
    click.echo(sent if done.installed else "nothing was missing, nothing was sent")
    found = onnxruntime_of(done.device)
    if found and found.works:
        click.echo(f"onnxruntime {found.version} works there: {', '.join(found.providers)}")
    return 0
