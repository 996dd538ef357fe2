"""Residual networks of four stages: ResNet, ResNeXt and their pre-activation kin.

Sources: He, Zhang, Ren & Sun, CVPR 2016 (ResNet) and ECCV 2016 (pre-activation); Xie et al., CVPR
2017 (ResNeXt). With the small stem in the form the CIFAR protocols use, a 3x3 convolution without
max pooling; with ImageNet's stem as torchvision has them, weight for weight. Four stages of
`width`, 2, 4 and 8 times `width` channels (four times as many behind bottleneck blocks, whose
stride is on the 3x3 convolution). ReLUs are not in place, so that what a hook sees is what the
layer returned; but for those of a sum, which no layer returned.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.choices import check_whole
from .stem import STEMS, build_stem, conv, start_he_normal


class BasicBlock(nn.Module):
    """conv3x3-bn-relu-conv3x3-bn, plus the shortcut (1x1 convolution and bn where the shape
    changes), relu.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(conv(inputs, width, 1, stride), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(maps)))))
        return F.relu(inner + self.shortcut(maps), inplace=True)


class Bottleneck(nn.Module):
    """conv1x1-bn-relu-conv3x3-bn-relu-conv1x1-bn, plus the shortcut as in `BasicBlock`, relu."""

    expansion = 4
    groups, inner = 1, 1  # groups of the 3x3 convolution; its channels in units of `width`

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        inner, outputs = self.inner * width, self.expansion * width
        self.conv1, self.bn1 = conv(inputs, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride, self.groups), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(maps)))
        inner = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(inner)))))
        return F.relu(inner + self.shortcut(maps), inplace=True)


class GroupedBottleneck(Bottleneck):
    """The block of ResNeXt 32x4d: 32 groups, of four channels each in the first stage at width
    64.
    """

    groups, inner = 32, 2


class PreActBlock(nn.Module):
    """bn-relu-conv3x3-bn-relu-conv3x3, plus the shortcut: the input, or a 1x1 convolution of
    bn-relu of it.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3)
        self.shortcut = conv(inputs, width, 1, stride) if stride != 1 or inputs != width else None

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return inner + (maps if self.shortcut is None else self.shortcut(active))


class PreActBottleneck(nn.Module):
    """bn-relu-conv1x1-bn-relu-conv3x3-bn-relu-conv1x1, plus the shortcut as in `PreActBlock`."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), conv(width, outputs, 1)
        self.shortcut = (
            conv(inputs, outputs, 1, stride) if stride != 1 or inputs != outputs else None
        )

    def forward(self, maps: Tensor) -> Tensor:
        active = F.relu(self.bn1(maps))
        inner = self.conv2(F.relu(self.bn2(self.conv1(active))))
        inner = self.conv3(F.relu(self.bn3(inner)))
        return inner + (maps if self.shortcut is None else self.shortcut(active))


