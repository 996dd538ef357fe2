"""Crops that are resized, changed colours, windows and warm-up: against torchvision, PIL and plain
definitions.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from catchup import Settings, fit
from catchup.data import Augmentation, Boxes, Dataset, Images
from catchup.data.augment import augment_batch, centre_crops, crops, draw_crops
from catchup.data.colour import (
    PCA_AXES,
    PCA_STD,
    add_pca_noise,
    change_colours,
    draw_colours,
    jitter_colours,
)
from catchup.data.protocol import NORMALISATIONS, with_protocol
from catchup.data.resize import BoxDraw, ResizedCrop, crop_and_resize, draw_boxes
from catchup.mixers import make
from catchup.training.schedule import make_schedule
from catchup.training.trainer import augmentation_of, dataset_of, model_of, train, try_out


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def some_pixels(batch=6, channels=3, height=21, width=26, seed=1):
    """Smooth pictures with noise: what photographs are like, and no resampling hides in noise
    alone.
    """
    noise = torch.rand(batch, channels, height, width, generator=generator(seed))
    coarse = torch.rand(batch, channels, 4, 4, generator=generator(seed + 1))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return ((0.7 * smooth + 0.3 * noise) * 255).round().to(torch.uint8)


BOXES = BoxDraw(
    *torch.tensor(
        [[0, 0, 21, 26], [3, 5, 9, 9], [0, 2, 21, 3], [20, 25, 1, 1], [4, 0, 12, 24], [1, 1, 5, 17]]
    ).T
)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(12, 12), (21, 26), (40, 33)])
def test_resized_boxes_are_those_of_torchvision_and_pil(interpolation, size):
    from PIL import Image
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as theirs

    pixels = some_pixels()
    found = crop_and_resize(pixels, BOXES, size, interpolation)
    assert found.dtype == torch.uint8 and found.shape == (6, 3, *size)
    for image, ours, box in zip(
        pixels, found, zip(*(part.tolist() for part in BOXES)), strict=True
    ):
        # bicubic values are not kept to 0 … 255 between the axes there
        if interpolation == "bilinear":
            expected = theirs.resized_crop(
                image.float(), *box, list(size), InterpolationMode.BILINEAR, antialias=True
            )
            assert (ours - expected).abs().max() <= 1.01  # rounded twice
        top, left, height, width = box
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).crop(
            (left, top, left + width, top + height)
        )
        by_pil = np.asarray(
            picture.resize(size[::-1], getattr(Image.Resampling, interpolation.upper()))
        )
        apart = np.abs(by_pil.transpose(2, 0, 1).astype(int) - ours.numpy())
        assert apart.max() <= 2 and (apart > 1).mean() < 0.005  # it rounds halves otherwise


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_box_of_the_wanted_size_is_only_cut_out(interpolation):
    pixels = some_pixels()
    boxes = BoxDraw(*torch.tensor([[0, 1, 9, 8]] * 6).T)
    assert torch.equal(crop_and_resize(pixels, boxes, (9, 8), interpolation), pixels[:, :, :9, 1:9])


def test_nothing_outside_the_box_is_seen():
    pixels = some_pixels(2)
    boxes = BoxDraw(*torch.tensor([[3, 4, 7, 10]] * 2).T)
    inside = torch.zeros(21, 26, dtype=torch.bool)
    inside[3:10, 4:14] = True
    other = torch.where(inside, pixels, 255 - pixels)
    assert torch.equal(
        crop_and_resize(pixels, boxes, (16, 5), "bicubic"),
        crop_and_resize(other, boxes, (16, 5), "bicubic"),
    )


def distance_of_distributions(ours, theirs):
    """Kolmogorov and Smirnov's: the largest difference of the two distribution functions."""
    points = np.sort(np.concatenate([ours, theirs]))
    return np.abs(
        np.searchsorted(np.sort(ours), points, "right") / len(ours)
        - np.searchsorted(np.sort(theirs), points, "right") / len(theirs)
    ).max()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [((64, 64), (0.08, 1.0), (3 / 4, 4 / 3)), ((20, 60), (0.5, 1.0), (3 / 4, 4 / 3))],
)
def test_boxes_are_drawn_as_torchvision_draws_them(size, scale, ratio):
    """The second is too wide for most boxes: many end in the centre."""
    from torchvision.transforms import RandomResizedCrop

    n = 3000
    ours = torch.stack(draw_boxes(n, size, ResizedCrop(scale, ratio), generator()), 1).numpy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image = torch.empty(1, *size)
        theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(n)])
    for function in (
        lambda box: box[:, 0],
        lambda box: box[:, 1],
        lambda box: box[:, 2] * box[:, 3],
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0] + box[:, 2],
    ):
        # p = 0.001
        assert distance_of_distributions(function(ours), function(theirs)) < 1.95 * math.sqrt(2 / n)
    top, left, height, width = ours.T
    assert (top >= 0).all() and (left >= 0).all() and (height > 0).all() and (width > 0).all()
    assert (top + height <= size[0]).all() and (left + width <= size[1]).all()


