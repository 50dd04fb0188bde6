"""Settings of Sphinx for the site; ``build.py`` gathers the pages and runs it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the extension beside this file

from sphinx import addnodes
from sphinx.application import Sphinx

from embvar_kit import __version__

project = "embvar-kit"
author = "the embvar-kit authors"
version = release = __version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx-mathjax-offline",
    "alternatives",
]
# Notebooks of the course are handed out, not shown.
exclude_patterns = ["notebooks/course/**.ipynb"]

# Notebooks, as they were executed

nb_execution_mode = "off"
nb_merge_streams = True
# Instead of a widget, which needs a kernel, its still picture; so no widget manager is fetched.
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
nb_ipywidgets_js = {}

# Markdown, as GitHub and JupyterLab read it

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4

# The reference

autodoc_member_order = "bysource"
# Types stand beside the parameters. A signature of one parameter a line would be a list without
# terms, which screen readers stumble over.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
# Q, M and V are attributes of several classes, and a docstring names them without their class.
suppress_warnings = ["ref.python"]

# The pages

highlight_language = "none"
html_theme = "pydata_sphinx_theme"
html_title = "embvar-kit"
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [(name, {"defer": "defer"}) for name in ("layer_slider.js", "wide.js")]
html_use_index = False  # the page of the API lists all names, and the search finds them
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "embvar-kit"},
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 8,
    "navigation_depth": 3,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["sphinx-version"],
    "footer_end": ["theme-version"],
    "search_bar_text": "Search these pages",
}
# The front page has no neighbours to list.
html_sidebars = {"index": []}


def name_neighbours(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Call the previous and the next page what the navigation calls them."""
    names = {
        app.builder.get_relative_uri(page, to): name
        for contents in app.env.tocs.values()
        for listed in contents.findall(addnodes.toctree)
        for name, to in listed["entries"]
        if name and to in app.env.found_docs
    }
    for side in ("prev", "next"):
        neighbour = context.get(side)
        if neighbour and neighbour["link"] in names:
            context[f"{side}_title"] = names[neighbour["link"]]


def setup(app: Sphinx) -> None:
    """Name neighbours, and write the default that a function makes of a field as an ellipsis."""
    app.connect("html-page-context", name_neighbours)
    app.connect(
        "autodoc-process-signature",
        lambda app, what, name, obj, options, signature, returns: (
            signature and signature.replace("<factory>", "..."),
            returns,
        ),
    )
