"""Measures: numbers of a trained model. One registry, one file a measurement, and the statistics
over seeds.

A measurement is a function from a model and images to plain numbers, and one entry of `MEASURES`:
evaluation, comparison and command line then know it.
"""

from .attacks import apgd, dlr_loss, measure_attacks, square, targeted_dlr_loss
from .calibration import measure_calibration
from .cam import class_maps, enlarge_maps
from .confidence import (
    adaptive_calibration_error,
    brier_score,
    fit_temperature,
    measure_confidence,
    negative_log_likelihood,
    risk_coverage,
)
from .corruption import corrupt, corruption_errors, corruption_tiles
from .cues import cue_sets, measure_cues
from .deformation import deform_images, deformation_accuracies
from .equal_learning import describe_match, match_learning
from .feature_drop import drop_features, feature_drop_curve, pooled_features
from .frequencies import frequency_errors, wave
from .hessian import hessian_trace, hessian_vector_product, top_eigenpairs, weight_gradient
from .landscape import (
    balanced_sample,
    loss_line,
    loss_surface,
    measure_landscape,
    random_direction,
    symmetric_radii,
)
from .localization import find_regions, largest_boxes, locate, measure_localization
from .occlusion import cover, occlusion_curve, patch_saliency
from .ood import measure_imagenet_o, measure_ood, msp_scores, ood_metrics, ood_scores
from .outside import energy_scores, max_logit_scores, measure_outside, neighbour_scores
from .power import interval_power, pooled_spread, seeds_needed
from .registry import MEASURES, Measure, columns
from .robustness import attack_error, fgsm, loss_gradient, masking_verdict, pgd
from .statistics import accuracy_without, by_method, comparison, differences, interval, method_of
from .subject import Options, Subject

__all__ = [
    "MEASURES",
    "Measure",
    "Options",
    "Subject",
    "accuracy_without",
    "adaptive_calibration_error",
    "apgd",
    "attack_error",
    "balanced_sample",
    "brier_score",
    "by_method",
    "class_maps",
    "columns",
    "comparison",
    "corrupt",
    "corruption_errors",
    "corruption_tiles",
    "cover",
    "cue_sets",
    "deform_images",
    "deformation_accuracies",
    "describe_match",
    "differences",
    "dlr_loss",
    "drop_features",
    "energy_scores",
    "enlarge_maps",
    "feature_drop_curve",
    "fgsm",
    "find_regions",
    "fit_temperature",
    "frequency_errors",
    "hessian_trace",
    "hessian_vector_product",
    "interval",
    "interval_power",
    "largest_boxes",
    "locate",
    "loss_gradient",
    "loss_line",
    "loss_surface",
    "masking_verdict",
    "match_learning",
    "max_logit_scores",
    "measure_attacks",
    "measure_calibration",
    "measure_confidence",
    "measure_cues",
    "measure_imagenet_o",
    "measure_landscape",
    "measure_localization",
    "measure_ood",
    "measure_outside",
    "method_of",
    "msp_scores",
    "negative_log_likelihood",
    "neighbour_scores",
    "occlusion_curve",
    "ood_metrics",
    "ood_scores",
    "patch_saliency",
    "pgd",
    "pooled_features",
    "pooled_spread",
    "random_direction",
    "risk_coverage",
    "seeds_needed",
    "square",
    "symmetric_radii",
    "targeted_dlr_loss",
    "top_eigenpairs",
    "wave",
    "weight_gradient",
]
