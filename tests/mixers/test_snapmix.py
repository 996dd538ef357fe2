"""SnapMix against its definition, one pixel at a time in plain Python; CAM, boxes, weights, and
what is refused.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import Draw, count_hooks, models
from catchup.hooks.class_maps import class_activation_map, pooled_maps
from catchup.hooks.classifier import find_classifier
from catchup.mixers import make
from catchup.mixers.snapmix import SnapMix, box_mass, paste_resized, semantic_percent_map
from conftest import TinyNet

# -- the definition, nothing imported from the package ---------------------------------------------


def slow_resize(
    grid: list[list[float]], height: int, width: int, corners: bool
) -> list[list[float]]:
    """Bilinear, one pixel at a time; `corners`: the corner pixels on each other, else the corners
    of the areas.
    """

    def place(index, old, new):
        if corners:
            spot = index * (old - 1) / (new - 1) if new > 1 else 0.0
        else:
            spot = min(max((index + 0.5) * old / new - 0.5, 0.0), old - 1)
        low = min(int(spot), old - 1)
        return low, min(low + 1, old - 1), spot - low

    result = []
    for row in range(height):
        top, bottom, down = place(row, len(grid), height)
        line = []
        for column in range(width):
            left, right, across = place(column, len(grid[0]), width)
            upper = grid[top][left] * (1 - across) + grid[top][right] * across
            lower = grid[bottom][left] * (1 - across) + grid[bottom][right] * across
            line.append(upper * (1 - down) + lower * down)
        result.append(line)
    return result


def slow_box(height, width, lam, y, x):
    """CutMix's box: sides √(1 − λ) of the image's around the centre, cut off at the border."""
    half_h, half_w = int(math.sqrt(1 - lam) / 2 * height), int(math.sqrt(1 - lam) / 2 * width)
    y, x = int(y * height), int(x * width)
    return max(0, y - half_h), min(height, y + half_h), max(0, x - half_w), min(width, x + half_w)


def slow_spm(maps, weights, height, width):
    """Maps (D, h, w) and one row of the classifier, as lists: CAM, enlarged, minimum subtracted,
    divided by its sum.
    """
    cam = [
        [
            sum(weights[d] * maps[d][row][column] for d in range(len(maps)))
            for column in range(len(maps[0][0]))
        ]
        for row in range(len(maps[0]))
    ]
    large = slow_resize(cam, height, width, corners=False)
    lowest = min(map(min, large))
    large = [[value - lowest for value in row] for row in large]
    total = sum(map(sum, large))
    return [[value / total for value in row] for row in large]


def slow_snapmix(images, maps, weight, labels, partner, lam, boxes):
    """Images (B, C, H, W), maps (B, D, h, w), classifier (N, D): mixed images and the two weights
    of each.
    """
    (top, bottom, left, right), (top2, bottom2, left2, right2) = boxes
    height, width = images.shape[2:]
    spms = [
        slow_spm(maps[i].tolist(), weight[labels[i]].tolist(), height, width)
        for i in range(len(images))
    ]
    mixed, shares, others = images.tolist(), [], []
    if min(bottom - top, right - left, bottom2 - top2, right2 - left2) == 0:
        return images, [1.0] * len(images), [0.0] * len(images)
    for i, j in enumerate(partner):
        for c in range(images.shape[1]):
            cut = [row[left2:right2] for row in images[j, c].tolist()[top2:bottom2]]
            for down, row in enumerate(slow_resize(cut, bottom - top, right - left, corners=True)):
                mixed[i][c][top + down][left:right] = row
        shares.append(1 - sum(sum(row[left:right]) for row in spms[i][top:bottom]))
        others.append(sum(sum(row[left2:right2]) for row in spms[j][top2:bottom2]))
    return torch.tensor(mixed, dtype=images.dtype), shares, others


@pytest.mark.parametrize("number", range(40))
def test_equals_the_definition(number):
    rng = np.random.default_rng(number)
    torch.manual_seed(number)
    height, width, batch = (
        int(rng.integers(4, 11)),
        int(rng.integers(4, 11)),
        int(rng.integers(1, 5)),
    )
    images = torch.randn(batch, 2, height, width, dtype=torch.float64)
    model, labels = TinyNet(channels=2).double(), torch.randint(5, (batch,))
    lam, partner, seed = (
        float((*[0.0, 1.0], *rng.random(4))[number % 6]),
        rng.permutation(batch),
        int(rng.integers(99)),
    )
    mixer = SnapMix(alpha=0.7, seed=0)
    draw = mixer.plan(model, images, labels, Draw(0, partner, lam, seed))
    mixed = mixer.mix(images, draw)

    chance = np.random.default_rng(seed)
    centre, centre2 = chance.random(2), chance.random(2)
    boxes = (
        slow_box(height, width, lam, *centre),
        slow_box(height, width, chance.beta(0.7, 0.7), *centre2),
    )
    maps = model.layer2(model.layer1(model.stem(images))).detach()
    expected, shares, others = slow_snapmix(
        images, maps, model.fc.weight.detach(), labels, partner, lam, boxes
    )
    torch.testing.assert_close(mixed.maps, expected)
    for weight, by_hand in ((mixed.own_weight, shares), (mixed.partner_weight, others)):
        weight = torch.as_tensor(weight, dtype=torch.float64).expand(batch)
        torch.testing.assert_close(weight, torch.tensor(by_hand, dtype=torch.float64))
    (top, bottom, left, right), patch = boxes[0], torch.ones(height, width, dtype=torch.bool)
    if lam < 1 and not isinstance(mixed.own_weight, float):
        patch[top:bottom, left:right] = False
    assert torch.equal(mixed.keep[0, 0], patch)


def test_the_weights_need_not_sum_to_one_and_follow_the_evidence():
    """All evidence of image 0 in its top left quarter, of image 1 in its bottom right: a box there
    moves all of it.
    """
    cam = torch.zeros(2, 8, 8)
    cam[0, :4, :4] = cam[1, 4:, 4:] = 1.0
    spm = semantic_percent_map(cam, 8, 8)
    assert box_mass(spm, (0, 4, 0, 4)).tolist() == [1.0, 0.0]
    assert box_mass(spm, (4, 8, 4, 8)).tolist() == [0.0, 1.0]
    assert box_mass(spm, (0, 4, 0, 2)).tolist() == [0.5, 0.0]
    mixer, images = SnapMix(seed=0), torch.randn(6, 3, 8, 8)
    draw = mixer.plan(
        TinyNet(), images, torch.arange(6) % 5, Draw(0, [1, 2, 3, 4, 5, 0], 0.3, seed=5)
    )
    mixed = mixer.mix(images, draw)
    assert ((mixed.own_weight + mixed.partner_weight - 1).abs() > 0.02).any()
    assert len(set(mixed.own_weight.tolist())) == 6  # of one box, every image its own


# -- the class activation map ----------------------------------------------------------------------


def test_cam_averages_to_the_logit():
    """Zhou et al., Eq. 1: the mean of the CAM and the bias are the class score."""
    torch.manual_seed(0)
    model, images = TinyNet(), torch.randn(4, 3, 8, 8)
    maps, logits = pooled_maps(model, images, 8)
    for label in range(5):
        cam = class_activation_map(maps, model.fc.weight, torch.full((4,), label))
        torch.testing.assert_close(cam.mean(dim=(1, 2)) + model.fc.bias[label], logits[:, label])


def test_cam_of_soft_labels_is_the_mean_of_the_cams():
    maps, weight, soft = torch.randn(3, 4, 2, 2), torch.randn(5, 4), torch.rand(3, 5)
    hard = [class_activation_map(maps, weight, torch.full((3,), label)) for label in range(5)]
    expected = sum(soft[:, label, None, None] * hard[label] for label in range(5))
    torch.testing.assert_close(class_activation_map(maps, weight, soft), expected)


class InPlace(nn.Module):
    """Like DenseNet: the ReLU before the averaging works in place on what the last module
    returned.
    """

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
        )
        self.fc = nn.Linear(6, 5)

    def forward(self, images):
        return self.fc(F.relu(self.features(images), inplace=True).mean(dim=(2, 3)))


class LastConvolution(TinyNet):
    """Like MobileNetV2: a single 1×1 convolution behind the last block makes the maps that are
    averaged.
    """

    def __init__(self):
        super().__init__()
        self.last = nn.Sequential(nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12), nn.ReLU6())
        self.fc = nn.Linear(12, 5)

    def forward(self, images):
        return self.fc(self.last(self.layer2(self.layer1(self.stem(images)))).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "build",
    [
        partial(models.create, "resnet18", num_classes=5, width=8),
        partial(models.create, "preact_resnet18", num_classes=5, width=8),
        partial(models.create, "preact_resnet18", num_classes=5, width=8, norm_before_pool=True),
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Conv2d(4, 6, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        ),
        InPlace,
        LastConvolution,
        TinyNet,
        lambda: nn.DataParallel(TinyNet()),
    ],
)
def test_the_maps_found_are_those_that_are_averaged(build):
    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(2, 3, 16, 16)
    for parameter in model.parameters():  # running statistics that do something
        parameter.data += 0.02 * torch.randn_like(parameter)
    SnapMix().check(model)
    _, head = find_classifier(model)
    maps, logits = pooled_maps(model, images, head.in_features)
    assert maps.shape[2] > 1 and not maps.requires_grad
    torch.testing.assert_close(head(maps.mean(dim=(2, 3))), logits)
    assert count_hooks(model) == 0


def test_maps_of_one_pixel_are_taken_where_there_are_no_larger():
    torch.manual_seed(0)
    maps, _ = pooled_maps(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, 2),
            nn.Conv2d(4, 6, 3, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 5),
        ),
        torch.randn(2, 3, 8, 8),
        6,
    )
    assert maps.shape == (2, 6, 1, 1)
    assert torch.equal(semantic_percent_map(maps[:, 0], 2, 5), torch.full((2, 2, 5), 0.1))


def test_spm_is_a_share_and_uniform_where_the_cam_says_nothing():
    spm = semantic_percent_map(torch.randn(6, 3, 3), 9, 7)
    assert spm.shape == (6, 9, 7) and (spm >= 0).all()
    torch.testing.assert_close(spm.sum(dim=(1, 2)), torch.ones(6))
    cam = torch.zeros(5, 2, 2)
    cam[1], cam[2, 0, 0], cam[3, 1, 1], cam[4, 0, 1] = 3.0, math.nan, math.inf, 1.0
    spm = semantic_percent_map(cam, 4, 4)
    assert torch.equal(spm[:4], torch.full((4, 4, 4), 1 / 16)) and spm[4].amax() > 1 / 16


def test_an_untrained_head_of_zeros_weighs_by_area_like_cutmix():
    model, images = TinyNet(), torch.randn(4, 3, 8, 8)
    nn.init.zeros_(model.fc.weight)
    mixer, draw = SnapMix(seed=0), Draw(0, [1, 2, 3, 0], 0.4, seed=1)
    mixed = mixer.mix(images, mixer.plan(model, images, torch.arange(4), draw))
    own, theirs = mixer.boxes(draw, 8, 8)
    area = [(bottom - top) * (right - left) / 64 for top, bottom, left, right in (own, theirs)]
    assert area[0] != area[1] and min(area) > 0
    torch.testing.assert_close(mixed.own_weight, torch.full((4,), 1 - area[0]))
    torch.testing.assert_close(mixed.partner_weight, torch.full((4,), area[1]))


def test_halves_that_overflow_leave_a_uniform_map():
    model, images = TinyNet().half(), torch.full((3, 3, 8, 8), 6e4, dtype=torch.float16)
    model.layer2[2].weight.data *= 1000
    assert not pooled_maps(model, images, 8)[0].isfinite().all()
    draw = SnapMix(seed=0).plan(model, images, torch.arange(3), Draw(0, [1, 2, 0], 0.4, seed=1))
    assert torch.equal(draw.extra["spm"], torch.full((3, 8, 8), 1 / 64))


def test_autocast_does_not_round_the_cam():
    maps, weight, labels = torch.randn(4, 32, 3, 3), torch.randn(5, 32), torch.arange(4)
    expected = class_activation_map(maps, weight, labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = class_activation_map(maps, weight, labels)
        of_halves = class_activation_map(maps.bfloat16(), weight, labels)
    assert torch.equal(found, expected) and of_halves.dtype == torch.float32


# -- boxes and patch -------------------------------------------------------------------------------


def test_the_two_boxes_are_drawn_apart_from_one_law():
    mixer = SnapMix(alpha=5.0, seed=0)
    pairs = [
        mixer.boxes(Draw(0, [0], float(mixer.draw_lam(0, mixer.rng)), seed), 200, 200)
        for seed in range(2000)
    ]
    sides = (
        np.array(
            [
                [bottom - top if 0 < top and bottom < 200 else np.nan for top, bottom, _, _ in pair]
                for pair in pairs
            ]
        )
        / 200
    )
    areas = (sides**2)[~np.isnan(sides).any(axis=1)]  # unclipped ones
    assert len(areas) > 100
    assert (
        abs(areas[:, 0].mean() - areas[:, 1].mean()) < 0.05
        and abs(np.corrcoef(areas.T)[0, 1]) < 0.3
    )


def test_a_patch_of_its_own_size_is_pasted_as_it_is_and_another_keeps_its_corners():
    images = torch.randn(2, 3, 9, 9)
    same = paste_resized(images, torch.tensor([1, 0]), (1, 5, 2, 6), (3, 7, 4, 8))
    torch.testing.assert_close(same[:, :, 1:5, 2:6], images.flip(0)[:, :, 3:7, 4:8])
    larger = paste_resized(images, torch.tensor([1, 0]), (0, 8, 0, 6), (3, 7, 4, 8))
    for corner, origin in (((0, 0), (3, 4)), ((7, 5), (6, 7))):
        torch.testing.assert_close(larger[:, :, *corner], images.flip(0)[:, :, *origin])
    assert torch.equal(larger[:, :, 8], images[:, :, 8])


@pytest.mark.parametrize("lam", [1.0, 0.4])
def test_a_box_without_pixels_leaves_a_plain_step(lam):
    """λ = 1 empties the own box; with a tiny α also the partner's λ is often 1."""
    mixer, (images, labels), model = (
        SnapMix(alpha=0.01, seed=0),
        (torch.randn(4, 3, 8, 8), torch.arange(4)),
        TinyNet(),
    )
    seeds = [
        seed
        for seed in range(60)
        if lam == 1 or _area(mixer.boxes(Draw(0, [0], lam, seed), 8, 8)[1]) == 0
    ]
    assert len(seeds) > 10
    for seed in seeds[:4]:
        loss = mixer.loss(model, images, labels, draw=Draw(0, [1, 2, 3, 0], lam, seed))
        assert (mixer.last.own_weight, mixer.last.target.weights) == (
            1.0,
            (1.0, 0.0),
        ) and mixer.last.keep.all()
        torch.testing.assert_close(loss, F.cross_entropy(model(images), labels))


