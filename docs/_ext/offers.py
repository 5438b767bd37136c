"""Parts of pages that are made from the code: what offers say of themselves, their options, the profiles of devices.

    ```{facts} transform quantize       what the offer states, and what its class says
    ```{options} transform quantize     its parameters, as the command line checks them
    ```{offers} meter                   a table of all offers of a kind
    ```{catalogue} meter                a section for each of them
    ```{profiles}                       a table of all targets
    ```{presets}                        how long each preset measures
    ```{facade}                         what `edgewright` itself gives

A page for each device profile is written to `targets/` when a build begins.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import edgewright
from edgewright.measuring.presets import PRESETS
from edgewright.params import describe_params
from edgewright.registry import KINDS, TARGETS, Kind, Registry
from edgewright.reporting.tables import amount
from edgewright.types import Figure, Target

HOST = "cpu"
"""The target that is this host: its figures are read when it is listed, and belong on no page."""


DTYPES = ("float32", "float16", "int8")


@cache
def registry() -> Registry:
    """What comes with Edgewright; the site does not depend on what else is installed."""
    return Registry(only=())


def kind_of(noun: str) -> Kind[Any]:
    """The kind whose offers are called so: `transform`."""
    return next(kind for kind in KINDS if kind.noun == noun)


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def facts(noun: str, name: str) -> str:
    """What an offer states, and the docstring of its class."""
    offer = registry().get(kind_of(noun), name).value
    stated = [
        ("summary", "does"),
        ("takes", "takes"),
        ("gives", "gives"),
        ("needs", "needs"),
        ("reads", "result depends on"),
        ("format", "format"),
        ("formats", "formats"),
        ("suffix", "file ending"),
        ("needs_python", "needs Python on the device"),
        ("scope", "scope"),
    ]
    rows = [(title, _said(getattr(offer, key))) for key, title in stated if hasattr(offer, key)]
    return f"{table(('', ''), rows)}\n\n{inspect.getdoc(type(offer)) or ''}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(value) or "model, parameters and seed alone" if isinstance(value, tuple) else str(value)


def options(noun: str, name: str) -> str:
    """The parameters of a method, from its `Params`."""
    offer = registry().get(kind_of(noun), name).value
    rows = [
        (f"`{each['name']}`", f"`{_default(each['default'])}`", each["allowed"] or each["type"], each["help"])
        for each in describe_params(offer.Params)
    ]
    return table(("option", "default", "allowed", "what it does"), rows) if rows else "It has no options."


def _default(value: Any) -> str:
    if value in (None, ()):
        return "none"
    return (
        "+".join(map(str, value)) if isinstance(value, tuple) else str(value).lower() if value is True else str(value)
    )


def offers(noun: str) -> str:
    """All offers of a kind, each with the first line of what it says."""
    kind = kind_of(noun)
    rows = [(f"`{kind.name_of(each.value)}`", _line(each.value)) for each in registry().all(kind)]
    return table(("name", "is"), rows)


def _line(offer: Any) -> str:
    if isinstance(offer, Target):
        return f"[{offer.title}](targets/{offer.name}.md)"
    return getattr(offer, "summary", "") or (inspect.getdoc(type(offer)) or "").partition("\n")[0]


def catalogue(noun: str) -> str:
    """A section for each offer of a kind: what it states, and what its class says."""
    names = [kind_of(noun).name_of(each.value) for each in registry().all(kind_of(noun))]
    return "\n\n".join(f"## {name}\n\n{facts(noun, name)}" for name in names)


def profiles() -> str:
    """All targets but this host: where they run, their peaks, what memory gives, and what they draw."""
    targets = [each.value for each in registry().all(TARGETS) if each.value.name != HOST]
    heading = ("target", "family", "runs on", *DTYPES, "bandwidth", "power (idle, active)")
    return table(heading, map(_row, targets))


def _row(target: Target) -> list[str]:
    family = f"**`{target.family}`**" if target.default else f"`{target.family}`"
    peaks = [f"{target.compute[each].value:,.0f}" if each in target.compute else "" for each in DTYPES]
    power = ", ".join(f"{figure.value:.1f}" for figure in target.power.values())
    name = f"[`{target.name}`](targets/{target.name}.md)"
    return [name, family, f"{target.unit.upper()}", *peaks, f"{target.bandwidth.value:g}", power]


def presets() -> str:
    """How long each preset measures a candidate."""
    rows = [(f"`{each.name}`", each.seconds, each.runs, each.rounds) for each in PRESETS.values()]
    return table(("preset", "seconds, at least", "runs, at least", "rounds of a comparison"), rows)


def facade() -> str:
    """What `edgewright` itself gives."""
    rows = [(f"`{name}`", _first(getattr(edgewright, name))) for name in edgewright.__all__]
    return table(("name", "is"), rows)


def _first(value: Any) -> str:
    described = inspect.getdoc(value) if inspect.isclass(value) or inspect.isfunction(value) else f"`{value}`"
    return (described or "").partition("\n")[0]


PARTS: dict[str, Callable[..., str]] = {
    part.__name__: part for part in (facts, options, offers, catalogue, profiles, presets, facade)
}


class Part(SphinxDirective):
    """A directive whose content is Markdown that one of `PARTS` writes."""

    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        """The nodes of that Markdown."""
        return self.parse_text_to_nodes(PARTS[self.name](*self.arguments), allow_section_headings=True)


def profile(target: Target) -> str:
    """The page of a device: every figure with its source."""
    figures = [("memory", target.memory), ("cores", target.cores), ("bandwidth", target.bandwidth)]
    figures += [(f"peak in {dtype}", figure) for dtype, figure in target.compute.items()]
    figures += [(f"power, {name.removesuffix('_w')}", figure) for name, figure in target.power.items()]
    fitted = [(q, each["n"], f"{each['error']:.1%}", each["source"]) for q, each in target.fitted.items()]
    return "\n\n".join(
        [
            f"# {target.name}",
            f"{target.title}. `engine targets {target.name}` prints the same figures.",
            target.notes,
            table(("figure", "value", "source"), [(name, _amount(figure), figure.source) for name, figure in figures]),
            table(("", ""), _settings(target)),
            "## Predictions",
            table(("quantity", "networks measured", "mean error, left out", "source"), fitted)
            if fitted
            else "Nothing was measured on such a device: predictions are scaled from the peaks, and wide.",
            "[How predictions are made](../prediction.md), and [how far they are off](../results/predictor.md).\n",
        ]
    )


def _amount(figure: Figure) -> str:
    return amount(figure.value, figure.unit)


def _settings(target: Target) -> list[tuple[str, str]]:
    said = {
        "instruction set": target.isa,
        "CPU features": " ".join(target.features),
        "computes on": target.unit,
        "family": target.family + (", whose name stands for it" if target.default else ""),
        "recognised by": ", ".join(f"`{pattern}`" for pattern in target.models),
        "runtimes, in order": ", ".join(target.runtimes),
        "providers, in order": ", ".join(target.providers),
        "meters, in order": ", ".join(target.meters),
        "default recipe": ", ".join(f"[{name}](../methods/{name}.md)" for name in target.recipe),
    }
    return [(name, value) for name, value in said.items() if value]


def write_profiles(app: Sphinx) -> None:
    """A page for each target, written anew only where it changed, so that a second build is quick."""
    folder = Path(app.srcdir) / "targets"
    folder.mkdir(exist_ok=True)
    for offer in registry().all(TARGETS):
        if offer.value.name == HOST:
            continue
        page, text = folder / f"{offer.value.name}.md", profile(offer.value)
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    for name in PARTS:
        app.add_directive(name, Part)
    app.connect("builder-inited", write_profiles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
