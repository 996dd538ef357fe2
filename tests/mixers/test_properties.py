"""Properties over shapes, types, batch sizes and settings that hypothesis chooses, always the same
ones.

Every method of the registry is tested; what cannot hold for one is waived, with its reason, in
`test_mixers.ROWS`.
"""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mixers import ROWS, begun, mixed
from torch import Tensor

from catchup import (
    MIXERS,
    Draw,
    Settings,
    Target,
    filter_influence,
    keep_mask,
    mix_channels,
    relative_filter_influence,
)
from catchup.data import Images, subset
from catchup.data.images import subset_indices
from catchup.experiments.report.verdict import OPPOSITE, REPRODUCED, SAME, WORDS, Difference, judge
from catchup.inspection.reliance import effective_filters, gini, top_share
from catchup.measures.calibration import measure_calibration
from catchup.measures.ood import ood_metrics
from catchup.measures.statistics import differences
from catchup.mixers.cutmix import cut_box
from catchup.mixers.regularisers import parse
from catchup.training.feed import epoch_order
from catchup.utils.choices import parse_spec
from conftest import TinyNet

few, some, many = (
    settings(max_examples=count, deadline=None, derandomize=True, database=None)
    for count in (5, 12, 60)
)
shares = st.floats(0, 1)
seeds = st.integers(0, 2**32 - 1)
# SnapMix's two weights are those of its two boxes; SaliencyMix and the rest have one weight and
# what is left of it.
SUMS_TO_ONE = [name for name in MIXERS if name != "snapmix"]


@st.composite
def batches_of_maps(
    draw, layers: tuple[int, ...], dtypes=(torch.float32, torch.float64)
) -> tuple[Tensor, Draw]:
    """Maps of a layer that the method may mix, and a draw for them; blocks of four pixels divide
    the sides.
    """
    layer, size = draw(st.sampled_from(layers)), draw(st.integers(1, 5))
    channels = draw(st.integers(1, 9)) if layer else draw(st.sampled_from((1, 3)))
    sides, seed = [draw(st.sampled_from((8, 12))) for _ in range(2)], draw(seeds)
    dice = torch.Generator().manual_seed(seed)
    maps = torch.randn(size, channels, *sides, generator=dice, dtype=torch.float64) * 10 ** draw(
        st.integers(-3, 2)
    )
    if draw(st.booleans()):
        maps = maps.contiguous(memory_format=torch.channels_last)
    partner = torch.randperm(size, generator=dice)
    return maps.to(draw(st.sampled_from(dtypes))), Draw(layer, partner, draw(shares), seed)


def check_mixed(name: str, maps: Tensor, draw: Draw) -> None:
    """What every result must satisfy, whatever was mixed."""
    result = mixed(name, maps, draw)
    assert result.maps.shape == maps.shape and result.maps.dtype == maps.dtype
    if maps.is_contiguous(memory_format=torch.channels_last):
        assert result.maps.is_contiguous(memory_format=torch.channels_last)
    else:
        assert result.maps.is_contiguous()
    assert result.maps.isfinite().all() == maps.isfinite().all()
    share = torch.as_tensor(result.own_weight)
    assert share.isfinite().all() and (0 <= share).all() and (share <= 1).all()
    again = mixed(name, maps, draw)
    assert torch.equal(again.maps, result.maps) and torch.equal(
        torch.as_tensor(again.own_weight), share
    )
    if "between" not in ROWS[name].waived:
        other, slack = maps[draw.partner], 1e-6 * maps.abs().max()
        low, high = maps.minimum(other), maps.maximum(other)
        assert (result.maps >= low - slack).all() and (result.maps <= high + slack).all()
        if result.keep is not None:
            assert torch.equal(result.maps, torch.where(result.keep, maps, other))


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
@few
@given(data=st.data())
def test_mixed_maps_are_made_of_the_two_sources_and_nothing_else(name, data):
    check_mixed(name, *data.draw(batches_of_maps(ROWS[name].layers)))


@pytest.mark.parametrize("name", MIXERS)
@few
@given(data=st.data())
def test_maps_of_zeros_and_equal_maps_give_no_nan(name, data):
    maps, draw = data.draw(batches_of_maps(ROWS[name].layers))
    check_mixed(name, torch.full_like(maps, data.draw(st.sampled_from((0.0, 1.0)))), draw)


