"""Widgets for JupyterLab and voila: thin shells over plain functions, at the edge of the package.

Nothing else in the package imports this one, and importing it needs the extra `notebooks`.
"""

from ..utils.optional import require

require("ipywidgets")
require("anywidget")

from .controls import Controls, Explorer, explore  # noqa: E402 -- after the sentence for a missing package
from .inspector import MaskInspector, mask_inspector  # noqa: E402
from .kinds import Buttons, Choice, Play, Range  # noqa: E402
from .panels import (  # noqa: E402
    activation_explorer,
    filter_browser,
    gallery_explorer,
    lam_playground,
    live_panel,
)

__all__ = [
    "Buttons",
    "Choice",
    "Controls",
    "Explorer",
    "MaskInspector",
    "Play",
    "Range",
    "activation_explorer",
    "explore",
    "filter_browser",
    "lam_playground",
    "live_panel",
    "mask_inspector",
    "gallery_explorer",
]
