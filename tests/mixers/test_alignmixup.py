"""AlignMixup: Sinkhorn against a loop and against the exact assignment, alignment against loops, no
NaN anywhere.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from catchup import Draw
from catchup.mixers import make
from catchup.mixers.alignmixup import align, assignment, position_cost


def column_error(plan: torch.Tensor) -> torch.Tensor:
    """How far an assignment is from converged: |use of a position − 1|, mean over the positions of
    the moved image.

    Args:
        plan: R, (B, r, r), rows sum to 1.
    Returns:
        (B,) in [0, 2): 0 where every position is used once; 2 − 2/r where a single one stands for
        all.
    """
    return (plan.sum(dim=1) - 1).abs().mean(dim=1)


PARTNER = [1, 2, 0, 3]


def slow_cost(kept: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """‖a_i − a'_j‖² of two maps (C, r), entry by entry."""
    r = kept.shape[1]
    return np.array(
        [
            [sum((kept[c, i] - moved[c, j]) ** 2 for c in range(len(kept))) for j in range(r)]
            for i in range(r)
        ]
    )


def slow_sinkhorn(cost: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """Sinkhorn-Knopp as it is taught: scaling vectors u and v of K = e^(−M/ε), marginals 1/r; the
    plan times r.
    """
    r = len(cost)
    kernel = np.exp(-cost / epsilon)
    u = np.full(r, 1.0)
    for _ in range(iterations):
        v = (1 / r) / (kernel.T @ u)
        u = (1 / r) / (kernel @ v)
    return r * u[:, None] * kernel * v[None, :]


def slow_mix(
    maps: np.ndarray, partner: list[int], lam: float, own: bool, epsilon: float, iterations: int
):
    """Section 3, one pair and one position at a time, maps (B, C, r)."""
    result = np.empty_like(maps)
    for i, j in enumerate(partner):
        a, other = maps[i], maps[j]
        if i == j:
            result[i] = a
        elif own:  # λ A + (1 − λ) A' Rᵀ
            plan = slow_sinkhorn(slow_cost(a, other), epsilon, iterations)
            for p in range(a.shape[1]):
                moved = sum(plan[p, q] * other[:, q] for q in range(a.shape[1]))
                result[i, :, p] = lam * a[:, p] + (1 - lam) * moved
        else:  # λ A R + (1 − λ) A', R from the partner's places
            plan = slow_sinkhorn(slow_cost(other, a), epsilon, iterations)
            for p in range(a.shape[1]):
                moved = sum(plan[p, q] * a[:, q] for q in range(a.shape[1]))
                result[i, :, p] = lam * moved + (1 - lam) * other[:, p]
    return result


def some_maps(*shape: int, scale: float = 0.5, seed: int = 5) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).relu() * scale


# -- the assignment --------------------------------------------------------------------------------


@pytest.mark.parametrize("features", ["raw", "unit"])
def test_cost_equals_the_loop(features):
    kept, moved = some_maps(3, 5, 2, 3), some_maps(3, 5, 2, 3, seed=6)
    kept[0, :, 0, 0] = 0  # a dead position
    cost = position_cost(kept, moved, features)
    for b in range(3):
        rows, columns = (maps[b].flatten(1).double().numpy() for maps in (kept, moved))
        if features == "unit":
            rows, columns = (
                maps / np.maximum(np.sqrt((maps**2).sum(axis=0)), 1e-12) for maps in (rows, columns)
            )
        np.testing.assert_allclose(cost[b], slow_cost(rows, columns), rtol=1e-5, atol=1e-6)
    assert cost.shape == (3, 6, 6) and (features == "raw" or (cost <= 4).all())
    with pytest.raises(ValueError, match=r"one shape .* got \(3, 5, 2, 3\) and \(3, 5, 3, 3\)"):
        position_cost(kept, torch.zeros(3, 5, 3, 3))


def test_cost_keeps_small_distances_between_large_features():
    """By inner products in float32 they would drown: |a|² ≈ 1e8, the distance 0.25."""
    kept = torch.full((1, 4, 3, 3), 5e3)
    moved = kept.clone()
    moved[:, 0] += 0.5
    torch.testing.assert_close(position_cost(kept, moved), torch.full((1, 9, 9), 0.25))


