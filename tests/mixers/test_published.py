"""The published settings: against the papers' and releases' numbers typed anew, and against the
recipes, with a reason wherever a protocol says otherwise.
"""

import pytest

from catchup import MIXERS, AutoMix, CatchUpMix, CutMix, Settings
from catchup.cli.commands import main
from catchup.cli.options import Leading, write_out
from catchup.mixers import make
from catchup.mixers.published import load, published_settings
from catchup.training import recipes

# reference, B1 and B2 (methods) and "Different" (releases): what is set where
FACTS = {
    ("mixup", "cifar100"): {"alpha": 1.0},
    ("mixup", "tiny-imagenet"): {"alpha": 0.2},
    ("mixup", "imagenet"): {"alpha": 0.2},
    ("cutmix", "cifar100"): {"alpha": 1.0, "prob": 0.5},
    ("cutmix", "imagenet"): {"alpha": 1.0, "prob": 1.0},
    ("saliencymix", "cifar100"): {"alpha": 1.0, "prob": 0.5, "per_image": False},
    ("saliencymix", "imagenet"): {"prob": 1.0, "per_image": False},
    ("fmix", "cifar100"): {"alpha": 1.0, "decay": 3.0, "max_soft": 0.0, "label_rule": "lam"},
    ("resizemix", "cifar100"): {"scope": (0.1, 0.8), "interpolation": "nearest", "prob": 1.0},
    ("puzzlemix", "cifar100"): {
        "alpha": 1.0,
        "n_labels": 3,
        "eta": 0.2,
        "beta": 1.2,
        "gamma": 0.5,
        "neighbour": 4,
        "t_size": 4,
        "t_eps": 0.8,
        "clean_lam": 0.0,
        "criterion": "bce_softmax",
    },
    ("puzzlemix", "tiny-imagenet"): {"t_size": -1, "clean_lam": 1.0, "criterion": "bce_softmax"},
    ("comixup", "cifar100"): {
        "alpha": 2.0,
        "part": 20,
        "block": 4,
        "beta": 0.32,
        "gamma": 1.0,
        "tau": 0.83,
        "eta": 0.05,
        "omega": 0.001,
        "sweeps": 4,
        "clean_lam": 1.0,
        "criterion": "bce_softmax",
    },
    ("guidedmixup", "cifar100"): {"saliency": "sr", "prob": 0.5, "criterion": "bce_softmax"},
    ("snapmix", "cub200"): {"alpha": 5.0, "prob": 1.0, "cam_mode": "train"},
    ("manifoldmixup", "cifar100"): {"alpha": 2.0, "criterion": "bce_softmax"},
    ("manifoldmixup", "tiny-imagenet"): {"alpha": 0.2, "criterion": "bce_softmax"},
    ("moex", "cifar100"): {"prob": 0.25, "lam": 0.5},
    ("moex", "imagenet"): {"prob": 1.0, "lam": 0.9},
    ("alignmixup", "cifar100"): {"alpha": 2.0, "epsilon": 0.1, "iterations": 100},
    ("recursivemix", "cifar100"): {"alpha": 0.5, "omega": 0.1, "interpolation": "nearest"},
    ("recursivemix", "imagenet"): {"alpha": 0.5, "omega": 0.5},
    ("automix", "cifar100"): {
        "alpha": 2.0,
        "block_form": "released",
        "lam_channel": False,
        "reduction": 2,
        "mask_weight": 0.1,
        "mask_decay": False,
        "mask_margin": 0.1,
        "lam_margin": 0.08,
        "ema_start": 0.999,
        "ema_end": 0.999999,
        "block_lr": 0.1,
        "block_min_lr": 0.05,
    },
    ("catchup", "cifar100"): {"alpha": 1.0, "prob": 1.0, "input_mix": "cutmix"},
    ("catchup", "tiny-imagenet"): {"alpha": 10.0},
    ("catchup", "cub200"): {"alpha": 10.0},
    ("randomchannel", "cifar100"): {"alpha": 1.0},
    ("baseline", "cifar100"): {},
}
OPENMIXUP = "OpenMixup's benchmark chose its own"
SCRATCH = "from scratch; published is the fine-tuned network's"
# (recipe, method, setting): why the recipe has another value
OTHERWISE = {
    ("c100-400", "cutmix", "alpha"): OPENMIXUP,
    ("c100-400", "saliencymix", "alpha"): OPENMIXUP,
    ("c100-400", "saliencymix", "prob"): OPENMIXUP,
    ("c100-400", "fmix", "alpha"): OPENMIXUP,
    ("c100-800", "saliencymix", "prob"): OPENMIXUP,
    ("c100-400-wrn", "manifoldmixup", "layers"): "WRN has another layer set",
    ("tiny-1200", "mixup", "alpha"): "AlignMixup's protocol",
    ("tiny-400", "mixup", "alpha"): OPENMIXUP,
    ("fgvc-snap", "snapmix", "alpha"): SCRATCH,
    ("fgvc-snap", "snapmix", "prob"): SCRATCH,
    ("fgvc-gm", "snapmix", "alpha"): SCRATCH,
    ("fgvc-gm", "snapmix", "prob"): SCRATCH,
}


