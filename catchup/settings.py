"""Everything that decides a training run, as one value: what the command line fills in and `run.json` records."""

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from .choices import pick

SCHEDULES = ("cosine", "step", "onecycle", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run.

    Args:
        data: Data set: digits, shapes, cifar10, cifar100, tiny-imagenet, or folder:PATH (see `catchup datasets`).
        data_dir: Where data sets are kept, and downloaded to.
        image_size: Resize images read from folders to this many pixels a side.
        skip_unreadable: Leave out images that cannot be read, with a warning, instead of stopping at the first.
        subset: Train on a balanced part: a share of each class (0.1), or a number of images per class (50).
        model: resnet18, preact_resnet18, torchvision.NAME or timm.NAME.
        width: Channels of the stem of our own models (64 is the full size).
        stem_stride: Stride of the stem of our own models; 1 in the CIFAR protocols.
        final_norm: preact_resnet18 only: batch norm and ReLU before the pooling.
        method: The training method (see `catchup methods`).
        method_settings: The method's own settings.
        epochs: Passes over the training images.
        batch_size: Images per step, over all devices; at least two, as batch norm needs.
        lr: Learning rate, the highest of the schedule.
        min_lr: Schedule cosine: where it ends. 0 in most protocols; AutoMix's runs on CIFAR end at 0.05.
        momentum: Of SGD.
        nesterov: Nesterov's form of momentum.
        weight_decay: L2 penalty, on all parameters.
        schedule: How the learning rate changes, step by step.
        milestones: Schedule step: shares of the run after which the rate is divided by ten.
        augment: Random crops and flips, as the data set defines them.
        precision: Mixed precision of forward and backward passes.
        device: auto takes a GPU if there is one.
        seed: Of the subset, the initial weights, the order, the augmentation and the mixing.
        validate_every: Epochs between two validations; the last ten epochs are always validated.
    """

    data: str = "digits"
    data_dir: str = "data"
    image_size: int | None = None
    skip_unreadable: bool = False
    subset: int | float | None = None
    model: str = "resnet18"
    width: int | None = None
    stem_stride: int = 1
    final_norm: bool = False
    method: str = "catchup"
    method_settings: dict = field(default_factory=dict)
    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    min_lr: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "onecycle", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    augment: bool = True
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0
    validate_every: int = 1

    def __post_init__(self):
        for name, least in (("epochs", 1), ("validate_every", 1), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a positive number, got {self.lr}")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr must lie in 0 … lr = {self.lr}, got {self.min_lr}")
        if not 0 <= self.weight_decay < math.inf or not 0 <= self.momentum < 1:
            raise ValueError("weight_decay must be ≥ 0 and momentum in [0, 1), "
                             f"got {self.weight_decay} and {self.momentum}")
        if self.schedule == "step" and not all(0 < share < 1 for share in self.milestones):
            raise ValueError(f"milestones are shares of the run between 0 and 1, got {self.milestones}")
        pick("schedule", self.schedule, SCHEDULES)
        pick("precision", self.precision, PRECISIONS)
        pick("device", self.device, ("auto", "cpu"))

    def as_dict(self) -> dict:
        """Plain values, ready for JSON; `Settings(**d)` gives the settings back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Settings":
        """The settings that a `run.json` records."""
        return cls(**{**values, "milestones": tuple(values["milestones"])})
