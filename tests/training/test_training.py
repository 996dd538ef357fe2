"""The loop: equal to a plain one, repeatable, resumable, and stopped by a loss that is no
number.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import catchup
from catchup import MIXERS, Settings, count_hooks, data, fit, models, train
from catchup.data.augment import crop_and_flip, normalise, to_float
from catchup.mixers import make
from catchup.training import checkpoint
from catchup.training.feed import epoch_order
from catchup.training.folder import read_metrics
from catchup.training.machine.onednn import memory_format
from catchup.training.schedule import make_schedule
from catchup.training.trainer import Result, dataset_of, model_of

# In float32 wherever it runs: the last batch is of two images, whose gradients bfloat16 can make
# very large.
SMALL = Settings(subset=5, width=4, epochs=4, batch_size=16, lr=0.05, precision="fp32")


def digest(model) -> str:
    return hashlib.sha256(
        b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    ).hexdigest()


@pytest.fixture(scope="module")
def digits():
    """As `train` has them, but for most of the test images, which would be the larger part of the
    work.
    """
    found = dataset_of(SMALL)
    return replace(found, test=found.test.take(range(100)))


def trained(digits, settings=SMALL, method="catchup", **options) -> Result:
    mixer = make(method, seed=settings.seed)
    return fit(model_of(settings, digits), mixer, digits, settings, progress=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "epochs"), [(method, 10 if method == "catchup" else 2) for method in MIXERS]
)
def test_after_8_or_40_steps_the_weights_equal_a_plain_loops(digits, method, epochs):
    # 4 steps an epoch
    settings = replace(SMALL, epochs=epochs, batch_size=13, augment=False, schedule="constant")
    result = trained(digits, settings, method)
    model, mixer = model_of(settings, digits), make(method, seed=0)
    groups = [{"params": list(model.parameters())}, *mixer.begin_run(model, 10)]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for epoch in range(epochs):
            mixer.begin_epoch(epoch, epochs)
            for indices in epoch_order(50, 13, 0, epoch):
                images = normalise(to_float(digits.train.pixels[indices]), digits.mean, digits.std)
                loss = mixer.loss(model, images, digits.train.labels[indices])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    assert result.rows[-1]["step"] == 4 * epochs
    assert digest(result.model) == digest(model)


@pytest.mark.slow
def test_same_seed_same_weights_other_seed_others(digits):
    assert digest(trained(digits).model) == digest(trained(digits).model)
    assert digest(trained(digits).model) != digest(trained(digits, replace(SMALL, seed=1)).model)


def test_the_global_generator_is_left_alone(digits):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    trained(digits, replace(SMALL, epochs=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("frozen", [False, True])
def test_parts_that_came_in_evaluation_mode_stay_so(digits, frozen):
    settings = replace(SMALL, epochs=2)
    model = model_of(settings, digits)
    norm = next(part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d))
    if frozen:
        norm.eval()
    else:
        model.eval()  # as a whole, as it comes from an evaluation: it is trained
    before = norm.running_mean.clone()
    fit(model, make("catchup", seed=0), digits, settings, progress=False)
    assert torch.equal(norm.running_mean, before) == frozen
    assert norm.training == (not frozen) and model.training


@pytest.mark.slow
@pytest.mark.parametrize("method", ["baseline", "catchup", "recursivemix", "automix"])
def test_a_run_that_was_cut_off_ends_with_the_same_weights(digits, tmp_path, method):
    whole = trained(digits, method=method, out=tmp_path)

    class Cut(Exception):
        pass

    def cut_off(row):
        if row["epoch"] == 2:
            raise Cut

    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(Cut):
        trained(digits, method=method, out=other, on_epoch=cut_off)
    with open(other / "metrics.jsonl", "a") as file:
        # what a crash in the middle of the next epoch may leave
        file.write('{"epoch": 3, "half a li')
    with pytest.raises(ValueError, match="holds a checkpoint already"):
        trained(digits, method=method, out=other)
    resumed = trained(digits, method=method, out=other, resume=True)
    assert digest(resumed.model) == digest(whole.model)
    clocks = ("time_s", "images_per_s")
    rows = [
        [{key: row[key] for key in row if key not in clocks} for row in read_metrics(out)]
        for out in (tmp_path, other)
    ]
    assert rows[0] == rows[1] and [row["epoch"] for row in rows[1]] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "stops"),
    [  # 4 steps an epoch, 12 in all
        *((method, (3, 8)) for method in MIXERS),
        *(("catchup", stops) for stops in ((1,), (2, 3, 9), (11, 12))),
    ],
)
def test_a_run_stopped_after_any_step_ends_with_the_same_weights(digits, tmp_path, method, stops):
    settings = replace(SMALL, epochs=3)
    whole = trained(digits, settings, method, out=tmp_path / "whole")
    other, seen = tmp_path / "other", []
    for stop in stops:
        result = trained(
            digits,
            settings,
            method,
            out=other,
            resume=True,
            on_step=lambda at, stop=stop: seen.append(at.step) or at.step == stop,
        )
        assert (
            seen[-1] == stop and result.finished is (stop == 12) and len(result.rows) == stop // 4
        )
    result = trained(
        digits, settings, method, out=other, resume=True, on_step=lambda at: seen.append(at.step)
    )
    assert result.finished and seen == list(range(1, 13))  # no step twice, none left out
    assert digest(result.model) == digest(whole.model) and count_hooks(result.model) == 0
    rows = [
        [
            {key: row[key] for key in row if key not in ("time_s", "images_per_s")}
            for row in read_metrics(out)
        ]
        for out in (tmp_path / "whole", other)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_stop_during_validation_keeps_the_epoch_and_measures_it_again(digits, tmp_path):
    whole, asked = trained(digits, out=tmp_path / "whole"), []

    def stop():  # 4 steps, then the first batch of the validation
        asked.append(len(asked))
        return len(asked) == 5

    stopped = trained(digits, out=tmp_path / "other", should_stop=stop)
    assert len(asked) == 5 and not stopped.finished and stopped.rows == []
    resumed = trained(digits, out=tmp_path / "other", resume=True)
    assert resumed.finished and digest(resumed.model) == digest(whole.model)
    for one, other in zip(whole.rows, resumed.rows, strict=True):
        assert {key: one[key] for key in one if key not in ("time_s", "images_per_s")} == {
            key: other[key] for key in other if key not in ("time_s", "images_per_s")
        }


def test_progress_says_where_the_run_is(digits):
    seen = []
    trained(
        digits,
        replace(SMALL, epochs=2),
        on_step=lambda at: seen.append((at.epoch, at.step, at.steps)),
    )
    assert seen == [(1, step, 8) for step in range(1, 5)] + [(2, step, 8) for step in range(5, 9)]


@pytest.mark.parametrize(
    ("change", "method"), [({"seed": 9}, "catchup"), ({"lr": 0.01}, "catchup"), ({}, "baseline")]
)
def test_the_checkpoint_of_another_run_is_not_taken_up(digits, tmp_path, change, method):
    trained(digits, replace(SMALL, epochs=1), out=tmp_path)
    with pytest.raises(ValueError, match="checkpoint of another run"):
        trained(digits, replace(SMALL, epochs=1, **change), method, out=tmp_path, resume=True)


def test_weights_of_another_model_are_not_taken_up(digits, tmp_path):
    trained(digits, replace(SMALL, epochs=1), out=tmp_path)
    wide = model_of(replace(SMALL, width=8), digits)
    with pytest.raises(checkpoint.CheckpointError, match="weights of another model"):
        fit(
            wide,
            make("catchup", seed=0),
            digits,
            replace(SMALL, epochs=1),
            out=tmp_path,
            resume=True,
            progress=False,
        )


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_repeats_no_line(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    settings = replace(SMALL, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", killed)
        train(settings, tmp_path / "run", progress=False)
    # a line is written after the checkpoint that holds it
    assert read_metrics(tmp_path / "run") == []
    train(settings, tmp_path / "run", resume=True, progress=False)
    assert [row["epoch"] for row in read_metrics(tmp_path / "run")] == [1, 2]


@pytest.mark.slow
def test_train_fills_its_folder_and_resumes(tmp_path):
    settings = replace(
        SMALL, epochs=2, method="catchup", method_settings={"alpha": 2.0, "layers": (0, 1)}
    )
    result = train(settings, tmp_path / "run", progress=False)
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
        "run.json",
    ]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (
        run["settings"]["method_settings"] == {"alpha": 2.0, "layers": [0, 1]}
        and run["settings"]["seed"] == 0
    )
    assert run["result"] == pytest.approx(result.summary)
    assert Settings.from_dict(run["settings"]).epochs == 2
    assert digest(train(settings, tmp_path / "run", resume=True, progress=False).model) == digest(
        result.model
    )
    with pytest.raises(ValueError, match="already holds a run"):
        train(settings, tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="epochs was 2, now 3"):
        train(replace(settings, epochs=3), tmp_path / "run", resume=True, progress=False)


@pytest.mark.slow
def test_resuming_from_a_damaged_checkpoint_loses_nothing(tmp_path):
    settings = replace(SMALL, epochs=2)
    train(settings, tmp_path, progress=False)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        train(settings, tmp_path, resume=True, progress=False)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_checkpoint(
    digits, tmp_path
):
    steps = []

    class Spoilt(catchup.Baseline):
        def loss(self, *batch, **options):
            steps.append(len(steps) + 1)
            return super().loss(*batch, **options) * (math.nan if steps[-1] == 10 else 1)

    with pytest.raises(
        FloatingPointError, match=r"at step 10 \(epoch 3\): the checkpoint of epoch 2 is kept"
    ):
        # 4 steps an epoch
        fit(model_of(SMALL, digits), Spoilt(seed=0), digits, SMALL, out=tmp_path, progress=False)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    assert state["epoch"] == 2 and all(value.isfinite().all() for value in state["model"].values())


def test_weights_ruined_by_an_epochs_last_step_are_never_saved(digits, tmp_path):
    """One step an epoch: its loss is still finite, only the update overflows."""
    settings = replace(
        SMALL, epochs=3, validate_every=3, batch_size=50, lr=1e38, schedule="constant"
    )
    with pytest.raises(FloatingPointError, match=r"not finite at step \d \(epoch \d\)"):
        trained(digits, settings, "baseline", out=tmp_path)
    saved = tmp_path / "checkpoint.pt"
    if saved.exists():
        assert all(
            v.isfinite().all()
            for v in checkpoint.load(saved)["model"].values()
            if v.is_floating_point()
        )


def test_metrics_say_what_the_run_did(digits):
    settings = replace(SMALL, epochs=3)
    result = trained(digits, settings, "catchup")
    row = result.rows[-1]
    images = normalise(to_float(digits.test.pixels), digits.mean, digits.std)
    with torch.no_grad():
        logits = result.model.eval()(images)
        probe = result.model(normalise(to_float(digits.train.pixels), digits.mean, digits.std))
    wrong = (logits.argmax(1) != digits.test.labels).sum().item()
    assert row["val_error_percent"] == pytest.approx(100 * wrong / len(digits.test))
    assert row["val_loss"] == pytest.approx(
        F.cross_entropy(logits, digits.test.labels).item(), rel=1e-4
    )
    clean = (probe.argmax(1) != digits.train.labels).sum().item()
    assert row["clean_train_error_percent"] == pytest.approx(100 * clean / len(digits.train))
    assert 0 <= row["train_accuracy_mixed_percent"] <= 100 and row["images_per_s"] > 0
    assert (row["epoch"], row["step"]) == (3, 12) and 0 < row["lr"] < 0.005  # cosine's last step
    assert count_hooks(result.model) == 0


def test_summary_is_last_best_and_median_of_the_last_ten():
    errors = [90.0, 5.0, None] + [float(e) for e in (30, 29, 28, 27, 26, 25, 24, 23, 22, 40)]
    rows = [{"val_error_percent": error, "time_s": 2.0} for error in errors]
    summary = Result(None, rows).summary
    assert summary == {
        "last_error_percent": 40,
        "best_error_percent": 5,
        "median10_error_percent": 26.5,
        "time_s": 26,
    }


@pytest.mark.slow
def test_the_last_ten_epochs_are_validated_whatever_the_interval(digits):
    result = trained(digits, replace(SMALL, epochs=14, validate_every=3), "baseline")
    validated = [row["epoch"] for row in result.rows if row["val_error_percent"] is not None]
    assert validated == [3, *range(5, 15)]


@pytest.mark.slow
def test_without_an_interval_the_last_epoch_alone_is_validated_and_the_weights_are_the_same(digits):
    result = trained(digits, replace(SMALL, validate_every=0))
    assert [row["val_error_percent"] is not None for row in result.rows] == [
        False,
        False,
        False,
        True,
    ]
    assert digest(result.model) == digest(trained(digits).model)


def test_channels_last_only_where_it_is_safe():
    """oneDNN issue 6035: strided 1x1 convolutions of few channels must not train in channels_last
    on a CPU.
    """
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    nets = {width: models.create("resnet18", num_classes=10, width=width) for width in (4, 8, 16)}
    formats = {width: memory_format(net, cpu) for width, net in nets.items()}
    assert formats == {
        4: torch.contiguous_format,
        8: torch.contiguous_format,
        16: torch.channels_last,
    }
    assert memory_format(nets[4], gpu) == torch.channels_last
    assert memory_format(torch.nn.Conv2d(3, 8, 3, stride=2), cpu) == torch.channels_last


@pytest.mark.parametrize(("n", "size"), [(50, 16), (33, 16), (5, 16), (1, 16), (32, 16)])
def test_batches_hold_every_index_once_and_no_last_single_image(n, size):
    order = epoch_order(n, size, 0, 3)
    indices = torch.cat(order)
    assert (
        len(set(indices.tolist())) == len(indices) == (n - 1 if n > size and n % size == 1 else n)
    )
    assert all(len(batch) > 1 or n == 1 for batch in order)
    assert torch.equal(torch.cat(epoch_order(n, size, 0, 3)), indices)
    if n > 5:
        assert not torch.equal(torch.cat(epoch_order(n, size, 0, 4)), indices)


def test_every_regulariser_trains_augmix_with_the_data_sets_mean_and_std(digits):
    from catchup import REGULARISERS

    mixer = make("cutmix", seed=0, regularisers=tuple(REGULARISERS))
    result = fit(model_of(SMALL, digits), mixer, digits, replace(SMALL, epochs=1), progress=False)
    assert result.finished and count_hooks(result.model) == 0
    with pytest.raises(ValueError, match="augmix works on pixels and must know"):
        make("cutmix", seed=0, regularisers=("augmix",)).loss(
            result.model, torch.rand(4, 1, 8, 8), torch.arange(4)
        )


def test_a_methods_own_network_that_is_no_longer_finite_stops_the_run(digits):
    """It would go on as InputMixup without a word: AutoMix falls back to λ where its mask is no
    number.
    """
    mixer = make("automix", seed=0)

    def spoil(progress):
        mixer.modules["mix_block"].value.weight.data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="weights are not finite"):
        fit(model_of(SMALL, digits), mixer, digits, SMALL, progress=False, on_step=spoil)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.1, 0.1, 0.1, 0.1]),
        ("cosine", [0.1, 0.1 * (1 + math.cos(math.pi / 4)) / 2, 0.05, 0.0]),
        ("step", [0.1, 0.1, 0.01, 0.001]),
    ],
)
def test_schedules_are_the_textbook_ones(name, expected):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    plan, rates = make_schedule(optimizer, Settings(schedule=name), 100), []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    assert [rates[step] for step in (0, 25, 50, 100)] == pytest.approx(expected, abs=1e-9)


def test_a_cosine_ends_at_min_lr_and_every_group_at_its_own():
    own = {"params": [torch.zeros(1, requires_grad=True)], "lr": 0.2, "min_lr": 0.001}
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)]}, own], lr=0.1)
    plan, rates = make_schedule(optimizer, Settings(lr=0.1, min_lr=0.05), 100), []
    for _ in range(101):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        plan.step()
    assert rates[0] == [0.1, 0.2] and rates[100] == pytest.approx([0.05, 0.001])
    assert rates[50] == pytest.approx([0.075, 0.1005])
    alone = make_schedule(
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
        Settings(lr=0.1, min_lr=0.05),
        100,
    )
    assert alone.eta_min == 0.05


def test_one_cycle_rises_to_lr_and_falls_to_almost_nothing():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    plan, rates = make_schedule(optimizer, Settings(schedule="onecycle"), 100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step()
    assert (
        max(rates) == pytest.approx(0.1, rel=1e-3)
        and rates[0] == pytest.approx(0.004)
        and rates[-1] < 1e-3
    )
    assert 25 <= rates.index(max(rates)) <= 35


def test_bfloat16_trains_and_gives_other_weights_than_float32(digits):
    half = trained(digits, replace(SMALL, epochs=1, precision="bf16"))
    full = trained(digits, replace(SMALL, epochs=1))
    assert all(
        value.dtype in (torch.float32, torch.int64) for value in half.model.state_dict().values()
    )
    assert digest(half.model) != digest(full.model) and math.isfinite(half.rows[0]["train_loss"])


def test_augmentation_is_the_data_sets(digits):
    settings = replace(SMALL, epochs=1, method="baseline")
    assert digest(trained(digits, settings).model) != digest(
        trained(digits, replace(settings, augment=False)).model
    )
    assert digits.augmentation == data.Augmentation(pad=1)
    moved = crop_and_flip(
        digits.train.pixels[:4], digits.augmentation, torch.Generator().manual_seed(0)
    )
    assert not torch.equal(moved, digits.train.pixels[:4])


def test_float16_on_a_cpu_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        train(replace(SMALL, precision="fp16", device="cpu"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_fill_one_folder(tmp_path):
    """`torchrun` with two gloo processes: one writer, every image once, λ-weighted metrics of
    all.
    """
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "catchup.cli",
        "train",
        "--device",
        "cpu",
        "--subset",
        "5",
        "--width",
        "4",
        "--epochs",
        "2",
        "--batch-size",
        "16",
        "--seed",
        "0",
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    rows = read_metrics(tmp_path / "run")
    # 50 images in batches of 16: the last two do not fill two processes
    assert [row["step"] for row in rows] == [3, 6]
    assert all(0 <= row["train_accuracy_mixed_percent"] <= 100 for row in rows)
    state = checkpoint.load(tmp_path / "run" / "checkpoint.pt")
    assert all(not key.startswith("module.") for key in state["model"])
    assert done.stdout.count("next: catchup evaluate") == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"lr": 0.0}, "lr must be a positive number, got 0.0"),
        ({"lr": math.nan}, "lr must be a positive number, got nan"),
        ({"lr": math.inf}, "lr must be a positive number, got inf"),
        ({"weight_decay": math.nan}, "weight_decay must be"),
        ({"momentum": 1.0}, "momentum in [0, 1)"),
        ({"lr": 0.1, "min_lr": 0.2}, "min_lr must lie in 0 … lr = 0.1, got 0.2"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"schedule": "step", "milestones": (100.0,)}, "milestones are shares"),
    ],
)
def test_bad_settings_are_refused(change, words):
    with pytest.raises(ValueError) as error:
        Settings(**change)
    assert words in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "catchpu"}, "Did you mean 'catchup'?"),
        ({"data": "digitz"}, "digits"),
        ({"model": "resnet81"}, "resnet18"),
        ({"method_settings": {"alpha": -1.0}}, "alpha must be a positive number"),
        ({"method_settings": {"layers": (9,)}}, "unknown layer 9"),
        ({"subset": 10**6}, "images per class"),
        ({"model": "torchvision.vgg11", "width": None}, "VGG cannot train on images of (1, 8, 8)"),
    ],
)
def test_a_run_that_cannot_start_leaves_nothing_behind(change, words, tmp_path):
    with pytest.raises(ValueError) as error:
        train(replace(SMALL, **change), tmp_path / "run", progress=False)
    assert words in str(error.value) and not (tmp_path / "run").exists()
