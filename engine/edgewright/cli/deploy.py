"""`engine deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgewright.asking.bounds import BOUND_NAMES
from edgewright.asking.recipefile import PROJECT_FILE, read_request
from edgewright.asking.request import Request, merge, parse_method
from edgewright.cli.console import (
    Console,
    meter_option,
    model_options,
    on_option,
    open_environment,
    preset_option,
    print_json,
    request_from,
    shared_options,
)


@click.command("deploy")
@click.argument("model", required=False)
@click.option("--target", "-t", metavar="NAME|FILE.toml", help="What to deploy to; `engine targets` lists them.")
@click.option("--apply", "-a", multiple=True, metavar="METHOD[:k=v,...]", help="A method; repeat in order.")
@click.option("--recipe", type=click.Path(), metavar="FILE.toml", help="Read what is not said here from a file.")
@click.option("--max-drop", metavar="1%|1%rel|off", help="Most of the metric that may be lost. [1%]")
@click.option("--min-speedup", metavar="1.2|off", help="Least speed-up. [a guard against slower]")
@click.option("--max-latency", metavar="10ms[:p99]", help="Most latency, p50 unless said.")
@click.option("--max-energy", metavar="5mJ", help="Most energy per inference.")
@click.option("--max-size", metavar="4MB", help="Largest size of all artifacts.")
@click.option("--minimise", metavar="latency|energy|size", help="What decides between legal models. [latency]")
@click.option("--exporter", metavar="NAME,...", help="Forms to race; the quickest that answers alike ships. [onnx]")
@click.option(
    "--kernel", metavar="NAME,...", help="Kernels to call, first come first served. [auto: the built-in ones]"
)
@click.option("--tune", type=int, metavar="SECONDS", help="Search that long, per stage, what TVM is left to do. [0]")
@preset_option
@click.option("--allow-fallback", is_flag=True, default=None, help="Accept another provider than the one asked for.")
@click.option("--out", "-o", metavar="DIR", help="Where the bundle goes. [MODEL-TARGET]")
@click.option("--dry-run", is_flag=True, help="Check everything, do nothing.")
@meter_option
@on_option
@model_options
@shared_options
def command(  # noqa: PLR0917 - one argument per option
    recipe: str | None,
    apply: tuple[str, ...],
    exporter: str | None,
    kernel: str | None,
    dry_run: bool,
    as_json: bool,
    no_plugin: tuple[str, ...],
    cache: str | None,
    **given: Any,
) -> int:
    """Compress MODEL for a target, measure it against the original, and write a bundle.

    MODEL is model.onnx, file.py:callable (an nn.Module), program.pt2 or a bundle. Without MODEL,
    edgewright.toml in this folder names it. Exit code 3: a bound you wrote was not met, or a method you
    named was left out; the best legal model was written all the same.
    """
    from edgewright.deploying.loading import model_named
    from edgewright.deploying.pipeline import deploy, prepare
    from edgewright.reporting.report import settings
    from edgewright.verbs.subject import target_for

    console = Console()
    env = open_environment(console, no_plugin, cache)
    bounds = {name: given.pop(name) for name in BOUND_NAMES if given.get(name) is not None}
    given = {key: value for key, value in given.items() if key not in BOUND_NAMES}
    request = request_from(
        **given,
        bounds=bounds,
        apply=tuple(parse_method(text) for text in apply) or None,
        exporter=tuple(exporter.split(",")) if exporter else None,
        kernel=tuple(kernel.split(",")) if kernel else None,
    )
    request = _with_files(request, recipe)
    model_named(request)
    target, note = target_for(request, env)
    if note:
        console.say(note)
    job = prepare(request, target, env)
    console.say("\n".join(f"  {key:<9} {value}" for key, value in settings(job).items()))
    if dry_run:
        if as_json:
            print_json("plan", settings(job))
        return 0
    outcome = deploy(job, env)
    console.say("")
    console.say(_render(env.registry, "markdown", outcome.report))
    console.say(f"bundle: {outcome.bundle.path}  (sha-256 {outcome.bundle.digest[:12]})")
    if as_json:
        click.echo(_render(env.registry, "json", outcome.report))
    return outcome.exit_code


def _with_files(request: Request, recipe: str | None) -> Request:
    """What the command line leaves unsaid comes from --recipe, then from the project file when no model was named."""
    if recipe:
        request = merge(request, read_request(Path(recipe)))
    if request.model is None and Path(PROJECT_FILE).is_file():
        request = merge(request, read_request(Path(PROJECT_FILE)))
    return request


def _render(registry: Any, name: str, report: Any) -> str:
    from edgewright.registry import RENDERERS

    return registry.get(RENDERERS, name).value.render(report)
