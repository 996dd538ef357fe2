"""Wide residual networks: few pre-activation blocks with many filters, in three groups.

Source: Zagoruyko & Komodakis, BMVC 2016, Table 1: a stem of 16 channels, groups of 16k, 32k and 64k
channels with (depth - 4) / 6 blocks of two 3x3 convolutions each, BatchNorm and ReLU before the
pooling; the shortcut is a 1x1 convolution of the activated input wherever the channels change, so
in the first group too. Without the paper's dropout.
"""

from ..utils.choices import check_whole
from .residual import PreActBlock, StagedNet
from .stem import build_stem

STEM_CHANNELS = 16


class WideResNet(StagedNet):
    """Wide ResNet.

    Args:
        depth: layers, 6n + 4.
        num_classes, in_channels: >= 1.
        width: channels of the first group, 16k in the paper's words, >= 1; the stem keeps its 16.
        stem: "small", the paper's, or "imagenet" (see `build_stem`), which the paper does not have
            with three groups.
        stem_stride: >= 1, of the small stem.
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1, the depth is not 6n + 4, or
            the stem is not so.
    """

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int,
        in_channels: int = 3,
        width: int = 160,
        stem: str = "small",
        stem_stride: int = 1,
    ) -> None:
        check_whole(
            num_classes=num_classes, in_channels=in_channels, width=width, stem_stride=stem_stride
        )
        if depth < 10 or depth % 6 != 4:
            raise ValueError(
                f"the depth of a wide ResNet is 6n + 4 (10, 16, 22, 28, …), got {depth}"
            )
        first = build_stem(stem, in_channels, STEM_CHANNELS, stem_stride, norm=False, relu=False)
        super().__init__(
            first,
            PreActBlock,
            [(depth - 4) // 6] * 3,
            channels=STEM_CHANNELS,
            width=width,
            num_classes=num_classes,
            norm_before_pool=True,
        )


def wrn16_8(*, width: int = 128, **settings) -> WideResNet:
    """WRN-16-8: depth 16, eight times as wide as a thin ResNet; settings and errors as for
    `WideResNet`.
    """
    return WideResNet(16, width=width, **settings)


def wrn28_10(**settings) -> WideResNet:
    """WRN-28-10: depth 28, ten times as wide; settings and errors as for `WideResNet`."""
    return WideResNet(28, **settings)
