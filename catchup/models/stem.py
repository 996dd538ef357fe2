"""How a network begins: for small images, or for those of ImageNet's size. Also the convolution all
are made of.
"""

from torch import nn

from ..utils.choices import pick

STEMS = ("small", "imagenet")


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size when stride is 1."""
    keep = {"padding": kernel // 2, "groups": groups, "bias": False}
    return nn.Conv2d(inputs, outputs, kernel, stride, **keep)


def build_stem(
    form: str, in_channels: int, width: int, stride: int = 1, *, norm: bool, relu: bool
) -> nn.Module:
    """The first convolution and what belongs to it.

    Args:
        form: "small": 3x3 with `stride`, the size of the maps; "imagenet": 7x7 with stride 2, then
            3x3 max pooling with stride 2, so that the maps have a quarter of the image's sides (He
            et al., CVPR 2016, Table 1).
        in_channels, width: of the images, of the maps.
        stride: of the small form; the other has its own.
        norm, relu: whether BatchNorm and ReLU stand behind the convolution.
    Returns:
        The bare convolution where nothing stands behind it, else a Sequential.
    Raises:
        ValueError: if the form is unknown, or "imagenet" is given another stride than 1.
    """
    check_stem(form, stride)
    large = form == "imagenet"
    first = conv(in_channels, width, 7, 2) if large else conv(in_channels, width, 3, stride)
    behind: list[nn.Module] = [nn.BatchNorm2d(width)] * norm + [nn.ReLU()] * relu
    behind += [nn.MaxPool2d(3, 2, padding=1)] * large
    return nn.Sequential(first, *behind) if behind else first


def check_stem(form: str, stride: int) -> None:
    """Raise ValueError unless the stem is known and the stride is one it can have."""
    if pick("stem", form, STEMS) == "imagenet" and stride != 1:
        raise ValueError(
            "stem_stride belongs to stem='small'; the ImageNet stem has strides of its own, "
            f"got stem_stride={stride}"
        )


def start_he_normal(model: nn.Module) -> None:
    """Every convolution's weights drawn He normal with fan_out (He et al., ICCV 2015), from the
    global generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
