"""Training: a run from its settings, step by step, stored so that it can be taken up again bit for
bit.

`settings` says what a run is, `recipes` what the papers' runs are; `trainer` trains from settings
or on a model of your own, `loop` is the loop itself; `checkpoint`, `state`, `folder` and `lock`
keep the run; `machine/` holds every workaround of a platform.
"""

from .checkpoint import CheckpointError
from .loop import Progress
from .settings import Settings
from .trainer import Result, augmentation_of, dataset_of, fit, model_of, train, try_out

__all__ = [
    "CheckpointError",
    "Progress",
    "Result",
    "Settings",
    "augmentation_of",
    "dataset_of",
    "fit",
    "model_of",
    "train",
    "try_out",
]
