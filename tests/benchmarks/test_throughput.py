"""The benchmark: what it times is what it says, what it counts is right, and what it is given is
checked first.
"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import loops, scaling
from benchmarks import throughput as bench
from benchmarks.command import call
from benchmarks.loops import Workload
from catchup.mixers.catchup import filter_influence
from catchup.training.machine.precision import choose_precision

pytestmark = pytest.mark.slow

TINY = Workload(
    width=4, image_size=16, batch=8, classes=5, steps=2, rounds=2, workers=0, device="cpu"
)


@pytest.fixture(scope="module")
def measured():
    return bench.measure(TINY, ("throughput", "mix"), progress=False)


def test_every_variant_is_timed_and_related_to_ours(measured):
    rows = measured["throughput"]["variants"]
    assert tuple(rows) == loops.VARIANTS and rows["ours"]["ratio"] == 1
    for row in rows.values():
        assert (
            row["images_per_s"] == pytest.approx(16 / row["time_s"])
            and row["low"] <= row["ratio"] <= row["high"]
        )
    reached = {name: goal["reached"] for name, goal in measured["throughput"]["goals"].items()}
    assert list(reached.values()) == [
        rows[name]["ratio"] for name in ("dataloader", "limit", "catchup")
    ]
    assert (
        measured["computed_in"] == choose_precision("auto", torch.device("cpu"))
        and measured["device"] == "cpu"
    )


def test_the_report_shows_what_was_measured(measured):
    text = bench.report(measured)
    for name, row in measured["throughput"]["variants"].items():
        assert (
            f"{name:>10} {row['images_per_s']:>9.0f}".strip() in " ".join(text.split("\n"))
            or name in text
        )
    assert "goal ≥ 2.5" in text and "% of a plain step" in text
    json.dumps(measured)


def test_the_operations_are_those_of_the_formula():
    """A 1 × 1 world: of every convolution and linear layer 2 · outputs · inputs, three times
    (forward, two backward); the first layer has no gradient for its input.
    """
    flops = loops.flops_of_a_step(TINY)
    model, seen = loops.network(TINY), []

    def count(module, args, output):
        per_output = 2 * (math.prod(module.weight.shape[1:]))
        seen.append(per_output * output.numel() / len(output))

    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    model(torch.zeros(2, 3, 16, 16))
    assert flops == TINY.batch * (3 * sum(seen) - seen[0])


def test_the_plain_loop_is_the_ordinary_one():
    """Its steps are those of a loop written here: same weights, same images, same loss."""
    plain, model = loops.Plain(TINY, torch.device("cpu")), loops.network(TINY)
    # without chance
    plain.loader.dataset.transform.transforms = plain.loader.dataset.transform.transforms[2:]
    torch.manual_seed(0)
    loss = plain.epoch()
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(
        model.train().parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4
    )
    losses = []
    for images, labels in plain.loader:
        optimizer.zero_grad()
        step = F.cross_entropy(model(images), labels)
        step.backward()
        optimizer.step()
        losses.append(step.item())
    assert loss == pytest.approx(np.mean(losses))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.model.parameters()))


def test_ours_trains_and_the_limit_does_not():
    trainer = loops.Trainer(TINY, "baseline")
    weights = [parameter.clone() for parameter in trainer.run.model.parameters()]
    loops.bare(trainer)
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.run.model.parameters()))
    trainer.epoch()
    trainer.epoch()
    assert trainer.run.step == 4 and not torch.equal(
        weights[0], next(trainer.run.model.parameters())
    )


def test_the_ordinary_variant_is_in_the_ordinary_format():
    wide = replace(TINY, width=16)
    for ordinary, expected in ((True, torch.contiguous_format), (False, torch.channels_last)):
        seen = []
        trainer = loops.Trainer(wide, "baseline", ordinary=ordinary)
        trainer.run.model.layer1.register_forward_hook(
            lambda _m, args, _o, seen=seen: seen.append(args[0])
        )
        trainer.epoch()
        assert all(maps.is_contiguous(memory_format=expected) for maps in seen)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(power):
    sizes = [3, 10, 40, 200]
    assert scaling.exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(
        (power, 0), abs=1e-12
    )


def test_the_exponent_agrees_with_numpy_where_it_is_not_exact():
    sizes, costs = [1, 2, 4, 8, 16], [1.1, 1.9, 4.5, 7.5, 17.0]
    (slope, _), covariance = np.polyfit(np.log(sizes), np.log(costs), 1, cov=True)
    assert scaling.exponent(sizes, costs) == pytest.approx((slope, math.sqrt(covariance[0, 0])))


@pytest.mark.parametrize(
    ("sizes", "costs"),
    [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2]), ([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [1, 2])],
)
def test_an_exponent_of_too_little_is_refused(sizes, costs):
    with pytest.raises(ValueError, match="at least three positive"):
        scaling.exponent(sizes, costs)


def test_the_pieces_are_those_of_the_method(measured):
    found = measured["mix"]
    assert [row["shape"] for row in found["blocks"]] == [
        [8, 4, 16, 16],
        [8, 4, 16, 16],
        [8, 8, 8, 8],
        [8, 16, 4, 4],
        [8, 32, 2, 2],
    ]
    shares = dict(found["share_percent"])
    assert shares.pop("all") == pytest.approx(sum(shares.values())) and set(shares) == {
        "norms",
        "ranking",
        "select",
        "backward",
    }
    for piece, share in shares.items():
        mean = np.mean([row[f"{piece}_ms"] for row in found["blocks"]])
        assert share == pytest.approx(100 * mean / found["step_ms"])


@pytest.mark.slow
def test_growth_is_swept_over_the_sizes_it_names(monkeypatch):
    monkeypatch.setattr(
        scaling,
        "SWEEPS",
        {"images": (1, 2, 3), "classes": (2, 3, 4), "width": (4, 8, 16), "batch": (2, 4, 8)},
    )
    rows = scaling.sweeps(TINY)
    assert [(row["over"], row["sizes"]) for row in rows] == [
        ("images", [8, 16, 24]),
        ("classes", [2, 3, 4]),
        ("width", [4, 8, 16]),
        ("batch", [2, 4, 8]),
    ]
    assert all(
        row["exponent"] is not None and len(row["seconds"]) == len(row["peak_bytes"]) == 3
        for row in rows
    )
    # maps grow with their channels, and nothing else
    assert rows[2]["memory_exponent"] == pytest.approx(1, abs=0.02)
    assert "of memory" in scaling.TEXTS["scaling"](rows)


def test_the_norms_agree_in_both_formats_of_memory():
    """The quicker way on a CPU, where the channels lie innermost, against PyTorch's norm."""
    maps = torch.randn(9, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    last = maps.contiguous(memory_format=torch.channels_last)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        exact = torch.linalg.vector_norm(maps.to(dtype).double(), dim=(2, 3))
        for given in (maps.to(dtype), last.to(dtype)):
            found = filter_influence(given)
            assert found.dtype == torch.promote_types(dtype, torch.float32)
            assert torch.allclose(found.double(), exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 1}, "batch must be at least 2"),
        ({"rounds": 1}, "rounds must be at least 2"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"image_size": 4}, "image_size must be at least 8"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_bad_input_is_refused_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "throughput", lambda load: pytest.fail("measured"))
    with pytest.raises(ValueError, match="unknown part 'speed'"):
        bench.measure(TINY, ("speed",), progress=False)
    other = tmp_path / "other.json"
    other.write_text('{"rows": []}')
    with pytest.raises(ValueError, match="holds something else"):
        bench.measure(TINY, ("throughput",), out=other, progress=False)
    assert other.read_text() == '{"rows": []}'


@pytest.mark.slow
def test_the_command_writes_its_record(tmp_path, capsys):
    out = tmp_path / "bench.json"
    assert (
        call(
            bench.main,
            "throughput",
            [
                "--parts",
                "mix",
                "--width",
                "4",
                "--image-size",
                "16",
                "--batch",
                "8",
                "--steps",
                "1",
                "--rounds",
                "2",
                "--workers",
                "0",
                "--classes",
                "5",
                "--device",
                "cpu",
                "--out",
                str(out),
            ],
        )
        == 0
    )
    held = json.loads(out.read_text())
    assert held["load"]["width"] == 4 and "mix" in held and held["versions"]
    assert "all together" in capsys.readouterr().out