def _area(box):
    return (box[1] - box[0]) * (box[3] - box[2])


# -- labels ----------------------------------------------------------------------------------------


def losses(labels, **settings):
    """(loss, ρ_a, ρ_b, logits) of one fixed draw."""
    torch.manual_seed(0)
    model, images = TinyNet(), torch.randn(4, 3, 8, 8)
    mixer = SnapMix(seed=0, **settings)
    draw = Draw(0, [1, 0, 3, 2], 0.3, seed=5)
    loss = mixer.loss(model, images, labels, draw=draw)
    hard = labels if labels.ndim == 1 else labels.argmax(dim=1)
    mixed = mixer.mix(images, mixer.plan(model, images, hard, draw))
    return loss, mixed.own_weight, mixed.partner_weight, mixer.last.logits, mixer.last.target


def test_pairs_of_one_label_count_twice_in_the_release_and_once_in_the_paper():
    labels = torch.tensor([2, 2, 0, 1])  # the first two are partners of one class
    for rule, factor in (("doubled", 2.0), ("plain", 1.0)):
        loss, own, other, logits, _ = losses(labels, same_label=rule)
        assert (own > 0.05).all() and (other > 0.05).all()
        nll = -logits.log_softmax(dim=1)
        each = [factor * (own[i] + other[i]) * nll[i, 2] for i in (0, 1)]
        each += [
            own[2] * nll[2, 0] + other[2] * nll[2, 1],
            own[3] * nll[3, 1] + other[3] * nll[3, 0],
        ]
        torch.testing.assert_close(loss, sum(each) / 4)
        torch.testing.assert_close(losses(F.one_hot(labels, 5).float(), same_label=rule)[0], loss)


