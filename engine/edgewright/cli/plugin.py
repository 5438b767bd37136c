"""`engine plugin`."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.console import open_registry, print_json, shared_options


@click.group("plugin")
def command() -> None:
    """Write the package of a new plugin, or check one against the conformance kit."""


@command.command("new")
@click.argument("name")
@click.option("--kind", required=True, metavar="KIND", help="transform, exporter, runtime, meter, target, ...")
@click.option("--into", default=".", type=click.Path(), metavar="DIR", help="Where its folder goes. [here]")
@shared_options
def new(name: str, *, kind: str, into: str, as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """Write the package of a plugin called NAME: it is complete, and passes its own tests as it stands."""
    from edgewright.scaffold import create

    files = create(name, kind, Path(into), open_registry(no_plugin))
    folder = Path(into) / name
    if as_json:
        print_json("plugin", {"name": name, "kind": kind, "folder": str(folder), "files": [str(f) for f in files]})
        return 0
    for file in files:
        click.echo(f"wrote {file}")
    click.echo(f"next: pip install -e {folder}, then engine plugin test {name}")
    return 0