@pytest.mark.parametrize("iterations", [1, 2, 7, 60])
def test_sinkhorn_equals_the_loop_converged_or_not(iterations):
    cost = torch.rand(4, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    expected = [slow_sinkhorn(one.numpy(), 0.1, iterations) for one in cost]
    np.testing.assert_allclose(assignment(cost, 0.1, iterations), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        assignment(cost.float(), 0.1, iterations), expected, rtol=1e-3, atol=1e-5
    )


def test_marginals_are_uniform_once_converged():
    cost = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(2)) * 2
    plan = assignment(cost)  # the default ε and number of iterations
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(dim=2), torch.ones(8, 16))
    torch.testing.assert_close(plan.sum(dim=1), torch.ones(8, 16), rtol=0, atol=0.01)
    assert (column_error(plan) < 0.01).all()


def test_without_entropy_it_is_the_optimal_assignment():
    """ε → 0: the plan is the permutation that SciPy's exact solver finds."""
    for seed in range(10):
        cost = torch.rand(6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        rows, columns = linear_sum_assignment(cost.numpy())
        exact = torch.zeros(6, 6, dtype=torch.float64)
        exact[rows, columns] = 1
        plan = assignment(cost[None], epsilon=1e-3, iterations=5000)[0]
        torch.testing.assert_close(plan, exact, rtol=0, atol=0.05)  # what 5000 iterations leave


def test_with_entropy_alone_it_is_uniform():
    plan = assignment(torch.rand(2, 9, 9), epsilon=1e4)
    torch.testing.assert_close(plan, torch.full((2, 9, 9), 1 / 9), rtol=1e-3, atol=0)


def test_where_it_has_not_converged_rows_sum_to_one_and_the_error_says_so():
    maps = some_maps(8, 64, 4, 4, scale=5.0)  # squared distances ≈ 1e4 ε
    plan = assignment(position_cost(maps, maps.roll(1, 0)))
    torch.testing.assert_close(plan.sum(dim=2), torch.ones(8, 16))
    error = column_error(plan)
    by_hand = [sum(abs(float(plan[b, :, j].sum()) - 1) for j in range(16)) / 16 for b in range(8)]
    np.testing.assert_allclose(error, by_hand, rtol=1e-4)
    assert (error > 0.05).any() and (error < 2).all()
    longer = column_error(assignment(position_cost(maps, maps.roll(1, 0)), iterations=3000))
    assert longer.mean() < 0.5 * error.mean()


def test_column_error_of_extremes():
    one_for_all = torch.zeros(1, 4, 4)
    one_for_all[:, :, 2] = 1
    assert column_error(one_for_all).item() == 1.5 and column_error(torch.eye(4)[None]).item() == 0


@pytest.mark.parametrize("cost", [0.0, 1e-30, 1e30, 3e38, float("inf")])
def test_no_cost_makes_a_nan(cost):
    plan = assignment(torch.full((1, 4, 4), cost), epsilon=1e-6)
    torch.testing.assert_close(plan, torch.full((1, 4, 4), 0.25))
    spread = torch.full((1, 4, 4), cost)
    spread[0, 0, 1] = 0
    plan = assignment(spread, epsilon=1e-6)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(dim=2), torch.ones(1, 4))


# -- the mixed maps --------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["own", "partner"])
@pytest.mark.parametrize("iterations", [3, 100])
def test_mix_equals_the_loop(positions, iterations):
    maps = some_maps(4, 5, 2, 3)
    mixer = make("alignmixup", seed=0, positions=positions, iterations=iterations, epsilon=0.2)
    mixed = mixer.mix(maps, Draw(3, PARTNER, 0.3))
    expected = slow_mix(
        maps.flatten(2).double().numpy(), PARTNER, 0.3, positions == "own", 0.2, iterations
    )
    np.testing.assert_allclose(mixed.maps.flatten(2), expected, rtol=1e-4, atol=1e-5)
    assert mixed.own_weight == 0.3 and mixed.keep is None


def test_by_default_a_fair_coin_of_the_seed_decides_whose_places_stay():
    maps = some_maps(4, 5, 2, 3)
    default, own, partner = (
        make("alignmixup", seed=0, **settings)
        for settings in ({}, {"positions": "own"}, {"positions": "partner"})
    )
    fell = [default.keeps_own(seed) for seed in range(2500)]
    assert abs(sum(fell) / 2500 - 0.5) < 4 * 0.5 / 50  # four standard errors
    for seed in range(20):
        draw = Draw(3, PARTNER, 0.3, seed=seed)
        assert torch.equal(
            default.mix(maps, draw).maps, (own if fell[seed] else partner).mix(maps, draw).maps
        )
        assert own.keeps_own(seed) and not partner.keeps_own(seed)


