"""Stochastic depth and ShakeDrop: the linear rule, the equations of the papers, expectations,
gradients.
"""

import pytest
import torch
from torchvision.ops import stochastic_depth

from catchup import models
from catchup.mixers.regularisers.branches import survivals
from catchup.mixers.regularisers.seeds import generator
from catchup.mixers.regularisers.shakedrop import LEVELS, ShakeDrop, expected_factor, shake
from catchup.mixers.regularisers.stochdepth import StochDepth, drop_branch


def test_the_linear_rule():
    assert survivals(4, 0.5) == [0.875, 0.75, 0.625, 0.5]
    assert survivals(54, 0.5)[-1] == 0.5 and survivals(54, 0.5)[0] == pytest.approx(1 - 0.5 / 54)
    # "E(L̃) ≈ 40" of 54 blocks (Huang et al., Section 3)
    assert sum(survivals(54, 0.5)) == pytest.approx(40, abs=0.5)
    assert survivals(3, 1.0) == [1.0, 1.0, 1.0] and survivals(0, 0.5) == []


# -- stochastic depth ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["batch", "row"])
def test_the_same_dice_give_torchvisions_result(mode, monkeypatch):
    maps, survival = torch.randn(8, 3, 4, 4), 0.6
    kept = torch.rand(8 if mode == "row" else 1) < survival
    monkeypatch.setattr(
        torch.Tensor,
        "bernoulli_",
        lambda noise, probability: noise.copy_(kept.reshape(noise.shape)),
    )
    torch.testing.assert_close(
        drop_branch(maps, kept, survival), stochastic_depth(maps, 1 - survival, mode)
    )


@pytest.mark.parametrize(("per", "units"), [("batch", 400), ("image", 400 * 5)])
def test_a_branch_survives_as_often_as_it_should_and_as_a_whole(per, units):
    dice, maps, kept = generator(0, "test"), torch.rand(5, 2, 3, 3) + 1, []
    for _ in range(400):
        result = StochDepth(per=per).on_branch(maps, 0.7, dice)
        alive = (result != 0).flatten(1)
        torch.testing.assert_close(result, alive[:, 0, None, None, None] * maps / 0.7)
        kept.append(alive.float().mean(dim=1))
        assert per == "image" or kept[-1].unique().numel() == 1
    assert abs(torch.stack(kept).mean() - 0.7) < 4 * (0.7 * 0.3 / units) ** 0.5


def test_a_dropped_branch_gets_a_gradient_of_zero():
    maps = torch.randn(2, 3, requires_grad=True)
    drop_branch(maps, torch.tensor([False]), 0.5).sum().backward()
    assert torch.equal(maps.grad, torch.zeros(2, 3))


# -- ShakeDrop -------------------------------------------------------------------------------------


def slow_shakedrop(maps, grad, b, alpha, beta, survival):
    """The paper's factors image by image, over the expectation that it multiplies with at test
    time.
    """
    forward, backward = torch.empty_like(maps), torch.empty_like(grad)
    for image in range(len(maps)):
        forward[image] = (b + alpha[image] - b * alpha[image]) * maps[image] / survival
        backward[image] = (b + beta[image] - b * beta[image]) * grad[image] / survival
    return forward, backward


@pytest.mark.parametrize("b", [0, 1])
def test_forward_and_backward_factors_are_the_papers(b, monkeypatch):
    maps, grad = torch.randn(4, 3, 2, 2, requires_grad=True), torch.randn(4, 3, 2, 2)
    draws = iter(
        [
            torch.full((1, 1, 1, 1), 0.0 if b else 0.99),
            torch.rand(4, 1, 1, 1),
            torch.rand(4, 1, 1, 1),
        ]
    )
    monkeypatch.setattr(torch, "rand", lambda *_, **__: next(used))
    alpha_dice, beta_dice = (dice := list(draws))[1], dice[2]
    used = iter(dice)
    result = ShakeDrop().on_branch(maps, 0.8, generator(0, "test"))
    result.backward(grad)
    forward, backward = slow_shakedrop(maps.detach(), grad, b, 2 * alpha_dice - 1, beta_dice, 0.8)
    torch.testing.assert_close(result, forward)
    torch.testing.assert_close(maps.grad, backward)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "survival"),
    [
        ((-1.0, 1.0), 0.5),
        ((-1.0, 1.0), 0.9),
        ((0.0, 0.0), 0.5),
        ((0.0, 2.0), 0.7),
        ((-0.5, 0.75), 0.5),
    ],
)
def test_over_many_draws_the_training_output_is_the_evaluation_output(alpha, survival):
    """E[(b + α − bα) / E] = 1, so F(x) in training is F(x) in evaluation on average."""
    shakedrop, dice, maps = ShakeDrop(alpha=alpha), generator(1, "test"), torch.randn(3, 2, 2, 2)
    draws = torch.stack([shakedrop.on_branch(maps, survival, dice) for _ in range(1500)])
    error = draws.std(dim=0) / 1500**0.5
    assert ((draws.mean(dim=0) - maps).abs() <= 4.5 * error + 1e-6).all()


