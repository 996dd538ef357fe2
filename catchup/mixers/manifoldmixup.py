"""ManifoldMixup: InputMixup at a layer that every step draws anew.

Verma et al., "Manifold Mixup: Better Representations by Interpolating Hidden States", ICML 2019,
section 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from .feature import FeatureMixer
from .mixup import InputMixup


def paper_layers(n_blocks: int) -> tuple[int, ...]:
    """The paper's layer set for PreActResNet: the input, and behind the first and the second stage
    of residual blocks.

    Args:
        n_blocks: number of blocks of the model, the stem counted, ≥ 1.
    Returns:
        (0, 2, 3), without those that do not exist; (0, 1) for a model of one block, which would mix
        its input alone.
    """
    return (0, *range(2, min(n_blocks, 3) + 1)) if n_blocks > 1 else (0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ManifoldMixup(FeatureMixer, InputMixup):
    """λ h_i + (1 − λ) h_j of the maps h of one layer, one layer and one λ per batch.

    Differs from the release: it trains with `criterion="bce_softmax"`; the default here, as for
    every method, is cross-entropy. `ManifoldMixup.published("cifar100")` has its setting.

    Args:
        alpha: λ ~ Beta(alpha, alpha) per batch, > 0; 2.0 in its paper on CIFAR and SVHN, 0.2 on
            Tiny-ImageNet (C.1).
        layers: layer set to draw from, uniformly: 0 is the input, k the k-th block. None: the
            paper's for PreActResNet, the input and the first two stages behind the stem, (0, 2, 3).
            Its WRN-28-10 had (0, 2); in its Table 5 one stage more was better on CIFAR-100, (0, 2,
            3, 4).
        blocks: qualified names of the blocks; None finds them (`catchup.find_blocks`).
        prob, criterion, seed: as for every mixer.
    """

    alpha: float = 2.0

    title: ClassVar[str] = "ManifoldMixup"
    about: ClassVar[str] = (
        "input or one block: weighted sum of two images' maps (Verma et al., ICML 2019)"
    )

    def layer_set(self, n_blocks: int) -> Sequence[int]:
        """The given layers, or the paper's as far as a model of `n_blocks` blocks has them."""
        return super().layer_set(n_blocks) if self.layers else paper_layers(n_blocks)
