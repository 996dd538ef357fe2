"""Localisation: class maps, regions, boxes and what is counted of them, each against a slow
definition of its own.
"""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup.data import Boxes, Images
from catchup.measures.cam import class_maps, enlarge_maps
from catchup.measures.localization import (
    best_iou,
    centre_box,
    find_regions,
    iou_by_threshold,
    largest_boxes,
    locate,
    measure_localization,
)
from catchup.models import create
from catchup.models.inference import PixelModel
from catchup.plots.localization import localization_caption, plot_box_accuracy, plot_localization
from conftest import TinyNet


def seen_by(model, channels=3):
    """The model behind a normalisation, in training mode: nothing here may leave it in another."""
    return PixelModel(model, (0.4,) * channels, (0.3,) * channels).train()


class Window(nn.Module):
    """A network whose last maps are its images: a class scores where its own channel is bright."""

    def __init__(self, classes=2):
        super().__init__()
        self.stem, self.layer1 = (
            nn.Conv2d(classes, classes, 3, padding=1, bias=False) for _ in range(2)
        )
        self.fc = nn.Linear(classes, classes)
        for conv in (self.stem, self.layer1):
            nn.init.dirac_(conv.weight)
        nn.init.eye_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images):
        return self.fc(self.layer1(self.stem(images)).mean(dim=(2, 3)))


def window_model(classes=2):
    return PixelModel(Window(classes), (0.0,) * classes, (1.0,) * classes)


class Ended(TinyNet):
    """A TinyNet with another end."""

    def __init__(self, end):
        super().__init__()
        self.end, self.norm = end, nn.LayerNorm(8) if end == "norm" else None
        if end == "flatten":
            self.fc = nn.Linear(8 * 16, 5)

    def forward(self, images):
        maps = self.layer2(self.layer1(self.stem(images)))
        if self.end == "flatten":
            return self.fc(maps.flatten(1))
        if self.end == "relu":
            return self.fc(F.relu(maps).mean(dim=(2, 3)))
        if self.end == "max":
            return self.fc(maps.amax(dim=(2, 3)))
        return self.fc(self.norm(maps.mean(dim=(2, 3))))


@pytest.fixture
def photos():
    """Three images in [0, 1] and a class of each."""
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(3)), torch.tensor(
        [4, 0, 2]
    )


# Class maps


@pytest.mark.parametrize(
    "build",
    [
        TinyNet,
        lambda: Ended("relu"),
        lambda: create("resnet18", num_classes=5, width=4),
        lambda: create("preact_resnet18", num_classes=5, width=4),
        lambda: create("preact_resnet18", num_classes=5, width=4, norm_before_pool=True),
    ],
    ids=["tiny", "functional relu", "resnet18", "preact", "preact with a final norm"],
)
def test_the_average_of_a_class_map_is_the_score(build, photos):
    images, labels = photos
    torch.manual_seed(0)
    model = build()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean), nn.init.uniform_(part.running_var, 0.5, 2)
    model = seen_by(model)
    maps, scores = class_maps(model, images, labels)
    assert all(part.training for part in model.modules()) and maps.ndim == 3
    for i, label in enumerate(labels):
        score = float(maps[i].mean()) + model.model.fc.bias[label].item()
        assert score == pytest.approx(float(scores[i, label]), abs=1e-4)
    torch.testing.assert_close(scores, model.eval()(images))


def test_a_class_map_is_the_weighted_sum_of_the_last_maps(photos):
    images, labels = photos
    net = TinyNet()
    last = net.layer2(net.layer1(net.stem((images - 0.4) / 0.3)))
    maps, _ = class_maps(seen_by(net), images, labels)
    for i, label in enumerate(labels.tolist()):
        expected = sum(net.fc.weight[label, c] * last[i, c] for c in range(8))
        torch.testing.assert_close(maps[i], expected.detach())


