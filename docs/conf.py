"""Sphinx's settings; `python docs/build.py` lays out the pages and calls it."""

import re

project = "catchup"
author = "The catchup developers"
copyright = "2026, the catchup developers. MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_static"]
html_theme = "furo"
html_title = "catchup"
html_static_path = ["_static"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"sidebar_hide_name": False}

# The pages ask nobody for anything: notebooks come with their outputs, formulas are drawn by the
# browser's own MathML, widgets are pages of their own.
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
html_math_renderer = "mathml"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"  # a docstring's `name`
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a field is described once, in its class
autodoc_typehints = "none"  # the docstrings say them, with shapes and ranges
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": False}


def write_mathml(self, node):
    """A formula as MathML, which browsers draw themselves: no script, nothing to fetch."""
    from docutils import nodes
    from docutils.utils.math.latex2mathml import tex2mathml

    self.body.append(tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
    raise nodes.SkipNode


def escape_signs(app, what, name, obj, options, lines):
    """Docstrings are plain text with `code`: bars, stars and a last underline mean themselves."""
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"([|*]|_\b(?=\W|$))", r"\\\1", part) for part in parts[::2]]
        lines[number] = "`".join(parts)


def setup(app):
    app.connect("autodoc-process-docstring", escape_signs, priority=400)  # before napoleon
    app.add_html_math_renderer("mathml", (write_mathml, None), (write_mathml, None))
