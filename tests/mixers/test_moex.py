"""MoEx against loops over images and positions, at dead positions and in half precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from catchup import Draw
from catchup.mixers import make
from catchup.mixers.moex import exchange_moments, moments

PARTNER = [1, 2, 0, 3]


def pieces(image: torch.Tensor, norm: str) -> list[tuple]:
    """Indices of the sets of values of one image (C, H, W) that share their moments."""
    channels, height, width = image.shape
    if norm == "pono":
        return [(slice(None), y, x) for y in range(height) for x in range(width)]
    return [(c,) for c in range(channels)] if norm == "instance" else [(...,)]


def moments_of(values: torch.Tensor) -> tuple[float, float]:
    numbers = [float(v) for v in values.flatten()]
    mean = sum(numbers) / len(numbers)
    return mean, math.sqrt(sum((n - mean) ** 2 for n in numbers) / len(numbers) + 1e-5)


def slow_exchange(maps: torch.Tensor, partner: list[int], norm: str) -> torch.Tensor:
    """Li et al., section 3, one set of values at a time."""
    result = torch.empty_like(maps)
    for i, j in enumerate(partner):
        for piece in pieces(maps[i], norm):
            mean, std = moments_of(maps[i][piece])
            other_mean, other_std = moments_of(maps[j][piece])
            result[i][piece] = other_std * (maps[i][piece] - mean) / std + other_mean
    return result


def some_maps(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)).relu() * 2 + 0.1


@pytest.mark.parametrize("norm", ["pono", "instance", "layer"])
def test_equals_the_loop(norm):
    maps = some_maps(4, 6, 3, 2)
    mixed = make("moex", seed=0, norm=norm).mix(maps, Draw(1, PARTNER, 0.5))
    torch.testing.assert_close(mixed.maps, slow_exchange(maps, PARTNER, norm), rtol=1e-5, atol=1e-5)
    assert mixed.own_weight == 0.5 and mixed.keep is None


def test_the_result_has_the_partners_moments_and_the_own_order():
    """What the method is: Σ over channels of h' is the partner's, (h' − μ')/σ' the own normalised
    feature.
    """
    maps, partner = some_maps(4, 40, 3, 3).double(), torch.tensor(PARTNER)
    mixed = exchange_moments(maps, partner)
    torch.testing.assert_close(mixed.mean(dim=1), maps[partner].mean(dim=1))
    # 1e-5 in the root
    torch.testing.assert_close(mixed.std(dim=1), maps[partner].std(dim=1), rtol=1e-3, atol=0)
    for i in range(3):  # the fourth image is its own partner
        assert torch.corrcoef(torch.stack([mixed[i, :, 1, 2], maps[i, :, 1, 2]]))[0, 1] > 1 - 1e-12


def test_the_release_divides_by_one_less_and_differs_only_in_the_weight_of_epsilon():
    maps, partner = some_maps(4, 64, 3, 3).double(), torch.tensor(PARTNER)
    mean, std = maps.mean(dim=1, keepdim=True), (maps.var(dim=1, keepdim=True) + 1e-5).sqrt()
    theirs = (maps - mean) / std * std[partner] + mean[partner]
    torch.testing.assert_close(exchange_moments(maps, partner), theirs, rtol=0, atol=1e-6)


def test_oneself_gives_the_identity_and_two_exchanges_lead_back():
    maps, partner = some_maps(4, 16, 5, 5), torch.tensor([1, 0, 3, 2])
    torch.testing.assert_close(exchange_moments(maps, torch.arange(4)), maps)
    twice = exchange_moments(exchange_moments(maps.double(), partner), partner)
    torch.testing.assert_close(twice, maps.double(), rtol=1e-3, atol=1e-3)  # up to the 1e-5 in σ


def test_dead_positions_take_the_partners_mean_and_have_finite_gradients():
    maps = some_maps(2, 8, 2, 2).double()
    maps[0, :, 0, 0] = 0  # dead in the first image
    maps[1, :, 1, 1] = 2.5  # constant in the second
    maps[:, :, 0, 1] = 0  # dead in both
    maps.requires_grad_()
    mixed = exchange_moments(maps, torch.tensor([1, 0]))
    torch.testing.assert_close(mixed[0, :, 0, 0], maps[1, :, 0, 0].mean().expand(8))
    torch.testing.assert_close(mixed[1, :, 1, 1], maps[0, :, 1, 1].mean().expand(8))
    assert (mixed[:, :, 0, 1] == 0).all()
    mean, std = maps[0, :, 1, 1].mean(), (maps[0, :, 1, 1].var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(
        mixed[0, :, 1, 1], (maps[0, :, 1, 1] - mean) / std * math.sqrt(1e-5) + 2.5
    )
    mixed.square().sum().backward()
    assert maps.grad.isfinite().all() and (maps.grad[1, :, 0, 0] != 0).any()


def test_one_channel_has_no_normalised_feature_and_becomes_the_partner():
    maps = some_maps(3, 1, 4, 4)
    torch.testing.assert_close(exchange_moments(maps, torch.tensor([1, 2, 0])), maps[[1, 2, 0]])


def test_gradients_are_those_of_the_formula():
    maps = some_maps(3, 4, 2, 1).double().requires_grad_()
    for norm in ("pono", "instance", "layer"):
        assert torch.autograd.gradcheck(
            lambda h, n=norm: exchange_moments(h, torch.tensor([2, 0, 1]), n), maps
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    maps = (some_maps(4, 32, 4, 4) * 1e3).to(dtype)  # squares leave float16
    mixed = exchange_moments(maps, torch.tensor(PARTNER))
    assert mixed.dtype == dtype
    assert torch.equal(mixed, exchange_moments(maps.float(), torch.tensor(PARTNER)).to(dtype))


def test_what_float16_cannot_hold_becomes_its_largest_value():
    maps = torch.zeros(2, 64, 1, 1, dtype=torch.float16)
    maps[0, 0] = 1000  # one channel alone: its normalised value is near √63
    maps[1, ::2], maps[1, 1::2] = 60000, -60000
    mixed = exchange_moments(maps, torch.tensor([1, 0]))
    assert mixed.isfinite().all() and mixed[0, 0] == torch.finfo(torch.float16).max
    assert (mixed[0, 1:] < 0).all()


def test_lambda_is_a_constant_and_a_stored_draw_keeps_it(tiny, batch):
    mixer = make("moex", seed=0, prob=1.0, lam=0.9)
    draws = [mixer.draw(7, 3, mixer.rng) for _ in range(10)]
    assert {draw.lam for draw in draws} == {0.9} and {draw.layer for draw in draws} == {1}
    other = make("moex", seed=0)
    assert torch.equal(
        other.loss(tiny, *batch, draw=draws[0]), mixer.loss(tiny, *batch, draw=draws[0])
    )
    assert other.last.own_weight == 0.9


def test_a_quarter_of_the_steps_mixes_by_default():
    """The release on CIFAR: probability 0.25, λ 0.5."""
    mixer = make("moex", seed=0)
    layers = [mixer.draw(2, 3, mixer.rng).layer for _ in range(1000)]
    assert (
        set(layers) == {None, 1}
        and abs(layers.count(1) / 1000 - 0.25) < 4 * (0.25 * 0.75 / 1000) ** 0.5
    )
    assert mixer.draw(2, 3, mixer.rng).lam == 0.5


def test_a_step_is_the_papers(tiny, batch):
    images, labels = batch
    partner = [2, 0, 1, 6, 5, 3, 4]
    maps = slow_exchange(tiny.stem(images).detach(), partner, "pono")
    logits = tiny.fc(tiny.layer2(tiny.layer1(maps)).mean(dim=(2, 3)))
    expected = 0.9 * F.cross_entropy(logits, labels) + 0.1 * F.cross_entropy(
        logits, labels[partner]
    )
    torch.testing.assert_close(
        make("moex", seed=0).loss(tiny, images, labels, draw=Draw(1, partner, 0.9)), expected
    )


def test_other_layers_can_be_named_and_bad_settings_are_refused(tiny):
    mixer = make("moex", seed=0, layers=(0, 2), prob=1.0)
    mixer.check(tiny)
    assert {mixer.draw(2, 3, mixer.rng).layer for _ in range(30)} == {0, 2}
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\], got 1.5"):
        make("moex", lam=1.5)
    with pytest.raises(ValueError, match="unknown norm 'ponno'. Did you mean 'pono'"):
        make("moex", norm="ponno")
    with pytest.raises(ValueError, match="unknown norm 'batch'"):
        moments(torch.zeros(1, 2, 3, 3), "batch")
