"""Figures: tidy rows or tensors in, matplotlib's Axes out. Nothing is computed but means and
spreads.

A method has one colour and one marker in every figure (`style`). Amounts are drawn in cividis,
which reads in grey. Without `ax` a function makes a pyplot figure; with one it touches nothing
else, so it may run in any thread.
"""

from .ablations import lam_card, power_curves, setting_differences, smaller_share
from .background import (
    bias_caption,
    bias_dial,
    selectivity,
    selectivity_caption,
    shares_over_epochs,
)
from .budget import budget_curves, save_budgets
from .corruption import plot_corruption_errors, plot_corruption_grid
from .cues import cues_caption, cues_over_budgets, save_cues
from .filters import (
    history_caption,
    norm_gradient,
    norm_gradient_caption,
    norms_over_epochs,
    reliance_over_epochs,
    weak_and_strong,
)
from .landscape import landscape_caption, plot_lines, plot_surface
from .localization import localization_caption, plot_box_accuracy, plot_localization
from .methods import gallery_caption, label_weights, method_gallery, who_decides
from .mixing import lessons, lessons_caption, mixed_maps, rfi_cut
from .results import (
    AXIS_LABELS,
    CURVES,
    DROPPED,
    beta_densities,
    beta_density,
    caption,
    error_bars,
    feature_drop_curves,
    save,
    training_curves,
)
from .robustness import deformation_bars, ood_histograms, plot_reliability
from .sensitivity import frequency_maps, occlusion_curves
from .style import COLOURS, LINES, MARKERS, NEUTRAL, style, title
from .table import NumberTable
from .wall import activation_wall

__all__ = [
    "AXIS_LABELS",
    "COLOURS",
    "CURVES",
    "DROPPED",
    "LINES",
    "MARKERS",
    "NEUTRAL",
    "NumberTable",
    "activation_wall",
    "beta_densities",
    "beta_density",
    "bias_caption",
    "bias_dial",
    "budget_curves",
    "caption",
    "cues_caption",
    "cues_over_budgets",
    "deformation_bars",
    "error_bars",
    "feature_drop_curves",
    "frequency_maps",
    "gallery_caption",
    "history_caption",
    "label_weights",
    "lam_card",
    "landscape_caption",
    "lessons",
    "lessons_caption",
    "localization_caption",
    "method_gallery",
    "mixed_maps",
    "norm_gradient",
    "norm_gradient_caption",
    "norms_over_epochs",
    "occlusion_curves",
    "ood_histograms",
    "plot_box_accuracy",
    "plot_corruption_errors",
    "plot_corruption_grid",
    "plot_lines",
    "plot_localization",
    "plot_reliability",
    "plot_surface",
    "power_curves",
    "reliance_over_epochs",
    "rfi_cut",
    "save",
    "save_budgets",
    "save_cues",
    "selectivity",
    "selectivity_caption",
    "setting_differences",
    "shares_over_epochs",
    "smaller_share",
    "style",
    "title",
    "training_curves",
    "weak_and_strong",
    "who_decides",
]
