"""The recorder counts training steps, on the model that it was given: every method, copies, normed
kernels, evaluations in between, checkpointed blocks, and what never runs.
"""

import copy
import io
import math
import pickle
import warnings

import matplotlib
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from catchup import CatchUpMix, Draw, compile_blocks, count_hooks, find_blocks, plots
from catchup.inspection import recording
from catchup.mixers import MIXERS, make

matplotlib.use("Agg")


def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),
        nn.Sequential(nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)),
        nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def data(n=8):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(n, 3, 32, 32, generator=generator)
    return (pixels - 0.5) / 0.25, torch.arange(n) % 5


def same(rows, others):
    """Whether two lists of rows say the same, names and counts exactly."""
    for row, other in zip(rows, others, strict=True):
        for key, value in row.items():
            assert other[key] == (value if isinstance(value, str) else pytest.approx(value, 1e-4))


@pytest.mark.parametrize("regularisers", [(), ("augmix",)])
@pytest.mark.parametrize("method", MIXERS)
def test_a_step_is_a_step_however_many_passes_a_method_makes(method, regularisers):
    """At `every` = 3, the first and the fourth of six steps; the kernel's gradient is that of the
    parameter, the images those of the batch.
    """
    images, labels = data()
    model, mixer = small(), make(method, seed=0, prob=1.0, regularisers=regularisers)
    if method == "baseline":
        mixer = make(method, seed=0, regularisers=regularisers)
    mixer.begin_data((0.5,) * 3, (0.25,) * 3)
    mixer.begin_run(model, 5)
    true = []
    with recording(model, ("1",), mixer=mixer, every=3) as record:
        for _ in range(6):
            model.zero_grad()
            mixer.loss(model, images, labels).backward()
            true.append(model[1][2].weight.grad.flatten(1).norm(dim=1))
    rows = record.rows()
    assert {(row["images"], row["batches"]) for row in rows} == {(16, 2)}
    recorded = torch.tensor([row["weight_gradient"] for row in rows])
    torch.testing.assert_close(recorded, (true[0] + true[3]) / 2, rtol=1e-4, atol=1e-7)
    assert all(math.isfinite(row["norm"]) and math.isfinite(row["map_gradient"]) for row in rows)


def test_copies_are_not_watched_and_can_be_kept():
    (images, labels), model, mixer = data(), small(), CatchUpMix(seed=0)
    with recording(model, every=1) as record:
        average = torch.optim.swa_utils.AveragedModel(model)
        twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        torch.save(model, io.BytesIO())
        mixer.loss(model, images, labels).backward()
        for other in (average, twin):
            assert count_hooks(other) == 0
            other(100 * torch.rand(50, 3, 32, 32)).sum().backward()
        average.update_parameters(model)
    assert {row["images"] for row in record.rows()} == {8}


def normed(kind):
    model = small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older one is deprecated, and still in use
        kind(model[1][2])
    return model


@pytest.mark.parametrize(
    "kind", [parametrizations.weight_norm, nn.utils.weight_norm, parametrizations.orthogonal]
)
def test_kernels_that_are_computed_have_their_gradient(kind):
    images, labels = data()
    model = normed(kind)
    with recording(model, ("1",), every=1) as record:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
    twin = normed(kind)
    kernel = twin[1][2].weight.detach().clone().requires_grad_()
    hidden = twin[1][1](twin[1][0](twin[0](images)))
    maps = nn.functional.conv2d(hidden, kernel, twin[1][2].bias, padding=1)
    torch.nn.functional.cross_entropy(twin[2:](maps), labels).backward()
    recorded = torch.tensor([row["weight_gradient"] for row in record.rows()])
    torch.testing.assert_close(recorded, kernel.grad.flatten(1).norm(dim=1), rtol=1e-3, atol=1e-6)


def test_an_evaluation_between_forward_and_backward_changes_nothing():
    (images, labels), rows = data(), []
    for between in (False, True):
        model = small()
        with recording(model, every=1) as record:
            loss = make("baseline", seed=0).loss(model, images, labels)
            if between:
                model.eval()
                with torch.no_grad():
                    model(images)
                model.train()
            loss.backward()
        rows.append(record.rows())
    assert rows[0] == rows[1] and not any(math.isnan(row["weight_gradient"]) for row in rows[1])


class Checkpointed(nn.Module):
    """A block run under activation checkpointing; its own maps are made inside."""

    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, maps):
        return checkpoint(self.inner, maps, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_block_is_counted_once(reentrant):
    images, labels = data()
    plain, model = small(), small()
    model[1] = Checkpointed(model[1], reentrant)
    found = []
    for watched, block in ((plain, "1"), (model, "1.inner")):
        with recording(watched, (block,), every=1) as record:
            torch.nn.functional.cross_entropy(watched(images), labels).backward()
        found.append([{**row, "block": "1"} for row in record.rows()])
    assert {row["images"] for row in found[1]} == {8}
    same(*found)


def test_gradient_accumulation_counts_every_batch():
    (images, labels), model = data(), small()
    with recording(model, ("1",), every=1) as record:
        gradients = []
        for part in (slice(0, 4), slice(4, 8)):  # the gradient is not set to zero between the two
            before = 0 if model[1][2].weight.grad is None else model[1][2].weight.grad.clone()
            torch.nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
            gradients.append((model[1][2].weight.grad - before).flatten(1).norm(dim=1))
    recorded = torch.tensor([row["weight_gradient"] for row in record.rows()])
    torch.testing.assert_close(recorded, sum(gradients) / 2, rtol=1e-3, atol=1e-6)
    assert {row["batches"] for row in record.rows()} == {2}


def test_a_block_that_never_runs_is_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.idle = small(), nn.Conv2d(3, 3, 3)

        def forward(self, images):
            return self.body(images)

    images, labels = data()
    model = Unused()
    with pytest.warns(UserWarning, match="did not run in a training step: idle"):
        with recording(model, ("body.1", "idle"), every=1) as record:
            make("baseline").loss(model, images, labels).backward()
    assert {row["block"] for row in record.rows()} == {"body.1"}


@pytest.mark.slow
def test_blocks_that_are_compiled_are_recorded_alike():
    (images, labels), rows = data(), []
    for compiled in (False, True):
        model = small()
        if compiled:
            compile_blocks(model, ["1", "2"], backend="eager")
        with recording(model, ("1", "2"), every=1) as record:
            for _ in range(2):
                make("baseline", seed=0).loss(model, images, labels).backward()
        rows.append(record.rows())
    same(*rows)


def test_the_figure_of_lessons_takes_an_epoch_that_has_some():
    """In the last epoch the block was mixed in a step that was not measured."""
    (images, labels), model, mixer = data(), small(), CatchUpMix(seed=0)
    partner = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0])
    with recording(model, mixer=mixer, every=2) as record:
        for layers in ((3, 2), (2, 3)):
            for layer in layers:
                mixer.loss(model, images, labels, draw=Draw(layer, partner, 0.5)).backward()
            record.end_epoch()
    block = find_blocks(model)[2]
    axes = plots.lessons(record.lessons(), block)
    points = [
        spot.filled(math.nan)
        for ax in axes
        for part in ax.collections
        for spot in part.get_offsets()
    ]
    assert any(math.isfinite(x + y) for x, y in points)
    assert axes[1].get_xlabel().startswith("gradient when not mixed here, in epoch 2")
    assert "epoch 1" in plots.lessons_caption(record.lessons(), block)
    with pytest.raises(ValueError, match="was not mixed in epoch 2, in a step that was measured"):
        plots.lessons(record.lessons(), block, epoch=2)