def test_the_partners_places_are_own_places_of_the_inverse_draw():
    """Why the coin changes nothing on average: the inverse permutation and 1 − λ are as likely."""
    maps, partner = some_maps(4, 5, 2, 3), torch.tensor([1, 2, 0, 3])
    theirs = make("alignmixup", seed=0, positions="partner").mix(maps, Draw(3, partner, 0.3)).maps
    own = (
        make("alignmixup", seed=0, positions="own").mix(maps, Draw(3, partner.argsort(), 0.7)).maps
    )
    torch.testing.assert_close(theirs, own[partner])


@pytest.mark.parametrize("layer", [0, 3])
def test_lambda_one_keeps_the_own_maps(layer):
    """With own places exactly; at the partner's places its own features, each place a mean of
    them.
    """
    maps = some_maps(4, 5, 4, 4)
    draw = Draw(layer, PARTNER, 1.0, seed=1)
    mixed = make("alignmixup", seed=0, positions="own").mix(maps, draw)
    assert torch.equal(mixed.maps, maps) and mixed.own_weight == 1
    moved = make("alignmixup", seed=0, positions="partner").mix(maps, draw)
    assert moved.own_weight == 1
    if layer == 0:
        assert torch.equal(moved.maps, maps)
    else:
        assert (moved.maps <= maps.amax(dim=(2, 3), keepdim=True) + 1e-6).all()
        torch.testing.assert_close(
            moved.maps.mean(dim=(2, 3)), maps.mean(dim=(2, 3)), rtol=0.02, atol=0.02
        )
        assert not torch.allclose(moved.maps[:3], maps[:3], atol=0.1) and torch.equal(
            moved.maps[3], maps[3]
        )


def test_lambda_zero_gives_the_partner():
    maps = some_maps(4, 5, 4, 4)
    assert torch.equal(
        make("alignmixup", seed=0, positions="partner").mix(maps, Draw(3, PARTNER, 0.0)).maps,
        maps[PARTNER],
    )


def test_values_lie_between_those_that_the_pair_has_anywhere():
    maps = some_maps(4, 5, 4, 4, scale=20.0)  # far from converged
    for positions in ("own", "partner"):
        mixed = (
            make("alignmixup", seed=0, positions=positions).mix(maps, Draw(3, PARTNER, 0.4)).maps
        )
        low, high = maps.amin(dim=(2, 3), keepdim=True), maps.amax(dim=(2, 3), keepdim=True)
        assert (mixed >= low.minimum(low[PARTNER]) - 1e-4).all()
        assert (mixed <= high.maximum(high[PARTNER]) + 1e-4).all()


