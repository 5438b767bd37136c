"""Writes the package of a new plugin: small, complete, and passing its own tests as it stands.

The files lie in `templates/`: what all kinds share under `common`, the rest under the kind. `$name` and the like are
filled in by `string.Template`; the ending `.in` keeps tools from reading them as code.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from string import Template

from edgewright.errors import OutputError, RecipeError, suggest
from edgewright.registry import Registry
from edgewright.registry.kinds import KINDS, Kind

TEMPLATES = Path(__file__).parent / "templates"

LONGEST = 32
"""Characters of a name: what is longer would not fit the lines of the templates."""

WITHOUT = {
    "predictor": "there is no template; edgewright_devices.predictor is the one to read",
}
"""Kinds that a plugin can be of, and for which there is nothing to write."""


def kinds() -> Mapping[str, Kind[object]]:
    """The kinds there are templates for, by noun."""
    return {kind.noun: kind for kind in KINDS if (TEMPLATES / kind.noun).is_dir()}


def create(name: str, noun: str, parent: Path, registry: Registry) -> tuple[Path, ...]:
    """Write the package of a plugin called `name` into a new folder of that name below `parent`.

    Returns: the files.
    Raises: RecipeError for a kind without a template, and for a name that is no name or is taken; OutputError when
    the folder is there or cannot be written.
    """
    kind = _kind(noun)
    _check_spelling(name)
    _check_free(name, kind, registry)
    folder = parent / name
    if folder.exists():
        raise OutputError(f"{folder} is there already; choose another name, or another place with --into")
    texts = dict(_rendered(name, kind))
    try:
        for place, text in texts.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror}; choose another place with --into") from error
    return tuple(folder / place for place in texts)


# ------------------------------------------------------------------ names


def _kind(noun: str) -> Kind[object]:
    if noun in WITHOUT:
        raise RecipeError(f"no template for a {noun}: {WITHOUT[noun]}")
    if noun not in kinds():
        raise RecipeError(f"no kind of plugin named {noun!r}; {suggest(noun, kinds())}")
    return kinds()[noun]


def _check_spelling(name: str) -> None:
    """Raises: RecipeError with the nearest name that can be a distribution, a package and an offer."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        rule = f"write small letters, digits and single hyphens, a letter first, at most {LONGEST} characters"
        raise RecipeError(f"{name!r} cannot be a plugin's name; {rule}, such as {_nearest(name)!r}")


def _check_free(name: str, kind: Kind[object], registry: Registry) -> None:
    """Raises: RecipeError when an installed plugin is called so or offers one of the kind so, or Python does."""
    offered = next((offer for offer in registry.all(kind) if kind.name_of(offer.value) == name), None)
    if offered is not None:
        raise RecipeError(f"{offered.label} offers a {kind.noun} named {name!r}; choose one such as 'my-{name}'")
    known = next((source for source in registry.plugins if name in source.names), None)
    known = known or next((each for each in registry.broken if name in (each.name, each.distribution)), None)
    if known is not None:
        raise RecipeError(
            f"a plugin named {name!r} is installed ({known.distribution} {known.version}); choose another"
        )
    package = package_of(name)
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or _importable(package):
        raise RecipeError(f"{name!r} is taken: Python has another {package!r}; choose one such as 'my-{name}'")


def _importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _nearest(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
    kebab = re.sub(r"[^a-z0-9]+", "-", words).strip("-")[:LONGEST].strip("-")
    return kebab if kebab[:1].isalpha() else f"my-{kebab or 'method'}"


def package_of(name: str) -> str:
    """The package that Python imports: `my_method` of `my-method`."""
    return name.replace("-", "_")


# ------------------------------------------------------------------ texts


def _rendered(name: str, kind: Kind[object]) -> Iterator[tuple[str, str]]:
    """Every file of the package, by its place in the folder, and what stands in it."""
    words = _words(name, kind)
    words["usage"] = _template(TEMPLATES / kind.noun / "usage.md.in").substitute(words)
    for folder in (TEMPLATES / "common", TEMPLATES / kind.noun):
        for file in sorted(folder.iterdir()):
            place = file.name.removesuffix(".in")
            if place != "usage.md":
                yield _place(place, words["package"]), _template(file).substitute(words)


def _place(file: str, package: str) -> str:
    if file == "test.yml":
        return f".github/workflows/{file}"
    if file.endswith(".py"):
        return f"{'tests' if file.startswith('test_') else package}/{file}"
    return file


def _words(name: str, kind: Kind[object]) -> dict[str, str]:
    package = package_of(name)
    return {
        "name": name,
        "package": package,
        "kind": kind.noun,
        "a_kind": f"{'An' if kind.noun[0] in 'aeiou' else 'A'} {kind.noun}",
        "hook": kind.hook,
        "engine": ".".join(metadata.version("edgewright").split(".")[:2]),
    }


def _template(file: Path) -> Template:
    return Template(file.read_text(encoding="utf-8"))