@pytest.mark.parametrize("name", MIXERS)
@few
@given(data=st.data())
def test_at_lambda_one_the_source_comes_back(name, data):
    maps, draw = data.draw(batches_of_maps(ROWS[name].layers))
    if "lam_one" not in ROWS[name].waived:
        result = mixed(name, maps, Draw(draw.layer, draw.partner, 1.0, draw.seed))
        torch.testing.assert_close(result.maps, maps)
        assert (torch.as_tensor(result.own_weight) == 1).all()


@pytest.mark.parametrize("name", [name for name in MIXERS if "relabel" not in ROWS[name].waived])
@few
@given(data=st.data())
def test_relabelling_the_images_relabels_the_result(name, data):
    maps, draw = data.draw(batches_of_maps(ROWS[name].layers, dtypes=(torch.float64,)))
    order = torch.randperm(len(maps), generator=torch.Generator().manual_seed(draw.seed + 1))
    torch.manual_seed(0)
    model = TinyNet(channels=maps.shape[1] if draw.layer == 0 else 3).double()
    mixer = begun(name, model)
    labels = torch.arange(len(maps)) % 5

    def result(maps, labels, partner):
        one = Draw(draw.layer, partner, draw.lam, draw.seed)
        return mixer.mix(
            maps, mixer.plan(model, maps, labels, one) if draw.layer == 0 else one
        ).maps

    renamed = order.argsort()[draw.partner[order]]
    torch.testing.assert_close(
        result(maps[order], labels[order], renamed), result(maps, labels, draw.partner)[order]
    )


@pytest.mark.parametrize("name", MIXERS)
@few
@given(data=st.data())
def test_label_weights_are_at_least_0_and_sum_to_1(name, data):
    size, seed = data.draw(st.integers(1, 5)), data.draw(seeds)
    dice = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 8, 8, generator=dice)
    labels = torch.randint(5, (size,), generator=dice)
    torch.manual_seed(0)
    model = TinyNet()
    mixer = begun(name, model, seed=seed)
    loss = mixer.loss(model, images, labels)
    soft = mixer.last.target.soft(5)
    assert loss.isfinite() and (soft >= -1e-6).all() and soft.shape == (size, 5)
    if name in SUMS_TO_ONE:
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(size))
    # SnapMix: two weights up to 1, whose sum each of them gets in a pair of one label, as in its
    # release
    else:
        assert (soft.sum(dim=1) <= 4 + 1e-6).all()


# Catch-up Mix: the equations


@many
@given(
    rows=st.integers(1, 6),
    channels=st.integers(1, 20),
    lam=shares,
    levels=st.integers(1, 6),
    seed=seeds,
)
def test_exactly_floor_lambda_c_channels_of_lowest_rfi_are_kept_ties_to_the_lower(
    rows, channels, lam, levels, seed
):
    rfi = (
        torch.from_numpy(np.random.default_rng(seed).integers(0, levels, (rows, channels))).float()
        / levels
    )
    keep = keep_mask(rfi, lam)
    for values, kept in zip(rfi.tolist(), keep.tolist()):
        order = sorted(range(channels), key=lambda channel: (values[channel], channel))
        assert {channel for channel, one in enumerate(kept) if one} == set(
            order[: math.floor(lam * channels)]
        )


@many
@given(
    size=st.integers(1, 5),
    channels=st.integers(1, 9),
    lam=shares,
    seed=seeds,
    exponents=st.lists(st.integers(-12, 12), min_size=5, max_size=5),
)
def test_scaling_an_image_changes_no_mask(size, channels, lam, seed, exponents):
    """By powers of two, so that no rounding decides a tie."""
    dice = torch.Generator().manual_seed(seed)
    maps, partner = (
        torch.randn(size, channels, 4, 3, generator=dice),
        torch.randperm(size, generator=dice),
    )
    factor = torch.tensor([2.0**exponent for exponent in exponents[:size]])

    def mask(maps):
        influence = filter_influence(maps)
        rfi = relative_filter_influence(influence, influence[partner])
        torch.testing.assert_close(rfi.sum(dim=1), torch.zeros(size), atol=1e-5, rtol=0)
        assert (rfi.abs() <= 1 + 1e-6).all()
        return keep_mask(rfi, lam)

    assert torch.equal(mask(maps * factor[:, None, None, None]), mask(maps))


