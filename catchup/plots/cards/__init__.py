"""Cards: plain functions from stored values to a figure, one under each slider of the widgets."""

from .activations import activation_card, filter_card, live_card
from .playground import near_plain, playground_card
from .radius import mean_rise, radius_card, sharpness_within
from .severity import Severities, ask_networks, severity_card
from .threshold import Sweep, sweep_thresholds, threshold_card

__all__ = [
    "Severities",
    "Sweep",
    "activation_card",
    "ask_networks",
    "filter_card",
    "live_card",
    "mean_rise",
    "near_plain",
    "playground_card",
    "radius_card",
    "severity_card",
    "sharpness_within",
    "sweep_thresholds",
    "threshold_card",
]
