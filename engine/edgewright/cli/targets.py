"""`engine targets`."""

from __future__ import annotations

import click

from edgewright.cli.console import open_registry, print_json, shared_options


@click.command("targets")
@click.argument("name", required=False)
@shared_options
def command(name: str | None, as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """List the targets; with NAME, every figure of one and where it was read."""
    from edgewright.asking.targets import find_target
    from edgewright.registry import TARGETS
    from edgewright.reporting.tables import amount, digits, table

    registry = open_registry(no_plugin)
    if name is None:
        offers = registry.all(TARGETS)
        if as_json:
            print_json("targets", {"targets": [{**vars(o.value), "plugin": o.label} for o in offers]})
            return 0
        rows = [
            (
                registry.name(TARGETS, o),
                o.value.family + (" (default)" if o.value.default else ""),
                o.value.isa,
                amount(o.value.memory.value, "B"),
                " ".join(o.value.recipe),
                o.value.title,
            )
            for o in offers
        ]
        click.echo(table(("target", "family", "isa", "memory", "default recipe", "what it is"), rows))
        return 0
    target, note = find_target(name, registry)
    if as_json:
        print_json("target", vars(target))
        return 0
    click.echo(note or f"{target.name}: {target.title}")
    figures = {"memory": target.memory, "cores": target.cores, "bandwidth": target.bandwidth}
    figures |= {f"compute {dtype}": figure for dtype, figure in target.compute.items()}
    figures |= {f"power {name}": figure for name, figure in target.power.items()}
    figures |= {f"operation {name}": figure for name, figure in target.operations.items()}
    rows = [
        (label, amount(f.value, "B") if f.unit == "B" else f"{digits(f.value)} {f.unit}", f.source)
        for label, f in figures.items()
    ]
    click.echo(table(("figure", "value", "source"), rows))
    if target.notes:
        click.echo(target.notes)
    return 0
