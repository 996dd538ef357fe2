"""One evaluation object per run: its fields against a direct computation, what is kept, what is
refused.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from catchup.data import Images, load
from catchup.experiments import evaluation, pretrained
from catchup.experiments.evaluation import USUAL, evaluate, evaluation_of, with_published
from catchup.experiments.pretrained import evaluate_pretrained
from catchup.hooks.layers import count_hooks
from catchup.measures.feature_drop import FRACTIONS
from catchup.measures.robustness import masking_verdict, masking_verdicts
from catchup.measures.subject import Options, load_outside
from catchup.training import checkpoint
from catchup.training.checkpoint import CheckpointError
from catchup.training.folder import read_metrics
from catchup.training.settings import Settings
from catchup.training.trainer import dataset_of, fit, model_of, train
from catchup.utils.files import read_json, write_json

pytestmark = pytest.mark.slow

SETTINGS = Settings(
    data="digits",
    subset=5,
    model="resnet18",
    width=16,
    method="catchup",
    method_settings={"alpha": 2.0},
    epochs=8,
    batch_size=25,
    lr=0.02,
    device="cpu",
    precision="fp32",
    seed=3,
)
MEASURED = ("top1_error", "top5_error", "fgsm_error", "pgd_error", "feature_drop")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of one small run; tests that change it work on a copy."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    train(SETTINGS, out, progress=False)
    return out


@pytest.fixture
def run_dir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def full(trained, tmp_path_factory):
    """Folder and result of an evaluation with every test."""
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("full") / "run")
    return folder, evaluate(folder, progress=False)


def network(folder):
    """The trained network, read without the code under test."""
    model = model_of(SETTINGS, load("digits"))
    model.load_state_dict(checkpoint.load(folder / "checkpoint.pt")["model"])
    return model.eval()


@pytest.mark.slow
def test_errors_are_those_of_a_plain_loop_over_the_test_images(full):
    folder, row = full
    data, model = load("digits"), network(folder)
    wrong1 = wrong5 = 0
    for pixels, label in zip(data.test.pixels, data.test.labels):
        image = (pixels[None].float() / 255 - data.mean[0]) / data.std[0]
        with torch.no_grad():
            ranking = model(image)[0].argsort(descending=True).tolist()
        wrong1 += ranking[0] != label
        wrong5 += label not in ranking[:5]
    assert row["n_test"] == len(data.test) == 500
    assert row["top1_error"] == pytest.approx(100 * wrong1 / 500)
    assert row["top5_error"] == pytest.approx(100 * wrong5 / 500)
    assert row["top5_error"] < row["top1_error"]


def test_the_error_under_fgsm_is_that_of_the_formula(full):
    folder, row = full
    data, model = load("digits"), network(folder)
    images = (data.test.pixels.float() / 255).requires_grad_()
    logits = model((images - data.mean[0]) / data.std[0])
    nn.functional.cross_entropy(logits, data.test.labels, reduction="sum").backward()
    attacked = (images.detach() + 4 / 255 * images.grad.sign()).clamp(0, 1)
    with torch.no_grad():
        answers = model((attacked - data.mean[0]) / data.std[0]).argmax(dim=1)
    assert row["fgsm_error"] == pytest.approx(
        100 * (answers != data.test.labels).float().mean().item(), abs=0.41
    )
    assert row["top1_error"] < row["fgsm_error"] <= row["pgd_error"] + 1


def test_the_object_is_complete_and_is_what_lies_in_the_folder(full):
    folder, row = full
    assert json.loads((folder / "evaluation.json").read_text()) == row
    expected = {
        "method": "catchup",
        "seed": 3,
        "data": "digits",
        "subset": 5,
        "model": "resnet18",
        "width": 16,
        "epochs": 8,
        "finished": True,
    }
    assert {key: row[key] for key in expected} == expected
    assert row["method_settings"]["alpha"] == 2.0
    assert row["measured_with"] == {
        "clean": {},
        "feature-drop": {},
        "fgsm": {"sample": None, "eps_255": 4.0},
        "pgd": {"sample": None, "eps_255": 4.0, "pgd_steps": 10, "pgd_step_size_255": 1.0},
    }
    rows = read_metrics(folder)
    errors = [line["val_error_percent"] for line in rows]
    assert row["last_error"] == errors[-1] == pytest.approx(row["top1_error"])
    assert row["last_val_loss"] == rows[-1]["val_loss"] > 0
    assert row["best_error"] == min(errors) and row["median10_error"] == pytest.approx(
        sum(sorted(errors)[3:5]) / 2
    )
    assert {
        "versions",
        "hardware",
        "command",
        "commit",
        "training",
        "checkpoint_sha256",
    } <= row.keys()
    for which in ("strongest", "weakest"):
        assert [fraction for fraction, _ in row["feature_drop"][which]] == list(FRACTIONS)
        assert row["feature_drop"][which][0][1] == pytest.approx(100 - row["top1_error"])


@pytest.mark.slow
def test_an_evaluation_repeats_itself(full):
    folder, row = full
    again = evaluate(folder, ("pgd", "fgsm"), device="cpu", progress=False)
    assert {key: again[key] for key in MEASURED} == {key: row[key] for key in MEASURED}


@pytest.mark.slow
def test_tests_not_asked_for_are_null_then_kept_while_the_checkpoint_is_the_same(run_dir):
    first = evaluate(run_dir, ("clean",), progress=False)
    assert [key for key in MEASURED if first[key] is not None] == ["top1_error", "top5_error"]
    second = evaluate(run_dir, ("feature-drop",), progress=False)
    assert {key for key in MEASURED if second[key] is not None} == {
        "top1_error",
        "top5_error",
        "feature_drop",
    }
    assert second["top1_error"] == first["top1_error"]
    state = checkpoint.load(run_dir / "checkpoint.pt")
    state["model"]["fc.bias"] += 1
    checkpoint.save(run_dir / "checkpoint.pt", state)
    third = evaluate(run_dir, ("clean",), progress=False)
    assert (
        third["feature_drop"] is None and third["checkpoint_sha256"] != second["checkpoint_sha256"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "key, value", [("n_test", 499), ("checkpoint_sha256", "other"), ("measured_with", None)]
)
def test_fields_measured_otherwise_are_not_kept(run_dir, key, value):
    row = evaluate(run_dir, ("feature-drop",), progress=False)
    write_json(run_dir / "evaluation.json", {**row, key: value})
    assert evaluate(run_dir, ("clean",), progress=False)["feature_drop"] is None


def no_epochs(folder):
    run = read_json(folder / "run.json")
    settings = {key: value for key, value in run["settings"].items() if key != "epochs"}
    write_json(folder / "run.json", {**run, "settings": settings})


def no_settings_at_all(folder):
    write_json(folder / "run.json", {"seed": 3})


def words_for_seconds(folder):
    state = checkpoint.load(folder / "checkpoint.pt")
    state["rows"][0]["time_s"] = "long"
    checkpoint.save(folder / "checkpoint.pt", state)


def no_seconds(folder):
    state = checkpoint.load(folder / "checkpoint.pt")
    del state["rows"][0]["time_s"]
    checkpoint.save(folder / "checkpoint.pt", state)


def test_options_are_recorded_with_the_test_and_kept_with_its_fields(run_dir):
    first = evaluate(run_dir, ("fgsm",), options=Options(eps_255=0.0, sample=2), progress=False)
    assert first["measured_with"] == {"fgsm": {"sample": 2, "eps_255": 0.0}}
    assert first["fgsm_error"] * 20 / 100 == pytest.approx(round(first["fgsm_error"] * 20 / 100)), (
        "of 20 images"
    )
    second = evaluate(run_dir, ("clean", "calibration"), progress=False)
    assert second["fgsm_error"] == first["fgsm_error"]
    assert second["measured_with"] == {
        **first["measured_with"],
        "clean": {},
        "calibration": {"bins": 15},
    }


@pytest.mark.slow
def test_images_from_elsewhere_are_brought_to_the_models_size_and_channels():
    digits, shapes = load("digits"), load("shapes")
    for inside, name, outside in ((digits, "shapes", shapes), (shapes, "digits", digits)):
        found = load_outside(Options(ood=name), "data", inside, False)
        assert found.shape == inside.test.shape and len(found) == len(outside.test)
    assert load_outside(Options(), "data", digits, False) is None


def test_published_corruptions_are_taken_where_they_lie(tmp_path):
    options, run = Options(), Settings(data="cifar100", data_dir=str(tmp_path))
    assert with_published(options, run) == options
    folder = tmp_path / "CIFAR-100-C"
    folder.mkdir()
    assert with_published(options, run) == Options(cifar_c_dir=folder)
    for other in ({"data": "cifar10"}, {"window": 28}, {"image_size": 64}):
        assert with_published(options, replace(run, **other)) == options
    for chosen in (Options(sample=10), Options(cifar_c_dir=tmp_path)):
        assert with_published(chosen, run) == chosen


def test_a_run_is_evaluated_with_the_published_corruptions_and_they_are_looked_at_first(
    trained, tmp_path, monkeypatch
):
    """Digits have none: the folder named for them is refused, before anything is measured or
    written.
    """
    from catchup.experiments import evaluation

    monkeypatch.setattr(
        evaluation, "with_published", lambda options, _: replace(options, cifar_c_dir=tmp_path)
    )
    before = (
        (trained / "evaluation.json").read_bytes()
        if (trained / "evaluation.json").exists()
        else None
    )
    with pytest.raises(FileNotFoundError, match="lacks labels.npy"):
        evaluate(trained, ("clean", "corruption"), progress=False)
    after = (
        (trained / "evaluation.json").read_bytes()
        if (trained / "evaluation.json").exists()
        else None
    )
    assert before == after


def test_where_published_arrays_lay_does_not_matter_for_what_is_missing():
    from catchup.experiments.planning import _as_asked

    here, generated = Options(cifar_c_dir=Path("a/CIFAR-100-C")), Options()
    held = {"sample": None, "cifar_c_dir": "b/CIFAR-100-C"}
    assert _as_asked(held, "corruption", here) and not _as_asked(held, "corruption", generated)
    assert not _as_asked({**held, "sample": 3}, "corruption", here) and not _as_asked(
        None, "corruption", here
    )
    assert _as_asked({"bins": 15}, "calibration", generated) and not _as_asked(
        {"bins": 9}, "calibration", generated
    )


def test_masking_is_told_where_pgd_errs_less_than_fgsm():
    assert masking_verdict({"fgsm_error": 50.0, "pgd_error": 49.0}).startswith("gradient masking")
    assert masking_verdict({"fgsm_error": 50.0, "pgd_error": 50.0}).startswith("no sign")
    assert masking_verdict({"fgsm_error": 50.0, "pgd_error": None}).startswith("not checked")
    assert masking_verdict({"fgsm_error": 50.0, "pgd_error": float("nan")}).startswith(
        "not checked"
    )
    other = {"fgsm": {"eps_255": 8.0, "sample": None}, "pgd": {"eps_255": 4.0, "sample": None}}
    assert masking_verdict(
        {"fgsm_error": 50.0, "pgd_error": 40.0, "measured_with": other}
    ).startswith("not checked")
    assert masking_verdict({"fgsm_error": None, "pgd_error": 50.0}) is None


def test_masking_of_several_models_is_one_sentence_or_names_them():
    fine, bad, alone = (
        {"label": "cutmix", "seed": seed, "fgsm_error": 50.0, "pgd_error": pgd}
        for seed, pgd in ((0, 60.0), (1, 40.0), (2, None))
    )
    (said,) = masking_verdicts([fine, fine])
    assert (
        said
        == "no sign of gradient masking in 2 models: PGD errs at least as often as FGSM in each"
    )
    (said,) = masking_verdicts([fine, bad, alone])
    assert said.startswith("cutmix, seed 1: gradient masking: the PGD error (40.00 %)")
    assert masking_verdicts([fine, alone])[0].startswith(
        "1 of 2 models not checked for gradient masking"
    )
    assert masking_verdicts([{"fgsm_error": None}]) == []


@pytest.mark.slow
def test_what_a_test_lacks_is_said_before_anything_is_measured(trained):
    for tests, sentence in (
        (("clean", "ood"), "--ood"),
        (("clean", "localization"), "needs boxes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(trained, tests, progress=False)
    with pytest.raises(ValueError, match=r"\(1, 8, 8\).*\(3, 32, 32\)"):
        evaluation_of(nn.Linear(1, 1), load("digits"), ("ood",), outside=load("shapes").test)
    assert not (trained / "evaluation.json").exists()


def test_a_run_that_was_stopped_is_evaluated_as_far_as_it_came(run_dir):
    state, run = checkpoint.load(run_dir / "checkpoint.pt"), read_json(run_dir / "run.json")
    state["run"]["epochs"] = run["settings"]["epochs"] = 20
    write_json(run_dir / "run.json", run)
    checkpoint.save(run_dir / "checkpoint.pt", state)
    row = evaluate(run_dir, ("clean",), progress=False)
    assert (row["epochs"], row["finished"]) == (8, False)


@pytest.mark.parametrize("key", ["seed", "method", "lr"])
def test_the_checkpoint_of_another_run_is_refused(run_dir, key):
    state = checkpoint.load(run_dir / "checkpoint.pt")
    state["run"][key] = {"seed": 5, "method": "mixup", "lr": 0.3}[key]
    checkpoint.save(run_dir / "checkpoint.pt", state)
    with pytest.raises(CheckpointError, match=f"of another run than run.json beside it .{key}"):
        evaluate(run_dir, ("clean",), progress=False)
    assert not (run_dir / "evaluation.json").exists()


def test_evaluations_side_by_side_keep_each_others_results(run_dir):
    """They measure at the same time, and merge one after the other."""
    tests = ("clean", "feature-drop", "calibration", "reliance")
    with ThreadPoolExecutor(len(tests)) as pool:
        list(pool.map(lambda test: evaluate(run_dir, (test,), progress=False), tests))
    row = read_json(run_dir / "evaluation.json")
    assert set(row["measured_with"]) == set(tests)
    assert None not in (row["top1_error"], row["feature_drop"], row["calibration"], row["reliance"])
    assert sorted(path.name for path in run_dir.iterdir() if path.name.startswith(".")) == []


def test_what_a_killed_evaluation_left_is_removed(run_dir):
    (run_dir / ".evaluation.json.999999999.tmp").touch()
    evaluate(run_dir, ("clean",), progress=False)
    assert not list(run_dir.glob(".*.tmp"))


def test_an_evaluation_carries_the_settings_and_the_data_of_its_run(run_dir):
    row, run = evaluate(run_dir, ("clean",), progress=False), read_json(run_dir / "run.json")
    assert (row["settings"], row["identity"]) == (run["settings"], run["data"])


@pytest.mark.parametrize("part", ["train", "test"])
def test_other_images_than_the_runs_are_refused(run_dir, monkeypatch, part):
    def changed(settings, progress=True):
        dataset = dataset_of(settings, progress)
        images = getattr(dataset, part)
        return replace(dataset, **{part: replace(images, pixels=255 - images.pixels)})

    monkeypatch.setattr(evaluation, "dataset_of", changed)
    with pytest.raises(ValueError, match=f"of other data.*the {part} images or their labels"):
        evaluate(run_dir, ("clean",), progress=False)
    assert not (run_dir / "evaluation.json").exists()


def test_a_run_that_never_validated_has_no_validation_error(run_dir):
    state = checkpoint.load(run_dir / "checkpoint.pt")
    state["rows"] = [{**row, "val_error_percent": None, "val_loss": None} for row in state["rows"]]
    checkpoint.save(run_dir / "checkpoint.pt", state)
    row = evaluate(run_dir, ("clean",), progress=False)
    assert [
        row[key] for key in ("last_error", "best_error", "median10_error", "last_val_loss")
    ] == [None] * 4
    assert row["top1_error"] is not None


def test_a_model_in_memory_gives_the_same_and_is_left_as_it_was(full):
    folder, row = full
    model, data = network(folder).train(), load("digits")
    before, modes = (
        {k: v.clone() for k, v in model.state_dict().items()},
        [part.training for part in model.modules()],
    )
    measured = evaluation_of(model, data, ("clean", "feature-drop"))
    assert {key: measured[key] for key in (*MEASURED, "n_test")} == {
        **{key: row[key] for key in (*MEASURED, "n_test")},
        "fgsm_error": None,
        "pgd_error": None,
    }
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes and count_hooks(model) == 0


def test_pgd_runs_with_the_settings_that_are_recorded(full, monkeypatch):
    seen = []

    def recorded(_model, images, _labels, **settings):
        seen.append({**settings, "generator": settings["generator"].initial_seed()})
        return images

    monkeypatch.setattr("catchup.measures.registry.pgd", recorded)
    row = evaluation_of(network(full[0]), load("digits"), ("pgd",))
    assert row["measured_with"]["pgd"] == {
        "sample": None,
        "eps_255": 4.0,
        "pgd_steps": 10,
        "pgd_step_size_255": 1.0,
    }
    assert len(seen) == 5 and all(
        settings == {"eps_255": 4.0, "steps": 10, "step_255": 1.0, "generator": 0}
        for settings in seen
    )


def test_the_result_of_fit_can_be_evaluated_at_once():
    from catchup.mixers import make

    settings = Settings(subset=2, width=16, epochs=1, batch_size=20, device="cpu", precision="fp32")
    data = dataset_of(settings, progress=False)
    result = fit(model_of(settings, data), make("baseline"), data, settings, progress=False)
    measured = evaluation_of(result.model, data, ("clean",))
    assert measured["top1_error"] == pytest.approx(result.summary["last_error_percent"])


def test_top5_is_zero_by_definition_where_there_are_five_classes():
    from catchup.data import Augmentation, Dataset, Images

    images = Images(
        torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1),
        torch.arange(10) % 5,
        tuple("abcde"),
    )
    data = Dataset("handmade", images, images, (0.5,), (0.5,), Augmentation())
    measured = evaluation_of(nn.Sequential(nn.Flatten(), nn.Linear(1, 5)), data, ("clean",))
    assert measured["top5_error"] == 0 and measured["top1_error"] > 0


def test_unknown_tests_and_models_without_a_head_are_refused(trained):
    data = load("digits")
    for tests, sentence in (
        ((), "no test was"),
        (("clean", "fgms"), "Did you mean 'fgsm'"),
        (("",), "unknown test"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(trained, tests, progress=False)
        with pytest.raises(ValueError, match=sentence):
            evaluation_of(nn.Linear(1, 1), data, tests)
    with pytest.raises(ValueError, match="unknown device"):
        evaluate(trained, device="gpu")
    with pytest.raises(ValueError, match="no linear layer"):
        evaluation_of(nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), data, USUAL)
    assert not (trained / "evaluation.json").exists()


@pytest.fixture
def imagenet_like(monkeypatch):
    """Tiny images of three of ImageNet's classes, and weights that were not downloaded."""
    from catchup import models

    names = tuple(f"n{number:08}" for number in range(1000))
    images = Images(
        torch.randint(
            256, (9, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        ),
        torch.arange(9) % 3,
        names,
    )
    asked = {}

    def load_images(*args, **settings):
        asked.update(settings, data=args)
        return replace(images, classes=names[:999]) if args[0].endswith("CUT") else images

    def create(name, *, num_classes, pretrained):
        asked.update(model=name, pretrained=pretrained)
        torch.manual_seed(0)
        return models.resnet18(num_classes=num_classes, width=16)

    monkeypatch.setattr(pretrained, "load_images", load_images)
    monkeypatch.setattr(pretrained.models, "create", create)
    return asked


def test_a_pretrained_model_is_measured_as_a_run_is(imagenet_like, tmp_path):
    out = tmp_path / "in"
    row = evaluate_pretrained(
        "torchvision.resnet18",
        "imagenet:PATH",
        out,
        ("clean", "feature-drop", "reliance"),
        progress=False,
    )
    assert imagenet_like == {
        "data": ("imagenet:PATH", "data"),
        "image_size": 256,
        "window": 224,
        "progress": False,
        "model": "torchvision.resnet18",
        "pretrained": True,
    }
    assert row == json.loads((out / "evaluation.json").read_text())
    assert (row["method"], row["model"], row["n_test"]) == ("pretrained", "torchvision.resnet18", 9)
    assert row["feature_drop"]["strongest"][0][1] == pytest.approx(100 - row["top1_error"])
    assert -1 <= row["reliance"]["rank_correlation"] <= 1 and len(row["reliance"]["blocks"]) == 5
    again = evaluate_pretrained(
        "torchvision.resnet18", "imagenet:PATH", out, ("calibration",), progress=False
    )
    assert again["feature_drop"] == row["feature_drop"] and again["calibration"] is not None
    other = evaluate_pretrained(
        "torchvision.resnet18", "imagenet:OTHER", out, ("clean",), progress=False
    )
    assert other["feature_drop"] is None


def test_a_pretrained_model_is_not_measured_on_other_classes(imagenet_like, tmp_path):
    """With a folder that is not there the others would move up, and the model would get a new
    classifier.
    """
    with pytest.raises(ValueError, match="imagenet:CUT has 999 classes, .* 1000"):
        evaluate_pretrained(
            "torchvision.resnet18", "imagenet:CUT", tmp_path / "in", ("clean",), progress=False
        )
    assert not (tmp_path / "in").exists()


def test_a_pretrained_model_spares_folders_of_others(imagenet_like, trained, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    for folder in (trained, tmp_path):
        with pytest.raises(ValueError, match="holds something else"):
            evaluate_pretrained("torchvision.resnet18", "imagenet", folder, progress=False)
    with pytest.raises(ValueError, match="training images"):
        evaluate_pretrained(
            "torchvision.resnet18", "imagenet", tmp_path / "x", ("landscape",), progress=False
        )
    assert not imagenet_like and not (tmp_path / "x").exists()


def no_run(folder):
    (folder / "run.json").unlink()


def no_settings(folder):
    (folder / "run.json").write_text('{"settings": {"epochs": 2}}')


def unknown_setting(folder):
    run = read_json(folder / "run.json")
    write_json(folder / "run.json", {**run, "settings": {**run["settings"], "colour": "red"}})


def no_checkpoint(folder):
    (folder / "checkpoint.pt").unlink()


def flipped_byte(folder):
    content = bytearray((folder / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "checkpoint.pt").write_bytes(content)


def cut_off(folder):
    (folder / "checkpoint.pt").write_bytes((folder / "checkpoint.pt").read_bytes()[:5000])


def other_width(folder):
    run = read_json(folder / "run.json")
    write_json(folder / "run.json", {**run, "settings": {**run["settings"], "width": 8}})


def other_content(folder):
    checkpoint.save(folder / "checkpoint.pt", {"weights": torch.zeros(1)})


@pytest.mark.parametrize(
    "spoil, error, sentence",
    [
        (no_run, ValueError, "not the folder of a run.*run.json"),
        (no_settings, ValueError, "does not hold the settings"),
        (unknown_setting, ValueError, "does not hold the settings.*colour"),
        (no_epochs, ValueError, "does not hold the settings.*lack epochs"),
        (no_settings_at_all, ValueError, "does not hold the settings"),
        (words_for_seconds, CheckpointError, "no checkpoint of a training run, or not a whole"),
        (no_seconds, CheckpointError, "no checkpoint of a training run, or not a whole"),
        (no_checkpoint, CheckpointError, "no checkpoint"),
        (flipped_byte, CheckpointError, "damaged"),
        (cut_off, CheckpointError, "cut off"),
        (other_width, CheckpointError, "another run than run.json.*width 16 there, 8 in run.json"),
        (other_content, CheckpointError, "no checkpoint of a training run.*weights"),
    ],
)
def test_a_folder_that_cannot_be_evaluated_gets_one_sentence_and_no_file(
    run_dir, spoil, error, sentence
):
    spoil(run_dir)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(error, match=sentence) as caught:
        evaluate(run_dir, ("clean",), progress=False)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(ValueError, match="not the folder of a run"):
        evaluate(tmp_path / "nowhere", progress=False)
    assert not (tmp_path / "nowhere").exists()
