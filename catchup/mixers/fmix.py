"""FMix: a mask cut from a low-frequency random image decides which pixels of two images go into the
mixed one.

Harris, Marcu, Painter, Niranjan, Prügel-Bennett & Hare, "FMix: Enhancing Mixed Sample Data
Augmentation", 2020 (arXiv 2002.12047). One mask per batch, as in its release. Its variant that
keeps the labels hard ("reformulated") is not here.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ..utils.choices import pick
from .base import BetaMixer
from .draw import Draw, Mixed


def low_frequency_image(
    height: int, width: int, decay: float, rng: np.random.Generator
) -> np.ndarray:
    """A random grey image whose amplitudes fall as 1/frequency^decay: complex white noise,
    filtered, made real.

    Args:
        height, width: in pixels, ≥ 1.
        decay: δ ≥ 0; 0 is white noise, larger is smoother.
        rng: where the noise comes from.
    Returns:
        (height, width) float64, vertical and horizontal frequencies alike. Frequency 0, where the
        filter would be infinite, counts as 1/max(height, width), the lowest there is beside it (as
        in the release).
    """
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    real, imaginary = rng.standard_normal((2, *frequency.shape))
    spectrum = (real + 1j * imaginary) / np.maximum(frequency, 1 / max(height, width)) ** decay
    # Columns that are their own mirror images keep only their real waves, half their power.
    own_mirrors = [0, width // 2] if width % 2 == 0 else [0]
    spectrum[:, own_mirrors] *= np.sqrt(2)
    return np.fft.irfft2(spectrum, s=(height, width))


def top_mask(
    image: np.ndarray, lam: float, max_soft: float, rng: np.random.Generator
) -> np.ndarray:
    """1 at the k brightest pixels and 0 at the others, k one of the two integers next to λ ·
    pixels.

    The upper one is taken with the probability that makes λ the mean of k over draws; so the mask's
    own mean differs from λ by less than one pixel's share. (The release takes either with
    probability ½.)

    Args:
        image: (height, width).
        lam: λ in [0, 1]; 1 and 0 give a mask of ones and of zeros.
        max_soft: share of the pixels, in [0, 0.5], over which the edge falls from 1 to 0 on either
            side of the k-th pixel, where λ and 1 − λ leave room for it. The mask's mean stays k /
            pixels.
        rng: decides between the two integers.
    Returns:
        (height, width) float64 in [0, 1]. Ties go to the pixel that is read first.
    """
    size = image.size
    k = int(lam * size + rng.random())
    soft = int(size * min(max_soft, lam, 1 - lam))
    falling = np.concatenate(
        [np.ones(k - soft), np.linspace(1, 0, 2 * soft), np.zeros(size - k - soft)]
    )
    mask = np.empty(size)
    mask[(-image).argsort(axis=None, kind="stable")] = falling
    return mask.reshape(image.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class FMix(BetaMixer):
    """Own pixels where the mask is 1, the partner's where it is 0.

    Differs from the release: by default the labels are weighted with the mask's mean instead of λ
    (`label_rule`), and the upper of the two integers next to λ · pixels is taken with the
    probability that makes λ the mean, instead of ½. The noise is drawn for half of the spectrum and
    has the law of the release's whole one.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0; 1 in its paper (OpenMixup trains CIFAR with 0.2).
        decay: δ, the power with which amplitudes fall with the frequency, ≥ 0; 3 in its paper.
        max_soft: share of the pixels over which the mask's edge is softened, in [0, 0.5]; 0, a hard
            mask, in its paper.
        label_rule: "kept" weights the labels with the mask's mean, what is really seen of each
            image; "lam" with the drawn λ, as the release does. The two differ by less than one
            pixel's
            share.
        prob, criterion, seed: as for every mixer.
    """

    decay: float = 3.0
    max_soft: float = 0.0
    label_rule: Literal["kept", "lam"] = "kept"

    title: ClassVar[str] = "FMix"
    about: ClassVar[str] = "input: a mask cut from low-frequency noise (Harris et al., 2020)"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < np.inf:
            raise ValueError(f"decay must be a number ≥ 0, got {self.decay}")
        if not 0 <= self.max_soft <= 0.5:
            raise ValueError(f"max_soft must lie in [0, 0.5], got {self.max_soft}")
        pick("label rule", self.label_rule, ("kept", "lam"))

    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """Images (B, C, H, W) mixed by the one mask of `draw.seed`; `keep` is that mask where it is
        hard.
        """
        rng = np.random.default_rng(draw.seed)
        grey = low_frequency_image(maps.shape[-2], maps.shape[-1], self.decay, rng)
        mask = top_mask(grey, draw.lam, self.max_soft, rng)
        own_weight = float(mask.mean()) if self.label_rule == "kept" else draw.lam
        other = maps[draw.partner.to(maps.device, non_blocking=True)]
        own = torch.from_numpy(mask)[None, None]
        if self.max_soft == 0:
            keep = own.bool().to(maps.device, non_blocking=True)
            return Mixed(torch.where(keep, maps, other), own_weight, keep)
        weight = own.to(maps.dtype).to(maps.device, non_blocking=True)
        return Mixed(other.lerp(maps, weight), own_weight)