@pytest.mark.parametrize("rule", ["doubled", "plain"])
def test_binary_cross_entropy_sees_no_weight_above_one(rule):
    loss, own, other, _, target = losses(
        torch.tensor([2, 2, 2, 2]), same_label=rule, criterion="bce_softmax"
    )
    torch.testing.assert_close(target.soft(5)[:, 2], (own + other).clamp_max(1))
    assert (own + other > 1.001).any() and loss.isfinite()  # the case is there


# -- the pass that looks the maps up ---------------------------------------------------------------


def test_statistics_move_once_or_with_cam_mode_train_twice_as_in_the_release():
    for mode, times in (("eval", 1), ("train", 2)):
        torch.manual_seed(0)
        model = models.create("resnet18", num_classes=5, width=4).train()
        model.layer1.eval()  # a part that is frozen stays so
        mixer = SnapMix(cam_mode=mode, prob=1.0, seed=0)
        mixer.loss(model, torch.randn(4, 3, 16, 16), torch.arange(4)).backward()
        counts = {
            name: int(value)
            for name, value in model.named_buffers()
            if name.endswith("num_batches_tracked")
        }
        assert {times} == {n for name, n in counts.items() if not name.startswith("layer1")}
        assert model.training and not model.layer1.training and count_hooks(model) == 0


