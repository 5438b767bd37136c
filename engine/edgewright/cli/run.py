"""`engine run`."""

from __future__ import annotations

from pathlib import Path

import click

from edgewright.cli.console import Console, on_option, open_environment, print_json, shared_options


@click.command("run")
@click.argument("bundle", type=click.Path())
@click.option("--input", "-i", "source", required=True, metavar="X.npz", help="One array per input, by name.")
@click.option("--out", "-o", metavar="Y.npz", help="Where the outputs go; without it they are described.")
@on_option
@shared_options
def command(  # noqa: PLR0917 - one argument per option
    bundle: str,
    source: str,
    out: str | None,
    on: str | None,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
) -> int:
    """Run BUNDLE on the arrays of an .npz file; their first axis counts examples."""
    from edgewright.verbs.running import run_bundle, save_arrays

    env = open_environment(Console(quiet=True), no_plugin, cache)
    outputs = run_bundle(Path(bundle), Path(source), on or "local", env)
    if out:
        save_arrays(Path(out), outputs)
    shapes = {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in outputs.items()}
    if as_json:
        print_json("run", {"bundle": bundle, "outputs": shapes, "out": out})
    else:
        for name, each in shapes.items():
            click.echo(f"{name}: {each['dtype']} {each['shape']}")
    return 0