class StagedNet(nn.Module):
    """Stem, stages layer1, layer2, …, [norm], global average pooling, linear layer.

    Args:
        block: the residual block, a module class called as block(inputs, width, stride), with an
            `expansion`.
        depths: blocks of each stage; every stage but the first begins with stride 2 and twice the
            width.
        num_classes, in_channels, width: >= 1; `width` is the channels of the first stage.
        stem: "small" or "imagenet", see `build_stem`.
        stem_stride: >= 1, of the small stem; 1 in the CIFAR protocols, 2 in some Tiny-ImageNet
            ones.
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1, or the stem is not so.
    """

    stem_norm = False  # BatchNorm behind the stem's convolution
    stem_relu: tuple[str, ...] = ()  # the stems that end in ReLU
    stem_channels: int | None = None  # None: as many as the first stage's
    norm_before_pool = False  # BatchNorm and ReLU before the pooling

    def __init__(
        self,
        block: type[nn.Module],
        depths: Sequence[int],
        *,
        num_classes: int,
        in_channels: int = 3,
        width: int = 64,
        stem: str = "small",
        stem_stride: int = 1,
    ) -> None:
        check_whole(
            num_classes=num_classes, in_channels=in_channels, width=width, stem_stride=stem_stride
        )
        super().__init__()
        channels, behind = self.stem_channels or width, {"norm": self.stem_norm}
        behind["relu"] = stem in self.stem_relu
        self.stem = build_stem(stem, in_channels, channels, stem_stride, **behind)
        self.n_stages = len(depths)
        for stage, depth in enumerate(depths):
            blocks = []
            for position in range(depth):
                stride = 2 if stage > 0 and position == 0 else 1
                inner = self.block_width(width, stage, position)
                blocks.append(block(channels, inner, stride))
                channels = inner * block.expansion  # type: ignore[attr-defined]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()) if self.norm_before_pool else None
        self.norm = norm
        self.fc = nn.Linear(channels, num_classes)
        start_he_normal(self)

    def block_width(self, width: int, stage: int, position: int) -> int:
        """What a block is told, from the net's width and the block's place."""
        return width * 2**stage

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, (B, num_classes), of images (B, in_channels, H, W)."""
        maps = self.stem(images)
        for stage in range(self.n_stages):
            maps = getattr(self, f"layer{stage + 1}")(maps)
        maps = maps if self.norm is None else self.norm(maps)
        return self.fc(maps.mean(dim=(2, 3)))


class ResNet(StagedNet):
    """ResNet: stem conv-bn-relu; arguments and errors as for `StagedNet`."""

    stem_norm, stem_relu = True, STEMS


class PreActResNet(StagedNet):
    """Pre-activation ResNet: the stem is a convolution alone, without BatchNorm (max pooling behind
    ImageNet's).

    The shape has no single definition. Without BatchNorm and ReLU between the last stage and the
    pooling (`norm_before_pool=False`): AlignMixup, whose protocol Catch-up Mix follows, PuzzleMix,
    GuidedMixup and Manifold Mixup. With them (`norm_before_pool=True`): the original paper and
    allthemix.

    Args:
        block: a pre-activation one.
        depths, settings: as for `StagedNet`.
        norm_before_pool: BatchNorm and ReLU before the pooling.
    Raises:
        ValueError: as `StagedNet`.
    """

    def __init__(
        self,
        block: type[nn.Module],
        depths: Sequence[int],
        *,
        norm_before_pool: bool = False,
        **settings,
    ) -> None:
        self.norm_before_pool = norm_before_pool
        super().__init__(block, depths, **settings)


def resnet18(**settings) -> ResNet:
    """ResNet-18; settings and errors as for `ResNet`. CIFAR-100 at width 64: 11,220,132
    parameters.
    """
    return ResNet(BasicBlock, (2, 2, 2, 2), **settings)


def resnet50(**settings) -> ResNet:
    """ResNet-50; settings and errors as for `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **settings)


def resnext50_32x4d(*, width: int = 64, **settings) -> ResNet:
    """ResNeXt-50, 32x4d; as `ResNet`, and ValueError unless `width` is a multiple of 16, for there
    are 32 groups.
    """
    check_whole(width=width)
    if width % 16:
        raise ValueError(
            f"width must be a multiple of 16, since resnext50_32x4d has 32 groups, got {width}"
        )
    return ResNet(GroupedBottleneck, (3, 4, 6, 3), width=width, **settings)


def preact_resnet18(**settings) -> PreActResNet:
    """PreActResNet-18; settings and errors as for `PreActResNet`. CIFAR-10 at width 64: 11,171,146
    parameters.
    """
    return PreActResNet(PreActBlock, (2, 2, 2, 2), **settings)


def preact_resnet50(**settings) -> PreActResNet:
    """PreActResNet-50; settings and errors as for `PreActResNet`."""
    return PreActResNet(PreActBottleneck, (3, 4, 6, 3), **settings)
