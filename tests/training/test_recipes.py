"""Recipes: against table C of the reference, typed anew here, and the papers' tables; scaled,
overridden, run.
"""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from catchup import MIXERS, Settings, models
from catchup.cli.commands import main
from catchup.data import names as data_names
from catchup.mixers import make
from catchup.training import recipes
from catchup.training.recipes import changes, label_of, left_out, load, page, settings_of

# data, model, epochs, rate, schedule or milestones in epochs, weight decay, batch (None: not
# stated), Nesterov (None), which epoch is printed
TABLE_C = {
    "c100-2000": (
        "cifar100",
        "preact_resnet18",
        2000,
        0.1,
        (500, 1000, 1500),
        1e-4,
        128,
        False,
        "best",
    ),
    "c100-2000-mm": ("cifar100", "preact_resnet18", 2000, 0.1, (1000, 1500), 1e-4, 100, True, ""),
    "c100-1200-gm": (
        "cifar100",
        "preact_resnet18",
        1200,
        0.1,
        (400, 800),
        1e-4,
        128,
        False,
        "best",
    ),
    "c100-400": ("cifar100", "resnet18", 400, 0.1, "cosine", 1e-4, 100, False, "median10"),
    "c100-800": ("cifar100", "resnet18", 800, 0.1, "cosine", 1e-4, 100, None, "median10"),
    "c100-300-comix": ("cifar100", "preact_resnet18", 300, 0.2, (100, 200), 1e-4, 100, True, ""),
    "c100-200-fmix": (
        "cifar100",
        "preact_resnet18",
        200,
        0.1,
        (100, 150),
        1e-4,
        128,
        False,
        "last",
    ),
    "c100-400-wrn": ("cifar100", "wrn28_10", 400, 0.1, (200, 300), 1e-4, 100, True, ""),
    "c100-pyr": ("cifar100", "pyramidnet200", 300, 0.25, (150, 225), 1e-4, 64, True, "best"),
    "tiny-1200": (
        "tiny-imagenet",
        "preact_resnet18",
        1200,
        0.1,
        (600, 900),
        1e-4,
        256,
        False,
        "best",
    ),
    "tiny-1200-pm": (
        "tiny-imagenet",
        "preact_resnet18",
        1200,
        0.2,
        (600, 900),
        1e-4,
        100,
        True,
        "",
    ),
    "tiny-2000-mm": (
        "tiny-imagenet",
        "preact_resnet18",
        2000,
        0.1,
        (1000, 1500),
        1e-4,
        None,
        None,
        "",
    ),
    "tiny-400": ("tiny-imagenet", "resnet18", 400, 0.2, "cosine", 1e-4, 100, False, "median10"),
    "fgvc-snap": ("cub200", "resnet18", 300, 0.01, (150, 225, 270), 1e-4, 16, True, "best"),
    "fgvc-gm": ("cub200", "resnet18", 300, 0.01, (150, 225), 5e-4, 16, True, "best"),
    "fgvc-ft": ("cub200", "resnet18", 200, 0.001, "cosine", 5e-4, 16, None, "median10"),
    "in-300-cut": ("imagenet", "resnet50", 300, 0.1, (75, 150, 225), 1e-4, 256, True, "best"),
    "in-300-om": ("imagenet", "resnet50", 300, 0.1, "cosine", 1e-4, 256, None, ""),
    "in-300-rm": ("imagenet", "resnet50", 300, 0.2, "cosine", 1e-4, 512, None, "best"),
    "in-300-moex": ("imagenet", "resnet50", 300, 0.7, "cosine", 1e-4, 8 * 224, None, "best"),
    "c100-200": ("cifar100", "preact_resnet18", 200, 0.1, (150, 180), 5e-4, 128, None, ""),
    "c100-30": ("cifar100", "preact_resnet18", 30, 0.4, "onecycle", 5e-4, 512, None, "last"),
}
# The rest of the table's rows: augmentation, normalisation, stem, weights.
DETAILS = {
    "c100-2000": {"pad": 4, "pad_mode": "zero"},
    "c100-2000-mm": {"pad": 2},
    "c100-1200-gm": {"pad": 4},
    "c100-400": {"pad": 4, "pad_mode": "reflect", "min_lr": 0.0},
    "c100-800": {"pad": 4, "pad_mode": "zero"},
    "tiny-1200": {"pad": 4, "stem_stride": 1, "normalisation": "cifar"},
    "tiny-1200-pm": {"stem_stride": 2, "normalisation": "half"},
    "tiny-400": {
        "resized_scale": (0.08, 1.0),
        "resized_interpolation": "bicubic",
        "normalisation": "imagenet",
    },
    "fgvc-snap": {"image_size": 512, "window": 448, "pretrained": False, "stem": "imagenet"},
    "fgvc-gm": {
        "image_size": 256,
        "window": 224,
        "pretrained": False,
        "stem": "imagenet",
        "resized_scale": None,
    },
    "fgvc-ft": {"window": 224, "resized_scale": (0.5, 1.0), "pretrained": True},
    "in-300-cut": {"window": 224, "resized_scale": (0.08, 1.0), "jitter": 0.4, "pca_noise": 0.1},
    "in-300-om": {
        "window": 224,
        "resized_interpolation": "bicubic",
        "jitter": 0.0,
        "pca_noise": 0.0,
    },
    "in-300-rm": {"warmup_epochs": 5, "window": 224},
    "in-300-moex": {"warmup_epochs": 5, "min_lr": 1e-9, "precision": "fp16"},
    "c100-200": {"norm_before_pool": True},
}


