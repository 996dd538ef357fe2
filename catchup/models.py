"""Models: our residual networks for small images, and every torchvision or timm classifier, through one `create`.

Sources: He, Zhang, Ren & Sun, CVPR 2016 (ResNet) and ECCV 2016 (pre-activation), in the form the CIFAR protocols use:
a 3x3 stem without max pooling and four stages of `width`, 2, 4 and 8 times `width` channels.
Initialisation: convolutions He normal with fan_out (He et al., ICCV 2015), BatchNorm weight 1 and bias 0, the last
linear layer as PyTorch does it. ReLUs are not in place, so that what a hook sees is what the layer returned.
"""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .choices import pick


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size when stride is 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """conv3x3-bn-relu-conv3x3-bn, plus the shortcut (1x1 convolution and bn where the shape changes), relu."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(_conv(inputs, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(inner + self.shortcut(maps))


class PreActBlock(nn.Module):
    """bn-relu-conv3x3-bn-relu-conv3x3, plus the shortcut: the input, or a 1x1 convolution of bn-relu of it."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), _conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv(width, width, 3)
        self.shortcut = _conv(inputs, width, 1, stride) if stride != 1 or inputs != width else None

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return inner + (maps if self.shortcut is None else self.shortcut(active))


class _ResidualNet(nn.Module):
    """Stem, four stages, [norm], global average pooling, linear layer."""

    def __init__(self, stem: nn.Module, block: type[nn.Module], depths: Sequence[int], *, width: int,
                 num_classes: int, final_norm: bool) -> None:
        super().__init__()
        self.stem, channels = stem, width
        for stage, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if final_norm else None
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, (B, num_classes), of images (B, in_channels, H, W)."""
        maps = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(images)))))
        maps = maps if self.norm is None else self.norm(maps)
        return self.fc(maps.mean(dim=(2, 3)))


class ResNet(_ResidualNet):
    """ResNet for small images: stem conv3x3-bn-relu, no max pooling.

    Args:
        block: the residual block, a module class called as block(inputs, width, stride), with an `expansion`.
        depths: number of blocks of each of the four stages.
        num_classes, in_channels, width: >= 1; channels of the stem and of the first stage = `width`.
        stem_stride: >= 1; 1 in the CIFAR protocols, 2 in some Tiny-ImageNet ones.
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1.
    """

    def __init__(self, block: type[nn.Module], depths: Sequence[int], *, num_classes: int, in_channels: int = 3,
                 width: int = 64, stem_stride: int = 1) -> None:
        _check_counts(num_classes=num_classes, in_channels=in_channels, width=width, stem_stride=stem_stride)
        stem = nn.Sequential(_conv(in_channels, width, 3, stem_stride), nn.BatchNorm2d(width), nn.ReLU())
        super().__init__(stem, block, depths, width=width, num_classes=num_classes, final_norm=False)


class PreActResNet(_ResidualNet):
    """Pre-activation ResNet for small images: stem conv3x3 alone, no BatchNorm.

    The shape has no single definition. Without BatchNorm and ReLU between the last stage and the pooling
    (`final_norm=False`): AlignMixup, whose protocol Catch-up Mix follows, PuzzleMix, GuidedMixup and Manifold Mixup.
    With them (`final_norm=True`): the original paper and allthemix.

    Args:
        block, depths, num_classes, in_channels, width, stem_stride: as for `ResNet`, with a pre-activation block.
        final_norm: BatchNorm and ReLU before the pooling.
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1.
    """

    def __init__(self, block: type[nn.Module], depths: Sequence[int], *, num_classes: int, in_channels: int = 3,
                 width: int = 64, stem_stride: int = 1, final_norm: bool = False) -> None:
        _check_counts(num_classes=num_classes, in_channels=in_channels, width=width, stem_stride=stem_stride)
        stem = _conv(in_channels, width, 3, stem_stride)
        super().__init__(stem, block, depths, width=width, num_classes=num_classes, final_norm=final_norm)


def resnet18(*, num_classes: int, in_channels: int = 3, width: int = 64, stem_stride: int = 1) -> ResNet:
    """ResNet-18 for small images; settings and errors as for `ResNet`. CIFAR-100 at width 64: 11,220,132 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels, width=width,
                  stem_stride=stem_stride)


