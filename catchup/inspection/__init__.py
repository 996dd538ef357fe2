"""Inspection: what a model, or a method, does with images: filters watched in training, strength
and reliance, maps and masks, attribution, and the methods side by side. Tensors and tidy rows come
out; nothing is drawn here.
"""

from .recorder import Record, recording
from .snapshots import Snapshots

__all__ = ["Record", "Snapshots", "recording"]
