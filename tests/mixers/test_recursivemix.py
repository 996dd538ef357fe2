"""RecursiveMix against a loop written from the paper, its region against torchvision's RoIAlign,
and its history.
"""

import io
import math
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import roi_align

from catchup import Draw, count_hooks, find_blocks, models
from catchup.hooks.blocks import last_maps
from catchup.mixers import make
from catchup.mixers.recursivemix import align_weights, region_mean
from catchup.mixers.regularisers import Regulariser
from conftest import TinyNet


def begun(model, **settings):
    mixer = make("recursivemix", seed=0, **settings)
    groups = mixer.begin_run(model, 5)
    return mixer, groups


def batches(sizes, height=8, width=8):
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randn(size, 3, height, width, generator=generator),
            torch.randint(5, (size,), generator=generator),
        )
        for size in sizes
    ]


def slow_box(height, width, lam, seed):
    """CutMix's box: sides √(1 − λ), a centre from the draw's seed, cut off at the border."""
    y, x = (
        int(share * side)
        for share, side in zip(np.random.default_rng(seed).random(2), (height, width))
    )
    half_h, half_w = int(math.sqrt(1 - lam) * height / 2), int(math.sqrt(1 - lam) * width / 2)
    return max(y - half_h, 0), min(y + half_h, height), max(x - half_w, 0), min(x + half_w, width)


class SlowRecursiveMix:
    """The paper's step, image by image, on TinyNet: history pasted, labels by area, consistency by
    RoIAlign.
    """

    def __init__(self, fc_roi, omega):
        self.fc_roi, self.omega, self.history = fc_roi, omega, None

    def loss(self, model, images, labels, draw):
        batch, _, height, width = images.shape
        mixed, soft, lam = images.clone(), F.one_hot(labels, 5).float(), 1.0
        if self.history is not None:
            old_images, old_soft, old_out = self.history
            top, bottom, left, right = slow_box(height, width, draw.lam, draw.seed)
            rows, columns = bottom - top, right - left
            lam = 1 - rows * columns / (height * width)
            for i in range(batch):
                j = int(draw.partner[i]) % len(old_images)
                for y in range(rows):
                    for x in range(columns):
                        mixed[i, :, top + y, left + x] = old_images[j][
                            :, y * height // rows, x * width // columns
                        ]
                soft[i] = lam * soft[i] + (1 - lam) * old_soft[j]
        maps = model.layer2(model.layer1(model.stem(mixed)))
        out = model.fc(maps.mean(dim=(2, 3)))
        loss = torch.stack([-(soft[i] * out[i].log_softmax(0)).sum() for i in range(batch)]).mean()
        if lam < 1 and self.omega:
            scale = maps.shape[-1] / width
            consistency = []
            for i in range(batch):
                corners = [torch.tensor([[left, top, right, bottom]], dtype=maps.dtype)]
                region = roi_align(maps[i : i + 1], corners, (1, 1), scale, aligned=True)[
                    0, :, 0, 0
                ]
                said = old_out[int(draw.partner[i]) % len(old_images)].softmax(0)
                consistency.append(-(said * self.fc_roi(region).log_softmax(0)).sum())
            loss = loss + self.omega * (1 - lam) * torch.stack(consistency).mean()
        self.history = mixed.detach(), soft, out.detach()
        return loss


@pytest.mark.parametrize("share_head", [False, True])
@pytest.mark.parametrize("omega", [0.0, 0.1, 0.5])
def test_losses_and_gradients_are_the_papers_also_when_the_batch_size_changes(
    tiny, omega, share_head
):
    mixer, _ = begun(tiny, omega=omega, alpha=1.0, share_head=share_head)
    head = tiny.fc if share_head or omega == 0 else mixer.modules["fc_roi"]
    slow, seen = SlowRecursiveMix(head, omega), []
    parameters = [*tiny.parameters(), *(() if head is tiny.fc else head.parameters())]
    for images, labels in batches([6, 6, 3, 7, 7, 1, 4]):
        fast = mixer.loss(tiny, images, labels)
        expected = slow.loss(tiny, images, labels, mixer.last.draw)
        torch.testing.assert_close(fast, expected)
        pairs = zip(
            *(torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (fast, expected))
        )
        for ours, theirs in pairs:
            assert (ours is None) == (theirs is None)
            if ours is not None:
                torch.testing.assert_close(ours, theirs)
        seen.append(mixer.last.own_weight)
        assert count_hooks(tiny) == 0
    assert seen[0] == 1 and len({round(share, 6) for share in seen[1:]}) > 3


