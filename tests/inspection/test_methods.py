"""The gallery of methods: a result is what the method itself does by hand; the figures show it;
nothing is left behind.
"""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from catchup import MIXERS, Draw, count_hooks, find_blocks, plots
from catchup.data.augment import normalise
from catchup.inspection.methods import (
    make_gallery,
    mask_gap,
    mask_sources,
    own_share,
    result_rows,
    run_method,
    run_methods,
)
from catchup.mixers import make
from catchup.plots.methods import COLUMNS, GAPS, HEIGHT, SIDE, TILE, WIDTH
from catchup.widgets import gallery_explorer, panels
from catchup.widgets.controls import as_png
from conftest import TinyNet

MEAN, STD, CLASSES = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), ("ape", "bee", "cow", "doe", "elk")
# TinyNet has no third stage
SETTINGS = {"automix": {"block": "layer2"}} if "automix" in MIXERS else {}
# whose mix is known here by hand
FIRST = ("baseline", "mixup", "cutmix", "catchup", "randomchannel")


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def gallery(pixels):
    torch.manual_seed(0)
    return make_gallery(
        TinyNet(),
        pixels,
        torch.tensor([0, 1, 2, 3, 4, 0]),
        classes=CLASSES,
        mean=MEAN,
        std=STD,
        settings=SETTINGS,
    )


@pytest.fixture(scope="module")
def everyone(gallery):
    return run_methods(gallery, 0.4, seed=1)


def answers(model, images, block):
    with (
        model.eval()
        .get_submodule(block)
        .register_forward_hook(lambda _m, _a, out: seen.append(out.detach()))
    ):
        seen = []
        model(images)
    return seen[0]


# -- a result is what the method does -------------------------------------------------------------


@pytest.mark.parametrize("pair", [0, 2])
def test_the_methods_of_the_input_by_hand(gallery, pixels, pair):
    ours, theirs = (
        (pixels[2 * pair + k] - torch.tensor(MEAN)[:, None, None])
        / torch.tensor(STD)[:, None, None]
        for k in (0, 1)
    )
    plain, blend, cut = (run_method(gallery, name, 0.3, pair=pair, seed=5) for name in FIRST[:3])
    torch.testing.assert_close(plain.mixed, ours)
    torch.testing.assert_close(blend.mixed, 0.3 * ours + 0.7 * theirs)
    box = make("cutmix").mix(torch.stack([ours, theirs]), Draw(0, [1, 0], 0.3, 5))
    torch.testing.assert_close(cut.mixed, box.maps[0])
    assert (
        torch.equal(cut.keep, box.keep.expand(2, 3, 16, 16)[0]) and plain.keep is blend.keep is None
    )
    own, partner = (CLASSES[int(gallery.labels[2 * pair + k])] for k in (0, 1))
    assert plain.weights == {own: 1.0} and blend.weights == pytest.approx({own: 0.3, partner: 0.7})
    assert cut.weights == pytest.approx({own: box.own_weight, partner: 1 - box.own_weight})
    for row in (plain, blend, cut):
        assert (
            row.block is None
            and (row.place, row.partner_place) == (2 * pair, 2 * pair + 1)
            and row.lam == 0.3
        )
        assert torch.equal(row.pictures, pixels[2 * pair : 2 * pair + 2]) and row.seed == 5
        torch.testing.assert_close(
            row.pixels,
            (
                row.mixed * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
            ).clamp(0, 1),
        )


@pytest.mark.parametrize("method", ["catchup", "randomchannel"])
@pytest.mark.parametrize("block", ["stem", "layer2"])
def test_the_methods_of_a_block_by_hand(gallery, pixels, method, block):
    other = replace(gallery, block=block)
    row = run_method(other, method, 0.6, pair=1, seed=7)
    images = normalise(pixels[[2, 3, 4, 5, 0, 1]], MEAN, STD)
    maps, layer = answers(other.model, images, block), find_blocks(other.model).index(block) + 1
    mixed = make(method).mix(maps, Draw(layer, [1, 0, 3, 2, 5, 4], 0.6, 7))
    assert row.block == block and row.pixels is None
    assert (
        torch.equal(row.own, maps[0])
        and torch.equal(row.partner, maps[1])
        and torch.equal(row.mixed, mixed.maps[0])
    )
    assert torch.equal(row.keep, mixed.keep.expand(maps.shape)[0]) and row.weights == pytest.approx(
        {"cow": 0.6, "doe": 0.4}
    )
    assert row.label == pytest.approx(0.6) and row.passes == (1, 1)


