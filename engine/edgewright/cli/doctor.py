"""`engine doctor`."""

from __future__ import annotations

import click

from edgewright.cli.console import Console, on_option, open_environment, print_json, shared_options


@click.command("doctor")
@click.option("--fix", "fixing", is_flag=True, help="First fetch what is missing and needs no rights or choice.")
@on_option
@shared_options
def command(on: str | None, *, fixing: bool, as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """Tell what this machine (or the device at --on) has, what is missing, and how to get it.

    Exit code 4: the device does not answer; the last line says why.
    """
    from edgewright.reporting.tables import table
    from edgewright.verbs.checkup import examine, fix

    env = open_environment(Console(quiet=True), no_plugin, cache)
    if fixing:
        fix(env)
    found = examine(on or "local", env)
    if as_json:
        print_json("doctor", {"findings": found.findings})
    else:
        click.echo(table(("", "what", "found"), [(f.state, f.what, f.found) for f in found.findings]))
    return found.status