def test_labels_of_earlier_batches_live_on_with_the_product_of_their_areas(tiny):
    mixer, _ = begun(tiny, omega=0.0)
    history = torch.eye(5)[[0, 0]]
    mixer.loss(tiny, torch.randn(2, 3, 8, 8), torch.tensor([0, 0]))
    for label in (1, 2, 3):
        mixer.loss(
            tiny,
            torch.randn(2, 3, 8, 8),
            torch.tensor([label, label]),
            draw=Draw(0, [1, 0], 0.75, seed=label),
        )
        history = (
            mixer.last.own_weight * torch.eye(5)[[label, label]]
            + (1 - mixer.last.own_weight) * history
        )
        torch.testing.assert_close(mixer.last.target.soft(5), history)
        torch.testing.assert_close(mixer.state["labels"], history)
    assert (history[0, :4] > 0).all() and history.sum() == pytest.approx(2)


# -- the region ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_the_region_is_roi_aligns(seed):
    rng = np.random.default_rng(seed)
    cells_h, cells_w, factor = (int(v) for v in rng.integers(1, 9, 3))
    height, width = cells_h * factor, cells_w * factor
    top, left = (int(rng.integers(side)) for side in (height, width))
    bottom, right = int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1
    maps = torch.randn(3, 4, cells_h, cells_w, dtype=torch.float64, requires_grad=True)
    ours = region_mean(maps, (top, bottom, left, right), height, width)
    corners = [torch.tensor([[left, top, right, bottom]], dtype=torch.float64)] * 3
    theirs = roi_align(maps, corners, (1, 1), 1 / factor, aligned=True)[:, :, 0, 0]
    torch.testing.assert_close(ours, theirs)
    assert torch.allclose(
        *(torch.autograd.grad(found.square().sum(), maps)[0] for found in (ours, theirs))
    )


def test_the_region_of_the_whole_image_is_the_mean_and_weights_sum_to_one():
    maps = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(region_mean(maps, (0, 32, 0, 48), 32, 48), maps.mean(dim=(2, 3)))
    rng = np.random.default_rng(0)
    for _ in range(100):
        cells = int(rng.integers(1, 9))
        start, stop = sorted(rng.uniform(0, cells, 2))
        weights = align_weights(start, stop, cells)
        assert (
            weights.sum() == pytest.approx(1) and (weights >= 0).all() and weights.shape == (cells,)
        )


def test_the_region_is_looked_up_in_at_least_float32():
    maps = torch.full((1, 2, 4, 4), 60000.0, dtype=torch.float16)  # a sum of two would overflow
    assert region_mean(maps, (0, 8, 0, 8), 8, 8).tolist() == [[60000.0, 60000.0]]
    with pytest.raises(ValueError, match=r"maps \(B, C, H, W\), got \(2, 9, 4\)"):
        region_mean(torch.zeros(2, 9, 4), (0, 8, 0, 8), 8, 8)


def test_the_consistency_loss_teaches_the_network_and_not_the_history(tiny):
    mixer, groups = begun(tiny, omega=0.5)
    (images, labels), (others, more) = batches([4, 4])
    mixer.loss(tiny, images.requires_grad_(), labels)
    mixer.loss(tiny, others, more, draw=Draw(0, [1, 2, 3, 0], 0.5, seed=3)).backward()
    with_term, tiny_too = tiny.stem[0].weight.grad.clone(), begun(tiny, omega=0.0)[0]
    tiny.zero_grad()
    tiny_too.loss(tiny, images, labels)
    tiny_too.loss(tiny, others, more, draw=Draw(0, [1, 2, 3, 0], 0.5, seed=3)).backward()
    assert images.grad is None and (with_term - tiny.stem[0].weight.grad).abs().sum() > 1e-4
    assert all(p.grad.abs().sum() > 0 for p in groups[0]["params"])


# -- the history -----------------------------------------------------------------------------------


