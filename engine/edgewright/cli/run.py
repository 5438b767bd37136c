"""`engine run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewright.cli.console import Console, on_option, open_environment, print_json, shared_options
from edgewright.reporting.tables import amount

if TYPE_CHECKING:
    from edgewright.verbs.running import Ran


@click.command("run")
@click.argument("bundle", type=click.Path())
@click.option("--input", "-i", "source", required=True, metavar="X.npz", help="One array per input, by name.")
@click.option("--out", "-o", metavar="Y.npz", help="Where the outputs go; without it they are described.")
@click.option("--deadline", metavar="12ms", help="Answer each run in time, with an earlier exit if need be.")
@on_option
@shared_options
def command(  # noqa: PLR0917 - one argument per option
    bundle: str,
    source: str,
    out: str | None,
    deadline: str | None,
    on: str | None,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
) -> int:
    """Run BUNDLE on the arrays of an .npz file; their first axis counts examples."""
    from edgewright.asking.bounds import parse_time
    from edgewright.verbs.running import run_bundle, save_arrays

    deadline_ms = None if deadline is None else parse_time("--deadline", deadline)
    env = open_environment(Console(quiet=True), no_plugin, cache)
    ran = run_bundle(Path(bundle), Path(source), on or "local", env, deadline_ms=deadline_ms)
    if out:
        save_arrays(Path(out), ran.outputs)
    shapes = {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in ran.outputs.items()}
    if as_json:
        how = {"exits": ran.exits, "runs": ran.runs, "times_ms": ran.times_ms}
        late = {"deadline_ms": ran.deadline_ms, "misses": ran.misses}
        print_json("run", {"bundle": bundle, "outputs": shapes, "out": out, **how, **late})
    else:
        for name, each in shapes.items():
            click.echo(f"{name}: {each['dtype']} {each['shape']}")
        click.echo("\n".join(_how(ran)))
    return 0


def _how(ran: Ran) -> list[str]:
    """Where rows left, what a run took, and how many were late."""
    rows = sum(ran.exits.values())
    lines = [f"left at {name}: {count} of {rows} rows" for name, count in ran.exits.items()]
    times = ", ".join(f"{name} {amount(ms, 'ms')}" for name, ms in ran.times_ms.items())
    lines.append(f"time per run: {times} ({ran.runs} runs)")
    if ran.deadline_ms is not None:
        lines.append(f"later than {amount(ran.deadline_ms, 'ms')}: {ran.misses} of {ran.runs} runs")
    return lines
