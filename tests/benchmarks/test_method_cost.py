"""What a method costs: passes against what the classes state, times by a clock that counts,
refusals.
"""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from benchmarks import method_cost as cost
from benchmarks.command import call
from benchmarks.timing import count_passes
from catchup import MIXERS
from catchup.mixers import Mixer, make
from catchup.mixers.draw import Mixed
from catchup.mixers.regularisers import REGULARISERS
from catchup.models import ResNet

TINY = cost.CostSettings(
    width=4, image_size=16, batch=4, classes=5, rounds=2, steps=2, device="cpu"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Twice(Mixer):
    """Two forward and two backward passes and a million bytes; a plain step in half of the
    steps.
    """

    prob: float = 0.5
    kept: ClassVar[list] = []
    about: ClassVar[str] = "for the tests"

    def layer_set(self, n_blocks):
        return (0,)

    def mix(self, maps, draw):
        self.kept[:] = [torch.ones(250_000)]
        return Mixed(maps, 1.0)

    def auxiliary_loss(self, model, images, labels, step, mixed, logits):
        return model(images).sum()

    def end_step(self, model):
        self.kept.append("end of step")


@pytest.fixture
def twice(monkeypatch):
    monkeypatch.setitem(MIXERS, "twice", Twice)
    return Twice


@pytest.fixture
def counting_clock(monkeypatch):
    """Time is the number of forward passes made since the clock was set up."""
    model = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _args, _out: made.append(1) if isinstance(module, ResNet) else None
    )
    made: list[int] = []
    monkeypatch.setattr(cost, "clock_of", lambda device: lambda: float(len(made)))
    yield
    model.remove()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MIXERS, "guidedmixup:saliency=ap"])