@pytest.mark.parametrize(("name", "data"), FACTS)
def test_published_are_the_numbers_of_paper_and_release(name, data):
    mixer = MIXERS[name].published(data, seed=0)
    assert type(mixer) is MIXERS[name]
    assert {key: getattr(mixer, key) for key in FACTS[name, data]} == FACTS[name, data]


def test_every_method_has_published_settings_that_it_can_take():
    assert load().keys() == {kind.__name__ for kind in MIXERS.values()}
    for name, kind in MIXERS.items():
        assert any(known == name for known, _ in FACTS)
        for data, settings in load()[kind.__name__].items():
            assert data in recipes.CLASSES
            make(name, seed=0, **settings)


def test_recipes_say_the_same_or_why_not():
    found = set()
    for recipe in recipes.load().values():
        for name, settings in recipe.methods.items():
            data = recipe.settings["data"]
            if name != "all" and data in load()[MIXERS[name].__name__]:
                mixer = MIXERS[name].published(data, seed=0)
                found |= {
                    (recipe.name, name, key)
                    for key, value in settings.items()
                    if getattr(mixer, key) != value
                }
    assert found == set(OTHERWISE)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("c100-2000-mm", "manifoldmixup"),
        ("c100-300-comix", "comixup"),
        ("tiny-1200-pm", "puzzlemix"),
    ],
)
def test_a_protocol_of_the_methods_own_has_its_loss(recipe, name):
    one = recipes.load()[recipe]
    published = MIXERS[name].published(one.settings["data"], seed=0)
    assert published.criterion == one.methods["all"]["criterion"] == "bce_softmax"


def test_what_is_given_goes_first_and_unknown_data_sets_are_named():
    assert CutMix.published("cifar100", prob=1.0, seed=3).prob == 1.0
    assert published_settings("CatchUpMix", "imagenet:/data/in") == {"alpha": 10.0}
    with pytest.raises(ValueError, match="'cifar10'.*Did you mean 'cifar100'.*tiny-imagenet"):
        CatchUpMix.published("cifar10")
    with pytest.raises(ValueError, match="published data set of AutoMix 'digits'.*cifar100, tiny"):
        AutoMix.published("digits")


def test_a_preset_stands_before_the_recipe_and_behind_what_is_given():
    own = Leading(preset="published").defaults(None, "cutmix", "cifar100")["method_settings"]
    assert own == {"alpha": 1.0, "prob": 0.5}
    usual = Leading(preset="published").defaults("c100-400", "fmix", None)
    assert usual["method_settings"]["alpha"] == 1.0 and usual["epochs"] == 400
    assert Leading().defaults("c100-400", "fmix", None)["method_settings"]["alpha"] == 0.2
    settings = Settings(data="cifar100")
    assert write_out(["cutmix:alpha=2", "moex"], settings, "published") == (
        "cutmix:alpha=2,prob=0.5",
        "moex",
    )
    assert write_out(["cutmix"], settings) == ("cutmix",)


def test_the_command_line_refuses_a_data_set_without_published_settings(tmp_path, capsys):
    for command in (["train", "--method", "cutmix"], ["compare", "--methods", "cutmix"]):
        out = str(tmp_path / "run")
        assert main([*command, "--data", "digits", "--preset", "published", "--out", out]) == 2
        assert "published data set of CutMix 'digits'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
