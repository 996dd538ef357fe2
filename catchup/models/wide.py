"""Wide residual networks: few pre-activation blocks with many filters, in three groups.

Source: Zagoruyko & Komodakis, BMVC 2016, Table 1: a stem of 16 channels, groups of 16k, 32k and 64k
channels with (depth - 4) / 6 blocks of two 3x3 convolutions each, BatchNorm and ReLU before the
pooling; the shortcut is a 1x1 convolution of the activated input wherever the channels change, so
in the first group too. Without the paper's dropout.
"""

from .residual import PreActBlock, StagedNet


class WideResNet(StagedNet):
    """Wide ResNet.

    Args:
        depth: layers, 6n + 4.
        width: channels of the first group, 16k in the paper's words, >= 1; the stem keeps its 16.
        settings: as for `StagedNet`; the paper has no stem "imagenet" with three groups.
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1, the depth is not 6n + 4, or
            the stem is not so.
    """

    stem_channels, norm_before_pool = 16, True

    def __init__(self, depth: int, *, width: int = 160, **settings) -> None:
        if depth < 10 or depth % 6 != 4:
            raise ValueError(
                f"the depth of a wide ResNet is 6n + 4 (10, 16, 22, 28, …), got {depth}"
            )
        super().__init__(PreActBlock, [(depth - 4) // 6] * 3, width=width, **settings)


def wrn16_8(*, width: int = 128, **settings) -> WideResNet:
    """WRN-16-8: depth 16, eight times as wide as a thin ResNet; settings and errors as for
    `WideResNet`.
    """
    return WideResNet(16, width=width, **settings)


def wrn28_10(**settings) -> WideResNet:
    """WRN-28-10: depth 28, ten times as wide; settings and errors as for `WideResNet`."""
    return WideResNet(28, **settings)