@some
@given(size=st.integers(1, 6), channels=st.integers(1, 7), seed=seeds)
def test_what_is_kept_and_what_is_lent_account_for_every_channel(size, channels, seed):
    """The gradient of a sum reaches every map as often as it is used."""
    dice = torch.Generator().manual_seed(seed)
    maps = torch.randn(
        size, channels, 2, 2, generator=dice, dtype=torch.float64, requires_grad=True
    )
    partner, keep = (
        torch.randperm(size, generator=dice),
        torch.rand(size, channels, generator=dice) < 0.5,
    )
    mix_channels(maps, partner, keep).sum().backward()
    used = keep.double().index_add(0, partner, (~keep).double())
    assert torch.equal(maps.grad, used[:, :, None, None].expand_as(maps))


@many
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    lam=shares,
    y=st.floats(0, 0.999),
    x=st.floats(0, 0.999),
)
def test_a_cut_box_lies_in_the_image_and_is_no_larger_than_it_should_be(height, width, lam, y, x):
    top, bottom, left, right = cut_box(height, width, lam, (y, x))
    assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
    assert (bottom - top) * (right - left) <= (1 - lam) * height * width + 1e-9


# Regularisers


@some
@given(
    size=st.integers(1, 5),
    side=st.integers(1, 12),
    hole=st.integers(1, 15),
    prob=shares,
    seed=seeds,
    last=st.booleans(),
)
def test_cutout_blanks_at_most_a_square_and_touches_nothing_else(
    size, side, hole, prob, seed, last
):
    images = torch.rand(size, 3, side, side + 2, generator=torch.Generator().manual_seed(seed)) + 1
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    before = images.clone()
    cut = parse(f"cutout:size={hole},prob={prob}")
    seen = cut.images(images, seed)
    blank = seen == 0
    assert torch.equal(images, before) and torch.equal(seen[~blank], images[~blank])
    assert (
        torch.equal(blank.all(dim=1), blank.any(dim=1))
        and blank[:, 0].sum(dim=(1, 2)).max() <= hole**2
    )
    assert seen.dtype == images.dtype and seen.stride() == images.stride()
    assert torch.equal(cut.images(images, seed), seen)


@some
@given(size=st.integers(1, 5), classes=st.integers(2, 9), epsilon=shares, share=shares, seed=seeds)
def test_smoothing_keeps_the_weights_sum(size, classes, epsilon, share, seed):
    dice = torch.Generator().manual_seed(seed)
    labels, partner = (
        torch.randint(classes, (size,), generator=dice),
        torch.randperm(size, generator=dice),
    )
    target = Target.pair(labels, partner, share)
    soft = parse(f"labelsmoothing:epsilon={epsilon}").target(target, classes).soft(classes)
    assert (soft >= 0).all()
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(size))
    torch.testing.assert_close(soft, (1 - epsilon) * target.soft(classes) + epsilon / classes)


@pytest.mark.parametrize(
    "text",
    [
        "dropblock:keep=0.7,block=2",
        "stochdepth:survival=0.5",
        "shakedrop:survival=0.5",
        "augmix:mean=0.5,std=0.25",
    ],
)
@few
@given(size=st.integers(2, 5), seed=seeds)
def test_regularisers_inside_follow_their_seed_and_leave_no_hook(text, size, seed):
    from test_regularisers import Residual

    from catchup import count_hooks
    from catchup.mixers import make

    torch.manual_seed(0)
    model = Residual()
    dice = torch.Generator().manual_seed(seed)
    # as normalised as AugMix is told
    images = (torch.rand(size, 3, 8, 8, generator=dice) - 0.5) / 0.25
    batch = images, torch.randint(5, (size,), generator=dice)
    losses = [make("cutmix", seed=seed, regularisers=(text,)).loss(model, *batch) for _ in range(2)]
    assert torch.equal(*losses) and losses[0].isfinite() and count_hooks(model) == 0