@pytest.mark.slow
def test_every_method_is_there_and_answers_for_every_lam(gallery, everyone):
    assert [row.method for row in everyone] == list(MIXERS)
    for lam in (0.0, 0.5, 1.0):
        for row in run_methods(gallery, lam, pair=1, seed=2):
            assert (
                row.mixed.shape == row.own.shape == row.partner.shape and row.mixed.isfinite().all()
            ), row.method
            assert set(row.weights) <= set(CLASSES) and all(
                weight > 0 for weight in row.weights.values()
            ), row.method
            assert row.keep is None or row.keep.shape == row.mixed.shape, row.method
            assert (row.pixels is None) == (row.block is not None), row.method
            assert row.passes == MIXERS[row.method].passes and row.own_class == "cow", row.method


def test_what_is_kept_is_the_images_own_to_the_last_bit(everyone):
    for row in everyone:
        assert row.keep is None or torch.equal(row.mixed[row.keep], row.own[row.keep]), row.method


def test_the_same_arguments_give_the_same_and_nothing_is_left_behind(gallery, everyone):
    model = gallery.model.train()
    weights, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    again = run_methods(gallery, 0.4, seed=1)
    for one, two in zip(everyone, again):
        assert torch.equal(one.mixed, two.mixed) and one.weights == two.weights, one.method
    assert model.training and count_hooks(model) == 0 and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_a_method_with_a_history_has_seen_one_step(gallery):
    for row in run_methods(gallery, 0.5, seed=3):
        if row.method == "recursivemix":
            assert set(row.weights) == {"ape", "bee"}, (
                "the history is the partner's, which the first step cannot have"
            )


def test_settings_reach_their_method_and_a_block_is_chosen_as_near_as_can_be(gallery):
    other = replace(
        gallery,
        settings={"catchup": {"label_rule": "kept"}, "randomchannel": {"layers": (1,)}},
        block="layer2",
    )
    row = run_method(other, "catchup", 0.7)
    assert row.block == "layer2" and row.label == pytest.approx(int(0.7 * 8) / 8)
    assert run_method(other, "randomchannel", 0.7).block == "stem"
    assert (
        make_gallery(TinyNet(), gallery.pixels, gallery.labels, classes=CLASSES).block == "layer1"
    ), "the first after the stem"


def test_methods_that_cannot_mix_the_model_are_left_out_and_say_why(gallery):
    assert gallery.methods == tuple(MIXERS) and not gallery.refusals
    other = make_gallery(TinyNet(), gallery.pixels, gallery.labels, classes=CLASSES)
    assert set(other.refusals) == set(SETTINGS) and all(
        "TinyNet" in words for words in other.refusals.values()
    )
    assert other.methods == tuple(name for name in MIXERS if name not in SETTINGS)


def test_a_result_of_several_images_is_the_one_with_most_of_the_first(gallery):
    rows = [
        run_method(gallery, name, 0.5, seed=seed)
        for seed in range(3)
        for name in {"comixup"} & set(MIXERS)
    ]
    # all of a small batch's results may be of other images: then the label says so
    assert any(row.label > 0 for row in rows)
    for row in rows:
        assert row.label == row.weights.get(row.own_class, 0)
        assert len(row.weights) == 1 or row.weights.get(row.partner_class, 0) > 0


def test_of_results_of_several_images_that_with_most_of_the_first_is_told(gallery):
    import catchup.inspection.methods

    labels, label = (
        [0, 1, 2, 2],
        torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.2, 0.3], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]),
    )
    assert catchup.inspection.methods._of_several(labels, label) == (1, 2), (
        "the second result; beside the first image mostly class 2"
    )

    class Swapping(MIXERS["mixup"]):
        """Results of three images each, dealt out over the batch."""

        def target(self, labels, draw, mixed):
            far = torch.arange(len(labels)).roll(2)
            return (
                super().target(labels[far], draw, mixed)
                if draw.lam < 0.5
                else super().target(labels, draw, mixed)
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MIXERS, "mixup", Swapping)
        assert run_method(gallery, "mixup", 0.6).weights == pytest.approx({"ape": 0.6, "bee": 0.4})
        row = run_method(gallery, "mixup", 0.3)
        assert (
            row.label == pytest.approx(0.7)
            and row.own_class == "ape"
            and row.partner_class in row.weights
        )


