"""Measures: numbers of a trained model. One registry, one file a measurement, and the statistics
over seeds.

A measurement is a function from a model and images to plain numbers, and one entry of `MEASURES`:
evaluation, comparison and command line then know it.
"""

from .registry import MEASURES, Measure, Options, Subject, columns
from .statistics import accuracy_without, comparison, differences

__all__ = [
    "MEASURES",
    "Measure",
    "Options",
    "Subject",
    "accuracy_without",
    "columns",
    "comparison",
    "differences",
]