def test_every_method_makes_the_passes_it_states(name):
    _, passes = cost.measure_memory(cost.mixer_of(name), TINY)
    assert (passes.forward, passes.backward) == cost.stated_passes(cost.mixer_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", REGULARISERS)
def test_every_regulariser_adds_the_passes_it_states(name):
    settings = {"mean": (0.5,) * 3, "std": (0.25,) * 3} if name == "augmix" else {}
    mixer = make("mixup", regularisers=(REGULARISERS[name](**settings),), seed=0)
    _, passes = cost.measure_memory(mixer, TINY)
    stated = REGULARISERS[name].passes
    assert (
        (passes.forward, passes.backward)
        == (1 + stated[0], 1 + stated[1])
        == cost.stated_passes(mixer)
    )


@pytest.mark.slow
def test_a_row_holds_ratio_passes_memory_and_what_the_passes_alone_cost(
    twice, counting_clock, tmp_path
):
    out = tmp_path / "new" / "cost.json"
    results = cost.measure_costs(["baseline", "twice", "cutmix"], TINY, out=out, progress=False)
    baseline, row, cutmix = results["rows"]
    # so every step mixed
    assert [row[key] for key in ("method", "ratio", "low", "high")] == ["twice", 2, 2, 2]
    assert (row["forward"], row["backward"], row["stated"]) == (2, 2, [1, 1])
    assert row["passes_ratio"] == 2 and row["paper"] == {} and row["goal"] is None
    assert row["time_s"] == 2  # per step, of a clock that counts passes
    assert row["extra_bytes"] > 1e6 and row["peak_bytes"] > row["extra_bytes"]
    assert (baseline["ratio"], baseline["passes_ratio"]) == (1, None) and 0 <= baseline[
        "extra_bytes"
    ] < 1000
    assert cutmix["paper"] == {"CIFAR-100": 104.5 / 103.8, "Tiny-ImageNet": 21.4 / 21.2}
    assert cutmix["goal"] == {"ratio": 1.02, "met": None}  # it is for another bench
    assert json.loads(out.read_text()) == results
    assert results["device"] == "cpu" and results["bench"]["steps"] == 2 and "versions" in results
    said = cost.report(results)
    assert "2/2 (stated 1/1)" in said and "2.000–2.000" in said and "prob is set to 1" in said
    assert (
        "≤ 1.02" in said
        and "met" not in said.split("cost:")[0].split("\n", 1)[1]
        and "1.01" in said
    )


def test_passes_alone_are_so_many_and_one_step_of_the_optimiser():
    training = cost.Training(None, TINY)
    for forward, backward in ((4, 3), (2, 1), (1.5, 1.5), (1, 1)):
        with count_passes(training.model, TINY.batch) as passes:
            training.passes(forward, backward)
        assert (passes.forward, passes.backward) == (forward, backward)


def test_goals_are_judged_on_the_bench_they_are_for():
    meant, other = cost.CostSettings(), cost.CostSettings(width=16)
    assert meant == cost.CostSettings(width=None, batch=100, image_size=32, model="resnet18")
    assert cost.judge("catchup", meant, 1.02, None) == {"ratio": 1.02, "met": True}
    assert cost.judge("catchup", meant, 1.03, None) == {"ratio": 1.02, "met": False}
    assert cost.judge("catchup", other, 1.03, None) == {"ratio": 1.02, "met": None}
    assert cost.judge("automix", cost.CostSettings(width=64), 3.5, 3.2) == {
        "over_passes": 1.1,
        "met": True,
    }
    assert cost.judge("automix", meant, 3.6, 3.2) == {"over_passes": 1.1, "met": False}
    assert cost.judge("snapmix", meant, 9.9, 2.0) == {"over_passes": 1.05, "met": False}


@pytest.mark.slow
def test_the_draws_of_a_round_come_again_and_hold_every_layer_as_often():
    mixer = cost.mixer_of("catchup")
    bench = cost.CostSettings(width=4, image_size=16, batch=4, steps=12, device="cpu")
    training, seen = cost.Training(mixer, bench), []
    for _ in range(24):
        training.step()
        seen.append((mixer.last.draw.layer, mixer.last.draw.seed))
    assert seen[:12] == seen[12:] and len(set(seen)) == 12
    assert sorted(layer for layer, _ in seen[:12]) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_unlikely_layers_are_drawn_less_often():
    class Skewed(Twice):
        def layer_set(self, n_blocks):
            return (0, 0, 0, 1)

        def block_names(self, model):
            return ("stem",)

    mixer = Skewed(prob=1.0, seed=0)
    before = mixer.rng.bit_generator.state
    states = cost.draw_states(mixer, torch.nn.Identity(), 4, 8)
    assert mixer.rng.bit_generator.state == before
    layers = []
    for state in states:
        mixer.rng.bit_generator.state = state
        layers.append(mixer.draw(4, 1, mixer.rng).layer)
    assert layers == [0] * 6 + [1] * 2


def test_the_step_is_a_runs_and_its_work_stays_the_same():
    """A method's own parameters are trained and its step is ended; the model's weights stand
    still.
    """
    mixer = make("automix", seed=0)
    training = cost.Training(mixer, TINY)
    model = [parameter.clone() for parameter in training.model.parameters()]
    own = [
        parameter.clone()
        for group in training.optimizer.param_groups[1:]
        for parameter in group["params"]
    ]
    training.step()
    assert all(
        torch.equal(before, after) for before, after in zip(model, training.model.parameters())
    )
    after = [
        parameter for group in training.optimizer.param_groups[1:] for parameter in group["params"]
    ]
    assert own and any(not torch.equal(a, b) for a, b in zip(own, after))
    assert all(parameter.grad is None for parameter in training.model.parameters())
    twice = Twice(prob=1.0, seed=0)
    cost.Training(twice, TINY).step()
    assert twice.kept[-1] == "end of step"


def test_mixed_precision_is_that_of_a_run():
    training, seen = (
        cost.Training(
            cost.mixer_of("mixup"), cost.CostSettings(**{**vars(TINY), "precision": "bf16"})
        ),
        [],
    )
    with training.model.layer1.register_forward_hook(
        lambda _module, _args, output: seen.append(output.dtype)
    ):
        training.step()
    assert seen == [torch.bfloat16]
    assert training.mixer.last.logits.dtype == torch.float32


def test_the_papers_ratios_and_the_names():
    ratio = {
        data: {name: took / times["baseline"] for name, took in times.items()}
        for data, times in cost.PAPER_S.items()
    }
    for data, name, expected, places in (
        ("CIFAR-100", "puzzlemix", 2.66, 2),
        ("CIFAR-100", "comixup", 8.6, 1),
        ("CIFAR-100", "alignmixup", 1.14, 2),
        ("CIFAR-100", "catchup", 1.04, 2),
        ("Tiny-ImageNet", "puzzlemix", 3.0, 1),
        ("Tiny-ImageNet", "comixup", 11.5, 1),
        ("Tiny-ImageNet", "alignmixup", 1.67, 2),
        ("Tiny-ImageNet", "catchup", 1.05, 2),
    ):
        assert round(ratio[data][name], places) == expected
    for times in cost.PAPER_S.values():
        assert len(times) == 9 and times.keys() <= MIXERS.keys()
    assert cost.PAPER_S["CIFAR-100"]["manifoldmixup"] == 107.1
    assert cost.GOALS.keys() == MIXERS.keys() >= cost.GOALS_ON_PASSES.keys()


@pytest.mark.parametrize(
    ("methods", "bench", "words"),
    [
        (["catchpu"], {}, "unknown method 'catchpu'. Did you mean 'catchup'?"),
        (["cutmix:aplha=1"], {}, "unknown setting of cutmix 'aplha'. Did you mean 'alpha'?"),
        (["cutmix:alpha=0"], {}, "alpha must be a positive number, got 0"),
        (["cutmix:seed=1"], {}, "seed cannot be set"),
        (["catchup:layers=[7]"], {}, "unknown layer 7"),
        (
            ["cutmix", "mixup", "cutmix"],
            {},
            "a method may be named once, got cutmix, mixup, cutmix",
        ),
        ([], {}, "methods must name at least one"),
        ("cutmix", {}, "methods must name at least one, got 'cutmix'"),
        (["cutmix"], {"precision": "fp16"}, "fp16 needs a GPU"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    methods, bench, words, tmp_path, monkeypatch
):
    monkeypatch.setattr(cost, "measure_memory", None)
    with pytest.raises(ValueError) as error:
        cost.measure_costs(
            methods,
            cost.CostSettings(**{**vars(TINY), **bench}),
            out=tmp_path / "new" / "cost.json",
            progress=False,
        )
    assert words in str(error.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch", 1),
        ("rounds", 1),
        ("steps", 0),
        ("classes", 1),
        ("width", 0),
        ("precision", "fp8"),
        ("device", "tpu"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}.*got|unknown {name}"):
        bench = cost.CostSettings(**{**vars(TINY), name: value})
        cost.measure_costs(["cutmix"], bench, progress=False)


def test_files_of_another_kind_are_left_alone(tmp_path):
    for content in ('{"rows": []}', "[]", "years of work"):
        (tmp_path / "thesis.json").write_text(content)
        with pytest.raises(ValueError, match="thesis.json"):
            cost.measure_costs(["cutmix"], TINY, out=tmp_path / "thesis.json", progress=False)
        assert (tmp_path / "thesis.json").read_text() == content
    with pytest.raises(ValueError, match="holds something else"):
        cost.measure_costs(["cutmix"], TINY, out=tmp_path, progress=False)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.json"]


def command_of(words):
    return call(cost.main, "method_cost", words)


@pytest.mark.slow
def test_overhead_prints_and_writes_what_methods_cost(tmp_path, capsys):
    out = tmp_path / "cost.json"
    command = [
        "--methods",
        "cutmix",
        "guidedmixup:saliency=ap",
        "--width",
        "4",
        "--batch",
        "4",
        "--image-size",
        "8",
        "--classes",
        "3",
        "--rounds",
        "2",
        "--steps",
        "1",
        "--device",
        "cpu",
    ]
    assert command_of([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert (
        "guidedmixup:saliency=ap" in said
        and "2/2" in said
        and "≤ 1.02" in said
        and "prob is set to 1" in said
    )
    assert "resnet18 width 4, 8×8, batch 4, 3 classes, fp32, cpu" in said
    written = json.loads(out.read_text())
    assert [row["method"] for row in written["rows"]] == ["cutmix", "guidedmixup:saliency=ap"]
    assert {"versions", "hardware", "command", "commit"} <= written.keys()
    assert command_of([*command, "--json", "--methods", "mixup"]) == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["mixup"]
    for bad, words in (
        (["--methods", "catchpu"], "Did you mean 'catchup'?"),
        (["--methods", "cutmix:alpha"], "a method is written name or name:setting=value"),
    ):
        assert command_of([*command, *bad]) == 2
        assert words in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        command_of([*command, "--rounds", "1"])
    assert exit_.value.code == 2 and "rounds must be" in capsys.readouterr().err