@pytest.mark.slow
def test_a_class_map_is_captums_grad_cam_times_the_pixels(photos):
    attr = pytest.importorskip("captum.attr")
    images, labels = photos
    net = create("resnet18", num_classes=5, width=4).eval()
    grad_cam = attr.LayerGradCam(net, net.layer4).attribute(
        (images - 0.4) / 0.3, labels, relu_attributions=False
    )
    maps, _ = class_maps(seen_by(net), images, labels)
    torch.testing.assert_close(
        maps, grad_cam[:, 0].detach() * maps[0].numel(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Ended("flatten"), "no such end was found in Ended.*measure maps of your own with cam="),
        (Ended("norm"), r"what Ended classifies are not the averages of its last maps \(8, 8, 8\)"),
        (Ended("max"), "what Ended classifies are not the averages"),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), "no such end was found in Sequential"),
        (
            nn.Sequential(
                nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            ),
            "global average pooling and a linear layer",
        ),
    ],
)
def test_a_model_with_another_end_is_refused_by_name(model, says, photos):
    images, labels = photos
    small = images[..., ::2, ::2] if getattr(model, "end", "") == "flatten" else images
    with pytest.raises(ValueError, match=says):
        class_maps(seen_by(model), small, labels)


def test_maps_that_say_nothing_are_refused(photos):
    images, labels = photos
    with pytest.raises(
        ValueError, match="last maps of TinyNet have a single pixel for images of 2 x 2"
    ):
        class_maps(seen_by(TinyNet()), images[..., :2, :2], labels)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\], got 1 to 5"):
        class_maps(seen_by(TinyNet()), images, torch.tensor([1, 5, 2]))
    broken = TinyNet()
    nn.init.constant_(broken.fc.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        class_maps(seen_by(broken), images, labels)


def test_enlarged_maps_reach_from_nothing_to_one():
    maps = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)) - 7
    found = enlarge_maps(maps, 12, 20)
    assert found.shape == (4, 12, 20)
    assert (found.amin((1, 2)) == 0).all() and (found.amax((1, 2)) == 1).all()
    plain = F.interpolate(maps[:, None], size=(12, 20), mode="bilinear")[:, 0]
    for one, other in zip(found, plain):
        torch.testing.assert_close(
            one, (other - other.min()) / (other.max() - other.min()), rtol=1e-4, atol=1e-5
        )
    torch.testing.assert_close(enlarge_maps(3 * maps + 100, 12, 20), found, rtol=1e-3, atol=1e-4)


def test_a_constant_map_has_nothing_above_any_threshold():
    flat = torch.stack([torch.full((3, 3), value) for value in (0.0, 0.1, -5e7)])
    flat[1, 0, 0] += 1e-8  # less than a rounding
    assert not enlarge_maps(flat, 8, 8).any()
    assert (
        largest_boxes(find_regions(enlarge_maps(flat, 8, 8).numpy(), 0.0), 3).tolist()
        == [[0.0] * 4] * 3
    )
    with pytest.raises(FloatingPointError, match="a map holds NaN or infinity"):
        enlarge_maps(torch.tensor([[[0.0, float("inf")]]]), 4, 4)


# Regions and boxes


def flooded(mask):
    """Regions of one map, pixel by pixel: [(left, top, right, bottom, pixels)] in reading order."""
    left_over, found = {(y, x) for y, x in np.argwhere(mask).tolist()}, []
    for start in sorted(left_over):
        if start not in left_over:
            continue
        left_over.remove(start)
        reached = [start]
        for y, x in reached:
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left_over
            left_over -= near
            reached += sorted(near)
        ys, xs = zip(*reached)
        found.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1, len(reached)))
    return found


def slow_iou(a, b):
    """Shared pixels by pixels that either has."""
    one, other = (
        {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}
        for box in (a, b)
    )
    return len(one & other) / len(one | other)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.4, 0.6, 1.0])
def test_regions_are_those_of_a_flood(share):
    maps = np.random.default_rng(5).random((5, 7, 9))
    found = find_regions(maps, 1 - share)
    expected = [
        (place, *region) for place in range(5) for region in flooded(maps[place] > 1 - share)
    ]
    assert [
        (int(i), *e.astype(int).tolist(), int(p))
        for i, e, p in zip(found.image, found.edges, found.pixels)
    ] == expected
    largest = largest_boxes(found, 5)
    for place in range(5):
        own = flooded(maps[place] > 1 - share)
        assert largest[place].tolist() == list(
            max(own, key=lambda region: region[4])[:4] if own else (0,) * 4
        )


