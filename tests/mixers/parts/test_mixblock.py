"""The Mix Block against Eqs. 4–6 written out in loops, and against the sizes that the paper
prints.
"""

import math

import pytest
import torch

from catchup import models
from catchup.mixers.parts.mixblock import (
    MixBlock,
    attend,
    embed_lam,
    mask_loss,
    seeded_block,
    similarity,
    upsample,
)


def naive_mask(
    block: MixBlock, own: torch.Tensor, other: torch.Tensor, lam: float
) -> list[list[float]]:
    """Eqs. 4 and 5 for one pair of maps (C, h, w), number by number: as printed the values of the
    own image, as released one less the mask by the values of the partner.
    """
    channels, height, width = own.shape
    places = [(y, x) for y in range(height) for x in range(width)]

    def linear(conv, maps, share, place):
        z = [maps[c][place].item() for c in range(channels)] + [share] * block.lam_channel
        return [
            sum(w * v for w, v in zip(row[:, 0, 0].tolist(), z)) + b
            for row, b in zip(conv.weight, conv.bias.tolist())
        ]

    left = [linear(block.similar, own, lam, place) for place in places]
    right = [linear(block.similar, other, 1 - lam, place) for place in places]
    valued = (other, 1 - lam) if block.released else (own, lam)
    value = [linear(block.value, *valued, place)[0] for place in places]
    mask = []
    for query in left:
        scores = [sum(a * b for a, b in zip(query, key)) / math.sqrt(len(query)) for key in right]
        weights = [math.exp(score - max(scores)) for score in scores]
        logit = sum(w / sum(weights) * v for w, v in zip(weights, value))
        share = 1 / (1 + math.exp(-logit))
        mask.append(1 - share if block.released else share)
    return [mask[y * width : (y + 1) * width] for y in range(height)]


def maps_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loud(channels: int, reduction: int = 1, seed: int = 0, **form: bool) -> MixBlock:
    """A block whose attention is far from uniform and whose masks are far from 0.5."""
    block = seeded_block(channels, reduction, seed, **form)
    with torch.no_grad():
        if block.released:  # its first weights are small
            for p in block.parameters():
                p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
        block.similar.weight.mul_(2)
        block.value.weight.mul_(4)
    return block


@pytest.mark.parametrize("lam_channel", [True, False])
@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize(("reduction", "lam"), [(1, 0.3), (2, 0.8), (1, 0.0)])
def test_mask_is_eqs_4_and_5(reduction, lam, released, lam_channel):
    block = loud(4, reduction, released=released, lam_channel=lam_channel)
    own, other = maps_of(3, 4, 2, 3), maps_of(3, 4, 2, 3, seed=1)
    mask = block(own, other, lam)
    assert mask.shape == (3, 1, 2, 3) and mask.dtype == torch.float32 and mask.std() > 0.1
    naive = [[naive_mask(block, a, b, lam)] for a, b in zip(own, other)]
    torch.testing.assert_close(mask, torch.tensor(naive), rtol=1e-4, atol=1e-5)


def test_the_order_of_the_partners_positions_does_not_matter_as_released_only():
    own, other = maps_of(2, 4, 2, 3), maps_of(2, 4, 2, 3, seed=1)
    turned = other.flatten(2)[..., [3, 1, 5, 0, 4, 2]].reshape(other.shape)
    for released in (True, False):
        block = loud(4, released=released)
        apart = (block(own, other, 0.4) - block(own, turned, 0.4)).abs().max()
        assert apart < 1e-5 if released else apart > 0.05


def test_first_weights_as_released():
    block = seeded_block(400, 2, 0).requires_grad_(False)
    assert block.similar.weight.std() == pytest.approx(0.01, rel=0.02)
    assert block.similar.weight.mean().abs() < 1e-4 and not block.similar.bias.any()
    assert block.value.weight.std() == pytest.approx(0.01, rel=0.2) and not block.value.bias.any()


def test_every_row_of_the_similarity_sums_to_one_over_the_partner():
    own, other = maps_of(2, 3, 2, 2), maps_of(2, 3, 2, 2, seed=1)
    p = similarity(own, other)
    assert p.shape == (2, 4, 4) and (p >= 0).all()
    torch.testing.assert_close(p.sum(dim=2), torch.ones(2, 4))
    assert (p.sum(dim=1) - 1).abs().max() > 0.1
    # position 1 of the partner is what position 2 of the image looks for
    other[0, :, 0, 1] = 100 * own[0, :, 1, 0]
    assert similarity(own, other)[0, 2].argmax() == 1


def test_the_partners_ratio_cancels_the_own_images_does_not():
    """As Eq. 4 is read here: softmax(q · (k + c)) = softmax(q · k), whatever 1 − λ puts into every
    key.
    """
    block, own, other = loud(4), maps_of(2, 4, 3, 3), maps_of(2, 4, 3, 3, seed=1)

    def p(lam, partners):
        return similarity(
            block.similar(embed_lam(own, lam)), block.similar(embed_lam(other, partners))
        )

    torch.testing.assert_close(p(0.3, 0.7), p(0.3, 0.1), rtol=1e-3, atol=1e-4)
    assert (p(0.3, 0.7) - p(0.9, 0.7)).abs().max() > 0.01


def test_attention_averages_the_values():
    values = torch.tensor([[[[0.0, 2.0], [-2.0, 4.0]]]])
    p = torch.zeros(1, 4, 4)
    p[0, 0, 3] = p[0, 1, 0] = p[0, 2, 2] = 1  # three rows pick one position each
    p[0, 3] = 0.25
    expected = torch.tensor([[[[4.0, 0.0], [-2.0, 1.0]]]]).sigmoid()
    torch.testing.assert_close(attend(p, values), expected)


