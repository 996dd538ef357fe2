"""PyramidNet: channels that grow a little with every block instead of doubling with every stage.

Source: Han, Kim & Kim, CVPR 2017: block k of N has D = 16 + kα/N channels (Eq. 2), rounded where it
is used, four times as many behind its last 1x1 convolution; no ReLU before the first convolution
and a BatchNorm behind the last (Figure 6d); shortcuts without weights, mean-pooled where the size
changes and filled up with channels of zeros. CutMix (Yun et al., ICCV 2019), and after it Catch-up
Mix, use depth 200 with α = 240.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..utils.choices import check_whole
from .residual import StagedNet
from .stem import conv


class PyramidBottleneck(nn.Module):
    """bn-conv1x1-bn-relu-conv3x3-bn-relu-conv1x1-bn, plus the input, pooled and filled up with
    zeros.

    Args:
        inputs: channels that come in.
        width: channels of the 3x3 convolution; four times as many go out, at least `inputs`.
        stride: 1 or 2.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, width, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), conv(width, width, 3, stride)
        self.bn3, self.conv3 = nn.BatchNorm2d(width), conv(width, outputs, 1)
        self.bn4 = nn.BatchNorm2d(outputs)
        self.stride, self.zeros = stride, outputs - inputs

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv2(F.relu(self.bn2(self.conv1(self.bn1(maps)))))
        inner = self.bn4(self.conv3(F.relu(self.bn3(inner))))
        return inner + self.shortcut(maps)

    def shortcut(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) as (B, outputs, H / stride, W / stride), sides rounded up."""
        if self.stride != 1:
            maps = F.avg_pool2d(maps, self.stride, ceil_mode=True)
        return F.pad(maps, (0, 0, 0, 0, 0, self.zeros))


class PyramidNet(StagedNet):
    """PyramidNet of bottleneck blocks: stem conv-bn, stages layer1 to layer3, norm, global average
    pooling, linear.

    Args:
        depth: layers, 9n + 2.
        alpha: channels that the widths grow by from the stem to the last block, >= 1.
        width: channels of the stem, >= 1; 16 in the paper.
        settings: as for `StagedNet`; the paper has a stem "imagenet" with four stages.
    Raises:
        ValueError: if one of the numbers is not a whole number >= 1, the depth is not 9n + 2, or
            the stem is not so.
    """

    stem_norm, stem_relu, norm_before_pool = True, ("imagenet",), True

    def __init__(self, depth: int, alpha: int, *, width: int = 16, **settings) -> None:
        check_whole(alpha=alpha)
        if depth < 11 or depth % 9 != 2:
            raise ValueError(
                f"the depth of a bottleneck PyramidNet is 9n + 2 (11, 20, …, 164, 200), got {depth}"
            )
        self.per_stage, self.alpha = (depth - 2) // 9, alpha
        super().__init__(PyramidBottleneck, [self.per_stage] * 3, width=width, **settings)

    def block_width(self, width: int, stage: int, position: int) -> int:
        """The stem's width and a share of α that grows with every block."""
        number = stage * self.per_stage + position + 1
        return round(width + number * self.alpha / (3 * self.per_stage))


def pyramidnet200(*, width: int = 16, **settings) -> PyramidNet:
    """PyramidNet-200 with α = 240 (15 times `width`, so narrow ones are the same in small); as
    `PyramidNet`.
    """
    check_whole(width=width)
    return PyramidNet(200, 15 * width, width=width, **settings)