def test_regions_meet_at_corners_and_never_across_maps_or_rows():
    maps = np.zeros((2, 3, 3))
    maps[0, 0, 0] = maps[0, 1, 1] = 1  # one region, corner to corner
    # 0,2 and 1,0 follow each other in memory
    maps[0, 2, 2], maps[1, 0, 0], maps[1, 0, 2], maps[1, 1, 0] = (1, 1, 1, 1)
    found = find_regions(maps, 0.5)
    assert found.image.tolist() == [0, 1, 1] and found.pixels.tolist() == [3, 2, 1]
    assert found.edges.tolist() == [[0, 0, 3, 3], [0, 0, 1, 2], [2, 0, 3, 1]]


def test_the_first_of_equally_large_regions_counts():
    maps = np.zeros((1, 3, 5))
    maps[0, :, 0] = maps[0, :, 2] = maps[0, :, 4] = 1
    assert largest_boxes(find_regions(maps, 0), 1).tolist() == [[0, 0, 1, 3]]


def some_boxes(n_images, size, seed):
    """One to three whole-pixel boxes in each image but the second, which has none."""
    rng, rows = np.random.default_rng(seed), []
    for image in range(n_images):
        for _ in range(0 if image == 1 else rng.integers(1, 4)):
            left, top = rng.integers(0, size[1] - 1), rng.integers(0, size[0] - 1)
            rows.append(
                (
                    image,
                    left,
                    top,
                    rng.integers(left + 1, size[1] + 1),
                    rng.integers(top + 1, size[0] + 1),
                )
            )
    table = torch.tensor(rows)
    return Boxes(table[:, 1:].float(), table[:, 0].contiguous(), size)


def slow_best(predicted, boxes, image):
    own = [
        edges.tolist() for edges, owner in zip(boxes.edges, boxes.image.tolist()) if owner == image
    ]
    return max((slow_iou(a, b) for a in predicted for b in own), default=0.0)


def test_the_best_pair_of_boxes_counts():
    boxes, guesses = some_boxes(6, (9, 11), seed=0), some_boxes(6, (9, 11), seed=9)
    found = best_iou(guesses.edges.numpy(), guesses.image.numpy(), boxes, 6)
    for image in range(6):
        own = [
            edges.tolist()
            for edges, owner in zip(guesses.edges, guesses.image.tolist())
            if owner == image
        ]
        assert found[image] == pytest.approx(slow_best(own, boxes, image), abs=1e-12)
    assert found[1] == 0


# The measurement


def bright(channel, left, top, right, bottom, other=0):
    """An image of two channels, 8 x 8, one of them bright in a rectangle, the other everywhere
    `other`.
    """
    image = torch.zeros(2, 8, 8, dtype=torch.uint8)
    image[1 - channel] = other
    image[channel, top:bottom, left:right] = 255
    return image


def known():
    """Five images of a `Window`, and true boxes: IoU 1, 0.5, 3/8 and (class wrong) 1; the last has
    no box.
    """
    pixels = torch.stack(
        [
            bright(0, 1, 2, 5, 6),
            bright(1, 0, 0, 8, 4),
            bright(0, 2, 2, 5, 4),
            bright(1, 3, 3, 7, 7, other=200),
            bright(0, 0, 0, 4, 4),
        ]
    )
    images = Images(pixels, torch.tensor([0, 1, 0, 1, 0]), ("first", "second"))
    edges = torch.tensor(
        [[1, 2, 5, 6], [0, 0, 8, 8], [2, 2, 6, 6], [0, 0, 1, 1], [3, 3, 7, 7]]
    ).float()
    return images, Boxes(edges, torch.tensor([0, 1, 2, 3, 3]), (8, 8))