def test_the_expectation_is_the_papers():
    assert expected_factor(0.5, (-1, 1)) == 0.5
    assert expected_factor(0.75, (0, 1)) == pytest.approx(0.75 + 0.25 / 2)


@pytest.mark.parametrize("per", LEVELS)
def test_what_shares_a_factor(per):
    """b is one per branch and step; α, seen where b is 0, is shared as `per` says."""
    ahead, back = torch.ones(0), None
    for seed in range(50):
        ahead, back = ShakeDrop(per=per).factors((6, 5, 4, 3), 0.5, generator(seed, "test"))
        if not (ahead == 2).all():
            break
    sizes = {
        "image": (6, 1, 1, 1),
        "pixel": (6, 5, 4, 3),
        "channel": (6, 5, 1, 1),
        "batch": (1, 1, 1, 1),
    }
    assert ahead.shape == back.shape == sizes[per] and ahead.unique().numel() == ahead.numel()
    assert (ahead.abs() <= 2).all() and (back >= 0).all() and (back <= 2).all()
    both = [
        ShakeDrop(per=per).factors((6, 5, 4, 3), 0.5, generator(seed, "test"))[0]
        for seed in range(60)
    ]
    # b is not drawn per image
    assert all((factor == 2).all() or not (factor == 2).any() for factor in both)
    assert 15 < sum(bool((factor == 2).all()) for factor in both) < 45


def test_the_gradient_flows_on_through_what_follows_in_place():
    maps = torch.randn(3, 2, requires_grad=True)
    result = shake(
        maps * 1, torch.tensor([[2.0], [0.0], [-1.0]]), torch.tensor([[0.5], [1.0], [0.0]])
    )
    result += 1
    result.relu_().sum().backward()
    slope = (result.detach() > 0).float()
    torch.testing.assert_close(maps.grad, slope * torch.tensor([[0.5], [1.0], [0.0]]))


# -- in a model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "torchvision.resnet18"])
@pytest.mark.parametrize("kind", [StochDepth, ShakeDrop])
def test_every_branch_once_in_order_with_the_linear_rule_and_its_own_dice(name, kind):
    class Known(kind):
        def on_branch(self, maps, survival, generator):
            calls.append((survival, generator.initial_seed()))
            return super().on_branch(maps, survival, generator)

    torch.manual_seed(0)
    model = models.create(name, num_classes=5, **({} if "." in name else {"width": 4}))
    calls, images = [], torch.randn(2, 3, 32, 32)
    regulariser = Known(survival=0.4)
    with regulariser.around(model, 3):
        model(images).sum().backward()
    assert [survival for survival, _ in calls] == survivals(8, 0.4)
    assert len({seed for _, seed in calls}) == 8  # each branch throws its own dice
    # also of dropped branches: for DDP
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_with_every_branch_dropped_only_shortcuts_are_left():
    model = models.create("resnet18", num_classes=5, width=4)
    images = torch.randn(2, 3, 16, 16)

    class Dropped(StochDepth):
        def on_branch(self, maps, survival, generator):
            return drop_branch(maps, torch.tensor([False]), survival)

    with Dropped().around(model, 0):
        result = model(images)
    maps = model.stem(images)
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        for block in stage:
            maps = block.shortcut(maps).relu()
    torch.testing.assert_close(result, model.fc(maps.mean(dim=(2, 3))))