def test_the_recipes_are_the_rows_of_table_c_and_the_ladder():
    assert list(load()) == list(TABLE_C)


@pytest.mark.parametrize("name", TABLE_C)
def test_numbers_are_those_of_table_c(name):
    data, model, epochs, lr, schedule, decay, batch, nesterov, reports = TABLE_C[name]
    found, recipe = settings_of(name), load()[name]
    assert (found.data, found.model, found.epochs, found.lr, found.weight_decay) == (
        data,
        model,
        epochs,
        lr,
        decay,
    )
    if isinstance(schedule, str):
        assert found.schedule == schedule
    else:
        steps = 391 * epochs  # a milestone falls on the very step at which its epoch begins
        assert found.schedule == "step"
        assert [round(share * steps) for share in found.milestones] == [
            391 * epoch for epoch in schedule
        ]
    assert found.batch_size == batch or batch is None
    assert found.nesterov is nesterov or nesterov is None
    assert (
        recipe.reports == reports
        and found.momentum == 0.9
        and found.recipe == name
        and found.scale is None
    )
    for key, value in DETAILS.get(name, {}).items():
        assert getattr(found, key) == value, key
    assert data in data_names() and model in models.names()


@pytest.mark.parametrize("name", TABLE_C)
def test_every_recipe_is_whole_and_makes_every_method(name):
    recipe = load()[name]
    assert recipe.title and recipe.source and recipe.conflicts and recipe.reports in recipes.REPORTS
    assert all(sentence.endswith(".") for sentence in (*recipe.conflicts, *recipe.differs))
    assert set(recipe.settings) <= {field.name for field in fields(Settings)}
    assert set(recipe.methods) <= {"all", *MIXERS}
    for method in MIXERS:
        for scale in (None, "small", "tiny", 0.1):
            found = settings_of(name, method, scale)
            make(found.method, seed=0, **found.method_settings)
    for target in recipe.targets:
        assert set(target.values) <= set(MIXERS) and target.values
        settings_of(name, **target.given)
        assert target.given.get("model", recipe.settings["model"]) in models.names()
        assert target.given.get("data", recipe.settings["data"]) in data_names()
    assert all(sentence in page(name) for sentence in (*recipe.conflicts, *recipe.differs))