def test_running_statistics_do_not_move(gallery):
    torch.manual_seed(0)
    net = TinyNet()
    net.stem.append(torch.nn.BatchNorm2d(6))
    before = copy.deepcopy(net.train().state_dict())
    run_methods(replace(gallery, model=net), 0.4, methods=("mixup", "catchup"))
    assert (
        all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        and net.training
    )


# -- whose values ----------------------------------------------------------------------------------


def test_whose_pixels_they_are():
    own = torch.tensor([[[1.0, 0, 2, 5]], [[0.0, 0, 4, 5]]])  # two colours of four pixels
    partner = torch.tensor([[[0.0, 1, 1, 5]], [[0.0, 1, 0, 5]]])
    weights = torch.tensor([[0.25, 1.0, 0.0, 0.5]])
    found = own_share(own, partner, weights * own + (1 - weights) * partner)
    assert found[0, :3].tolist() == pytest.approx([0.25, 1, 0]) and found[0, 3].isnan(), (
        "an equal pair tells nothing"
    )
    off = own_share(own, partner, own + torch.tensor([0.0, 1.0])[:, None, None])
    assert off[0].isnan().all(), "what lies beside the line is neither's"
    assert own_share(own, partner, 2 * own - partner)[0].isnan().all(), (
        "and so is what lies beyond its ends"
    )
    several = own_share(*(one.expand(2, 2, 1, 4) for one in (own, partner, own)))
    assert several.shape == (2, 1, 4) and (several[:, 0, :3] == 1).all()


def test_shares_of_methods_known_by_hand(everyone):
    rows = {row.method: row for row in everyone}
    assert (rows["baseline"].share == 1).all() and rows["baseline"].share.shape == (1, 16, 16)
    torch.testing.assert_close(rows["mixup"].share, torch.full((1, 16, 16), 0.4), atol=1e-5, rtol=0)
    assert torch.equal(rows["cutmix"].share[0], rows["cutmix"].keep[0].float())
    share, kept = rows["catchup"].share, rows["catchup"].keep[:, :1, :1]
    assert share.shape == (6, 1, 1) and torch.equal(share, kept.float()), (
        "one for all values of a channel"
    )
    assert torch.equal(rows["cutmix"].mask, rows["cutmix"].keep.float())
    assert rows["mixup"].mask.shape == rows["mixup"].mixed.shape


def test_facts(everyone):
    for row, found in zip(everyone, result_rows(everyone), strict=True):
        assert {
            name: found[name] for name in ("method", "block", "lam", "seed", "place", "passes")
        } == {
            name: getattr(row, name)
            for name in ("method", "block", "lam", "seed", "place", "passes")
        }
        assert found["label"] == row.label and found["total"] == pytest.approx(
            sum(row.weights.values())
        )
    found = {row["method"]: row for row in result_rows(everyone)}
    assert found["mixup"]["kept"] is None and found["mixup"]["exact"] is None
    assert found["mixup"]["share"] == pytest.approx(0.4) and found["mixup"]["told"] == 1
    assert (
        found["catchup"]["kept"] == pytest.approx(int(0.4 * 6) / 6)
        and found["catchup"]["exact"] is True
    )
    lies = replace(
        everyone[list(MIXERS).index("cutmix")], keep=torch.ones(3, 16, 16, dtype=torch.bool)
    )
    assert result_rows([lies])[0]["exact"] is False
    nothing = replace(lies, mixed=lies.own + 9)
    assert result_rows([nothing])[0]["share"] is None and result_rows([nothing])[0]["told"] == 0


