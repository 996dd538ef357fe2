"""Catch-up Mix beside the one public operator, AllTheMiXLA's: written anew from what is known of
it, compared bit for bit.

Known: influence is the l2 norm of a map, divided by the sum over the image's channels; the relative
influence is source less target; its ranks are those of two argsorts; the K = ⌊λC⌋ lowest stay, the
others are the partner's; the label weight is λ, whatever K is.
"""

import math

import pytest
import torch
from torch import Tensor

from catchup import CatchUpMix, Draw


def operator(maps: Tensor, partner: Tensor, lam: float) -> tuple[Tensor, Tensor, float]:
    """Mixed maps, the mask of the channels that stay (B, C), and the label weight."""
    influence = torch.stack([torch.stack([channel.norm() for channel in image]) for image in maps])
    share = influence / influence.sum(dim=1, keepdim=True)
    relative = share - share[partner]
    ranks = relative.argsort(dim=1, stable=True).argsort(dim=1)
    stays = ranks < math.floor(lam * maps.shape[1])
    mask = stays[:, :, None, None].to(maps.dtype)
    return mask * maps + (1 - mask) * maps[partner], stays, lam


def case(number: int) -> tuple[Tensor, Tensor, float]:
    """Maps of some size and kind, partners, λ."""
    generator = torch.Generator().manual_seed(number)
    batch, channels, height, width = (
        int(torch.randint(low, high, (), generator=generator))
        for low, high in ((1, 9), (1, 33), (1, 8), (1, 8))
    )
    maps = torch.randn(batch, channels, height, width, generator=generator)
    maps = maps.relu() + 0.01 if number % 3 == 0 else maps * 10 ** (number % 5 - 2)
    if number % 4 == 0:
        maps = maps.contiguous(memory_format=torch.channels_last)
    lam = (
        (0.0, 1.0)[number // 10 % 2]
        if number % 10 == 9
        else float(torch.rand((), generator=generator))
    )
    return maps, torch.randperm(batch, generator=generator), lam


def test_maps_masks_and_weights_are_the_public_operators_bit_for_bit():
    mixer, kept = CatchUpMix(seed=0), set()
    for number in range(300):
        maps, partner, lam = case(number)
        expected, stays, weight = operator(maps, partner, lam)
        mixed = mixer.mix(maps, Draw(1, partner, lam))
        assert torch.equal(mixed.keep[:, :, 0, 0], stays), f"case {number}"
        assert torch.equal(mixed.maps, expected), f"case {number}"
        assert mixed.own_weight == weight
        kept.add(round(stays.float().mean().item(), 1))
    assert len(kept) == 11  # from none to all


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_step_learns_what_it_would_with_the_operator(tiny, batch, layer):
    images, labels = batch
    partner, lam = torch.tensor([4, 2, 0, 6, 5, 1, 3]), 0.61
    loss = CatchUpMix(seed=0).loss(tiny, images, labels, draw=Draw(layer, partner, lam))
    ours = torch.autograd.grad(loss, list(tiny.parameters()))
    maps = images
    for number, part in enumerate((tiny.stem, tiny.layer1, tiny.layer2), 1):
        maps = part(maps)
        if number == layer:
            with torch.no_grad():
                stays = operator(maps, partner, lam)[1][:, :, None, None].to(maps.dtype)
            maps = stays * maps + (1 - stays) * maps[partner]
    logits = tiny.fc(maps.mean(dim=(2, 3)))
    cross = torch.nn.functional.cross_entropy
    expected = lam * cross(logits, labels) + (1 - lam) * cross(logits, labels[partner])
    theirs = torch.autograd.grad(expected, list(tiny.parameters()))
    torch.testing.assert_close(loss, expected)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