def test_history_holds_one_batch_and_no_graph(tiny):
    mixer, _ = begun(tiny)
    past = []
    for images, labels in batches([6] * 8):
        mixer.loss(tiny, images.requires_grad_(), labels)
        assert not mixer._regions  # nothing that carries a graph is left over
        assert {name: tuple(value.shape) for name, value in mixer.state.items()} == {
            "images": (6, 3, 8, 8),
            "labels": (6, 5),
            "logits": (6, 5),
        }
        assert not any(value.requires_grad or value.grad_fn for value in mixer.state.values())
        past.append([weakref.ref(value) for value in mixer.state.values()])
    assert [any(one() is not None for one in values) for values in past] == [False] * 7 + [True]


def test_history_is_what_the_model_saw_and_a_copy_of_it(tiny):
    mixer, _ = begun(tiny)
    images, labels = batches([4])[0]
    first = images.clone()
    mixer.loss(tiny, images, labels)
    images.zero_()  # a loader may use its buffer again
    assert torch.equal(mixer.state["images"], first) and torch.equal(
        mixer.state["logits"], mixer.last.logits
    )
    images.copy_(first)
    # a plain step is remembered too
    mixer.loss(tiny, images, labels, draw=Draw(None, range(4), 1.0))
    images.zero_()
    assert torch.equal(mixer.state["images"], first)
    seen = []
    with mixer.watched(lambda block, draw, mixed: seen.append(mixed.maps)):
        mixer.loss(tiny, *batches([4, 4])[1])
    assert torch.equal(mixer.state["images"], seen[0])


def test_epochs_and_runs_start_without_history(tiny, batch):
    mixer, _ = begun(tiny)
    for begin in (lambda: mixer.begin_epoch(1, 5), lambda: mixer.begin_run(tiny, 5)):
        mixer.loss(tiny, *batch)
        loss = mixer.loss(tiny, *batch, draw=Draw(0, range(7), 0.5))
        assert mixer.last.own_weight < 1
        replayed = mixer.last.draw
        begin()
        # what the draw had looked up is looked up again
        loss = mixer.loss(tiny, *batch, draw=replayed)
        torch.testing.assert_close(loss, F.cross_entropy(tiny(batch[0]), batch[1]))
        assert (
            mixer.last.own_weight == 1
            and mixer.last.keep.all()
            and len(mixer.last.target.labels) == 1
        )


def test_a_box_smaller_than_a_pixel_makes_a_plain_step(tiny, batch):
    mixer, _ = begun(tiny)
    mixer.loss(tiny, *batch)
    loss = mixer.loss(tiny, *batch, draw=Draw(0, range(7), 1 - 1e-3, seed=1))
    torch.testing.assert_close(loss, F.cross_entropy(tiny(batch[0]), batch[1]))
    assert mixer.last.own_weight == 1 and count_hooks(tiny) == 0


def test_a_history_of_another_size_or_precision_is_resized(tiny):
    mixer, _ = begun(tiny)
    (images, labels), (others, more) = batches([4], 12, 6) + batches([4])
    mixer.loss(tiny, images, labels)
    mixer.loss(tiny, others, more, draw=Draw(0, [3, 0, 1, 2], 0.75, seed=4))
    box = ~mixer.last.keep[0, 0]
    rows, columns = int(box.any(dim=1).sum()), int(box.any(dim=0).sum())
    small = F.interpolate(images, (rows, columns))[[3, 0, 1, 2]]
    assert torch.equal(mixer.state["images"][:, :, box], small.flatten(2))
    for mode in ("nearest", "bilinear"):
        model = TinyNet().bfloat16()
        half, _ = begun(model, interpolation=mode)
        assert all(half.loss(model, others.bfloat16(), more).isfinite() for _ in range(3))


