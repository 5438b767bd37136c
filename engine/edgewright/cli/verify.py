"""`engine verify`."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.console import Console, on_option, open_environment, print_json, shared_options


@click.command("verify")
@click.argument("bundle", type=click.Path())
@on_option
@shared_options
def command(bundle: str, on: str | None, as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """Check every digest of BUNDLE, and its answer to the example it carries (exit 3 when that differs)."""
    from edgewright.verbs.running import TOLERANCE, verify_bundle

    found = verify_bundle(Path(bundle), on or "local", open_environment(Console(quiet=True), no_plugin, cache))
    if as_json:
        document = {"bundle": bundle, "digest": found.bundle.digest, "agrees": found.agrees}
        print_json("verify", {**document, "differences": found.differences, "tolerance": TOLERANCE})
    else:
        click.echo(f"{bundle}: every file is what the manifest says (sha-256 {found.bundle.digest[:12]})")
        for name, difference in found.differences.items():
            click.echo(f"{name}: differs from the bundle's own answer by {difference:.1e} of its range")
        click.echo(
            "the bundle answers as when it was made"
            if found.agrees
            else "the answer differs: another CPU, or another runtime"
        )
    return 0 if found.agrees else 3