def preact_resnet18(*, num_classes: int, in_channels: int = 3, width: int = 64, stem_stride: int = 1,
                    final_norm: bool = False) -> PreActResNet:
    """PreActResNet-18; settings and errors as for `PreActResNet`. CIFAR-10 at width 64: 11,171,146 parameters."""
    return PreActResNet(PreActBlock, (2, 2, 2, 2), num_classes=num_classes, in_channels=in_channels, width=width,
                        stem_stride=stem_stride, final_norm=final_norm)


OWN = {"resnet18": resnet18, "preact_resnet18": preact_resnet18}


def names() -> list[str]:
    """The names of our own models, as `create` takes them."""
    return list(OWN)


def create(name: str, *, num_classes: int, in_channels: int = 3, width: int | None = None, **options) -> nn.Module:
    """A classifier by name, with random weights; nothing is downloaded.

    Args:
        name: one of `names()`, `torchvision.NAME` or `timm.NAME`; a bare name that is not ours is looked for in
            torchvision, then in timm.
        num_classes: classes told apart, >= 1.
        in_channels: channels of the images, >= 1. A torchvision model gets a new first convolution where it is
            not 3: same settings, PyTorch's default initialisation.
        width: channels of the first stage, >= 1, of our own models (None: 64); the others have no such setting.
        **options: what the model's own builder takes besides (`stem_stride`, `final_norm`, torchvision's `aux_logits`).
    Returns:
        The module: images (B, in_channels, H, W) to scores (B, num_classes).
    Raises:
        ValueError: for an unknown name, a number below 1, a `width` or an option the model does not have, and for a
            timm name where timm is not installed.
    """
    _check_counts(num_classes=num_classes, in_channels=in_channels, width=1 if width is None else width)
    if name in OWN:
        for option in options:
            pick(f"option of {name}", option, list(inspect.signature(OWN[name]).parameters))
        sizes = {} if width is None else {"width": width}
        return OWN[name](num_classes=num_classes, in_channels=in_channels, **sizes, **options)
    library, bare = _found(name)
    if width is not None:
        raise ValueError(f"{library}.{bare} has no width to set, got width={width}; models with one: {', '.join(OWN)}")
    build = {"torchvision": _torchvision_model, "timm": _timm_model}[library]
    return build(bare, num_classes, in_channels, options)


def memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """channels_last, which is faster on CPU and GPU, unless it is not safe.

    On x86 CPUs oneDNN writes outside its memory in the backward pass of a strided 1×1 convolution with fewer input
    channels than one vector holds (8 with AVX2, 16 with AVX-512) in channels_last (oneDNN issue 6035): a crash, a hang
    or wrong weights. Such models, narrow ResNets among them, stay in the ordinary format there.
    """
    at_risk = any(isinstance(module, nn.Conv2d) and set(module.kernel_size) == {1} and max(module.stride) > 1
                  and module.in_channels < 16 for module in model.modules())
    return torch.contiguous_format if at_risk and device.type == "cpu" else torch.channels_last


def _found(name: str) -> tuple[str, str]:
    """Library and bare name of a model that is not ours."""
    prefix, _, bare = name.partition(".")
    explicit = prefix in ("torchvision", "timm")
    if not explicit:
        bare = name
    near = []
    for library in [prefix] if explicit else ["torchvision", "timm"]:
        listed = _listed(library, required=explicit)
        if bare in listed:
            return library, bare
        near += [f"{library}.{match}" for match in get_close_matches(bare, listed)]
    pick("model (own name, torchvision.NAME or timm.NAME)", name, [*names(), *near])  # always raises


def _listed(library: str, required: bool) -> list[str]:
    """The classifiers of a library; where timm is not installed none, or an error if it is required."""
    if library == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    try:
        import timm
    except ImportError:
        if required:
            raise ValueError("timm models need the package timm: pip install 'catchup-mix[timm]'") from None
        return []
    return timm.list_models()


def _torchvision_model(name: str, num_classes: int, in_channels: int, options: dict) -> nn.Module:
    """The torchvision model, its first convolution replaced where the images do not have three channels."""
    from torchvision import models

    model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if in_channels == 3:
        return model
    path, old = next((path, part) for path, part in model.named_modules() if isinstance(part, nn.Conv2d))
    new = nn.Conv2d(in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,
                    old.groups, old.bias is not None, old.padding_mode)
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    return model


def _timm_model(name: str, num_classes: int, in_channels: int, options: dict) -> nn.Module:
    """The timm model."""
    import timm

    return timm.create_model(name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options)


def _check_counts(**counts: int) -> None:
    """Raise ValueError for the first of `counts` that is not a whole number >= 1."""
    for setting, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{setting} must be a whole number >= 1, got {count!r}")
