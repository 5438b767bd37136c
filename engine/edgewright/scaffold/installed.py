"""Which installed distribution a user means by a name, or by the folder that its package is written in."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from edgewright.errors import RecipeError, suggest
from edgewright.registry.discovery import GROUP

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def distribution_of(name: str) -> str:
    """The distribution called `name`, or written in the folder `name`, as it calls itself.

    Raises: RecipeError when no plugin of that name is installed, or the folder holds no package.
    """
    folder = Path(name)
    wanted = _project(folder) if folder.is_dir() and (folder / "pyproject.toml").is_file() else name
    known = {entry.dist.name for entry in metadata.entry_points(group=GROUP) if entry.dist}
    found = next((each for each in known if _plain(each) == _plain(wanted)), None)
    if found is None and wanted != name:
        raise RecipeError(f"{wanted} is not installed; run: pip install -e {folder}")
    if found is None:
        raise RecipeError(f"no plugin named {name!r} is installed; {suggest(name, known)}")
    return found


def _project(folder: Path) -> str:
    try:
        return str(tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{folder}/pyproject.toml names no project: {error}; write name under [project]") from error


def _plain(name: str) -> str:
    """As installers compare names (PEP 503)."""
    return name.lower().replace("_", "-").replace(".", "-")