def test_passes_of_a_mixed_and_of_a_plain_step():
    model, calls = TinyNet(), []
    model.stem.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    mixer = SnapMix(prob=0.5, seed=0)
    for _ in range(12):
        calls.clear()
        mixer.loss(model, torch.randn(3, 3, 8, 8), torch.arange(3))
        assert calls == ([True] if mixer.last.draw.layer is None else [False, True])
        assert mixer.last.draw.layer is None or len(calls) == SnapMix.passes[0]


def test_no_hook_is_set_inside_a_block():
    """Blocks may be compiled one by one, and a hook inside would have them compiled again."""
    model, seen = TinyNet(), []
    model.fc.register_forward_hook(
        lambda *_: seen.append(
            {name for name, part in model.named_modules() if part._forward_hooks}
        )
    )
    pooled_maps(model, torch.randn(2, 3, 8, 8), 8)
    assert seen == [{"", "stem", "layer1", "layer2", "fc"}]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, "alpha must be a positive number, got 0.0"),
        ({"prob": 1.2}, "got 1.2"),
        ({"cam_mode": "evil"}, "unknown mode of the CAM pass 'evil'. Did you mean 'eval'"),
        ({"same_label": "double"}, "Did you mean 'doubled'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError) as error:
        make("snapmix", **settings)
    assert words in str(error.value)


def vgg():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 5),
    )