@pytest.mark.slow
def test_a_model_whose_maps_are_known():
    images, boxes = known()
    found = measure_localization(window_model(), images, boxes, batch_size=2)
    assert found["gt_known_loc"] == 75 and found["top1_loc"] == 50 and found["top1_accuracy"] == 75
    assert found["maxboxacc_v2_per_delta"] == {"0.3": 100, "0.5": 75, "0.7": 50}
    assert found["maxboxacc_v2"] == 75 and found["best_threshold"] == {"0.3": 0, "0.5": 0, "0.7": 0}
    assert found["n_images"] == 4 and found["n_without_box"] == 1
    json.dumps(found, allow_nan=False)
    whole = found["baselines"]["full"]  # IoU 16/64, 1, 16/64 and 16/64
    assert whole["gt_known_loc"] == 25 == whole["top1_loc"] and whole["maxboxacc_v2"] == 25
    middle = found["baselines"]["centre"]  # 0.8 of the sides: IoU 0.39, 0.64, 0.39 and 0.39
    assert middle["gt_known_loc"] == 25 == middle["top1_loc"] and middle["best_side"]["0.7"] == 1
    assert measure_localization(window_model(), images, boxes, iou=0.51)["gt_known_loc"] == 50
    assert measure_localization(window_model(), images, boxes, iou=1)["gt_known_loc"] == 50


def test_the_box_that_was_found_is_the_bright_one():
    images, boxes = known()
    found = locate(window_model(), images, boxes)
    assert found.edges.tolist() == [
        [1, 2, 5, 6],
        [0, 0, 8, 4],
        [2, 2, 5, 4],
        [3, 3, 7, 7],
        [0, 0, 4, 4],
    ]
    assert found.iou.tolist() == [1, 0.5, 6 / 16, 1, 0] and found.correct.tolist() == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert found.maps.shape == (5, 8, 8) and set(np.unique(found.maps)) == {0, 1}


def test_the_threshold_cuts_at_its_share_of_the_maximum():
    """Beside the bright rectangle a region of half its height: it belongs to the object below one
    half.
    """
    image = bright(0, 0, 0, 4, 8)
    image[0, :, 4:] = 102  # 0.4 of 255; the darkest pixel is 0
    image[0, 7, 7] = 0
    images = Images(image[None], torch.tensor([0]), ("first", "second"))
    boxes = Boxes(torch.tensor([[0.0, 0, 4, 8]]), torch.tensor([0]), (8, 8))
    edges = {
        t: locate(window_model(), images, boxes, threshold=t).edges[0].tolist()
        for t in (0.39, 0.41)
    }
    assert edges == {0.39: [0, 0, 8, 8], 0.41: [0, 0, 4, 8]}
    found = measure_localization(
        window_model(), images, boxes, thresholds=(0.1, 0.39, 0.41, 0.7), deltas=(0.5, 0.9)
    )
    assert found["best_threshold"] == {"0.5": 0.1, "0.9": 0.41}
    assert found["box_accuracy"] == {
        "thresholds": [0.1, 0.39, 0.41, 0.7],
        "0.5": [100, 100, 100, 100],
        "0.9": [0, 0, 100, 100],
    }


@pytest.fixture
def noise():
    """Seven images with boxes, and a stand-in for the class maps that gives each image a map of
    noise.
    """
    maps = torch.rand(7, 6, 6, generator=torch.Generator().manual_seed(8))
    pixels = torch.zeros(7, 3, 12, 10, dtype=torch.uint8)
    # its number, so that a batch finds its maps
    pixels[:, 0, 0, 0] = torch.arange(7, dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 1, 1, 0, 1, 1, 0]), ("a", "b"))

    def cam(_model, batch, _labels):
        numbers = (batch[:, 0, 0, 0] * 255).round().long()
        return maps[numbers], F.one_hot(numbers % 2, 2).float()

    return images, some_boxes(7, (12, 10), seed=4), cam, enlarge_maps(maps, 12, 10).numpy()