def test_where_no_box_fits_it_is_the_largest_in_the_centre():
    wide = draw_boxes(5, (10, 40), ResizedCrop((1.0, 1.0), (0.5, 2.0)), generator())
    assert [part.tolist() for part in wide] == [[0] * 5, [10] * 5, [10] * 5, [20] * 5]
    high = draw_boxes(5, (40, 10), ResizedCrop((1.0, 1.0), (0.5, 2.0)), generator())
    assert [part.tolist() for part in high] == [[10] * 5, [0] * 5, [20] * 5, [10] * 5]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_colours_change_as_torchvision_changes_them(order):
    from torchvision.transforms import functional as theirs

    images = some_pixels().float() / 255
    factors = torch.empty(6, 3).uniform_(0.3, 1.7, generator=generator())
    found = jitter_colours(images, factors, torch.tensor([order] * 6))
    steps = (theirs.adjust_brightness, theirs.adjust_contrast, theirs.adjust_saturation)
    for image, ours, factor in zip(images, found, factors.tolist(), strict=True):
        for which in order:
            image = steps[which](image, factor[which])
        torch.testing.assert_close(ours, image, atol=2e-6, rtol=0)


def test_every_image_has_its_own_order_and_factors():
    images, order = some_pixels(2).float() / 255, torch.tensor([[0, 1, 2], [2, 0, 1]])
    factors = torch.tensor([[0.6, 1.4, 0.7], [1.3, 0.6, 1.2]])
    together = jitter_colours(images, factors, order)
    for one in range(2):
        alone = jitter_colours(images[one : one + 1], factors[one : one + 1], order[one : one + 1])
        torch.testing.assert_close(together[one : one + 1], alone)


def test_light_is_a_sum_of_principal_components():
    light = torch.tensor([[0.1, -0.2, 0.3], [0.0, 0.0, 0.0]])
    images = torch.full((2, 3, 4, 4), 0.5)
    found = add_pca_noise(images, light) - images
    expected = [
        sum(PCA_AXES[channel][k] * PCA_STD[k] * light[0, k].item() for k in range(3))
        for channel in range(3)
    ]
    assert found[0].amin((1, 2)).tolist() == pytest.approx(expected, abs=1e-6)
    assert found[0].amax((1, 2)).tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(found[1], torch.zeros(3, 4, 4))
    axes = np.array(PCA_AXES)
    # a basis, up to the four printed digits
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=5e-4)


def test_colours_are_drawn_evenly():
    draw = draw_colours(6000, 0.4, 0.1, generator())
    assert draw.factors.min() >= 0.6 and draw.factors.max() <= 1.4
    assert (draw.factors.mean(0) - 1).abs().max() < 5 * 0.8 / math.sqrt(12 * 6000)
    assert (draw.factors.std(0) - 0.8 / math.sqrt(12)).abs().max() < 0.01
    share = torch.bincount(draw.order @ torch.tensor([9, 3, 1])) / 6000
    assert (share > 0).sum() == 6 and (share[share > 0] - 1 / 6).abs().max() < 0.025
    assert draw.light.mean(0).abs().max() < 0.007 and (draw.light.std(0) - 0.1).abs().max() < 0.005


def test_no_change_of_colour_changes_nothing():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(4, 3, 16, 16)
    assert torch.equal(change_colours(pixels, draw_colours(4, 0.0, 0.0, generator())), pixels)
    with pytest.raises(ValueError, match="3 channels, got 1; set jitter and pca_noise to 0"):
        augment_batch(pixels[:, :1], Augmentation(jitter=0.4), generator())