def test_bilinear_resizing_lays_corners_on_corners(tiny):
    """The corners of the small image are the corners of the history; without it they are means."""
    mixer, _ = begun(tiny, interpolation="bilinear")
    (images, labels), (others, more) = batches([4, 4], 9, 9)
    mixer.loss(tiny, images, labels)
    mixer.loss(tiny, others, more, draw=Draw(0, [3, 0, 1, 2], 0.6, seed=4))
    box = ~mixer.last.keep[0, 0]
    (top, left), (bottom, right) = box.nonzero()[0], box.nonzero()[-1]
    assert bottom > top and right > left
    pasted, history = mixer.state["images"], images[[3, 0, 1, 2]]
    for row, source in ((top, 0), (bottom, -1)):
        torch.testing.assert_close(pasted[..., row, left], history[..., source, 0])
        torch.testing.assert_close(pasted[..., row, right], history[..., source, -1])
    for step in range(int(bottom - top) + 1):  # a line between them: y · 8 / (rows − 1)
        place = step * 8 / int(bottom - top)
        low, part = int(place), place - int(place)
        line = history[..., :, 0]
        wanted = (1 - part) * line[..., low] + part * line[..., min(low + 1, 8)]
        torch.testing.assert_close(pasted[..., top + step, left], wanted)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_batch_of_no_numbers_does_not_spoil_clean_steps(tiny, bad):
    mixer, _ = begun(tiny)
    (spoilt, labels), (clean, more) = batches([4, 4])
    spoilt[2, 0, 3, 3] = bad
    with pytest.warns(UserWarning, match="4 images has values that are no numbers"):
        mixer.loss(tiny, spoilt, labels)
    assert not mixer.state
    loss = mixer.loss(tiny, clean, more, draw=Draw(0, [1, 2, 3, 0], 0.5, seed=3))
    torch.testing.assert_close(loss, F.cross_entropy(tiny(clean), more))
    assert mixer.last.own_weight == 1 and torch.equal(mixer.state["images"], clean)
    assert mixer.loss(tiny, clean, more, draw=Draw(0, [1, 2, 3, 0], 0.5, seed=3)).isfinite()
    assert mixer.last.own_weight < 1


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("resnet18", "layer4"),
        ("preact_resnet18", "layer4"),
        ("wrn16_8", "norm"),
        ("pyramidnet200", "norm"),
        ("densenet121", None),
    ],
)
def test_the_region_is_cut_from_the_last_maps(name, cut):
    """Behind the last norm and ReLU where the network has them there, as in the release."""
    with torch.device("meta"):
        model = models.create(name, num_classes=5)
    assert last_maps(model) == (cut or find_blocks(model)[-1])


def test_answers_that_were_no_numbers_ask_nothing(tiny, batch):
    mixer, _ = begun(tiny)
    mixer.loss(tiny, *batch)
    mixer.state["logits"][2] = math.inf
    mixer.state["logits"][3, 0] = math.nan
    loss = mixer.loss(tiny, *batch)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in tiny.parameters())


def test_stored_history_is_plain_tensors(tiny, batch):
    mixer, _ = begun(tiny)
    for _ in range(2):
        mixer.loss(tiny, *batch)
    file = io.BytesIO()
    torch.save(mixer.state_dict(), file)
    file.seek(0)
    twin, _ = begun(tiny)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin.loss(tiny, *batch), mixer.loss(tiny, *batch))
    with pytest.raises(ValueError, match="fc_roi"):
        make("recursivemix").load_state_dict(mixer.state_dict())


@dataclass(frozen=True, kw_only=True)
class Flat(Regulariser):
    """Every label becomes the uniform one."""

    title: ClassVar[str] = "Flat"
    about: ClassVar[str] = "a test's"

    def target(self, target, num_classes):
        return target.smooth(1.0, num_classes)


def test_labels_are_remembered_as_they_were_before_the_regularisers(tiny, batch):
    mixer, _ = begun(tiny, regularisers=(Flat(),))
    mixer.loss(tiny, *batch)
    assert torch.equal(mixer.last.target.soft(5), torch.full((7, 5), 0.2))
    assert torch.equal(mixer.state["labels"], F.one_hot(batch[1], 5).float())


# -- the linear layer of its own -------------------------------------------------------------------


def test_its_layer_is_drawn_as_pytorchs_from_the_mixers_seed(tiny):
    state = torch.get_rng_state()
    heads = [make("recursivemix", seed=seed) for seed in (3, 3, 4)]
    groups = [mixer.begin_run(tiny, 5) for mixer in heads]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = (torch.cat([p.flatten() for p in group[0]["params"]]) for group in groups)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert (
        first.shape == (8 * 5 + 5,)
        and first.abs().max() <= 8**-0.5
        and first.abs().max() > 0.9 * 8**-0.5
    )
    assert heads[0].modules["fc_roi"].weight.shape == (5, 8)
    assert all(p.requires_grad for group in groups for p in group[0]["params"])