def test_max_box_accuracy_is_that_of_a_loop(noise):
    images, boxes, cam, maps = noise
    thresholds, deltas, rest = (0.0, 0.2, 0.45, 0.6, 0.9), (0.3, 0.5, 0.7), [0, 2, 3, 4, 5, 6]
    found = measure_localization(None, images, boxes, cam=cam, thresholds=thresholds, deltas=deltas)
    assert found["n_images"] == 6 and found["n_without_box"] == 1
    best = {
        t: [slow_best([r[:4] for r in flooded(maps[i] > t)], boxes, i) for i in rest]
        for t in thresholds
    }
    for delta in deltas:
        curve = [100 * sum(iou >= delta for iou in best[t]) / 6 for t in thresholds]
        assert found["box_accuracy"][f"{delta:g}"] == curve
        assert found["maxboxacc_v2_per_delta"][f"{delta:g}"] == max(curve)
        assert found["best_threshold"][f"{delta:g}"] == thresholds[curve.index(max(curve))]
    assert found["maxboxacc_v2"] == pytest.approx(sum(found["maxboxacc_v2_per_delta"].values()) / 3)
    largest = [max(flooded(maps[i] > 0.2), key=lambda region: region[4])[:4] for i in rest]
    right = [slow_best([box], boxes, i) >= 0.5 for box, i in zip(largest, rest)]
    correct = [i % 2 == int(images.labels[i]) for i in rest]
    assert found["gt_known_loc"] == pytest.approx(100 * sum(right) / 6)
    assert found["top1_loc"] == pytest.approx(
        100 * sum(a and b for a, b in zip(right, correct)) / 6
    )
    assert found["top1_accuracy"] == pytest.approx(100 * sum(correct) / 6)


def test_any_region_may_be_right_but_only_the_largest_is_the_box(noise):
    _, boxes, _, maps = noise
    for threshold in (0.3, 0.6, 0.8):
        largest = best_iou(largest_boxes(find_regions(maps, threshold), 7), np.arange(7), boxes, 7)
        assert (iou_by_threshold(maps, boxes, [threshold])[:, 0] >= largest).all()


def test_the_blind_boxes(noise):
    """The whole image, and boxes in the middle: 1 - threshold of the sides, each tried for every
    image.
    """
    images, boxes, cam, _ = noise
    thresholds = tuple(step / 20 for step in range(20))
    found = measure_localization(
        None, images, boxes, cam=cam, thresholds=thresholds, threshold=0.4, iou=0.3
    )["baselines"]

    def overlaps(side):
        box = (5 - 5 * side, 6 - 6 * side, 5 + 5 * side, 6 + 6 * side)
        pairs = [(i, edges.tolist()) for i, edges in zip(boxes.image.tolist(), boxes.edges)]
        best = dict.fromkeys(sorted({i for i, _ in pairs}), 0.0)
        for i, true in pairs:
            wide, high = (
                max(0.0, min(box[k + 2], true[k + 2]) - max(box[k], true[k])) for k in (0, 1)
            )
            union = 120 * side**2 + (true[2] - true[0]) * (true[3] - true[1]) - wide * high
            best[i] = max(best[i], wide * high / union)
        return list(best.values())

    assert found["full"]["gt_known_loc"] == pytest.approx(
        100 * sum(v >= 0.3 for v in overlaps(1)) / 6
    )
    assert found["centre"]["gt_known_loc"] == pytest.approx(
        100 * sum(v >= 0.3 for v in overlaps(0.6)) / 6
    )
    for delta in (0.3, 0.5, 0.7):
        curve = [100 * sum(v >= delta for v in overlaps(1 - t)) / 6 for t in thresholds]
        assert found["centre"]["maxboxacc_v2_per_delta"][f"{delta:g}"] == pytest.approx(max(curve))
        assert found["centre"]["best_side"][f"{delta:g}"] == 1 - thresholds[curve.index(max(curve))]
        assert found["full"]["maxboxacc_v2_per_delta"][f"{delta:g}"] == pytest.approx(curve[0])
    assert found["centre"]["maxboxacc_v2"] >= found["full"]["maxboxacc_v2"]
    assert "best_side" not in found["full"]


def test_the_box_in_the_middle():
    assert centre_box(1, (6, 10)).tolist() == [0, 0, 10, 6]
    assert centre_box(0.5, (6, 10)).tolist() == [2.5, 1.5, 7.5, 4.5]


@pytest.mark.slow
def test_neither_the_batch_nor_images_without_boxes_change_anything(noise):
    images, boxes, cam, _ = noise
    every = measure_localization(None, images, boxes, cam=cam)
    assert measure_localization(None, images, boxes, cam=cam, batch_size=3) == every
    with_box = torch.tensor([0, 2, 3, 4, 5, 6])
    alone = measure_localization(None, images.take(with_box), boxes.take(with_box), cam=cam)
    assert alone == every | {"n_without_box": 0}


