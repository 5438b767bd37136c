"""`engine plugins`."""

from __future__ import annotations

import click

from edgewright.cli.console import open_registry, print_json, shared_options


@click.command("plugins")
@shared_options
def command(as_json: bool, no_plugin: tuple[str, ...], cache: str | None) -> int:
    """List the plugins, what they offer, and why any is broken."""
    from edgewright.params import describe_params
    from edgewright.registry import TRANSFORMS
    from edgewright.registry.kinds import KINDS
    from edgewright.reporting.tables import table

    registry = open_registry(no_plugin)
    offers = {kind: registry.all(kind) for kind in KINDS}
    broken, left_out = registry.broken, registry.left_out
    if as_json:
        print_json(
            "plugins",
            {
                "plugins": [
                    {"name": s.name, "distribution": s.distribution, "version": s.version} for s in registry.plugins
                ],
                "offers": {
                    kind.plural: [{"name": registry.name(kind, o), "plugin": o.label} for o in found]
                    for kind, found in offers.items()
                },
                "parameters": {
                    registry.name(TRANSFORMS, o): describe_params(o.value.Params) for o in offers[TRANSFORMS]
                },
                "broken": [vars(absent) for absent in broken],
                "left_out": [vars(absent) for absent in left_out],
            },
        )
        return 0
    rows = [
        (kind.noun, registry.name(kind, o), o.label, getattr(o.value, "summary", getattr(o.value, "title", "")))
        for kind, found in offers.items()
        for o in found
    ]
    click.echo(table(("kind", "name", "plugin", "what it does"), rows))
    for absent in (*broken, *left_out):
        state = "broken" if absent in broken else "left out"
        click.echo(f"{state}: {absent.name} ({absent.distribution} {absent.version}): {absent.reason}")
    return 0
