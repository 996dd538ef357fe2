"""Everything that decides a training run, as one value: what the command line fills in and
`run.json` records.
"""

import math
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from ..utils.choices import check_least, pick

SCHEDULES = ("cosine", "step", "onecycle", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LABELS = ("recipe", "scale", "save_every_s", "loader", "workers")  # decide nothing about the result
# Settings that records made before them lack. A record leaves them out where they are off, so that
# it says the same as an older one of the same run.
LATER = (
    *LABELS,
    "stem",
    "pretrained",
    "warmup_epochs",
    "pad",
    "pad_mode",
    "window",
    "resized_scale",
    "resized_ratio",
    "resized_interpolation",
    "jitter",
    "lighting",
    "normalisation",
    "compile",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one run.

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
        model: resnet18, preact_resnet18, torchvision.NAME or timm.NAME.
        width: Channels of the stem of our own models (64 is the full size).
        stem_stride: Stride of the stem of our own models; 1 in the CIFAR protocols.
        stem: Beginning of our own models: small (3x3, for small images) or imagenet (7x7, stride 2,
            then pooled); None: what is usual for the model.
        pretrained: Begin with ImageNet's weights instead of random ones.
        final_norm: preact_resnet18 only: batch norm and ReLU before the pooling.
        method: The training method (see `catchup methods`).
        method_settings: The method's own settings.
        epochs: Passes over the training images.
        batch_size: Images per step, over all devices; at least two, as batch norm needs.
        lr: Learning rate, the highest of the schedule.
        min_lr: Schedule cosine: where it ends. 0 in most protocols; AutoMix's runs on CIFAR end at
            0.05.
        momentum: Of SGD.
        nesterov: Nesterov's form of momentum.
        weight_decay: L2 penalty, on all parameters.
        schedule: How the learning rate changes, step by step.
        milestones: Schedule step: shares of the run after which the rate is divided by ten.
        warmup_epochs: Epochs over which the rate rises linearly to the schedule's own; parts of an
            epoch count.
        augment: Random crops and flips, as the data set or the settings below define them.
        pad: Pixels around an image before it is cut; None: the data set's, or 0 with a window or a
            resized crop.
        pad_mode: What the border holds; None: the data set's (zero).
        window: Side of the square that is cut out, at a random place in training and of the middle
            in evaluation: image size 256 and window 224, for example. None: the image's size.
        resized_scale: Instead, cut a random box with a share of the area between these two (0.08
            1.0 is usual) and bring it to that size.
        resized_ratio: Width / height of the box lies between these two.
        resized_interpolation: Of the resized box; antialiased.
        jitter: Brightness, contrast and saturation change by up to this share, in random order; 0.4
            is usual.
        lighting: Standard deviation of the noise along ImageNet's colour components; 0.1 is usual.
        normalisation: Mean and standard deviation: the data set's own, or those of CIFAR-100,
            ImageNet or 0.5.
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

    data: str = "digits"
    data_dir: str = "data"
    image_size: int | None = None
    skip_unreadable: bool = False
    loader: Literal["auto", "resident", "stream"] = "auto"
    workers: int | None = None
    subset: int | float | None = None
    model: str = "resnet18"
    width: int | None = None
    stem_stride: int = 1
    stem: Literal["small", "imagenet"] | None = None
    pretrained: bool = False
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
    warmup_epochs: float = 0.0
    augment: bool = True
    pad: int | None = None
    pad_mode: Literal["zero", "reflect"] | None = None
    window: int | None = None
    resized_scale: tuple[float, float] | None = None
    resized_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    resized_interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    jitter: float = 0.0
    lighting: float = 0.0
    normalisation: Literal["data", "cifar", "imagenet", "half"] = "data"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False
    device: Literal["auto", "cpu"] = "auto"
    seed: int = 0
    validate_every: int = 1
    save_every_s: float | None = 600.0
    recipe: str | None = None
    scale: str | None = None

    def __post_init__(self):
        check_least(self, epochs=1, validate_every=0, batch_size=2, seed=0)
        for name in ("epochs", "validate_every", "batch_size", "seed"):
            if getattr(self, name) >= 2**31:  # PyTorch would say so far away from here
                raise ValueError(f"{name} must be less than 2**31, got {getattr(self, name)}")
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
        if self.scale is not None and self.recipe is None:
            raise ValueError(f"a scale is that of a recipe, and none is named; got {self.scale!r}")
        if self.save_every_s is not None and not self.save_every_s >= 0:
            raise ValueError(f"save_every_s must be at least 0, or None, got {self.save_every_s}")
        if self.stem is not None:
            pick("stem", self.stem, ("small", "imagenet"))
        pick("schedule", self.schedule, SCHEDULES)
        pick("precision", self.precision, PRECISIONS)
        pick("device", self.device, ("auto", "cpu"))
        pick("loader", self.loader, ("auto", "resident", "stream"))
        if self.workers is not None and self.workers < 0:
            raise ValueError(
                f"workers must be at least 0, or None for as many as are usual, got {self.workers}"
            )

    def as_dict(self) -> dict:
        """Plain values, ready for JSON, those of `LATER` only where they are not off; `from_dict`
        gives them back.
        """
        off = {field.name: field.default for field in fields(self) if field.name in LATER}
        return {
            key: value for key, value in asdict(self).items() if key not in off or value != off[key]
        }

    @classmethod
    def from_dict(cls, values: dict) -> "Settings":
        """The settings that a `run.json` records; what an older record lacks has its default.

        Raises:
            TypeError: for a name that is no setting, or a value of another type than its setting
                has.
            ValueError: for a value out of range.
        """
        pairs = ("milestones", "resized_scale", "resized_ratio")  # JSON has made lists of them
        made = cls(
            **{
                key: tuple(value) if key in pairs and value is not None else value
                for key, value in values.items()
            }
        )
        for name, kind in get_type_hints(cls).items():
            if not _is_a(getattr(made, name), kind):
                raise TypeError(f"{name} cannot be {str(getattr(made, name))[:50]!r}")
        return made


def _is_a(value, kind) -> bool:
    """Is `value` of the annotated type, where an integer may stand for a float?"""
    of, parts = get_origin(kind), get_args(kind)
    if of in (Union, UnionType):
        return any(_is_a(value, part) for part in parts)
    if of is Literal:
        return value in parts
    if of is tuple:
        kinds = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return (
            isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is_a, value, kinds))
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
