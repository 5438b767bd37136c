"""`engine report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.console import Console, open_environment, print_json, shared_options


@click.command("report")
@click.argument("bundles", nargs=-1, required=True, metavar="BUNDLE...", type=click.Path())
@click.option(
    "--out", "-o", default="report.html", show_default=True, metavar="FILE", help="Its ending says the format."
)
@click.option(
    "--task", metavar="FILE.py:NAME|DATA", help="The bundles' own task: shows which images left first and last."
)
@shared_options
def command(
    bundles: tuple[str, ...],
    *,
    out: str,
    task: str | None,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
) -> int:
    """Write the report of each BUNDLE as one file that needs no network.

    Without --task nothing of your data is in it.
    """
    from edgewright.verbs.reporting import write_report

    env = open_environment(Console(quiet=True), no_plugin, cache)
    written = write_report([Path(bundle) for bundle in bundles], Path(out), task, env)
    if as_json:
        print_json("report", {"bundles": bundles, "out": str(written), "bytes": written.stat().st_size})
    else:
        click.echo(f"report: {written}")
    return 0
