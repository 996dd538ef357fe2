"""Attacks that need no step length chosen by hand, and what is left after all of them.

apgd.py      Auto-PGD: a gradient attack that halves its steps where it does not get on
square.py    Square: a random search that looks at the answers alone, no gradient
ensemble.py  the images that withstand them all
"""

from .apgd import apgd, dlr_loss, targeted_dlr_loss
from .ensemble import ATTACKS, check_classes, measure_attacks
from .square import square

__all__ = [
    "ATTACKS",
    "apgd",
    "check_classes",
    "dlr_loss",
    "measure_attacks",
    "square",
    "targeted_dlr_loss",
]
