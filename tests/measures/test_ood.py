"""OOD metrics: counting pairs, scikit-learn and pytorch-ood as oracles; the protocol on tiny class
folders.
"""

import pytest
import torch
from torch import nn

from catchup.data import Images
from catchup.hooks.layers import count_hooks
from catchup.measures.ood import (
    measure_imagenet_o,
    measure_ood,
    msp_scores,
    ood_metrics,
    ood_scores,
)
from catchup.models.inference import PixelModel
from catchup.plots.robustness import ood_histograms


def two_sets(seed, n_in=37, n_out=23, levels=None):
    """Scores that overlap; `levels` makes them tie."""
    rng = torch.Generator().manual_seed(seed)
    inside, outside = torch.randn(n_in, generator=rng), torch.randn(n_out, generator=rng) + 0.7
    return tuple(
        (scores * levels).round() / levels if levels else scores for scores in (inside, outside)
    )


def counted_pairs(inside, outside):
    wins = sum((b > a) + 0.5 * (b == a) for a in inside.tolist() for b in outside.tolist())
    return 100 * wins / (len(inside) * len(outside))


def walked(inside, outside):
    """(FPR95, AUPR) by lowering the threshold over all distinct scores."""
    fpr, area, recall = None, 0.0, 0.0
    for threshold in sorted({*inside.tolist(), *outside.tolist()}, reverse=True):
        found, wrong = (outside >= threshold).sum().item(), (inside >= threshold).sum().item()
        area += (found / len(outside) - recall) * found / (found + wrong)
        recall = found / len(outside)
        if fpr is None and 100 * found >= 95 * len(outside):
            fpr = 100 * wrong / len(inside)
    return fpr, 100 * area


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("sizes", [(37, 23), (20, 20), (5, 100), (1, 1), (50, 19)])
def test_the_three_numbers_are_those_of_counting(sizes, levels):
    for seed in range(3):
        inside, outside = two_sets(seed, *sizes, levels=levels)
        found = ood_metrics(inside, outside)
        fpr, aupr = walked(inside, outside)
        assert found["auroc"] == pytest.approx(counted_pairs(inside, outside))
        assert (found["fpr95"], found["aupr"]) == (pytest.approx(fpr), pytest.approx(aupr))
        assert (found["n_inside"], found["n_outside"]) == sizes


@pytest.mark.parametrize("levels", [None, 2])
def test_scikit_learn_agrees(levels):
    metrics = pytest.importorskip("sklearn.metrics")
    inside, outside = two_sets(4, 300, 200, levels)
    labels, scores = torch.cat([torch.zeros(300), torch.ones(200)]), torch.cat([inside, outside])
    found = ood_metrics(inside, outside)
    assert found["auroc"] == pytest.approx(100 * metrics.roc_auc_score(labels, scores))
    assert found["aupr"] == pytest.approx(100 * metrics.average_precision_score(labels, scores))
    fpr, tpr, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert found["fpr95"] == pytest.approx(100 * fpr[(tpr >= 0.95 - 1e-9).argmax()])


def test_pytorch_ood_agrees():
    library = pytest.importorskip("pytorch_ood.metrics")
    inside, outside = two_sets(7, 3000, 2000)
    oracle = library.OODMetrics()
    oracle.update(
        torch.cat([inside, outside]), torch.cat([torch.zeros(3000), -torch.ones(2000)]).long()
    )
    theirs, ours = oracle.compute(), ood_metrics(inside, outside)
    assert ours["auroc"] == pytest.approx(100 * theirs["AUROC"], abs=1e-3)
    # its 0.95 is float32's
    assert ours["fpr95"] == pytest.approx(100 * theirs["FPR95TPR"], abs=0.05)
    # it takes the trapezoid
    assert ours["aupr"] == pytest.approx(100 * theirs["AUPR-OUT"], abs=0.05)


def test_what_chance_and_perfection_are():
    low, high = torch.arange(10.0), torch.arange(10.0, 15.0)
    perfect, upside_down = ood_metrics(low, high), ood_metrics(high, low)
    assert (perfect["fpr95"], perfect["auroc"], perfect["aupr"]) == (0, 100, 100)
    assert (upside_down["fpr95"], upside_down["auroc"]) == (100, 0)
    rng = torch.Generator().manual_seed(0)
    blind = ood_metrics(torch.rand(10_000, generator=rng), torch.rand(2_000, generator=rng))
    # the ImageNet-O protocol: 2000 against 10000
    assert blind["aupr_chance"] == pytest.approx(100 / 6)
    for name in ("fpr95", "auroc", "aupr"):
        assert blind[name] == pytest.approx(blind[f"{name}_chance"], abs=2)
    same = ood_metrics(torch.zeros(30), torch.zeros(10))
    assert (same["fpr95"], same["auroc"], same["aupr"]) == (100, 50, 25)


def test_only_the_order_of_the_scores_counts():
    inside, outside = two_sets(1)
    assert ood_metrics(inside, outside) == pytest.approx(
        ood_metrics(inside.double().exp(), outside.double().exp())
    )
    shuffled = ood_metrics(
        inside[torch.randperm(37, generator=torch.Generator().manual_seed(0))], outside.flip(0)
    )
    assert shuffled == ood_metrics(inside, outside)