@pytest.mark.slow
def test_who_decides(gallery):
    draws = [(lam, pair, seed) for lam in (0.3, 0.7) for pair in (0, 1) for seed in (1, 2)]
    rows = [
        row
        for lam, pair, seed in draws
        for row in run_methods(gallery, lam, pair=pair, seed=seed, methods=FIRST)
    ]
    torch.manual_seed(9)
    others = [
        row
        for pair in (0, 1)
        for row in run_methods(
            replace(gallery, model=TinyNet()), 0.3, pair=pair, seed=1, methods=FIRST
        )
    ]
    found = {row["method"]: row for row in mask_sources(rows, others)}
    moved = {
        name: {key for key in ("by_lam", "by_seed", "by_images", "by_network") if row[key] > 0.01}
        for name, row in found.items()
    }
    assert moved == {
        "baseline": set(),
        "mixup": {"by_lam"},
        "cutmix": {"by_lam", "by_seed"},
        "catchup": {"by_lam", "by_images", "by_network"},
        "randomchannel": {"by_lam", "by_seed"},
    }
    assert found["mixup"]["by_lam"] == pytest.approx(0.4, abs=1e-4)
    picks = {(row.lam, row.place, row.seed): row.keep for row in rows if row.method == "cutmix"}
    gaps = [
        (picks[lam, place, 1] != picks[lam, place, 2]).float().mean().item()
        for lam in (0.3, 0.7)
        for place in (0, 2)
    ]
    assert found["cutmix"]["by_seed"] == pytest.approx(sum(gaps) / 4)
    assert all(math.isnan(row["by_network"]) for row in mask_sources(rows)), (
        "nothing to compare with"
    )


