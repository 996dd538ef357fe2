"""Settings on their own: what an older record of a run says, what is refused, and that no two
options share a name.
"""

import json
from dataclasses import fields, replace

import pytest

from catchup import MIXERS, Settings
from catchup.training import folder as runs
from catchup.training.settings import LATER
from catchup.utils.files import jsonable

# The settings of a run recorded before protocols were data, as they stand in its run.json.
OLD = json.loads(
    """{"data": "digits", "data_dir": "data", "image_size": null, "skip_unreadable": false, "subset": 5,
 "model": "resnet18", "width": 4, "stem_stride": 1, "final_norm": false, "method": "catchup",
 "method_settings": {"alpha": 1.0}, "epochs": 2, "batch_size": 16, "lr": 0.05, "min_lr": 0.0, "momentum": 0.9,
 "nesterov": true, "weight_decay": 0.0005, "schedule": "cosine", "milestones": [0.5, 0.75], "augment": true,
 "precision": "fp32", "device": "auto", "seed": 0, "validate_every": 1}"""
)


def test_an_old_record_loads_and_says_the_same_again():
    settings = Settings.from_dict(OLD)
    assert settings.milestones == (0.5, 0.75) and settings.pad is None and settings.recipe is None
    assert jsonable(settings.as_dict()) == OLD


def test_a_record_from_before_a_setting_lacks_it():
    for key in ("min_lr", "final_norm", "milestones", "skip_unreadable"):
        older = {name: value for name, value in OLD.items() if name != key}
        assert Settings.from_dict(older) == Settings.from_dict(OLD)
    with pytest.raises(TypeError, match="colour"):
        Settings.from_dict({**OLD, "colour": 1})


NEW = {
    "compile": True,
    "recipe": "c100-400",
    "scale": "small",
    "stem": "imagenet",
    "pretrained": True,
    "warmup_epochs": 0.5,
    "pad": 0,
    "pad_mode": "reflect",
    "window": 6,
    "resized_scale": (0.2, 0.9),
    "resized_ratio": (0.5, 2.0),
    "resized_interpolation": "bicubic",
    "jitter": 0.4,
    "lighting": 0.1,
    "normalisation": "half",
    "save_every_s": 5.0,
    "loader": "stream",
    "workers": 2,
}


def test_what_is_set_is_recorded_and_comes_back():
    assert set(NEW) == set(LATER)
    settings = replace(Settings.from_dict(OLD), **NEW)
    stored = json.loads(json.dumps(jsonable(settings.as_dict())))
    assert {**OLD, **jsonable(NEW)} == stored and Settings.from_dict(stored) == settings


def test_a_recipes_name_decides_nothing_a_setting_does(tmp_path):
    runs.claim(tmp_path / "run", OLD, resume=False)
    labelled = jsonable(
        replace(
            Settings.from_dict(OLD), recipe="c100-400", scale="small", loader="stream", workers=3
        ).as_dict()
    )
    runs.claim(tmp_path / "run", labelled, resume=True)
    with pytest.raises(ValueError, match="pad was None, now 2"):
        runs.claim(tmp_path / "run", {**labelled, "pad": 2}, resume=True)


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
    from catchup.measures.registry import Options

    of_run = {field.name for field in fields(Settings)}
    for kind in (*MIXERS.values(), Options):
        assert not of_run & {field.name for field in fields(kind)} - {"seed"}
