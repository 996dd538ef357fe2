"""The nineteen corruptions of CIFAR-C, each for a whole batch on its device.

Source: Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, with the numbers of make_cifar_c.py, the authors' program for CIFAR-10-C
and CIFAR-100-C.

Each is a function f(images, severity, generator): images (B, C, H, W) float32 in [0, 1], C = 1 or
3, sides of at least 8; severity 1 to 5; a CPU generator, so that a seed means the same on every
device. It returns new images, like those given; ValueError if an argument is not so. Chance comes
from the generator alone; some use none, and say so.

The numbers are those for 32 pixels at every size: lengths in pixels stay what they are and so weigh
less in larger images; only `elastic_transform` scales with the side and `fog` with the next power
of two, as in the source. The other, much harder numbers of ImageNet-C and Tiny-ImageNet-C are used
for no size.

What differs from the source: `frost` (a synthetic pane unless photographs are given), `spatter` of
an image without a drop (unchanged, not black), float32 instead of float64, and chance, which comes
from another generator.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from . import blur, digital, liquid, noise, weather
from .base import quantise
from .constants import CONSTANTS, EXTRA, FAMILIES, STANDARD

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]

SEVERITIES = (1, 2, 3, 4, 5)
_FUNCTIONS = {
    name: function
    for module in (noise, blur, weather, digital, liquid)
    for name, function in vars(module).items()
}
CORRUPTIONS: dict[str, Corruption] = {name: _FUNCTIONS[name] for name in (*STANDARD, *EXTRA)}

__all__ = [
    "CONSTANTS",
    "CORRUPTIONS",
    "EXTRA",
    "FAMILIES",
    "SEVERITIES",
    "STANDARD",
    "Corruption",
    "quantise",
]