def test_a_real_network_from_end_to_end(capsys):
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    images = Images(
        torch.randint(256, (7, 3, 16, 16), generator=generator, dtype=torch.uint8),
        torch.randint(5, (7,), generator=generator),
        tuple("abcde"),
    )
    model, state = seen_by(TinyNet()), torch.get_rng_state()
    found = measure_localization(
        model, images, some_boxes(7, (16, 16), seed=3), batch_size=4, progress=True
    )
    assert "localization" in capsys.readouterr().err
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert not any(part._forward_hooks for part in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 0 <= found["top1_loc"] <= min(found["gt_known_loc"], found["top1_accuracy"]) <= 100
    assert set(found["box_accuracy"]) == {"thresholds", "0.3", "0.5", "0.7"}
    assert len(found["box_accuracy"]["thresholds"]) == len(found["box_accuracy"]["0.3"]) == 100


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threshold": 1.0}, r"threshold must lie in \[0, 1\), got 1.0"),
        ({"threshold": float("nan")}, "threshold must lie"),
        ({"iou": 0}, r"iou must lie in \(0, 1\], got 0"),
        ({"deltas": ()}, r"deltas must lie in \(0, 1\], got none"),
        ({"deltas": (0.3, 1.2)}, "deltas must lie .*got 0.3, 1.2"),
        ({"thresholds": ()}, r"thresholds must lie in \[0, 1\), got none"),
        ({"thresholds": (0.1, 1)}, "thresholds must lie"),
        ({"thresholds": (0.2, 0.2)}, r"thresholds must ascend, got \[0.2, 0.2\]"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (
            {"boxes": Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), (8, 8))},
            "got none in any image",
        ),
        (
            {"boxes": Boxes(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0]), (9, 8))},
            r"for \(9, 8\) .*5 images are",
        ),
        (
            {"boxes": Boxes(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([5]), (8, 8))},
            "and image 5, the 5 images",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(change, says):
    images, boxes = known()
    with pytest.raises(ValueError, match=says):
        measure_localization(window_model(), images, **{"boxes": boxes} | change)


# Figures


def test_tiles_show_both_boxes():
    images, boxes = known()
    grey = images.pixels[:, :1]
    axes = plot_localization(grey, locate(window_model(), images, boxes), boxes)
    assert [ax.get_title() for ax in axes] == [
        "IoU 1.00, class right",
        "IoU 0.50, class right",
        "IoU 0.38, class right",
        "IoU 1.00, class wrong",
        "IoU 0.00, class right",
    ]
    drawn = [{patch.get_bbox().bounds for patch in ax.patches} for ax in axes]
    assert drawn[1] == {(-0.5, -0.5, 8, 8), (-0.5, -0.5, 8, 4)}
    assert drawn[3] == {(-0.5, -0.5, 1, 1), (2.5, 2.5, 4, 4)} and drawn[4] == {(-0.5, -0.5, 4, 4)}
    assert all(ax.images[0].get_array().shape == (8, 8, 3) for ax in axes)
    with pytest.raises(ValueError, match="equally many, at least one, got 2 and 5"):
        plot_localization(grey[:2], locate(window_model(), images, boxes), boxes)


def test_the_curve_shows_what_was_counted(noise):
    images, boxes, cam, _ = noise
    # as it comes back from a file
    result = json.loads(json.dumps(measure_localization(None, images, boxes, cam=cam)))
    ax = plot_box_accuracy(result)
    lines = {line.get_label(): line for line in ax.lines}
    for delta in ("0.3", "0.5", "0.7"):
        line = lines[f"class map, IoU ≥ {delta}"]
        assert line.get_ydata().tolist() == result["box_accuracy"][delta]
        marked = line.get_xdata()[line.get_markevery()[0]]
        assert marked == result["best_threshold"][delta]
    levels = sorted(
        line.get_ydata()[0] for line in ax.lines if line.get_label().startswith("_child")
    )
    assert levels == sorted(
        v for row in result["baselines"].values() for v in row["maxboxacc_v2_per_delta"].values()
    )
    assert (
        "6 test images with a box; 1 without a box are left out. GT-known Loc"
        in localization_caption(result)
    )
    with pytest.raises(ValueError, match="not the results of localization: they hold top1_error"):
        plot_box_accuracy({"top1_error": 3.0})