def test_a_window_is_cut_at_every_place_and_of_the_padded_image():
    pixels, augmentation = some_pixels(2000, 1, 6, 8), Augmentation(pad=1, window=5)
    draw = draw_crops(2000, augmentation, generator(), (6, 8))
    assert draw.top.unique().tolist() == [0, 1, 2, 3] and draw.left.unique().tolist() == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]
    assert (torch.bincount(draw.left) / 2000 - 1 / 6).abs().max() < 0.045
    found = crops(pixels, augmentation, draw)
    wide = np.pad(pixels.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for which in range(0, 2000, 97):
        y, x = int(draw.top[which]), int(draw.left[which])
        assert np.array_equal(found[which].numpy(), wide[which, :, y : y + 5, x : x + 5])


def test_without_new_settings_the_same_numbers_are_drawn_as_ever():
    """Two whole rows of offsets, then the flips, and nothing else: runs from before come out the
    same.
    """
    pixels, ours, plain = some_pixels(9), generator(3), generator(3)
    found = augment_batch(pixels, Augmentation(2, "zero", True), ours)
    top, left = torch.randint(0, 5, (2, 9), generator=plain)
    flipped = torch.rand(9, generator=plain) < 0.5
    assert torch.equal(ours.get_state(), plain.get_state())
    wide = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    for which in range(9):
        window = wide[which, :, top[which] : top[which] + 21, left[which] : left[which] + 26]
        assert torch.equal(found[which], window.flip(2) if flipped[which] else window)


def test_everything_at_once_is_pure_given_the_generator():
    augmentation = Augmentation(
        flip=True, window=12, resized=ResizedCrop(), jitter=0.4, pca_noise=0.1
    )
    pixels, before = some_pixels(), some_pixels()
    state = torch.get_rng_state()
    first, again, other = (
        augment_batch(pixels, augmentation, generator(seed)) for seed in (4, 4, 5)
    )
    assert first.shape == (6, 3, 12, 12) and first.dtype == torch.uint8
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(pixels, before) and torch.equal(torch.get_rng_state(), state)
    flips = Augmentation(flip=True, resized=ResizedCrop((1.0, 1.0), (1.0, 1.0)))
    square = some_pixels(400, 1, 6, 6)
    found = augment_batch(square, flips, generator())
    mirrored = (found == square.flip(3)).flatten(1).all(1)
    assert (mirrored | (found == square).flatten(1).all(1)).all() and 150 < mirrored.sum() < 250


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": 0}, "window must be a whole number"),
        ({"jitter": 1.5}, "jitter must lie in"),
        ({"pca_noise": -1.0}, "pca_noise be >= 0"),
        ({"pad": 2, "resized": ResizedCrop()}, "pad must be 0 with it, got 2"),
    ],
)
def test_bad_augmentations_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Augmentation(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scale": (0.0, 1.0)}, "0 < low <= high <= 1"),
        ({"scale": (0.5, 0.2)}, "0 < low <= high"),
        ({"ratio": (0, 1)}, "the ratio"),
        ({"interpolation": "cubic"}, "Did you mean 'bicubic'?"),
    ],
)
def test_bad_resized_crops_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        ResizedCrop(**arguments)


def handmade(boxes=True, **augmentation):
    """Test image k holds k everywhere and 200 in its box."""
    pixels = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 10, 12).clone()
    edges = torch.tensor([[4.0, 2, 9, 7], [0, 0, 2, 9], [0, 0, 12, 10]])
    for image, (left, top, right, bottom) in zip((0, 1, 3), edges.int().tolist(), strict=True):
        pixels[image, :, top:bottom, left:right] = 200
    images = Images(pixels, torch.arange(4) % 2, ("even", "odd"))
    found = Boxes(edges, torch.tensor([0, 1, 3]), (10, 12)) if boxes else None
    return Dataset(
        "handmade", images, images, (0.5,) * 3, (0.25,) * 3, Augmentation(**augmentation), found
    )


def test_evaluation_sees_the_middle_and_its_boxes_move_along():
    from torchvision.transforms.functional import center_crop

    whole = handmade()
    cut = with_protocol(whole, Augmentation(window=6), "half")
    assert cut.train is whole.train and cut.mean == cut.std == (0.5,) * 3
    assert torch.equal(cut.test.pixels, center_crop(whole.test.pixels, [6, 6]))
    # the second box lies left of the window
    assert cut.boxes.size == (6, 6) and cut.boxes.image.tolist() == [0, 3]
    assert cut.boxes.edges.tolist() == [[1, 0, 6, 5], [0, 0, 6, 6]]
    for (left, top, right, bottom), image in zip(
        cut.boxes.edges.int().tolist(), (0, 3), strict=True
    ):
        inside = torch.zeros(6, 6, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        assert torch.equal(cut.test.pixels[image, 0] == 200, inside)
    assert centre_crops(whole.test.pixels, (5, 5)).shape == (4, 3, 5, 5)
    again = with_protocol(cut, cut.augmentation)
    assert torch.equal(again.test.pixels, cut.test.pixels) and torch.equal(
        again.boxes.edges, cut.boxes.edges
    )


def test_protocols_that_do_not_fit_the_images_are_refused():
    with pytest.raises(ValueError, match="window of 11 pixels does not fit into images of 10 x 12"):
        with_protocol(handmade(), Augmentation(window=11))
    with pytest.raises(
        ValueError, match="unknown normalisation 'imagnet'. Did you mean 'imagenet'"
    ):
        with_protocol(handmade(), Augmentation(), "imagnet")
    grey = Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(2), ("a", "b"))
    with pytest.raises(ValueError, match="'cifar' is for 3 channels, the images of grey have 1"):
        with_protocol(
            Dataset("grey", grey, grey, (0.5,), (0.5,), Augmentation()), Augmentation(), "cifar"
        )


