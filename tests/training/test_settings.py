"""Settings on their own: what a record of a run says, what is refused, and that no two options
share a name.
"""

import json
from dataclasses import fields

import pytest

from catchup import MIXERS, Settings
from catchup.training.folder import claim
from catchup.utils.files import jsonable

DATA = {
    "name": "digits",
    "classes": ["0", "1"],
    "train_count": 2,
    "test_count": 2,
    "shape": [1, 8, 8],
    "test_shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.5],
    "train_fingerprint": "pixels:0",
    "test_fingerprint": "pixels:1",
}


# Every setting, none at its default: what a record has to keep.
ALL = {
    "data": "folder:photos",
    "data_dir": "sets",
    "image_size": 12,
    "skip_unreadable": True,
    "loader": "stream",
    "workers": 2,
    "subset": 0.5,
    "model": "preact_resnet18",
    "width": 4,
    "stem_stride": 2,
    "stem": "imagenet",
    "pretrained": True,
    "norm_before_pool": True,
    "method": "cutmix",
    "method_settings": {"alpha": 0.5},
    "epochs": 2,
    "batch_size": 16,
    "lr": 0.05,
    "min_lr": 0.01,
    "momentum": 0.8,
    "nesterov": False,
    "weight_decay": 1e-4,
    "schedule": "step",
    "milestones": (0.25, 0.75),
    "warmup_epochs": 0.5,
    "augment": False,
    "pad": 0,
    "pad_mode": "reflect",
    "window": 6,
    "resized_scale": (0.2, 0.9),
    "resized_ratio": (0.5, 2.0),
    "resized_interpolation": "bicubic",
    "jitter": 0.4,
    "pca_noise": 0.1,
    "normalisation": "half",
    "precision": "fp32",
    "compile": True,
    "device": "cpu",
    "seed": 1,
    "validate_every": 0,
    "save_every_s": 5.0,
    "recipe": "c100-400",
    "scale": "small",
}


def test_what_is_set_is_recorded_and_comes_back_in_this_order():
    assert list(ALL) == [field.name for field in fields(Settings)]
    assert not any(value == getattr(Settings(), name) for name, value in ALL.items())
    settings = Settings(**ALL)
    stored = json.loads(json.dumps(jsonable(settings.as_dict())))
    assert stored == jsonable(ALL) and Settings.from_dict(stored) == settings
    assert Settings.from_dict(jsonable(Settings().as_dict())) == Settings()


@pytest.mark.parametrize("name", ALL)
def test_a_record_that_lacks_a_setting_is_refused(name):
    """A default put in its place might not be what the run was trained with."""
    with pytest.raises(TypeError, match=f"lack {name}"):
        Settings.from_dict({key: value for key, value in ALL.items() if key != name})


def test_a_record_with_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="colour"):
        Settings.from_dict({**ALL, "colour": 1})


@pytest.mark.parametrize("group", Settings.__bases__, ids=lambda group: group.__name__)
def test_a_group_stands_by_itself(group):
    own = {field.name: ALL[field.name] for field in fields(group)}
    assert vars(group(**own)) == own and own.items() <= vars(Settings(**ALL)).items()


def test_a_recipes_name_decides_nothing_a_setting_does(tmp_path):
    claim(tmp_path / "run", jsonable(Settings().as_dict()), data=DATA, resume=False)
    labelled = jsonable(
        Settings(recipe="c100-400", scale="small", loader="stream", workers=3).as_dict()
    )
    claim(tmp_path / "run", labelled, data=DATA, resume=True)
    with pytest.raises(ValueError, match="pad was None, now 2"):
        claim(tmp_path / "run", {**labelled, "pad": 2}, data=DATA, resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"warmup_epochs": -1}, "warmup_epochs must lie in"),
        ({"warmup_epochs": 30}, "epochs = 30.*got 30"),
        ({"warmup_epochs": 1, "schedule": "onecycle"}, "begins with a rise of its own"),
        ({"loader": "disk"}, "unknown loader 'disk'"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"stem": "smal"}, "unknown stem 'smal'. Did you mean 'small'?"),
        ({"scale": "small"}, "that of a recipe"),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Settings(**change)


def test_no_setting_of_a_run_has_the_name_of_another_option():
    """The command line offers them side by side without prefixes."""
    from catchup.measures.subject import Options

    of_run = {field.name for field in fields(Settings)}
    for kind in (*MIXERS.values(), Options):
        assert not of_run & {field.name for field in fields(kind)} - {"seed"}
