"""`engine plugin`."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.console import open_registry, print_json, shared_options

if TYPE_CHECKING:
    from edgewright.testing import Outcome

SIGNS = {"passed": ("ok", "green"), "skipped": ("--", "yellow"), "failed": ("FAIL", "red")}


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


@command.command("test")
@click.argument("name", metavar="DISTRIBUTION|FOLDER")
@click.option("--on", multiple=True, metavar="ADDRESS", help="A device to try connections with.")
@shared_options
def test(name: str, *, on: tuple[str, ...], as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """Run the conformance kit on everything that an installed plugin offers."""
    from edgewright.registry import Registry
    from edgewright.scaffold.installed import distribution_of
    from edgewright.testing import cases, examine, open_rig

    distribution = distribution_of(name)
    registry = Registry(only=(distribution,), without=no_plugin)
    with tempfile.TemporaryDirectory() as folder, open_rig(Path(folder).resolve(), registry, on) as rig:
        outcomes = examine(cases(registry, distribution), rig, (lambda _: None) if as_json else _tell)
    counts = {status: Counter(each.status for each in outcomes)[status] for status in SIGNS}
    if as_json:
        print_json("conformance", {"distribution": distribution, **counts, "checks": outcomes})
    else:
        click.echo(f"{distribution}: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    return 1 if counts["failed"] else 0


def _tell(outcome: Outcome) -> None:
    sign, colour = SIGNS[outcome.status]
    reason = f": {outcome.reason}" if outcome.reason else ""
    click.echo(f"{click.style(f'{sign:<4}', fg=colour)} {outcome.kind} {outcome.offer} {outcome.check}{reason}")