def test_scores_are_minus_the_largest_probability_among_the_kept():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 5.0]])
    exp = logits.double().exp()
    torch.testing.assert_close(msp_scores(logits), -(exp / exp.sum(1, keepdim=True)).amax(1))
    kept = exp[:, [0, 2]]
    torch.testing.assert_close(
        msp_scores(logits, [2, 0]), -(kept / kept.sum(1, keepdim=True)).amax(1)
    )


def test_confident_images_do_not_tie():
    logits = torch.tensor([[20.0, 0.0], [25.0, 0.0]])
    assert (-logits.softmax(1).amax(1)).unique().numel() == 1  # float32 rounds both to 1
    assert msp_scores(logits).unique().numel() == 2


NAMES = ("n01", "n02", "n03", "n04")


class Coloured(nn.Module):
    """Logit k is the mean of row k of the first channel, times ten: what an image is of can be
    painted.
    """

    def forward(self, images):
        return 10 * images[:, 0].mean(dim=2)


def painted(labels, strength, names=NAMES, size=4):
    pixels = torch.zeros(len(labels), 3, size, size, dtype=torch.uint8)
    for index, (label, value) in enumerate(zip(labels, strength)):
        pixels[index, :, label] = value
    return Images(pixels, torch.tensor([min(label, len(names) - 1) for label in labels]), names)


def pixel_model():
    return PixelModel(Coloured(), (0.0,) * 3, (1.0,) * 3)


def test_a_pair_of_sets_gives_the_metrics_of_its_scores():
    inside, outside = (
        painted([0, 1, 2, 3, 1], [250, 200, 180, 90, 30]),
        painted([0, 1, 3], [20, 100, 40], ("x",)),
    )
    model = pixel_model().train()
    scores = ood_scores(model, inside, outside)
    torch.testing.assert_close(scores[0], msp_scores(model(inside.pixels / 255)))
    torch.testing.assert_close(scores[1], msp_scores(model(outside.pixels / 255)))
    assert measure_ood(model, inside, outside, batch_size=2) == ood_metrics(*scores)
    assert model.training and count_hooks(model) == 0


def test_imagenet_o_keeps_its_classes_images_and_logits():
    validation = painted([0, 1, 2, 3, 0, 2], [250, 200, 180, 90, 30, 60])
    images_o = painted([3, 1, 2], [200, 100, 40], ("n01", "n03"))
    found = measure_imagenet_o(pixel_model(), validation, images_o)
    logits_in, logits_out = (
        pixel_model()(images.pixels / 255) for images in (validation, images_o)
    )
    chosen = [0, 2, 4, 5]  # the images of n01 and n03
    expected = ood_metrics(
        msp_scores(logits_in[chosen][:, [0, 2]]), msp_scores(logits_out[:, [0, 2]])
    )
    assert found == expected and found["n_inside"] == 4
    assert found != measure_ood(pixel_model(), validation, images_o)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ood_metrics(torch.zeros(0), torch.zeros(3)),
            r"inside scores must be finite \(N,\), at least one",
        ),
        (
            lambda: ood_metrics(torch.zeros(3), torch.tensor([float("nan")])),
            "outside scores must be finite",
        ),
        (lambda: ood_metrics(torch.zeros(3), torch.zeros(3, 1)), r"got \(3, 1\)"),
        (
            lambda: msp_scores(torch.zeros(3)),
            r"finite and floating \(N, classes\), got torch.float32 \(3,\)",
        ),
        (lambda: msp_scores(torch.full((2, 3), float("inf"))), "logits must be finite"),
        (
            lambda: msp_scores(torch.zeros(2, 3), [3]),
            r"different indices in \[0, 2\], at least one, got \[3\]",
        ),
        (lambda: msp_scores(torch.zeros(2, 3), []), r"at least one, got \[\]"),
        (lambda: msp_scores(torch.zeros(2, 3), [1, 1]), r"different indices.*got \[1, 1\]"),
        (
            lambda: measure_ood(pixel_model(), painted([0], [9]), painted([0], [9], size=5)),
            (
                r"one shape \(C, H, W\), got \(3, 4, 4\) and \(3, 5, 5\); load both with the same"
                r" image_size"
            ),
        ),
        (
            lambda: measure_ood(pixel_model(), painted([0], [9], ("a", "b")), painted([0], [9])),
            "the model tells 4 classes apart, the inside images have 2",
        ),
        (
            lambda: measure_imagenet_o(
                pixel_model(), painted([0], [9]), painted([0], [9], ("n05",))
            ),
            "unknown class of the inside images 'n05'",
        ),
        (
            lambda: measure_ood(
                pixel_model(), painted([0], [9]), painted([0], [9]), keep_classes=["n02"]
            ),
            "none of the 1 inside images is of the 1 classes to keep",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_histogram_has_an_outline_of_shares_for_each_set():
    from matplotlib.figure import Figure

    ax = ood_histograms([-0.9, -0.9, -0.2, -1.0], [-0.35, -0.31], Figure().subplots(), n_bins=10)
    outlines = {
        patch.get_label(): patch.get_xy()[:, 1]
        for patch in ax.patches
        if "images" in str(patch.get_label())
    }
    # 1.0 falls into the last bin, with the two at 0.9
    assert {label: round(float(heights.max())) for label, heights in outlines.items()} == {
        "inside (4 images)": 75,
        "outside (2 images)": 100,
    }
    with pytest.raises(ValueError, match="no outside scores"):
        ood_histograms([-0.5], [])
