"""Hooks: finding the layers of a model, and reading or changing what they pass on, for the length
of a `with` block.

Nothing here knows a mixing method. `blocks` reads a model's layer blocks off its modules, `layers`
edits and captures what a layer returns, `branches` finds residual branches, `class_maps` the maps
that a classifier reads, and `compiled` compiles a model block by block so that the hooks between
them still run.
"""

from .blocks import find_blocks, remembered_blocks, submodule, unwrap
from .branches import residual_branches
from .class_maps import class_activation_map, pooled_maps
from .classifier import find_classifier
from .compiled import compile_blocks
from .layers import captured, count_hooks, edited, evaluating, hookable, hooked, map_channels

__all__ = [
    "captured",
    "class_activation_map",
    "compile_blocks",
    "count_hooks",
    "edited",
    "evaluating",
    "find_blocks",
    "find_classifier",
    "hookable",
    "hooked",
    "map_channels",
    "pooled_maps",
    "remembered_blocks",
    "residual_branches",
    "submodule",
    "unwrap",
]