def test_begin_run_moves_no_running_statistic():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    begun(model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and count_hooks(model) == 0


def test_without_begin_run_the_message_says_what_to_call(tiny, batch):
    with pytest.raises(ValueError, match=r"call begin_run\(model, num_classes\) first"):
        make("recursivemix").loss(tiny, *batch)
    for settings in ({"share_head": True}, {"omega": 0.0}):
        mixer = make("recursivemix", seed=0, **settings)
        assert (
            all(mixer.loss(tiny, *batch).isfinite() for _ in range(3))
            and mixer.begin_run(tiny, 5) == []
        )
        assert not mixer.modules


def test_without_consistency_the_model_is_not_hooked(tiny, batch):
    seen = []
    tiny.layer2.register_forward_hook(lambda *_: seen.append(count_hooks(tiny)))
    for omega in (0.0, 0.1):
        mixer, _ = begun(tiny, omega=omega)
        seen.clear()
        for _ in range(2):
            mixer.loss(tiny, *batch)
        assert seen == ([1, 1] if omega == 0 else [1, 2])


def test_models_that_do_not_fit_are_refused_before_the_first_step(tiny, batch):
    make("recursivemix").check(tiny)
    make("recursivemix", share_head=True).check(tiny)
    with pytest.raises(ValueError, match="Did you mean 'layer2'"):
        make("recursivemix", block="layr2").check(tiny)
    with pytest.raises(ValueError, match=r"block 'fc' must return maps"):
        make("recursivemix", block="fc").check(tiny)
    with pytest.raises(
        ValueError, match="'layer1' returns 6 maps, the linear layer takes 8 features"
    ):
        make("recursivemix", block="layer1", share_head=True).check(tiny)
    mixer = make("recursivemix", block="layer1", share_head=True, seed=0)
    mixer.loss(tiny, *batch)
    with pytest.raises(ValueError, match="'layer1' returns 6 maps"):
        mixer.loss(tiny, *batch)
    assert count_hooks(tiny) == 0
    headless = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    make("recursivemix").check(headless)
    with pytest.raises(ValueError, match="no linear layer"):
        make("recursivemix", share_head=True).check(headless)
    own_block, _ = begun(tiny, block="layer1")
    assert own_block.modules["fc_roi"].in_features == 6
    assert all(own_block.loss(tiny, *batch).isfinite() for _ in range(3))


def test_a_failing_step_leaves_neither_hooks_nor_a_graph(tiny, batch):
    mixer, _ = begun(tiny)
    mixer.loss(tiny, *batch)
    before = dict(mixer.state)
    tiny.fc = nn.Linear(9, 5)  # fails behind the hooked block
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        mixer.loss(tiny, *batch)
    assert count_hooks(tiny) == 0 and mixer.state == before
    tiny.fc = nn.Linear(8, 5)
    mixer.loss(tiny, *batch)
    assert not mixer._regions


def test_area_is_uniform_up_to_alpha():
    rng = np.random.default_rng(0)
    areas = 1 - np.array([make("recursivemix", seed=0).draw_lam(0, rng) for _ in range(500)])
    assert (
        0 <= areas.min() < 0.01
        and 0.49 < areas.max() <= 0.5
        and areas.mean() == pytest.approx(0.25, abs=0.03)
    )
    mixer = make("recursivemix", alpha=1.0, seed=0)
    assert 1 - min(mixer.draw_lam(0, rng) for _ in range(500)) > 0.99


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, r"alpha must lie in \(0, 1\], got 0.0"),
        ({"alpha": 1.5}, r"alpha must lie in \(0, 1\], got 1.5"),
        ({"omega": -0.1}, "omega must be a number ≥ 0, got -0.1"),
        ({"omega": math.inf}, "omega must be a number ≥ 0, got inf"),
        ({"interpolation": "nearst"}, "Did you mean 'nearest'"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make("recursivemix", **settings)