# Numbers and records

numbers = st.floats(-100, 100, width=32)


def rows_of(values: dict) -> list[dict]:
    return [
        {"method": method, "seed": seed, "top1_error": value}
        for method, column in values.items()
        for seed, value in enumerate(column)
    ]


@some
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=6))
def test_paired_differences_change_sign_with_the_order_and_hold_their_mean(pairs):
    ours, theirs = zip(*pairs)
    there, back = (
        differences(rows_of(values), ("top1_error",))[0]
        for values in ({"a": ours, "b": theirs}, {"b": theirs, "a": ours})
    )
    assert there["n"] == back["n"] == len(pairs) and there["mean"] == pytest.approx(-back["mean"])
    assert there["mean"] == pytest.approx(np.mean(np.subtract(theirs, ours)), abs=1e-9)
    if len(pairs) == 1:
        assert there["sd"] is there["low"] is there["high"] is None
    else:
        assert there["low"] <= there["mean"] + 1e-9 and there["mean"] <= there["high"] + 1e-9
        assert there["low"] == pytest.approx(-back["high"], abs=1e-9)
        assert there["sd"] == pytest.approx(np.std(np.subtract(theirs, ours), ddof=1), abs=1e-9)


@many
@given(
    mean=numbers,
    half=st.floats(0, 50),
    n=st.integers(1, 5),
    printed=st.none() | numbers,
    same=st.booleans(),
    claimed=st.sampled_from((-1, 0, 1)),
)
def test_verdicts_do_not_know_up_from_down_and_scaled_runs_never_reproduce(
    mean, half, n, printed, same, claimed
):
    def said(sign):
        bounds = sorted((sign * (mean - half), sign * (mean + half))) if n > 1 else (None, None)
        return judge(
            Difference(sign * mean, *bounds, n),
            None if printed is None else sign * printed,
            same_protocol=same,
            claimed=sign * claimed,
        )

    word = said(1).word
    assert said(1) == said(-1) and word in WORDS
    assert same or word not in (REPRODUCED, SAME, OPPOSITE)
    if word == REPRODUCED:
        assert (
            n > 1 and mean * printed > 0 and half < abs(mean) and abs(mean - printed) <= half + 0.02
        )
    assert judge(None, printed, same_protocol=same, claimed=claimed).word in (
        "not run",
        "not compared",
    )


@some
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5), seed=seeds, share=st.floats(0.5, 1)
)
def test_a_subset_is_balanced_and_grows_by_adding(counts, seed, share):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    images = Images(
        torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8),
        labels,
        tuple(map(str, range(len(counts)))),
    )
    chosen = subset_indices(images, share, seed).tolist()
    assert chosen == sorted(set(chosen)) and torch.equal(
        subset(images, share, seed).labels, labels[chosen]
    )
    assert labels[chosen].bincount(minlength=len(counts)).tolist() == [
        math.floor(share * n + 0.5) for n in counts
    ]
    smaller = subset_indices(images, 1, seed).tolist()
    assert len(smaller) == len(counts) and set(smaller) <= set(chosen)


@many
@given(
    n=st.integers(1, 60),
    size=st.integers(2, 20),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 99),
)
def test_batches_hold_every_index_once_but_for_a_last_one_of_one(n, size, seed, epoch):
    made = epoch_order(n, size, seed, epoch)
    every = torch.cat(made).tolist()
    left_out = int(n % size == 1 and n > 1)
    assert len(set(every)) == len(every) == n - left_out and set(every) <= set(range(n))
    assert all(len(one) == size for one in made[:-1]) and 1 <= len(made[-1]) <= size
    assert all(torch.equal(*pair) for pair in zip(made, epoch_order(n, size, seed, epoch)))