def test_the_gap_of_two_masks():
    a = torch.tensor([0.0, 1.0, 0.5, torch.nan])
    assert mask_gap(a, torch.tensor([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.5)
    assert mask_gap(a, a) == 0 and math.isnan(
        mask_gap(a, torch.tensor([torch.nan, torch.nan, 1.0, 1.0]))
    )


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"pixels": torch.rand(3, 3, 8, 8)}, "N even and at least 2, got"),
        ({"pixels": torch.rand(6, 2, 8, 8)}, "3 or 1"),
        ({"pixels": 3 * torch.rand(6, 3, 8, 8)}, r"must lie in \[0, 1\], got"),
        ({"labels": torch.tensor([0, 1, 2, 3, 4, 5])}, "integers below 5"),
        ({"labels": torch.rand(6)}, "integers below 5"),
        ({"block": "layr1"}, "Did you mean 'layer1'"),
        ({"settings": {"cutmx": {}}}, "Did you mean 'cutmix'"),
    ],
)
def test_a_zoo_refuses_bad_input(pixels, change, sentence):
    given = {"pixels": pixels, "labels": torch.arange(6) % 5, **change}
    with pytest.raises(ValueError, match=sentence):
        make_gallery(TinyNet(), given.pop("pixels"), given.pop("labels"), classes=CLASSES, **given)


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda gallery: run_method(gallery, "cutmx", 0.5), "Did you mean 'cutmix'"),
        (lambda gallery: run_method(gallery, "cutmix", 1.5), r"lie in \[0, 1\], got 1.5"),
        (lambda gallery: run_method(gallery, "cutmix", 0.5, pair=3), "from 0 to 2, got 3"),
        (lambda gallery: run_method(gallery, "cutmix", 0.5, pair=True), "got True"),
        (lambda gallery: plots.method_gallery([]), "at least one, got 0"),
        (
            lambda gallery: plots.method_gallery(
                [run_method(gallery, "mixup", 0.5, pair=pair) for pair in (0, 1)]
            ),
            "of 2 images",
        ),
        (lambda gallery: plots.who_decides([]), "no rows"),
        (lambda gallery: plots.label_weights([]), "no rows"),
    ],
)
def test_unknown_choices_are_refused(gallery, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(gallery)


# -- figures ---------------------------------------------------------------------------------------


def cell(figure, k):
    """The picture of the k-th cell."""
    sheet = figure.axes[0].images[0].get_array()
    top, left = k // COLUMNS * (HEIGHT + GAPS[0]), k % COLUMNS * (WIDTH + GAPS[1])
    return sheet[top : top + HEIGHT, left : left + WIDTH]


def test_the_zoo_has_a_titled_cell_for_everyone(gallery, everyone):
    figure = plots.method_gallery(everyone)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[0] == "the pair\nimage: ape, partner: bee" and len(words) == 1 + len(MIXERS)
    order = [row for row in everyone if row.block is None] + [row for row in everyone if row.block]
    assert [text.split(" (")[0] for text in words[1:]] == [plots.title(row.method) for row in order]
    assert (
        "InputMixup (input)\n0.40 ape + 0.60 bee" in words
        and "Catch-up Mix (layer1)\n0.40 ape + 0.60 bee" in words
    )
    assert "λ = 0.40" in figure.texts[0].get_text() and not pyplot.get_fignums()


def test_the_cells_of_the_input_show_pixels_and_whose_they_are(gallery, pixels):
    rows = run_methods(gallery, 0.5, seed=1, methods=("baseline", "cutmix"))
    figure, there = plots.method_gallery(rows), np.arange(SIDE) * 16 // SIDE
    large = (255 * pixels[0]).round().byte().permute(1, 2, 0).numpy()[there][:, there]
    assert np.array_equal(cell(figure, 0)[:SIDE, :SIDE], large) and np.array_equal(
        cell(figure, 1)[:SIDE, :SIDE], large
    )
    kept = rows[1].keep[0].numpy()[there][:, there]
    bright, dark = (
        cell(figure, 2)[:SIDE, SIDE + 4 :][kept],
        cell(figure, 2)[:SIDE, SIDE + 4 :][~kept],
    )
    assert (
        len(np.unique(bright, axis=0)) == len(np.unique(dark, axis=0)) == 1
        and bright.mean() > dark.mean()
    )
    stripes = cell(plots.method_gallery([replace(rows[1], mixed=rows[1].own + 9)]), 1)[
        :SIDE, SIDE + 4 :
    ]
    assert set(np.unique(stripes).tolist()) == {178, 255}, "what cannot be told is striped"


def test_the_cells_of_a_block_cross_out_what_is_not_used(gallery):
    row = run_method(replace(gallery, block="layer2"), "catchup", 0.5, seed=1)
    influence = [
        maps.flatten(1).norm(dim=1) / maps.flatten(1).norm(dim=1).sum()
        for maps in (row.own, row.partner)
    ]
    order = (influence[0] - influence[1]).argsort()
    # evenly spaced in eight, by numpy's rounding to even
    shown = [int(order[k]) for k in (0, 2, 4, 5, 7)]
    picture, lines = cell(plots.method_gallery([row]), 1), range(TILE)
    for k, channel in enumerate(shown):
        left = k * (TILE + 9)
        crossed = [
            all((picture[line * (TILE + 4) + d, left + d] == 0x4D).all() for d in lines)
            for line in range(3)
        ]
        stays = bool(row.keep[channel].all())
        assert crossed == [not stays, stays, False], "the mixed row is never crossed out"
    assert [bool(row.keep[channel].all()) for channel in shown] == [True, True, False, False, False]
    blend = replace(row, keep=None)
    assert (
        not (cell(plots.method_gallery([blend]), 1) == 0x4D)
        .all(axis=2)[np.arange(TILE), np.arange(TILE)]
        .all()
    )


def test_labels_of_several_classes_end_in_dots(everyone):
    row = replace(everyone[0], weights={"bee": 0.5, "ape": 0.2, "cow": 0.2, "doe": 0.1})
    assert (
        plots.method_gallery([row])
        .axes[0]
        .texts[1]
        .get_text()
        .endswith("\n0.20 ape + 0.50 bee + 0.30 …")
    )


@pytest.mark.slow
def test_no_text_of_the_zoo_is_cut_off_or_covered(gallery):
    longest = replace(gallery, classes=("triangle", "crescent", "square", "disc", "star"))
    figure = plots.method_gallery(run_methods(longest, 0.45, seed=1))
    as_png(figure, 96)
    texts = [*figure.axes[0].texts, *figure.texts]
    boxes = [text.get_window_extent() for text in texts]
    for k, box in enumerate(boxes):
        assert (
            box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
        ), texts[k]
        assert not any(box.overlaps(other) for other in boxes[:k]), (
            f"{texts[k]} covers another text"
        )


def test_the_table_of_deciders_prints_its_numbers():
    rows = [
        {
            "method": "cutmix",
            "passes": (1, 1),
            "by_lam": 0.2,
            "by_seed": 0.5,
            "by_images": 0.0,
            "by_network": 0.0,
        },
        {
            "method": "new",
            "passes": (4, 3),
            "by_lam": 0.0,
            "by_seed": 0.1,
            "by_images": 0.3,
            "by_network": math.nan,
        },
    ]
    ax = plots.who_decides(rows)
    assert [text.get_text() for text in ax.texts] == [
        "0.20",
        "0.50",
        "0.00",
        "0.00",
        "0.00",
        "0.10",
        "0.30",
        "?",
    ]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["CutMix  (1 + 1)", "new  (4 + 3)"]
    assert plots.who_decides(rows, ax=pyplot.figure().subplots()).figure is not ax.figure


def test_the_weights_of_the_labels_are_means_with_their_range():
    rows = [
        {"method": "cutmix", "lam": lam, "label": label, "place": 0, "seed": seed}
        for lam, seed, label in ((0.3, 0, 0.4), (0.3, 1, 0.6), (0.7, 0, 0.7), (0.7, 1, 0.8))
    ]
    ax = plots.label_weights(rows)
    lines = [line.get_xdata() for line in ax.lines]
    assert np.allclose(np.concatenate(lines), [0.3, 0.3, 0.4, 0.6, 0.5, 0.7, 0.7, 0.7, 0.8, 0.75])
    assert (
        ax.get_xlabel() == "weight of the image's own label (0 to 1)"
        and len(ax.get_legend().texts) == 2
    )
    assert plots.gallery_caption(rows).startswith("one network; 1 pairs of images, 2 seeds and 2 λ")


# -- the panel -------------------------------------------------------------------------------------


def card(gallery, lam, pair, seed):
    return plots.method_gallery(run_methods(gallery, lam, pair=pair, seed=seed))


@pytest.fixture(scope="module")
def few(gallery):
    return replace(gallery, methods=("mixup", "cutmix", "catchup"))


@pytest.mark.slow
def test_the_panel_shows_the_card_wherever_its_controls_stand(few):
    panel = gallery_explorer(few, lam=0.3, pair=1, seed=2)
    assert not panel.error and panel.image.value == as_png(card(few, 0.3, 1, 2), panels.DPI), (
        panel.traceback
    )
    cut = run_method(few, "cutmix", 0.3, pair=1, seed=2).label
    assert (
        panel.description
        == "λ 0.30, cow mixed with doe. Weight of the own label: InputMixup 0.30, "
        f"CutMix {cut:.2f}, Catch-up Mix 0.30."
    )
    for values in ({"lam": 0.75}, {"pair": 2}, {"seed": 3}):
        before = panel.image.value
        panel.set(**values)
        assert panel.image.value != before, f"{values} change nothing"
    assert panel.image.value == as_png(card(few, 0.75, 2, 3), panels.DPI) and not panel.error
    panel.set(lam=0.3, pair=1, seed=2)
    assert panel.image.value == as_png(card(few, 0.3, 1, 2), panels.DPI)
    assert list(panel.controls.controls["pair"].options) == [
        "0: ape + bee",
        "1: cow + doe",
        "2: elk + ape",
    ]


@pytest.mark.slow
def test_the_panel_runs_the_methods_once_per_place_and_says_what_goes_wrong(few, monkeypatch):
    calls = []
    monkeypatch.setattr(
        panels,
        "run_methods",
        lambda *given, **named: calls.append(given) or run_methods(*given, **named),
    )
    panel = gallery_explorer(few)
    for lam in (0.2, 0.5, 0.2):
        panel.set(lam=lam)
    assert [given[1] for given in calls] == [0.5, 0.2], "what was seen before is not computed again"
    monkeypatch.setattr(panels, "method_gallery", lambda rows: 1 / 0)
    before = panel.image.value
    panel.set(lam=0.6)
    assert panel.error == "ZeroDivisionError: division by zero" and panel.image.value == before


@pytest.mark.parametrize(
    "start, sentence",
    [
        ({"lam": 1.5}, "must lie in 0 … 1"),
        ({"pair": 3}, "unknown pair"),
        ({"seed": 10}, "must lie in 0 … 9"),
    ],
)
def test_a_wrong_start_is_refused(few, start, sentence):
    with pytest.raises(ValueError, match=sentence):
        gallery_explorer(few, **start)