def meta(name):
    with torch.device("meta"):
        return models.create(name, num_classes=5)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (
            partial(meta, "torchvision.vgg11"),
            {},
            "the classifier 'classifier.6' reads another linear layer (as in VGG)",
        ),
        (vgg, {}, "the classifier '9' reads another linear layer"),
        (partial(meta, "torchvision.squeezenet1_1"), {}, "SqueezeNet has no linear layer"),
        (TinyNet, {"block": "layr2"}, "Did you mean 'layer2'"),
        (TinyNet, {"classifier": "fcc"}, "Did you mean 'fc'"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), {}, "found no layer blocks"),
    ],
)
def test_check_refuses_before_the_first_step(model, settings, words):
    with pytest.raises(ValueError) as error:
        SnapMix(**settings).check(model())
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (vgg, {}, "no module of Sequential returns maps (B, 16, h, w)"),
        (TinyNet, {"block": "layer1"}, "module 'layer1' of TinyNet returns maps (B, 8, h, w)"),
        (
            vgg,
            {"classifier": "5", "block": "2"},
            "module '2' of Sequential returns maps (B, 32, h, w)",
        ),
        (
            lambda: nn.Sequential(
                nn.Conv2d(3, 8, 3),
                nn.Conv2d(8, 8, 3),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 16),
                nn.Linear(16, 5),
            ),
            {"classifier": "4", "block": "1"},
            "linear layer '4' has 16 outputs, the model's logits 5",
        ),
    ],
)
def test_loss_refuses_and_leaves_no_hook(model, settings, words):
    model = model().train()
    with pytest.raises(ValueError) as error:
        SnapMix(prob=1.0, seed=0, **settings).loss(model, torch.randn(3, 3, 8, 8), torch.arange(3))
    assert words in str(error.value)
    assert count_hooks(model) == 0 and all(part.training for part in model.modules())


