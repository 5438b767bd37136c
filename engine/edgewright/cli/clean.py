"""`engine clean`."""

from __future__ import annotations

import click

from edgewright.cli.console import open_store, print_json, shared_options


@click.command("clean")
@shared_options
def command(as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """Remove the cache. Nothing in it is needed: it only makes the next run quicker."""
    from edgewright.reporting.tables import amount

    store = open_store(cache)
    freed = store.clear()
    if as_json:
        print_json("clean", {"cache": store.root, "freed_bytes": freed})
    else:
        click.echo(f"removed {amount(freed, 'B')} from {store.root}")
    return 0