@pytest.mark.parametrize("positions", ["own", "partner"])
def test_a_partner_whose_features_stand_elsewhere_is_found_again(positions):
    """The alignment undone: the same features at other places make a pair that mixes to one of the
    two.
    """
    image = torch.randn(1, 32, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    shuffled = image.flatten(2)[
        ..., torch.randperm(16, generator=torch.Generator().manual_seed(1))
    ].view_as(image)
    maps = torch.cat([image, shuffled])
    mixed = make("alignmixup", seed=0, positions=positions).mix(maps, Draw(3, [1, 0], 0.5)).maps
    torch.testing.assert_close(mixed, maps if positions == "own" else maps.flip(0))


def test_behind_average_pooling_a_converged_alignment_is_a_plain_weighted_sum():
    """A doubly stochastic R uses every position once, so the mean over positions forgets it."""
    maps = some_maps(6, 8, 4, 4, scale=0.3)
    draw = Draw(3, [1, 2, 3, 4, 5, 0], 0.3)
    for positions in ("own", "partner"):
        mixed = (
            make("alignmixup", seed=0, positions=positions, features="unit").mix(maps, draw).maps
        )
        plain = 0.3 * maps + 0.7 * maps[draw.partner]
        torch.testing.assert_close(
            mixed.mean(dim=(2, 3)), plain.mean(dim=(2, 3)), rtol=1e-3, atol=1e-4
        )
        assert (mixed - plain).abs().max() > 0.05


def test_no_gradient_flows_through_the_assignment():
    maps = some_maps(4, 5, 2, 3).double().requires_grad_()
    draw, mixer = Draw(3, [1, 2, 3, 0], 0.3), make("alignmixup", seed=0, positions="own")
    weights = torch.randn(
        4, 5, 2, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64
    )
    (mixer.mix(maps, draw).maps * weights).sum().backward()
    constant = assignment(position_cost(maps, maps[draw.partner]))
    expected = 0.3 * weights
    # image j lent its features to image i, place q to p by R_pq
    for i, j in enumerate(draw.partner.tolist()):
        expected[j] += 0.7 * (weights[i].flatten(1) @ constant[i]).view(5, 2, 3)
    torch.testing.assert_close(maps.grad, expected)
    assert not constant.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("features", ["raw", "unit"])
@pytest.mark.parametrize("scale", [0.0, 1e-4, 1.0, 1e4])
def test_half_precision_of_any_scale_has_no_nan(dtype, features, scale):
    # squares of 1e4 leave float16
    maps = (some_maps(4, 32, 4, 4) * scale).to(dtype).requires_grad_()
    for positions in ("own", "partner"):
        mixer = make("alignmixup", seed=0, positions=positions, features=features)
        mixed = mixer.mix(maps, Draw(3, PARTNER, 0.3)).maps
        assert mixed.dtype == dtype and mixed.isfinite().all()
        assert mixed.amax() <= maps.amax()
        (gradient,) = torch.autograd.grad(mixed.float().sum(), maps)
        assert gradient.isfinite().all()
        if scale == 0:
            assert (mixed == 0).all()


def test_bfloat16_at_the_end_of_its_range():
    # squared distances overflow even float32
    maps = (some_maps(4, 8, 2, 2) * 1e38).to(torch.bfloat16)
    assert maps.isfinite().all()
    assert (
        make("alignmixup", seed=0, positions="own")
        .mix(maps, Draw(3, PARTNER, 0.3))
        .maps.isfinite()
        .all()
    )


def test_a_broken_image_breaks_only_its_pairs():
    maps = some_maps(4, 5, 2, 3)
    maps[2] = float("nan")
    mixed = make("alignmixup", seed=0, positions="own").mix(maps, Draw(3, [1, 0, 3, 2], 0.3)).maps
    assert mixed[:2].isfinite().all() and not mixed[2:].isfinite().any()


def test_autocast_changes_nothing():
    maps, mixer = some_maps(4, 64, 4, 4), make("alignmixup", seed=0, positions="own")
    plain = mixer.mix(maps, Draw(3, PARTNER, 0.3)).maps
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer.mix(maps, Draw(3, PARTNER, 0.3)).maps, plain)
        assert align(maps, torch.eye(16).expand(4, 16, 16)).dtype == torch.float32


# -- the step --------------------------------------------------------------------------------------


def test_a_step_at_the_input_is_inputmixup_and_at_the_last_block_the_papers(tiny, batch):
    images, labels = batch
    partner, mixer = [2, 0, 1, 6, 5, 3, 4], make("alignmixup", seed=0, positions="own")
    at_input = mixer.loss(tiny, images, labels, draw=Draw(0, partner, 0.3))
    assert torch.equal(
        at_input, make("mixup", seed=0).loss(tiny, images, labels, draw=Draw(0, partner, 0.3))
    )
    maps = tiny.layer2(tiny.layer1(tiny.stem(images))).detach()
    mixed = slow_mix(maps.flatten(2).double().numpy(), partner, 0.3, True, 0.1, 100)
    logits = tiny.fc(torch.from_numpy(mixed).float().mean(dim=2))
    expected = 0.3 * F.cross_entropy(logits, labels) + 0.7 * F.cross_entropy(
        logits, labels[partner]
    )
    loss = mixer.loss(tiny, images, labels, draw=Draw(3, partner, 0.3))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_layers_are_the_input_and_the_last_block_unless_given(tiny):
    for n_blocks in (1, 3, 5):
        mixer = make("alignmixup", seed=0)
        drawn = [mixer.draw(2, n_blocks, mixer.rng).layer for _ in range(400)]
        assert set(drawn) == {0, n_blocks} and abs(drawn.count(0) / 400 - 0.5) < 4 * 0.5 / 20
    assert make("alignmixup", layers=(2,)).layer_set(3) == (2,)
    with pytest.raises(ValueError, match="unknown layer 9"):
        make("alignmixup", layers=(9,)).check(tiny)


def test_lambda_follows_beta_2_2_by_default():
    mixer = make("alignmixup", seed=0)
    lams = np.array([mixer.draw_lam(3, mixer.rng) for _ in range(4000)])
    # Beta(2, 2): variance 1/20
    assert abs(lams.mean() - 0.5) < 0.02 and abs(lams.var() - 1 / 20) < 0.005


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epsilon": 0.0}, "epsilon must be a positive number, got 0.0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"positions": "own "}, "unknown positions 'own '"),
        ({"features": "cosine"}, "unknown features 'cosine'"),
        ({"alpha": 0.0}, "alpha must be a positive number, got 0.0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError) as error:
        make("alignmixup", **settings)
    assert words in str(error.value)
