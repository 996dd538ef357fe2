"""Inspection: what a model, or a method, does with images: filters watched in training, strength
and reliance, maps and masks, attribution, and the methods side by side. Tensors and tidy rows come
out; nothing is drawn here.
"""

from .activations import Observations, observe
from .attribution import grad_cam, saliency
from .masks import MaskInspection, inspect_masks
from .methods import (
    MethodGallery,
    MethodResult,
    make_gallery,
    mask_sources,
    result_rows,
    run_method,
    run_methods,
)
from .recorder import Record, recording
from .reliance import (
    drop_area,
    effective_filters,
    gini,
    measure_norm_gradient,
    measure_reliance,
    top_share,
)
from .selectivity import filter_selectivity, variance_shares
from .snapshots import Snapshots
from .strength import order_correlation, rank_correlation, weak_and_strong

__all__ = [
    "MaskInspection",
    "MethodGallery",
    "MethodResult",
    "Observations",
    "Record",
    "Snapshots",
    "drop_area",
    "effective_filters",
    "filter_selectivity",
    "gini",
    "grad_cam",
    "inspect_masks",
    "make_gallery",
    "mask_sources",
    "measure_norm_gradient",
    "measure_reliance",
    "observe",
    "order_correlation",
    "rank_correlation",
    "recording",
    "result_rows",
    "run_method",
    "run_methods",
    "saliency",
    "top_share",
    "variance_shares",
    "weak_and_strong",
]