@many
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "data": st.sampled_from(("digits", "folder:a b", "folder:\u00fc")),
            "image_size": st.none() | st.integers(1, 99),
            "skip_unreadable": st.booleans(),
            "subset": st.none() | st.integers(1, 9) | st.floats(0.01, 1),
            "width": st.none() | st.integers(1, 64),
            "stem": st.sampled_from((None, "small", "imagenet")),
            "epochs": st.integers(1, 99),
            "seed": st.integers(0, 2**31 - 1),
            "lr": st.floats(1e-6, 10),
            "momentum": st.floats(0, 0.999),
            "milestones": st.tuples(st.floats(0.1, 0.9)),
            "schedule": st.sampled_from(("cosine", "constant")),
            "pad": st.none() | st.integers(0, 9),
            "resized_scale": st.none() | st.tuples(st.floats(0.01, 0.5), st.floats(0.5, 1)),
            "jitter": st.floats(0, 1),
            "precision": st.sampled_from(("fp32", "bf16")),
            "augment": st.booleans(),
            "recipe": st.sampled_from((None, "c100-400")),
            "method_settings": st.dictionaries(
                st.sampled_from(("alpha", "prob")), st.integers() | st.none()
            ),
        },
    )
)
def test_settings_go_through_json_and_come_back(values):
    chosen = Settings(**values)
    assert Settings.from_dict(json.loads(json.dumps(chosen.as_dict()))) == chosen


words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
plain = (
    st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
    | words.filter(lambda word: word not in ("True", "False", "None", "true", "false", "_"))
)
settings_of_a_method = st.dictionaries(
    words, plain | st.lists(plain, max_size=3).map(tuple), max_size=4
)


def written(value) -> str:
    return "[" + ",".join(map(written, value)) + "]" if isinstance(value, tuple) else str(value)


@pytest.mark.slow
@many
@given(name=words, given_settings=settings_of_a_method)
def test_what_a_text_names_comes_back(name, given_settings):
    text = (
        name
        + (":" if given_settings else "")
        + ",".join(f"{key}={written(value)}" for key, value in given_settings.items())
    )
    assert parse_spec(text) == (name, given_settings)


# Measures


@some
@given(
    size=st.integers(1, 30),
    classes=st.integers(2, 6),
    bins=st.integers(1, 20),
    scale=st.floats(0, 50),
    seed=seeds,
)
def test_the_calibration_error_is_a_percentage_of_all_images_in_any_order(
    size, classes, bins, scale, seed
):
    dice = torch.Generator().manual_seed(seed)
    logits, labels = (
        scale * torch.randn(size, classes, generator=dice),
        torch.randint(classes, (size,), generator=dice),
    )
    order = torch.randperm(size, generator=dice)
    found, turned = (
        measure_calibration(logits, labels, bins),
        measure_calibration(logits[order], labels[order], bins),
    )
    assert 0 <= found["ece"] <= 100 and found["ece"] == pytest.approx(turned["ece"], abs=1e-9)
    assert (
        sum(share for *_, share in found["bins"]) == pytest.approx(1) and len(found["bins"]) == bins
    )


@some
@given(
    inside=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
    outside=st.lists(st.integers(-5, 5), min_size=1, max_size=20),
)
def test_the_auroc_of_the_sets_exchanged_is_the_rest_to_100(inside, outside):
    inside, outside = (torch.tensor(scores, dtype=torch.float64) for scores in (inside, outside))
    found, other = ood_metrics(inside, outside), ood_metrics(outside, inside)
    assert found["auroc"] + other["auroc"] == pytest.approx(100)
    assert all(0 <= found[key] <= 100 for key in ("fpr95", "auroc", "aupr"))
    by_hand = np.mean([(b > a) + 0.5 * (b == a) for a in inside.tolist() for b in outside.tolist()])
    assert found["auroc"] == pytest.approx(100 * by_hand)


@some
@given(rows=st.integers(1, 4), channels=st.integers(1, 12), seed=seeds, factor=st.floats(0.01, 100))
def test_measures_of_reliance_keep_their_ranges_and_know_no_scale(rows, channels, seed, factor):
    influence = (
        torch.rand(
            rows, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        + 1e-3
    )
    for measure, low, high in (
        (lambda x: top_share(x, 1), 1 / channels, 1),
        (gini, 0, 1 - 1 / channels),
        (effective_filters, 1, channels),
    ):
        found = measure(influence)
        assert (found >= low - 1e-9).all() and (found <= high + 1e-9).all()
        torch.testing.assert_close(measure(factor * influence), found)
        torch.testing.assert_close(measure(influence.flip(1)), found)