def test_the_ratio_is_one_more_channel():
    maps = maps_of(2, 3, 4, 5)
    z = embed_lam(maps, 0.25)
    assert z.shape == (2, 4, 4, 5) and torch.equal(z[:, :3], maps) and (z[:, 3] == 0.25).all()
    assert embed_lam(maps.half(), 0.25).dtype == torch.float16


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1, 2, 2), (4, 4)), ((2, 1, 3, 2), (7, 5)), ((1, 1, 1, 1), (8, 8))]
)
def test_upsampling_takes_the_nearest_position(shape, size):
    mask = maps_of(*shape)
    result = upsample(mask, size)
    assert result.shape == (*shape[:2], *size)
    for y in range(size[0]):
        for x in range(size[1]):
            source = mask[:, :, y * shape[2] // size[0], x * shape[3] // size[1]]
            assert torch.equal(result[:, :, y, x], source)


def test_mask_loss_is_eq_6_per_image_or_of_the_whole_batch():
    mask = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], [0.2, 0.4, 0.0, 0.2]]).reshape(
        3, 1, 2, 2
    )
    mask.requires_grad_()
    whole = mask_loss(mask, 0.45, 0.01).item()
    assert whole == pytest.approx((0.75 + 0.5 + 0.2) / 3 - 0.46, abs=1e-6)
    loss = mask_loss(mask, 0.45, 0.1, per_image=True)
    assert loss.item() == pytest.approx((0.2 + 0.0 + 0.15) / 3)  # means .75, .5 and .2
    loss.backward()
    # towards λ, none inside ε
    assert [grad.sum().item() for grad in mask.grad] == pytest.approx([1 / 3, 0, -1 / 3])
    assert mask_loss(mask, 0.45, 0.0, per_image=True) > loss
    assert mask_loss(mask, 0.45, 1.0) == mask_loss(mask, 0.45, 1.0, per_image=True) == 0
    assert mask_loss(mask.half(), 0.45).dtype == torch.float32


@pytest.mark.parametrize(("stage", "printed"), [(1, 11.38), (2, 11.39), (3, 11.44), (4, 11.64)])
def test_sizes_are_table_7s(stage, printed):
    """ResNet-18 on the 200 classes of Tiny-ImageNet; the table counts one linear classifier more
    than the text has.
    """
    with torch.device("meta"):
        net, block = models.create("resnet18", num_classes=200), MixBlock(64 * 2 ** (stage - 1))
    plain, classifier = sum(p.numel() for p in net.parameters()), 512 * 200 + 200
    assert round(plain / 1e6, 2) == 11.27
    assert (
        round((plain + classifier + sum(p.numel() for p in block.parameters())) / 1e6, 2) == printed
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("where", ["own", "other"])
def test_a_pair_with_broken_features_gets_lambda_and_teaches_nothing(bad, where):
    block, pair = loud(4), {"own": maps_of(3, 4, 2, 2), "other": maps_of(3, 4, 2, 2, seed=1)}
    expected = block(pair["own"], pair["other"], 0.3)
    wanted = torch.autograd.grad(expected[[0, 2]].square().sum(), list(block.parameters()))
    pair[where][1, 2, 0, 1] = bad
    mask = block(pair["own"], pair["other"], 0.3)
    assert (mask[1] == 0.3).all()
    torch.testing.assert_close(mask[[0, 2]], expected[[0, 2]])
    torch.testing.assert_close(
        torch.autograd.grad(mask.square().sum(), list(block.parameters())), wanted
    )


def test_a_block_gone_wrong_gives_lambda():
    block = loud(4)
    with torch.no_grad():
        block.value.weight.fill_(math.nan)
    assert (block(maps_of(2, 4, 2, 2), maps_of(2, 4, 2, 2, seed=1), 0.7) == 0.7).all()


def test_half_precision_is_computed_in_float32_under_autocast_too():
    block, own, other = (
        loud(4),
        maps_of(2, 4, 3, 3).half() * 5000,
        maps_of(2, 4, 3, 3, seed=1).half(),
    )
    expected = block(own.float(), other.float(), 0.4)
    # overflows a half float
    assert expected.isfinite().all() and (own.float().flatten(1).norm(dim=1) > 65504).any()
    with torch.autocast("cpu", torch.bfloat16):
        mask = block(own, other, 0.4)
    assert mask.dtype == torch.float32 and torch.equal(mask, expected)


def test_weights_follow_from_the_seed_alone_and_no_global_generator_moves():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, same, other = seeded_block(6, 1, 3), seeded_block(6, 1, 3), seeded_block(6, 1, 4)
    assert torch.equal(torch.get_rng_state(), state) and torch.initial_seed() == 5
    assert torch.equal(one.similar.weight, same.similar.weight) and torch.equal(
        one.value.bias, same.value.bias
    )
    assert not torch.equal(one.similar.weight, other.similar.weight)


@pytest.mark.parametrize(("channels", "reduction"), [(0, 1), (4, 0), (4, 5)])
def test_sizes_that_make_no_block_are_refused(channels, reduction):
    with pytest.raises(ValueError, match=f"got {channels} and {reduction}"):
        MixBlock(channels, reduction)


def test_pairs_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 4, 2, 2\) and \(2, 4, 2, 3\)"):
        similarity(torch.zeros(2, 4, 2, 2), torch.zeros(2, 4, 2, 3))