def test_the_normalisations_are_the_published_ones():
    from torchvision.models import ResNet18_Weights

    shown = ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert NORMALISATIONS["imagenet"] == (tuple(shown.mean), tuple(shown.std))
    assert NORMALISATIONS["cifar"] == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_settings_go_before_the_data_sets_own_augmentation():
    own = Augmentation(pad=4, flip=True)
    assert augmentation_of(Settings(), own) == own
    assert augmentation_of(Settings(pad=2, pad_mode="reflect"), own) == Augmentation(
        2, "reflect", True
    )
    assert augmentation_of(Settings(window=24), own) == Augmentation(0, "zero", True, 24)
    assert augmentation_of(Settings(window=24, pad=1), own) == Augmentation(1, "zero", True, 24)
    resized_crop = Settings(
        resized_scale=(0.5, 1.0), resized_interpolation="bicubic", jitter=0.4, pca_noise=0.1
    )
    expected = ResizedCrop((0.5, 1.0), (3 / 4, 4 / 3), "bicubic")
    assert augmentation_of(resized_crop, own) == Augmentation(
        0, "zero", True, None, expected, 0.4, 0.1
    )
    windowed = Augmentation(window=7, flip=True)
    assert augmentation_of(Settings(), windowed) == windowed


SMALL = Settings(
    subset=4, width=4, epochs=1, batch_size=20, lr=0.05, image_size=12, window=8, device="cpu"
)


@pytest.mark.slow
def test_a_run_with_windows_trains_and_measures_the_middle(tmp_path):
    """Training images keep their size, all that is measured has the window's; also without
    augmentation.
    """
    dataset = dataset_of(SMALL)
    assert dataset.train.pixels.shape[2:] == (12, 12) and dataset.test.pixels.shape[2:] == (8, 8)
    sizes = []

    class Watching(type(make("baseline"))):
        def loss(self, model, images, labels, **options):
            sizes.append(tuple(images.shape[2:]))
            return super().loss(model, images, labels, **options)

    model = model_of(SMALL, dataset)
    try_out(model, dataset)
    model.register_forward_hook(
        lambda _module, args, _output: sizes.append(tuple(args[0].shape[2:]))
    )
    result = fit(model, Watching(seed=0), dataset, SMALL, progress=False)
    assert set(sizes) == {(8, 8)} and result.rows[0]["clean_train_error_percent"] is not None
    still = dataset_of(replace(SMALL, augment=False))
    assert torch.equal(still.train.pixels, dataset.train.centre_crop((8, 8)).pixels)
    resized_crop = train(
        replace(SMALL, resized_scale=(0.3, 1.0), warmup_epochs=0.5),
        tmp_path / "run",
        progress=False,
    )
    assert resized_crop.finished


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_a_warm_up_rises_linearly_to_the_schedule(kind):
    def rates(settings):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        plan, found = make_schedule(optimizer, settings, 100), []
        for _ in range(100):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            plan.step()
        return np.array(found)

    base = Settings(lr=0.2, schedule=kind, epochs=10, min_lr=0.01)
    warm, plain = rates(replace(base, warmup_epochs=2)), rates(base)
    np.testing.assert_allclose(warm[20:], plain[20:], atol=1e-9)
    np.testing.assert_allclose(warm[:20], plain[:20] * np.arange(1, 21) / 20, atol=1e-9)
    assert rates(replace(base, warmup_epochs=0.5))[4] == pytest.approx(plain[4])


def test_a_warm_up_keeps_each_groups_own_rate_and_floor():
    own = {"params": [torch.zeros(1, requires_grad=True)], "lr": 0.4, "min_lr": 0.002}
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)]}, own], lr=0.1)
    plan = make_schedule(optimizer, Settings(lr=0.1, min_lr=0.05, epochs=10, warmup_epochs=1), 100)
    rates = []
    for _ in range(101):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        plan.step()
    assert rates[0] == pytest.approx([0.01, 0.04]) and rates[100] == pytest.approx([0.05, 0.002])