def test_methods_have_the_settings_published_with_their_protocol():
    openmixup = {
        "mixup": 1,
        "cutmix": 0.2,
        "manifoldmixup": 2,
        "saliencymix": 0.2,
        "fmix": 0.2,
        "puzzlemix": 1,
        "alignmixup": 2,
        "automix": 2,
    }
    for method, alpha in openmixup.items():
        assert settings_of("c100-400", method).method_settings["alpha"] == alpha
    for name in load():
        alpha = 1.0 if name.startswith("c100") else 10.0
        assert settings_of(name, "catchup").method_settings["alpha"] == alpha
        bce = name in (
            "c100-2000-mm",
            "c100-300-comix",
            "c100-400-wrn",
            "tiny-1200-pm",
            "tiny-2000-mm",
        )
        for method in ("baseline", "catchup", "moex"):
            criterion = make(method, seed=0, **settings_of(name, method).method_settings).criterion
            assert criterion == ("bce_softmax" if bce else "ce")


def test_cutting_methods_on_resnext_have_their_own_weight_decay():
    for method in MIXERS:
        cutting = method in ("cutmix", "saliencymix", "fmix", "resizemix")
        assert settings_of("c100-400", method).weight_decay == 1e-4
        assert settings_of("c100-400", method, model="resnext50_32x4d").weight_decay == (
            5e-4 if cutting else 1e-4
        )
        assert settings_of("c100-800", method).min_lr == (0.05 if method == "automix" else 0)
    assert (
        settings_of("c100-400", "cutmix", model="resnext50_32x4d", weight_decay=0.1).weight_decay
        == 0.1
    )


PRINTED = {
    "baseline": ("Baseline", "Vanilla"),
    "mixup": ("InputMixup", "MixUp", "Mixup"),
    "cutmix": ("CutMix",),
    "puzzlemix": ("PuzzleMix",),
    "saliencymix": ("SaliencyMix",),
    "comixup": ("Co-Mixup",),
    "snapmix": ("SnapMix",),
    "manifoldmixup": ("Manifold", "ManifoldMix", "ManifoldMixup"),
    "moex": ("MoEx",),
    "fmix": ("FMix",),
    "recursivemix": ("RecursiveMix",),
    "alignmixup": ("AlignMixup",),
    "resizemix": ("ResizeMix",),
    "catchup": ("Catch-up Mix",),
    "automix": ("AutoMix (ours)", "AutoMix (Ours)"),
}
SEEDS = Path(__file__).parents[3] / "shared" / "seeds"


@pytest.mark.parametrize(
    ("paper", "start"), [("Catch-up Mix, Table", "000"), ("AutoMix, Table", "003")]
)
def test_targets_stand_in_the_papers_rows_of_that_method(paper, start):
    texts = list(SEEDS.glob(f"{start}_*.txt"))
    if not texts:
        pytest.skip("the papers' texts are not at hand")
    rows = [re.split(r"\s*[|\t]\s*", line.strip()) for line in texts[0].read_text().splitlines()]
    seen = 0
    for recipe in load().values():
        for target in recipe.targets:
            # its rows are networks
            if not target.table.startswith(paper) or "Table 12" in target.table:
                continue
            for method, value in target.values.items():
                cells = [cell for row in rows if row[0] in PRINTED[method] for cell in row[1:]]
                assert f"{value:.2f}" in cells, (recipe.name, target.table, method, value)
                seen += 1
    assert seen > 60


def test_a_scale_says_what_it_changed_and_keeps_the_shares():
    full, small = settings_of("c100-2000", "catchup"), settings_of("c100-2000", "catchup", "small")
    assert (small.epochs, small.width, small.subset, small.scale) == (30, 16, 50, "small")
    assert small.milestones == full.milestones and small.lr == full.lr
    assert changes(full, small) == [
        "subset all → 50 per class",
        "width 64 → 16",
        "epochs 2000 → 30",
    ]
    images = settings_of("in-300-moex", "moex", "small")
    assert (images.image_size, images.window, images.batch_size, images.subset) == (64, 56, 128, 5)
    assert images.lr == pytest.approx(0.05) and images.warmup_epochs == pytest.approx(0.5)
    assert images.precision == "fp32"
    assert (
        settings_of("fgvc-snap", scale="small").window == 56
        and settings_of("fgvc-ft", scale="small").width is None
    )
    # its smallest class has no more
    assert settings_of("fgvc-gm", scale="small", data="cars196").subset == 24