def test_mixing_without_the_look_up_says_so():
    with pytest.raises(ValueError, match=r"complete it with plan\(\) first"):
        SnapMix().mix(torch.randn(2, 3, 8, 8), Draw(0, [1, 0], 0.5))


# -- find_classifier -------------------------------------------------------------------------------


class Heads(nn.Module):
    """Linear layers by name, side by side."""

    def __init__(self, **layers):
        super().__init__()
        for name, part in layers.items():
            self.add_module(name, part)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", "fc"),
        ("torchvision.vgg11", "classifier.6"),
        ("torchvision.densenet121", "classifier"),
        ("torchvision.mobilenet_v3_small", "classifier.3"),
        ("torchvision.convnext_tiny", "classifier.2"),
    ],
)
def test_the_classifier_is_the_last_linear_layer(name, expected):
    model = meta(name)
    for wrapped in (model, nn.DataParallel(model) if name == "resnet18" else model):
        found, layer = find_classifier(wrapped)
        assert (
            found == expected and layer is model.get_submodule(expected) and layer.out_features == 5
        )


def test_auxiliary_classifiers_registered_before_it_are_passed_over():
    with torch.device("meta"):
        model = models.create("torchvision.googlenet", num_classes=5, init_weights=False)
    assert [name for name, part in model.named_modules() if isinstance(part, nn.Linear)] == [
        "aux1.fc1",
        "aux1.fc2",
        "aux2.fc1",
        "aux2.fc2",
        "fc",
    ]
    assert find_classifier(model)[0] == "fc"


@pytest.mark.parametrize(
    "model",
    [
        Heads(age=nn.Linear(8, 5), kind=nn.Linear(8, 3)),
        Heads(head=nn.Linear(8, 5), head_dist=nn.Linear(8, 5)),
        Heads(project=nn.Linear(8, 4), fc=nn.Linear(8, 5)),
        Heads(fc=nn.Linear(8, 5), auxiliary=nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5))),
    ],
)
def test_where_two_could_be_meant_the_name_is_asked_for(model):
    first, *_, last = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    with pytest.raises(ValueError) as error:
        find_classifier(model)
    assert all(
        repr(name) in str(error.value) for name in (first, last)
    ) and f"classifier={last!r}" in str(error.value)
    assert find_classifier(model, first) == (first, model.get_submodule(first))


def test_a_chain_of_linear_layers_is_no_ambiguity():
    model = Heads(fc1=nn.Linear(8, 6), fc2=nn.Linear(6, 4), fc3=nn.Linear(4, 5))
    assert find_classifier(model)[0] == "fc3"
    with pytest.raises(ValueError, match="unknown linear layer 'fc4'. Did you mean 'fc"):
        find_classifier(model, "fc4")
    with pytest.raises(ValueError, match="Conv2d has no linear layer"):
        find_classifier(nn.Conv2d(3, 3, 1))
