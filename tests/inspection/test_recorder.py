"""The recorder, held against autograd by hand; and that it leaves the training alone."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import catchup
from catchup import CatchUpMix, Draw, count_hooks
from catchup.inspection.recorder import recording
from catchup.inspection.tally import BINS, GRADIENT_RANGE, NORM_RANGE, JointHistogram, Mean, edges
from catchup.mixers import make
from catchup.training.trainer import dataset_of, model_of
from conftest import TinyNet

BLOCKS = ("stem", "layer1", "layer2")


def by_hand(model, images, labels):
    """{block: (norms (B, C), gradients of the summed loss (B, C))} and the gradients of the
    weights, plain autograd.
    """
    maps, x = {}, images
    for name in BLOCKS:
        x = maps[name] = getattr(model, name)(x)
        x.retain_grad()
    loss = F.cross_entropy(model.fc(x.mean(dim=(2, 3))), labels)
    loss.backward()
    measured = {}
    for name, map_ in maps.items():
        rows = [
            [
                [map_[i, c].norm().item(), len(images) * map_.grad[i, c].norm().item()]
                for c in range(map_.shape[1])
            ]
            for i in range(len(images))
        ]
        measured[name] = torch.tensor(rows).unbind(2)
    return measured


def test_rows_are_those_of_plain_autograd(tiny, batch):
    twin = copy.deepcopy(tiny)
    expected = by_hand(twin, *batch)
    with recording(tiny, BLOCKS, every=1) as record:
        make("baseline").loss(tiny, *batch).backward()
    rows = record.rows()
    assert len(rows) == 6 + 6 + 8 and {row["epoch"] for row in rows} == {1}
    for row in rows:
        norms, gradients = expected[row["block"]]
        conv = {"stem": twin.stem[0], "layer1": twin.layer1[2], "layer2": twin.layer2[2]}[
            row["block"]
        ]
        assert row["norm"] == pytest.approx(norms[:, row["filter"]].mean().item(), rel=1e-5)
        assert row["map_gradient"] == pytest.approx(
            gradients[:, row["filter"]].mean().item(), rel=1e-4
        )
        assert row["weight_gradient"] == pytest.approx(
            conv.weight.grad[row["filter"]].norm().item(), rel=1e-4
        )
        assert row["images"] == 7 and row["batches"] == 1


def test_means_are_over_all_measured_batches_and_epochs_stand_apart(tiny, batch):
    images, labels = batch
    with recording(tiny, ("layer1",), every=1) as record:
        for start in (0, 4):
            make("baseline").loss(
                tiny, images[start : start + 4], labels[start : start + 4]
            ).backward()
        record.end_epoch({"epoch": 5})
        make("baseline").loss(tiny, images[:2], labels[:2]).backward()
    norms = tiny.layer1(tiny.stem(images)).flatten(2).norm(dim=2)
    first, second = record.rows()[:6], record.rows()[6:]
    assert [row["epoch"] for row in first + second] == [5] * 6 + [6] * 6
    assert [row["images"] for row in first + second] == [7] * 6 + [2] * 6
    torch.testing.assert_close(torch.tensor([row["norm"] for row in first]), norms.mean(dim=0))
    torch.testing.assert_close(torch.tensor([row["norm"] for row in second]), norms[:2].mean(dim=0))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_lessons_are_those_of_plain_autograd(layer, tiny, batch):
    """Mixed by hand at the block, the gradient of the mixed map read off, split by the mask."""
    images, labels = batch
    draw, mixer = Draw(layer, [1, 2, 3, 4, 5, 6, 0], 0.6), CatchUpMix(seed=0)
    with recording(tiny, BLOCKS, mixer=mixer, every=1) as record:
        mixer.loss(tiny, images, labels, draw=draw).backward()
    rows = [row for row in record.lessons() if row["block"] == BLOCKS[layer - 1]]

    x = images
    for place, name in enumerate(BLOCKS, start=1):
        x = getattr(tiny, name)(x)
        if place == layer:
            influence = catchup.filter_influence(x)
            rfi = catchup.relative_filter_influence(influence, influence[draw.partner])
            keep = catchup.keep_mask(rfi, 0.6)
            mixed = torch.where(keep[:, :, None, None], x, x[draw.partner])
            mixed.retain_grad()
            x = mixed
    logits = tiny.fc(x.mean(dim=(2, 3)))
    (
        0.6 * F.cross_entropy(logits, labels) + 0.4 * F.cross_entropy(logits, labels[draw.partner])
    ).backward()
    for row in rows:
        c = row["filter"]
        lessons = {True: [], False: []}
        for i in range(7):
            lessons[bool(keep[i, c])].append(7 * mixed.grad[i, c].norm().item())
        assert (row["kept"], row["replaced"], row["steps"]) == (
            len(lessons[True]),
            len(lessons[False]),
            1,
        )
        for key, stays in (("kept", True), ("replaced", False)):
            expected = np.mean(lessons[stays]) if lessons[stays] else math.nan
            assert row[f"gradient_{key}"] == pytest.approx(expected, rel=1e-4, nan_ok=True)
            leads = [rfi[i, c].item() for i in range(7) if bool(keep[i, c]) is stays]
            expected = np.mean(leads) if leads else math.nan
            assert row[f"lead_{key}"] == pytest.approx(expected, rel=1e-4, abs=1e-7, nan_ok=True)
        assert math.isnan(row["gradient_plain"])


@pytest.mark.parametrize("layers", [(2, 0, None), (2,), (0,), (None,)])
def test_gradient_plain_is_that_of_the_passes_that_mixed_elsewhere(tiny, batch, layers):
    mixer = CatchUpMix(seed=0)
    with recording(tiny, BLOCKS, mixer=mixer, every=1) as record:
        for layer in layers:
            mixer.loss(tiny, *batch, draw=Draw(layer, range(7), 0.5)).backward()
    # mixed with itself: a plain step
    expected = by_hand(copy.deepcopy(tiny), *batch)["stem"][1].mean(dim=0)
    for row in record.lessons():
        if row["block"] == "stem":
            assert row["gradient_plain"] == pytest.approx(expected[row["filter"]].item(), rel=1e-4)
            assert (row["kept"], row["replaced"], row["steps"]) == (0, 0, 0)


def test_every_step_counts_who_was_kept_but_only_some_are_measured(tiny, batch):
    mixer = CatchUpMix(seed=3)
    steps = dict.fromkeys(BLOCKS, 0)
    with recording(tiny, mixer=mixer, every=10) as record:
        for _ in range(41):
            mixer.loss(tiny, *batch).backward()
            if mixer.last.block:
                steps[mixer.last.block] += 1
    assert record.blocks == BLOCKS and {row["batches"] for row in record.rows()} == {5}
    for row in record.lessons():
        assert (
            row["steps"] == steps[row["block"]]
            and row["kept"] + row["replaced"] == 7 * row["steps"]
        )


@pytest.mark.slow
def test_catchup_keeps_where_an_image_lags_and_random_channels_anywhere(tiny, batch):
    leads = {}
    for method in ("catchup", "randomchannel"):
        mixer = make(method, seed=0)
        with recording(tiny, "layer1", mixer=mixer, every=1) as record:
            for step in range(30):
                mixer.loss(
                    tiny, *batch, draw=Draw(2, [1, 2, 3, 4, 5, 6, 0], 0.5, seed=step)
                ).backward()
        leads[method] = [
            np.nanmean([row[key] for row in record.lessons()])
            for key in ("lead_kept", "lead_replaced")
        ]
        assert [sum(row[key] for row in record.lessons()) for key in ("kept", "replaced")] == [
            30 * 7 * 3
        ] * 2
    assert leads["catchup"][0] < 0 < leads["catchup"][1]
    assert max(map(abs, leads["randomchannel"])) < 0.3 * leads["catchup"][1]


def test_a_run_that_diverges_is_stopped_by_training_and_not_by_the_recorder():
    settings = catchup.Settings(
        subset=5, width=4, epochs=3, batch_size=16, lr=1e12, method="baseline"
    )
    digits = dataset_of(settings)
    model = model_of(settings, digits)
    with pytest.raises(FloatingPointError, match="try a lower lr"), recording(model, every=1):
        catchup.fit(model, make("baseline", seed=0), digits, settings, progress=False)
    assert count_hooks(model) == 0


def test_training_is_bit_for_bit_the_same(batch):
    def trained(watch):
        torch.manual_seed(0)
        model, mixer = TinyNet(), CatchUpMix(seed=1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)

        def go():
            for _ in range(12):
                mixer.loss(model, *batch).backward()
                optimizer.step()
                optimizer.zero_grad()

        if watch:
            with recording(model, mixer=mixer, every=2):
                go()
        else:
            go()
        return model.state_dict()

    plain, watched = trained(False), trained(True)
    assert all(torch.equal(plain[key], watched[key]) for key in plain)


def test_validation_copies_and_passes_without_gradient_are_not_recorded(tiny, batch):
    with recording(tiny, BLOCKS, every=1) as record:
        twin = copy.deepcopy(tiny)
        twin(batch[0]).sum().backward()
        with torch.no_grad():
            tiny(batch[0])
        tiny.eval()(batch[0])
    assert record.rows() == [] and record.histograms() == []
    twin(batch[0])  # the hooks it took along are inert
    assert record.rows() == []


@pytest.mark.slow
def test_no_hook_is_left_after_an_error_and_none_is_set_for_a_bad_argument(tiny, batch):
    mixer = CatchUpMix(seed=0)
    with pytest.raises(KeyboardInterrupt), recording(tiny, mixer=mixer, every=1) as record:
        mixer.loss(tiny, *batch).backward()
        raise KeyboardInterrupt
    assert count_hooks(tiny) == 0 and len(record.rows()) == 20
    assert (
        not any(parameter._backward_hooks for parameter in tiny.parameters())
        and not mixer.memory.watchers
    )
    for bad, words in (
        ({"blocks": ("stem", "layr1")}, "Did you mean 'layer1'"),
        ({"every": 0}, "got 0"),
        ({"blocks": "layr1"}, "Did you mean 'layer1'"),
        ({"every": 2.5}, "got 2.5"),
        ({"mixer": "catchup"}, "got 'catchup'"),
    ):
        with pytest.raises(ValueError, match=words), recording(tiny, **bad):
            pass
    assert count_hooks(tiny) == 0
    with (
        pytest.raises(RuntimeError, match="compile_blocks"),
        recording(torch.compile(tiny), BLOCKS),
    ):
        pass
    with pytest.raises(ValueError, match="recording\\(model, mixer=mixer\\)"):
        record = None
        with recording(tiny) as record:
            pass
        record.lessons()


def test_a_block_without_maps_is_refused(tiny, batch):
    with (
        pytest.raises(ValueError, match="'fc' must return maps .* got \\(7, 5\\)"),
        recording(tiny, ("fc",), every=1),
    ):
        make("baseline").loss(tiny, *batch)
    assert count_hooks(tiny) == 0


@pytest.mark.slow
def test_what_is_kept_does_not_grow_with_the_steps(tiny, batch):
    def numbers(steps):
        with recording(tiny, mixer=(mixer := CatchUpMix(seed=0)), every=1) as record:
            for _ in range(steps):
                mixer.loss(tiny, *batch).backward()
            seen = [value for tally in record._tallies.values() for value in _tensors(tally)]
            assert not any(value.requires_grad for value in seen)
        return sum(value.numel() for value in seen)

    assert numbers(30) == numbers(60)


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [
        found
        for part in vars(value).values()
        if hasattr(part, "__dict__") or isinstance(part, torch.Tensor)
        for found in _tensors(part)
    ]


def test_the_streamed_histogram_is_numpys():
    rng = np.random.default_rng(0)
    norms, gradients = (
        10 ** rng.uniform(-3.9, 3.9, (40, 30)),
        10 ** rng.uniform(-8.9, 0.9, (40, 30)),
    )
    norms[0, :5], gradients[1, :7], gradients[0, 0] = 0, 0, 0
    streamed = JointHistogram()
    for part in range(0, 40, 8):
        streamed.add(
            torch.from_numpy(norms[part : part + 8]), torch.from_numpy(gradients[part : part + 8])
        )
    found = streamed.read()
    whole, _, _ = np.histogram2d(
        norms.ravel(), gradients.ravel(), [edges(NORM_RANGE), edges(GRADIENT_RANGE)]
    )
    assert np.array_equal(whole, found["counts"]) and len(found["counts"]) == BINS
    assert (found["zero_norm"], found["zero_gradient"], found["not_finite"], found["pairs"]) == (
        5,
        7,
        0,
        1200,
    )
    streamed.add(
        torch.tensor([[math.nan, 1.0, math.inf, 0.0]]),
        torch.tensor([[1.0, math.nan, 1.0, math.inf]]),
    )
    found = streamed.read()
    assert (found["not_finite"], found["zero_norm"], int(found["counts"].sum())) == (
        4,
        5,
        int(whole.sum()),
    )
    beyond = JointHistogram()
    beyond.add(torch.tensor([[1e-30, 1e30]]), torch.tensor([[1e30, 1e-30]]))
    assert beyond.read()["counts"][0][-1] == 1 and beyond.read()["counts"][-1][0] == 1


def test_a_streamed_mean_counts_what_it_is_told():
    mean = Mean()
    assert mean.read(2).isnan().all()
    mean.add(torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[True, True], [True, False]]))
    mean.add(torch.tensor([[5.0, 4.0]]))
    assert mean.read(2).tolist() == [3.0, 3.0]
    assert edges((0.0, 2.0))[0] == 1 and edges((0.0, 2.0))[-1] == pytest.approx(100)


@pytest.mark.parametrize(
    ("model", "block", "conv"),
    [
        (
            lambda: catchup.models.create("resnet18", num_classes=5, width=4),
            "layer2",
            "layer2.1.conv2",
        ),
        (lambda: catchup.models.create("torchvision.resnet18", num_classes=5), "maxpool", "conv1"),
        (
            lambda: catchup.models.create("torchvision.resnet50", num_classes=5),
            "layer1",
            "layer1.2.conv3",
        ),
    ],
)
def test_the_filters_of_a_block_are_its_last_kernels(model, block, conv):
    with torch.device("meta"):
        found = model()
    with recording(found, (block,)) as record:
        assert record.weights == {block: conv}


def test_frozen_weights_and_a_block_before_any_convolution_give_nan(batch):
    model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    model[1].weight.requires_grad_(False)
    with recording(model, ("0", "1"), every=1) as record:
        make("baseline").loss(model, *batch).backward()
    assert record.weights == {"1": "1"} and all(
        math.isnan(row["weight_gradient"]) for row in record.rows()
    )
    assert all(math.isnan(row["map_gradient"]) for row in record.rows() if row["block"] == "0")