def test_a_scale_that_is_a_number_is_a_share_of_epochs_and_images():
    found = settings_of("in-300-rm", scale="0.1")
    assert (found.epochs, found.subset, found.width, found.batch_size, found.scale) == (
        30,
        0.1,
        None,
        512,
        "0.1",
    )
    assert found.warmup_epochs == pytest.approx(0.5)
    assert settings_of("c100-400", scale=0.5, subset=0.5).subset == 0.5  # given: it stays
    assert (
        settings_of("c100-400", scale=1.0).epochs == 400
        and settings_of("c100-400", scale="full").scale is None
    )
    for bad in ("0", "-1", "2", "smal", "nan"):
        with pytest.raises(ValueError, match="a scale is one of full, small, tiny, or a share"):
            settings_of("c100-400", scale=bad)


def test_what_is_given_goes_before_recipe_and_scale():
    found = settings_of(
        "in-300-rm",
        "cutmix",
        "small",
        epochs=100,
        batch_size=512,
        image_size=128,
        window=112,
        method_settings={"alpha": 0.5},
        seed=4,
    )
    assert (found.epochs, found.batch_size, found.lr, found.warmup_epochs) == (100, 512, 0.2, 5)
    assert (found.image_size, found.window, found.seed) == (128, 112, 4)
    assert found.method_settings["alpha"] == 0.5
    # nothing is known of its classes
    assert settings_of("c100-400", scale="small", data="digits").subset is None
    for arguments, words in (
        (("c100-40",), "unknown recipe 'c100-40'. Did you mean 'c100-400'?"),
        (("c100-400", "cutmx"), "Did you mean 'cutmix'"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            settings_of(*arguments)
    with pytest.raises(ValueError, match="unknown setting 'epoch'. Did you mean 'epochs'"):
        settings_of("c100-400", epoch=3)


@pytest.mark.slow
def test_every_scaled_network_takes_its_recipes_images():
    seen = set()
    for recipe in load().values():
        for given in [{}, *(target.given for target in recipe.targets)]:
            s = settings_of(recipe.name, scale="small", **given)
            t = settings_of(recipe.name, scale="tiny", **given)
            assert (s.width, s.image_size, s.window) == (t.width, t.image_size, t.window)
            side = s.window or s.image_size or {"tiny-imagenet": 64}.get(s.data, 32)
            key = (s.model, s.width, s.stem, s.stem_stride, s.norm_before_pool, side)
            if key in seen:
                continue
            seen.add(key)
            options = {"stem": s.stem} if s.stem else {}
            options |= {"norm_before_pool": True} if s.norm_before_pool else {}
            net = models.create(
                s.model, num_classes=7, width=s.width, stem_stride=s.stem_stride, **options
            )
            with torch.no_grad():
                assert net.eval()(torch.zeros(2, 3, side, side)).shape == (2, 7), key


def test_a_comparison_spells_out_the_recipes_settings_and_what_it_cannot_follow():
    assert label_of("c100-400", "cutmix") == "cutmix:alpha=0.2"
    assert label_of("c100-400", "cutmix:alpha=1,prob=0.5") == "cutmix:alpha=1,prob=0.5"
    assert (
        label_of("c100-400", "baseline") == "baseline"
        and label_of("c100-2000", "catchup") == "catchup"
    )
    assert (
        label_of("c100-400-wrn", "manifoldmixup")
        == "manifoldmixup:criterion=bce_softmax,layers=[0,2]"
    )
    shared = settings_of("c100-400", model="resnext50_32x4d")
    assert left_out("c100-400", ["baseline", "cutmix:prob=0.5", "automix"], shared) == [
        "cutmix: weight_decay 0.0005",
        "automix: min_lr 0.05",
    ]
    assert left_out("c100-400", ["cutmix"], settings_of("c100-400")) == []


def out_of(capsys):
    return capsys.readouterr().out


def test_the_command_lists_recipes_and_shows_one_whole(capsys):
    assert main(["recipes"]) == 0
    said = out_of(capsys)
    assert (
        all(name in said for name in load())
        and "2000 epochs, best" in said
        and "aims at: Catch-up Mix" in said
    )
    assert main(["recipes", "--json"]) == 0
    rows = json.loads(out_of(capsys))
    assert [row["name"] for row in rows] == list(load())
    assert {"name", "title", "source", "epochs", "reports", "targets"} == rows[0].keys()
    assert rows[0]["targets"][0]["values"]["catchup"] == 17.76
    assert main(["recipes", "c100-400"]) == 0
    said = out_of(capsys)
    assert "conflicts:" in said and "pad_mode reflect" in said and "catchup 82.10" in said
    assert main(["recipes", "c100-400", "--json"]) == 0
    assert json.loads(out_of(capsys))["conflicts"] == list(load()["c100-400"].conflicts)
    assert main(["recipes", "tiny-40"]) == 2
    assert "Did you mean 'tiny-400'?" in capsys.readouterr().err


SMALL = ["--data", "digits", "--width", "4", "--subset", "3", "--epochs", "1", "--device", "cpu"]


@pytest.mark.slow
def test_training_by_a_recipe_with_options_that_go_before_it(tmp_path, capsys):
    run = tmp_path / "run"
    command = [
        "train",
        "--recipe",
        "c100-400",
        "--method",
        "cutmix",
        "--scale=tiny",
        *SMALL,
        "--out",
        str(run),
    ]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert (
        "recipe c100-400: CIFAR-100" in said and "prints the median of the last ten epochs" in said
    )
    assert "scale tiny: subset all → 5 per class" in said and "data cifar100 → digits" in said
    found = json.loads((run / "run.json").read_text())["settings"]
    assert (found["recipe"], found["scale"], found["method_settings"]["alpha"]) == (
        "c100-400",
        "tiny",
        0.2,
    )
    assert (found["data"], found["width"], found["subset"], found["epochs"]) == ("digits", 4, 3, 1)
    assert (found["weight_decay"], found["nesterov"], found["pad"], found["pad_mode"]) == (
        1e-4,
        False,
        4,
        "reflect",
    )
    assert (found["batch_size"], found["lr"]) == (32, pytest.approx(0.1 * 32 / 100))
    assert main([*command, "--resume", "--json"]) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            ["--recipe", "c100-40"],
            "unknown recipe 'c100-40'. Did you mean 'c100-400'? Choose one of: c100-2000, c100",
        ),
        (
            ["--recipe", "c100-400", "--scale", "smal"],
            "a scale is one of full, small, tiny, or a share",
        ),
        (["--scale", "small"], "a scale is that of a recipe"),
        (
            ["--recipe", "tiny-400", *SMALL],
            "the normalisation 'imagenet' is for 3 channels, the images of digits have 1",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_gets_one_sentence(given, words, tmp_path, capsys):
    assert main(["train", *given, "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_comparison_by_a_recipe(tmp_path, capsys):
    command = [
        "compare",
        "--recipe",
        "c100-400",
        "--scale",
        "tiny",
        *SMALL,
        "--methods",
        "baseline",
        "cutmix",
        "--seeds",
        "0",
        "--tests",
        "clean",
        "--engine",
        "local",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert "cutmix:alpha=0.2 − baseline" in captured.out and "recipe c100-400" in captured.err
    settings = json.loads((tmp_path / "out" / "cutmix_alpha=0.2-0" / "run.json").read_text())[
        "settings"
    ]
    assert (settings["recipe"], settings["scale"], settings["method_settings"]["alpha"]) == (
        "c100-400",
        "tiny",
        0.2,
    )


def test_the_file_is_part_of_the_package():
    """hatch ships what lies in catchup/ and git does not ignore."""
    from importlib.resources import files

    assert files("catchup.training").joinpath("recipes.toml").is_file()
