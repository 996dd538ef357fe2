"""The five groups of settings that a run consists of, each with what its values may be.

`catchup.training.settings.Settings` is all of them, flat.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from ..utils.choices import check_least, pick

SCHEDULES = ("cosine", "step", "onecycle", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LOADERS = ("auto", "resident", "stream")


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which images a run trains on, and where they come from.

    Args:
        data: Data set: digits, shapes, cifar10, cifar100, tiny-imagenet, or folder:PATH (see
            `catchup datasets`).
        data_dir: Where data sets are kept, and downloaded to.
        image_size: Resize images read from folders to this many pixels a side.
        skip_unreadable: Leave out images that cannot be read, with a warning, instead of stopping
            at the first.
        loader: resident: all images in memory, decoded once. stream: decoded from their files, a
            few batches ahead. auto: resident if they fit into memory. The result is the same, to
            the last bit.
        workers: Loader stream: processes that decode; 0 decodes in the process that trains. None:
            one less than there are processors.
        subset: Train on a balanced part: a share of each class (0.1), or a number of images per
            class (50).
    """

    data: str = "digits"
    data_dir: str = "data"
    image_size: int | None = None
    skip_unreadable: bool = False
    loader: Literal["auto", "resident", "stream"] = "auto"
    workers: int | None = None
    subset: int | float | None = None

    def __post_init__(self) -> None:
        pick("loader", self.loader, LOADERS)
        if self.workers is not None and self.workers < 0:
            raise ValueError(
                f"workers must be at least 0, or None for as many as are usual, got {self.workers}"
            )


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The network, and the method that trains it.

    Args:
        model: resnet18, preact_resnet18, torchvision.NAME or timm.NAME.
        width: Channels of the stem of our own models (64 is the full size).
        stem_stride: Stride of the stem of our own models; 1 in the CIFAR protocols.
        stem: Beginning of our own models: small (3x3, for small images) or imagenet (7x7, stride 2,
            then pooled); None: what is usual for the model.
        pretrained: Begin with ImageNet's weights instead of random ones.
        norm_before_pool: preact_resnet18 only: batch norm and ReLU before the pooling.
        method: The training method (see `catchup methods`).
        method_settings: The method's own settings.
    """

    model: str = "resnet18"
    width: int | None = None
    stem_stride: int = 1
    stem: Literal["small", "imagenet"] | None = None
    pretrained: bool = False
    norm_before_pool: bool = False
    method: str = "catchup"
    method_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stem is not None:
            pick("stem", self.stem, ("small", "imagenet"))


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings:
    """How long the weights are trained, in what steps: stochastic gradient descent with momentum.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step, over all devices; at least two, as batch norm needs.
        lr: Learning rate, the highest of the schedule.
        min_lr: Schedule cosine: where it ends. 0 in most protocols; AutoMix's runs on CIFAR end at
            0.05.
        momentum: Share of the last step that is added to the next, in [0, 1).
        nesterov: Nesterov's form of momentum.
        weight_decay: L2 penalty, on all parameters.
        schedule: How the learning rate changes, step by step.
        milestones: Schedule step: shares of the run after which the rate is divided by ten.
        warmup_epochs: Epochs over which the rate rises linearly to the schedule's own; parts of an
            epoch count.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    min_lr: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "onecycle", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        _check_counts(self, epochs=1, batch_size=2)
        pick("schedule", self.schedule, SCHEDULES)
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be a positive number, got {self.lr}")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr must lie in 0 … lr = {self.lr}, got {self.min_lr}")
        if not 0 <= self.weight_decay < math.inf or not 0 <= self.momentum < 1:
            raise ValueError(
                "weight_decay must be ≥ 0 and momentum in [0, 1), "
                f"got {self.weight_decay} and {self.momentum}"
            )
        if self.schedule == "step" and not all(0 < share < 1 for share in self.milestones):
            raise ValueError(
                f"milestones are shares of the run between 0 and 1, got {self.milestones}"
            )
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"warmup_epochs must lie in [0, epochs = {self.epochs}), got {self.warmup_epochs}"
            )
        if self.warmup_epochs and self.schedule == "onecycle":
            raise ValueError(
                "the schedule onecycle begins with a rise of its own; set warmup_epochs to 0"
            )


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """What training does to the images before they are mixed; `catchup.data.augment` checks it.

    Args:
        augment: Random crops and flips, as the data set or the settings below define them.
        pad: Pixels around an image before it is cut; None: the data set's, or 0 with a window or a
            resized crop.
        pad_mode: What the border holds; None: the data set's (zero).
        window: Side of the square that is cut out, at a random place in training and of the middle
            in evaluation: image size 256 and window 224, for example. None: the image's size.
        resized_scale: Instead, cut a random box with a share of the area between these two (0.08
            1.0 is usual) and bring it to that size.
        resized_ratio: Width / height of the box lies between these two.
        resized_interpolation: How the resized box is interpolated; antialiased.
        jitter: Brightness, contrast and saturation change by up to this share, in random order; 0.4
            is usual.
        pca_noise: Standard deviation of the noise along ImageNet's colour components (AlexNet's
            "lighting"); 0.1 is usual.
        normalisation: Mean and standard deviation: the data set's own, or those of CIFAR-100,
            ImageNet or 0.5.
    """

    augment: bool = True
    pad: int | None = None
    pad_mode: Literal["zero", "reflect"] | None = None
    window: int | None = None
    resized_scale: tuple[float, float] | None = None
    resized_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resized_interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    jitter: float = 0.0
    pca_noise: float = 0.0
    normalisation: Literal["data", "cifar", "imagenet", "half"] = "data"


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How the run is carried out and kept.

    Args:
        precision: Of forward and backward passes; auto is bf16 where the processor has it in
            hardware, else fp32. The record of a run says which it was, and a resumed run keeps it.
        compile: Compile the blocks (torch.compile): minutes at the start, no gain on CPUs; meant
            for GPUs.
        device: auto takes a GPU if there is one.
        seed: Of the subset, the initial weights, the order, the augmentation and the mixing.
        validate_every: Epochs between two validations; the last ten epochs are always validated,
            unless it is 0: then the last one alone.
        save_every_s: Seconds between two checkpoints inside an epoch; 0 saves after every step,
            None at the end of epochs alone. The result does not depend on it.
        recipe: A published protocol to take the settings from (see `catchup recipes`); what is
            given besides goes before it. It is looked up by the command line and by
            `catchup.training.recipes.settings_of`; here it is a label.
        scale: Of the recipe: full, small, tiny, or a share of its epochs and images; a label too.
    """

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0
    validate_every: int = 1
    save_every_s: float | None = 600.0
    recipe: str | None = None
    scale: str | None = None

    def __post_init__(self) -> None:
        _check_counts(self, validate_every=0, seed=0)
        pick("precision", self.precision, PRECISIONS)
        pick("device", self.device, ("auto", "cpu"))
        if self.save_every_s is not None and not self.save_every_s >= 0:
            raise ValueError(f"save_every_s must be at least 0, or None, got {self.save_every_s}")
        if self.scale is not None and self.recipe is None:
            raise ValueError(f"a scale is that of a recipe, and none is named; got {self.scale!r}")


def _check_counts(settings: object, **least: int) -> None:
    """ValueError unless these settings are at least so much, and what PyTorch can count."""
    check_least(settings, **least)
    for name in least:
        if getattr(settings, name) >= 2**31:  # PyTorch would say so far away from here
            raise ValueError(f"{name} must be less than 2**31, got {getattr(settings, name)}")
