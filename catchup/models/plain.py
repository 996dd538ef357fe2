"""Networks without residual blocks of their own here: VGG-11, and torchvision's DenseNet-121 and
MobileNetV2.

Sources: Simonyan & Zisserman, ICLR 2015 (configuration A); Huang et al., CVPR 2017; Sandler et al.,
CVPR 2018. With ImageNet's stem all three are as torchvision has them, weight for weight. For small
images they are what the CIFAR
protocols make of them: DenseNet begins with a 3x3 convolution and without pooling, MobileNetV2
without the strides of its first convolution and of its third stage, VGG ends in global average
pooling and one linear layer.
"""

from torch import Tensor, nn

from ..utils.choices import check_whole
from .stem import check_stem, conv, start_he_normal

# channels of each convolution in units of `width`; a pooling behind each
VGG_11 = ((1,), (2,), (4, 4), (8, 8), (8, 8))


class VGG(nn.Module):
    """VGG: rows of 3x3 convolutions with max pooling between them.

    Args:
        rows: channels of the convolutions of each row, in units of `width`.
        norm: BatchNorm behind every convolution.
        num_classes, in_channels, width: >= 1.
        stem: "small": the head is global average pooling and a linear layer; "imagenet": the
            paper's head, 7x7 pooling and three linear layers with dropout, 64 times `width` wide.
            The convolutions are the same.
        stem_stride: >= 1, of the first convolution, with "small".
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1, or the stem is not so.
    """

    def __init__(
        self,
        rows: tuple[tuple[int, ...], ...],
        norm: bool = False,
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
        check_stem(stem, stem_stride)
        super().__init__()
        layers, channels, stride = [], in_channels, stem_stride
        for row in rows:
            for outputs in row:
                layers += [
                    nn.Conv2d(channels, outputs * width, 3, stride, padding=1),
                    *[nn.BatchNorm2d(outputs * width)] * norm,
                    nn.ReLU(),
                ]
                channels, stride = outputs * width, 1
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if stem == "small" else 7)
        self.classifier = _classifier(stem, channels, 64 * width, num_classes)
        start_he_normal(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores, (B, num_classes), of images (B, in_channels, H, W) of at least 32 x 32
        pixels.
        """
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def _classifier(stem: str, channels: int, hidden: int, num_classes: int) -> nn.Module:
    """The head; in the long form weights are normal with standard deviation 0.01, as the paper
    starts them.
    """
    if stem == "small":
        return nn.Linear(channels, num_classes)
    first, second = nn.Linear(49 * channels, hidden), nn.Linear(hidden, hidden)
    last = nn.Linear(hidden, num_classes)
    for layer in (first, second, last):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    between = [nn.ReLU(), nn.Dropout(), second, nn.ReLU(), nn.Dropout()]
    return nn.Sequential(first, *between, last)


def vgg11(**settings) -> VGG:
    """VGG-11, eight convolutions without BatchNorm; settings and errors as for `VGG`."""
    return VGG(VGG_11, **settings)


def vgg11_bn(**settings) -> VGG:
    """VGG-11 with BatchNorm behind its eight convolutions; settings and errors as for `VGG`."""
    return VGG(VGG_11, norm=True, **settings)


def densenet121(
    *, num_classes: int, in_channels: int = 3, stem: str = "small", stem_stride: int = 1
) -> nn.Module:
    """DenseNet-121, torchvision's.

    Args:
        num_classes, in_channels: >= 1.
        stem: "imagenet", the paper's, or "small": a 3x3 convolution and no pooling.
        stem_stride: >= 1, of the small stem.
    Raises:
        ValueError: as `VGG`.
    """
    from torchvision.models import densenet121 as build

    check_whole(num_classes=num_classes, in_channels=in_channels, stem_stride=stem_stride)
    check_stem(stem, stem_stride)
    model = build(num_classes=num_classes)
    if stem == "small":
        model.features.conv0 = _he_normal(conv(in_channels, 64, 3, stem_stride))
        del model.features.pool0
    else:
        take_channels(model, in_channels)
    return model


def mobilenet_v2(
    *, num_classes: int, in_channels: int = 3, stem: str = "small", stem_stride: int = 1
) -> nn.Module:
    """MobileNetV2, torchvision's.

    Args:
        num_classes, in_channels: >= 1.
        stem: "imagenet", the paper's, or "small": the first convolution and the first block of 24
            channels have stride 1, so that maps shrink eightfold instead of thirty-two-fold.
        stem_stride: >= 1, of the first convolution, with "small".
    Raises:
        ValueError: as `VGG`.
    """
    from torchvision.models import mobilenet_v2 as build

    check_whole(num_classes=num_classes, in_channels=in_channels, stem_stride=stem_stride)
    check_stem(stem, stem_stride)
    strides = (1 if stem == "small" else 2, 2, 2, 1, 2, 1)
    # expansion, channels, blocks, stride
    rows = zip((6,) * 6, (24, 32, 64, 96, 160, 320), (2, 3, 4, 3, 3, 1), strides)
    blocks = [[1, 16, 1, 1], *map(list, rows)]
    model = build(num_classes=num_classes, inverted_residual_setting=blocks)
    if stem == "small":
        model.features[0][0].stride = (stem_stride, stem_stride)
    take_channels(model, in_channels)
    return model


def take_channels(model: nn.Module, in_channels: int) -> None:
    """Gives a model of another library a new first convolution where the images do not have three
    channels.

    Same settings, PyTorch's default initialisation.
    """
    parts = model.named_modules()
    path, old = next((path, part) for path, part in parts if isinstance(part, nn.Conv2d))
    if old.in_channels == in_channels:
        return
    same = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    form = {name: getattr(old, name) for name in same}
    new = nn.Conv2d(in_channels, old.out_channels, bias=old.bias is not None, **form)
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def _he_normal(layer: nn.Conv2d) -> nn.Conv2d:
    """The convolution with He normal weights."""
    start_he_normal(layer)
    return layer
