"""Numbers that are none, and too little memory: the run ends within a step, says where, and keeps
what was good.
"""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from catchup import Settings, count_hooks, fit
from catchup.cli.commands import main
from catchup.mixers import Baseline, make
from catchup.training import checkpoint
from catchup.training.loop import TrainingRun
from catchup.training.machine.failures import first_broken, is_out_of_memory, memory_needed
from catchup.training.seeds import fork_rng
from catchup.training.trainer import dataset_of, model_of
from conftest import TinyNet

# 5 steps
TINY = Settings(
    subset=5, epochs=3, batch_size=10, lr=0.05, device="cpu", precision="fp32", save_every_s=0.0
)


@pytest.fixture(scope="module")
def digits():
    return dataset_of(TINY)


def network():
    with fork_rng(0):
        return TinyNet(10, 1)


@contextmanager
def before_step(monkeypatch, number, spoil):
    """`spoil(run, images)` happens before step `number`."""
    step = TrainingRun._step

    def spoilt(run, images, *others):
        if run.step + 1 == number:
            images = spoil(run, images)
        return step(run, images, *others)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "_step", spoilt)
        yield


def bad_input(value):
    def spoil(_run, images):
        images = images.clone()
        images[0, 0, 0, 0] = value
        return images

    return spoil


def bad_weight(value):
    def spoil(run, images):
        run.model.layer1[0].weight.data[0, 0, 0, 0] = value
        return images

    return spoil


def bad_gradient(value):
    def spoil(run, images):
        handle = run.model.layer2[0].weight.register_hook(
            lambda gradient: (handle.remove(), gradient * value)[1]
        )
        return images

    return spoil


def bad_lr(value):
    def spoil(run, images):
        run.optimizer.param_groups[0]["lr"] = value
        return images

    return spoil


def bad_loss(value):
    def spoil(run, images):
        loss = run.mixer.loss
        object.__setattr__(run.mixer, "loss", lambda *a, **o: loss(*a, **o) * value)
        return images

    return spoil


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(
    ("spoil", "step", "words"),
    [
        (bad_input, 7, "the images"),
        (bad_weight, 7, "the weights 'layer1.0.weight'"),
        (bad_loss, 7, "the loss alone"),
        (bad_gradient, 7, "the weights 'layer2.0.weight'"),
        (bad_lr, 7, "the weights 'stem.0.weight'"),
        # the last step of an epoch: no other follows
        (bad_gradient, 10, "the weights 'layer2.0.weight'"),
    ],
)
def test_numbers_that_are_none_end_the_run_within_a_step(
    digits, tmp_path, monkeypatch, spoil, step, words, value
):
    model = network()
    with before_step(monkeypatch, step, spoil(value)), pytest.raises(FloatingPointError) as error:
        fit(model, Baseline(seed=0), digits, TINY, out=tmp_path, progress=False)
    said = str(error.value)
    assert words in said and (f"at step {step} " in said or f"at step {step + 1} " in said), said
    assert "checkpoint of " in said and "is kept" in said and count_hooks(model) == 0
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    kept = state["epoch"] * 5 + (state["under_way"] or {"batches": 0})["batches"]
    assert kept in (step - 1, step - 2) and f" {kept if kept % 5 else kept // 5} is kept" in said
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.slow
def test_answers_that_are_none_are_followed_to_their_layer(digits):
    """Only in evaluation mode, where running statistics count: the weights are finite, what they
    make of images not.
    """
    model = model_of(replace(TINY, width=4), digits)

    def on_step(at):
        model.layer2[0].bn1.running_var.fill_(-1.0)

    with pytest.raises(
        FloatingPointError, match="answers are not finite .*: the output of layer 'layer2.0.bn1'"
    ):
        fit(model, Baseline(seed=0), digits, TINY, progress=False, on_step=on_step)
    assert count_hooks(model) == 0 and model.training


def test_a_stop_does_not_store_weights_that_are_none(digits, tmp_path, monkeypatch):
    """The loss of that step was finite; only its update was not."""
    with (
        before_step(monkeypatch, 3, bad_gradient(math.nan)),
        pytest.raises(FloatingPointError, match="at step 3"),
    ):
        fit(
            network(),
            Baseline(seed=0),
            digits,
            TINY,
            out=tmp_path,
            progress=False,
            on_step=lambda at: at.step == 3,
        )
    assert checkpoint.load(tmp_path / "checkpoint.pt")["under_way"]["batches"] == 2


def test_the_first_layer_is_named_and_the_model_left_as_it_was():
    from torch import nn

    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Identity(), Log()), nn.Flatten()
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert first_broken(model, torch.randn(4, 1, 8, 8)) == "the output of layer '2.1'"
    assert count_hooks(model) == 0 and all(
        torch.equal(before[name], value) for name, value in model.state_dict().items()
    )
    assert first_broken(model) == "none of the weights"
    assert first_broken(model[:2], torch.randn(4, 1, 8, 8)).startswith("the loss alone")
    other = nn.Linear(2, 2)
    other.bias.data[0] = math.inf
    assert first_broken(model, None, {"head": other}) == "the weights 'head.bias'"


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you"
            " tried to allocate 4000 bytes. Error code 12 (Cannot allocate memory)"
        ),
    ],
)
def test_too_little_memory_is_told_with_the_need_and_the_remedy(digits, tmp_path, error):
    class Hungry(Baseline):
        def loss(self, *batch, **options):
            if self.state.setdefault("steps", 0) == 6:
                raise error
            self.state["steps"] += 1
            return super().loss(*batch, **options)

    with pytest.raises(MemoryError) as found:
        fit(network(), Hungry(seed=0), digits, TINY, out=tmp_path, progress=False)
    said = str(found.value)
    for part in (
        "step 7 (epoch 2) does not fit into memory with 10 images",
        "GiB at most",
        "step 6 is kept",
        "batch_size below 10",
        "bf16",
    ):
        assert part in said
    assert checkpoint.load(tmp_path / "checkpoint.pt")["under_way"]["batches"] == 1


def test_other_errors_are_not_taken_for_it(digits):
    assert not is_out_of_memory(RuntimeError("shapes do not fit")) and not is_out_of_memory(
        ValueError("out of memory.")
    )
    assert not is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."))
    assert "MemoryError" in memory_needed(MemoryError(), torch.device("cpu"))

    class Broken(Baseline):
        def loss(self, *batch, **options):
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        fit(network(), Broken(seed=0), digits, TINY, progress=False)


@pytest.mark.slow
def test_the_command_line_says_it_in_a_line(tmp_path, monkeypatch, capsys):
    def hungry(*_):
        raise MemoryError

    monkeypatch.setattr(TrainingRun, "_loss", hungry)
    assert (
        main(
            [
                "train",
                "--out",
                str(tmp_path / "run"),
                "--subset",
                "5",
                "--width",
                "2",
                "--device",
                "cpu",
            ]
        )
        == 1
    )
    assert (
        "catchup: step 1 (epoch 1) does not fit into memory with 50 images"
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_seeds_methods_and_settings_are_what_decides(digits):
    """Three times the same; and the number of checkpoints decides nothing."""
    ends = []
    for every in (None, 0.0, 600.0):
        settings = Settings(**{**vars(TINY), "save_every_s": every, "epochs": 1})
        result = fit(
            network(),
            make("catchup", seed=0, layers=(0, 1), blocks=("layer1",)),
            digits,
            settings,
            progress=False,
        )
        ends.append(torch.cat([value.flatten() for value in result.model.state_dict().values()]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
