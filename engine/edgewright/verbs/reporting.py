"""Writes the reports that bundles carry as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgewright.bundle import Bundle, open_bundle
from edgewright.environment import Environment
from edgewright.errors import OutputError, RecipeError, suggest
from edgewright.protocols import PageRenderer, Renderer
from edgewright.registry import RENDERERS, Registry
from edgewright.reporting.reportfile import read_report
from edgewright.types import Report


def write_report(bundles: Sequence[Path], out: Path, task: str | None, env: Environment) -> Path:
    """Write `out` in the format its ending says.

    Args:
        bundles: One or several; their digests are checked.
        out: The file; one that is there is replaced.
        task: What the bundles were judged by, to show pictures of its examples; without it no user data gets out.

    Raises: BundleError, TaskError, RecipeError for an ending that no renderer writes, OutputError.
    """
    renderer = renderer_for(out, env.registry)
    opened = [open_bundle(path) for path in bundles]
    reports = [report_of(bundle) for bundle in opened]
    text = _text(renderer, opened, reports, task)
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}; choose another place with --out") from error
    return out


def renderer_for(out: Path, registry: Registry) -> Renderer:
    """The renderer whose files end like `out`. Raises: RecipeError with the endings there are."""
    by_suffix = {offer.value.suffix: offer.value for offer in registry.all(RENDERERS)}
    if out.suffix not in by_suffix:
        raise RecipeError(
            f"no renderer writes {out.suffix or 'files without an ending'!r}; {suggest(out.suffix, by_suffix)}"
        )
    return by_suffix[out.suffix]


def report_of(bundle: Bundle) -> Report:
    """The report in a bundle, naming the place where the bundle lies now. Raises: BundleError."""
    return replace(read_report(bundle.path / "report.json"), bundle=str(bundle.path))


def _text(renderer: Renderer, bundles: Sequence[Bundle], reports: Sequence[Report], task: str | None) -> str:
    if isinstance(renderer, PageRenderer):
        return renderer.render_page(reports, [_pictures(*each, task) for each in zip(bundles, reports)])
    if len(reports) > 1 or task:
        asked = "one report a file" if len(reports) > 1 else "no pictures"
        raise RecipeError(f"the renderer {renderer.name} writes {asked}; choose --out report.html")
    return renderer.render(reports[0])


def _pictures(bundle: Bundle, report: Report, task: str | None) -> Mapping[int, bytes]:
    if task is None or report.exits is None:
        return {}
    from edgewright.reporting.pictures import pictures_of

    return pictures_of(bundle, report.exits, task)
