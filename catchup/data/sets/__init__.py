"""The data sets by name, each with the reader of its official layout; the generated scenes, shape
on texture, can be drawn one by one.
"""

from .outlines import boxes_of
from .shapes import SHAPES, Scene, draw_scenes, images_of, render, test_sets

__all__ = ["SHAPES", "Scene", "boxes_of", "draw_scenes", "images_of", "render", "test_sets"]
