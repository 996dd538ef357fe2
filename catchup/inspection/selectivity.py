"""What a filter responds to: shape or background, found by changing one of them and leaving all
else.

On generated scenes every shape can be put on every background at the same place, in the same
colours: a full factorial of interventions. The variance of a filter's response then falls apart
into a share due to the shape, one due to the background, one due to their combination, and the
rest, which place, size and colours bring about (analysis of variance over the two factors, with the
drawn scenes as replicates; the shares are the Sobol indices of shape and background).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..data.augment import normalise, to_float
from ..data.sets.shapes import CUES, KINDS, Scene, draw_scenes, render
from ..utils.choices import check_whole, pick
from .maps import choose_blocks, influences

SHARES = ("shape", "background", "both", "rest")
# where in the stream of images the scenes begin, behind those for training and testing
SCENES_START = 2**41


def variance_shares(responses: Tensor) -> dict[str, Tensor]:
    """How much of each filter's variance is due to shape, background, both together, and the rest.

    The mean response of a cell (one shape on one background) is known only from n draws, and its
    own scatter would
    count as an effect: with two draws, a filter of pure noise would owe 5 % of its variance to the
    shape. So the square of an effect is taken as the mean product of its values in two different
    draws, whose errors are independent; that has no bias, whatever n. An estimate below zero
    becomes zero, and the four are divided by their sum.

    Args:
        responses: (n, S, T, C) floating: of n ≥ 2 draws of everything else, every one of S ≥ 2
            shapes on every one of T ≥ 2 backgrounds; the same draw in every cell.
    Returns:
        "shape", "background", "both", "rest": (C,) float64 in [0, 1] that sum to 1 for every
        filter. "both" is what a combination does beyond the sum of its parts; "rest" is the
        variance over draws within a cell. A filter whose
        response never varies has no shares: nan in all four.
    Raises:
        ValueError: if `responses` have another shape or are not finite.
    """
    if responses.ndim != 4 or not responses.is_floating_point() or min(responses.shape[:3]) < 2:
        raise ValueError(
            "responses must be floating (n, S, T, C) with n, S, T of at least 2, "
            f"got {responses.dtype} {tuple(responses.shape)}"
        )
    if not responses.isfinite().all():
        raise ValueError("responses hold NaN or infinity")
    values = responses.double()
    shape, background = values.mean(2), values.mean(1)  # (n, S, C) and (n, T, C)
    whole = shape.mean(1)  # (n, C)
    both = values - shape[:, :, None] - background[:, None] + whole[:, None, None]
    effects = (shape - whole[:, None], background - whole[:, None], both.flatten(1, 2))
    # (4, C)
    parts = torch.stack([*map(_squared_effect, effects), values.var(0).mean((0, 1))]).clamp(min=0)
    constant = (values == values[:1, :1, :1]).flatten(0, 2).all(0)
    return dict(zip(SHARES, (parts / parts.sum(0)).masked_fill(constant, torch.nan)))


def filter_selectivity(
    model: nn.Module,
    blocks: str | Sequence[str] | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    n: int = 16,
    seed: int = 0,
    cue: str = "texture",
) -> list[dict]:
    """Whose the filters of a network are: the shares of `variance_shares` for the filter influence
    of each.

    The response is the l2 norm of the filter's map (Eq. 4 of Kang, Kang & Kim, AAAI 2024). It sums
    over the image, and
    the background fills nine tenths of it: the shape's share is small even for a random filter. So
    the shares say nothing by themselves; compare them with those of the untrained network, or of
    filters in one block. A filter may owe its variance to the shape without telling one shape from
    another, if it measures how much background is hidden.

    Args:
        model: takes normalised (B, 3, H, W) images, on any device; run in evaluation mode and left
            as it was.
        blocks: qualified names of layers with (B, C, H, W) output, one or several; None finds them.
        mean, std: of the training images, three numbers each.
        n: draws of place, size, angle and colours, ≥ 2; 64 n images are rendered.
        seed: of the scenes, ≥ 0; they are never among the training images of that seed.
        cue: what is exchanged as the background: its "texture" or its "colour".
    Returns:
        One row per filter: {"block", "filter", "norm", "shape_share", "background_share",
        "both_share", "rest_share"}; norm is the mean response.
    Raises:
        ValueError: for an unknown layer or cue, n < 2, or a layer that does not return maps, once
            per pass.
    """
    pick("cue", cue, CUES)
    check_whole(2, n=n)
    pixels = render(factorial_scenes(draw_scenes(n, seed, start=SCENES_START), cue))
    device, rows = next(model.parameters()).device, []
    batches = (normalise(to_float(part.to(device)), mean, std) for part in pixels.split(256))
    for block, influence in influences(model, batches, choose_blocks(model, blocks)).items():
        responses = influence.reshape(n, KINDS, KINDS, -1)
        shares = variance_shares(responses)
        for c, norm in enumerate(responses.mean((0, 1, 2)).tolist()):
            parts = {f"{name}_share": float(shares[name][c]) for name in SHARES}
            rows.append({"block": block, "filter": c, "norm": norm, **parts})
    return rows


def factorial_scenes(scene: Scene, cue: str = "texture") -> Scene:
    """Every scene with every shape on every background: (N · 8 · 8) scenes, backgrounds innermost,
    then shapes.
    """
    each = scene[torch.arange(len(scene)).repeat_interleave(KINDS * KINDS)]
    ids = torch.arange(KINDS)
    return each.with_shape(ids.repeat_interleave(KINDS).repeat(len(scene))).with_cue(
        cue, ids.repeat(KINDS * len(scene))
    )


def _squared_effect(effects: Tensor) -> Tensor:
    """(C,): mean over K levels of the squared mean effect, without bias, from n draws of it (n, K,
    C).
    """
    n = len(effects)
    return ((effects.sum(0).square() - effects.square().sum(0)) / (n * (n - 1))).mean(0)
