"""How Sphinx makes the site. `make docs` builds it without network; a warning is an error there."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Edgewright"
author = "the Edgewright authors"
project_copyright = author
release = version = installed("edgewright")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "docstrings",
    "fences",
    "offers",
]
exclude_patterns = ["examples/**"]
source_suffix = {".md": "markdown"}
root_doc = "index"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.header"]  # results pages are written by scripts, which begin tables with deeper headings

html_theme = "furo"
html_title = f"Edgewright {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
templates_path: list[str] = []
smartquotes = False

# Docstrings name code in single backticks, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Every name of ours must lead somewhere. Those of Python and of other libraries are plain text: the build is offline.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!edgewright).*"),
    (r"py:.*", r"edgewright\..*\.T(_co)?"),  # type variables
    (r"py:.*", r"edgewright\.(bench|context|store|testing)\..*"),  # the engine's own parts
]
