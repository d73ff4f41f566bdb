"""Sphinx's settings: the notebooks as they were committed, pages, and the reference of the API.

``make site`` builds it from the folder ``notebooks`` into ``build/site``. Nothing is executed and
nothing is fetched, neither when it is built nor when it is read: formulas are set by a copy of
MathJax that is an ordinary package.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import bandit
from generated import as_rst, write_pages

project = "copg-bandit"
author = copyright = "The copg-bandit developers"
version = release = bandit.__version__

root_doc = "site/index"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_copybutton",
]
exclude_patterns = ["exercises/**", "explorer.ipynb", "**.ipynb_checkpoints", "site/_static/**"]
exclude_patterns += ["site/README.md"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# Outputs are committed, and kept fresh by the tests.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = True

viewcode_follow_imported_members = False
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
nitpicky = False

# What is not of the core, and need not be installed to build the site.
autodoc_mock_imports = [
    name
    for name in ("torch", "transformers", "peft", "datasets", "vaderSentiment", "accelerate")
    if importlib.util.find_spec(name) is None
]

html_theme = "pydata_sphinx_theme"
html_title = f"copg-bandit {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_depth": 2,
}
# Where there is nothing below, there is nothing to list beside.
html_sidebars = dict.fromkeys(["site/index", "site/pages/teaching", "site/generated/gallery"], [])
mathjax_path = "mathjax/tex-svg.js"
suppress_warnings = ["mystnb.unknown_mime_type"]


def _copy_mathjax(app, error) -> None:
    """Beside the pages, so that formulas need no network."""
    found = importlib.util.find_spec("mathjax")
    if error or app.builder.format != "html" or found is None:
        return
    (package,) = found.submodule_search_locations or ()
    source = Path(package) / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "es5" / "tex-svg.js", target)
    shutil.copy(source / "LICENSE", target)


def _front_page(app, error) -> None:
    """The address of the site itself leads to its first page."""
    if not error and app.builder.format == "html":
        head = '<meta http-equiv="refresh" content="0; url=site/index.html">'
        text = f'<!doctype html><html lang="en"><title>{html_title}</title>{head}'
        text += '<a href="site/index.html">copg-bandit</a></html>\n'
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def _as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = as_rst(lines)


def _skip(app, what, name, obj, skip, options) -> bool | None:
    """Fields of named tuples are told of by the tuple's own docstring."""
    return True if (getattr(obj, "__doc__", "") or "").startswith("Alias for field") else None


def setup(app) -> None:
    """Write the pages that are made from the package, before anything is read."""
    write_pages(HERE, ROOT)
    app.connect("build-finished", _copy_mathjax)
    app.connect("build-finished", _front_page)
    app.connect("autodoc-process-docstring", _as_rst)
    app.connect("autodoc-skip-member", _skip)
