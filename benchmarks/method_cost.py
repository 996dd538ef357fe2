"""What a method costs: its whole training step against the plain one, in time, memory, and passes
through the model.

A step is loss, backward pass, optimiser step and `Mixer.end_step`, of the method as a run has it,
its own networks and optimiser groups included; the plain step is cross-entropy on the same images
without any of this package's methods. Every step mixes (prob is set to 1), so that a method that
mixes in half its steps costs a run half of what stands here.
"""

import json as json_format
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.command import call, check_results_file
from benchmarks.timing import Passes, clock_of, count_passes, peak_memory, ratios
from catchup import models
from catchup.data.augment import to_float
from catchup.data.sets.shapes import draw_scenes, render
from catchup.experiments.report.printed import layout, printed
from catchup.mixers import MIXERS, Mixer, make
from catchup.mixers.regularisers import parse_all
from catchup.training.groups import PRECISIONS
from catchup.training.machine.accelerator import make_accelerator
from catchup.training.machine.onednn import memory_format
from catchup.training.machine.precision import AUTOCAST, resolve_precision
from catchup.training.seeds import fork_rng
from catchup.training.settings import Settings
from catchup.utils.choices import build, check_least, parse_spec, pick
from catchup.utils.files import write_json
from catchup.utils.progress import bar
from catchup.utils.provenance import surroundings
from catchup.utils.text import as_text
from catchup.utils.threads import single_threaded

# the toolkit's own, on a whole step: 1.02 for what makes no further pass through the model
GOALS = {**dict.fromkeys(MIXERS, 1.02), "alignmixup": 1.10, "puzzlemix": 2.1, "comixup": 2.5}
# the same, as a ratio to what the passes it makes cost alone
GOALS_ON_PASSES = {"guidedmixup": 1.02, "snapmix": 1.05, "automix": 1.1}
GOALS_BENCH = ("resnet18", 64, 32, 100)  # model, width, image size and batch they are for


def paper_seconds() -> dict[str, dict[str, float]]:
    """Seconds per epoch in Kang, Kang & Kim, AAAI 2024: {data set: {method: s}} of Table 1
    (PreActResNet-18, RTX 2080) and Table 2 (TITAN RTX); without multiprocessing, and with each
    method's own share of steps that mix.
    """
    found: dict[str, dict[str, float]] = {"CIFAR-100": {}, "Tiny-ImageNet": {}}
    tables = dict(zip(("Table 1", "Table 2"), found.values()))
    for cell in printed():
        if (cell.paper, cell.column) == ("catchup", "Time/epoch") and cell.value is not None:
            name = layout()["methods"][cell.row][0].partition(":")[0]
            tables[cell.table][name] = cell.value
    return found


PAPER_S = paper_seconds()


@dataclass(frozen=True, kw_only=True)
class CostSettings:
    """What is timed, and how often.

    Args:
        model: resnet18, preact_resnet18, torchvision.NAME or timm.NAME.
        width: Channels of the stem of our own models (64 is the full size).
        image_size: Pixels a side of the images.
        batch: Images per step.
        classes: Number of classes.
        rounds: Measurements of each method, each beside one of the plain step; the median is
            reported.
        steps: Steps in one measurement: the same draws every time, and the layers as often as the
            method draws them.
        precision: Mixed precision of forward and backward passes.
        device: auto takes a GPU if there is one.
    """

    model: str = "resnet18"
    width: int | None = None
    image_size: int = 32
    batch: int = 100
    classes: int = 100
    rounds: int = 9
    steps: int = 6
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu"] = "auto"

    def __post_init__(self):
        check_least(self, image_size=1, batch=2, classes=2, rounds=2, steps=1)
        pick("precision", self.precision, PRECISIONS)
        pick("device", self.device, ("auto", "cpu"))


def measure_costs(
    methods: Sequence[str] = tuple(MIXERS),
    bench: CostSettings | None = None,
    *,
    out: Path | None = None,
    progress: bool = True,
) -> dict:
    """Measures every method against the plain step, one after the other, in one process.

    Measure on one thread where there is no GPU (`clock_of`). The images are scenes of
    `catchup.data.sets.shapes`, the
    network is untrained and stays so: a solver's time may depend on both.

    Args:
        methods: each as for `catchup.utils.choices.parse_spec`.
        bench: what is timed; None takes the defaults.
        out: a file for the results, written anew after every method; None writes nothing.
        progress: a bar on standard error.
    Returns:
        {"bench": its fields, "device", "rows": one for every method, "versions", …}. A row:
        "method" as named; "ratio" of its step to the plain one, median over the rounds, "low" and
        "high", the quartiles; "time_s" of a step; "forward", "backward": passes counted in a step,
        and "stated": those the class states; "passes_ratio": what the counted passes alone cost
        (None where they are one and one); "peak_bytes" and "extra_bytes": the peak of tensor memory
        from the making of the model on, and what of it the plain step does not need (None where it
        cannot be measured); "paper": {data set: its ratio to the baseline}; "goal": {"ratio" or
        "over_passes", "met" (None where the model or the batch is not the one it is for)}.
    Raises:
        ValueError: before anything is measured, for a name or number that does not fit, or a file
            of another kind.
    """
    bench = bench or CostSettings()
    _check_runnable(methods, bench)
    results = {"bench": asdict(bench), "device": _device(bench).type, "rows": []}
    if out is not None:
        check_results_file(Path(out), "bench", "method_cost")
    plain_bytes, _ = measure_memory(None, bench)
    for label in bar(methods, "overhead", "method", progress):
        results["rows"].append(_row(label, bench, plain_bytes))
        if out is not None:
            write_json(Path(out), {**results, **surroundings()})
    return {**results, **surroundings()}


class Training:
    """A model in training, as `catchup.training.loop` does it, on one batch that stays; `step()` is
    what is timed.

    The learning rate is 0 but for a method's own parameters: whatever comes of the steps, they stay
    the same work.

    Args:
        mixer: the method; None trains plainly.
        bench: everything else.
    """

    def __init__(self, mixer: Mixer | None, bench: CostSettings):
        self.mixer, self.engine = (
            mixer,
            make_accelerator(
                resolve_precision(Settings(precision=bench.precision, device=bench.device))
            ),
        )
        with fork_rng(0):
            model = models.create(bench.model, num_classes=bench.classes, width=bench.width)
        layout = memory_format(model, self.engine.device)
        model = model.to(self.engine.device, memory_format=layout)
        groups = mixer.begin_run(model, bench.classes) if mixer else []
        if mixer:
            mixer.begin_precision(AUTOCAST.get(bench.precision))
        optimizer = torch.optim.SGD(
            [{"params": list(model.parameters())}, *groups],
            lr=0.0,
            momentum=0.9,
            weight_decay=5e-4,
            nesterov=True,
        )
        self.model, self.optimizer = self.engine.prepare(model, optimizer)
        images, self.labels = (part.to(self.engine.device) for part in example(bench))
        self.images = images.contiguous(memory_format=layout)
        self.model.train()
        if mixer:
            mixer.begin_epoch(0, 1)
            self._states = cycle(draw_states(mixer, self.model, bench.batch, bench.steps))

    def step(self) -> None:
        """One training step; after `bench.steps` of them the draws begin again."""
        if self.mixer is None:
            return self._learn(F.cross_entropy(self.model(self.images), self.labels))
        self.mixer.rng.bit_generator.state = next(self._states)
        self._learn(self.mixer.loss(self.model, self.images, self.labels))

    def passes(self, forward: float, backward: float) -> None:
        """So many passes of the model, the forward ones beyond the backward ones without gradient,
        and one step.
        """
        for size in self._sizes(forward - backward):
            with torch.no_grad():
                self.model(self.images[:size])
        for size in self._sizes(backward):
            self.engine.backward(
                F.cross_entropy(self.model(self.images[:size]), self.labels[:size])
            )
        self._learn()

    def _learn(self, loss: Tensor | None = None) -> None:
        if loss is not None:
            self.engine.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.mixer:
            self.mixer.end_step(self.model)

    def _sizes(self, passes: float) -> list[int]:
        """Batch sizes that come to so many passes; a rest below two images is left out."""
        whole, rest = divmod(round(max(passes, 0) * len(self.images)), len(self.images))
        return [len(self.images)] * whole + [rest] * (rest > 1)


@lru_cache(maxsize=1)
def example(bench: CostSettings) -> tuple[Tensor, Tensor]:
    """The batch that is timed: scenes (batch, 3, image_size, image_size) float32, normalised, and
    labels (batch,).
    """
    images = to_float(render(draw_scenes(bench.batch, seed=0)))
    images = F.interpolate(
        images, (bench.image_size, bench.image_size), mode="bilinear", antialias=True
    )
    return (images - images.mean()) / images.std(), torch.arange(bench.batch) % bench.classes


def draw_states(mixer: Mixer, model: nn.Module, batch: int, steps: int) -> list[dict]:
    """States of the mixer's generator before `steps` draws, among whose layers each is as frequent
    as it is drawn.

    Of a hundred times as many draws, sorted by layer, every hundredth. The generator is left where
    it was.
    """
    start, n_blocks, drawn = mixer.rng.bit_generator.state, len(mixer.block_names(model)), []
    for _ in range(100 * steps):
        state = mixer.rng.bit_generator.state
        layer = mixer.draw(batch, n_blocks, mixer.rng).layer
        drawn.append((-1 if layer is None else layer, state))
    mixer.rng.bit_generator.state = start
    return [state for _, state in sorted(drawn, key=lambda pair: pair[0])[50::100]]


def measure_memory(mixer: Mixer | None, bench: CostSettings) -> tuple[int | None, Passes]:
    """The peak of tensor memory in bytes, from the making of the model through its steps, and the
    passes in a step.

    The first step is made apart and its passes are not counted: a method that remembers has nothing
    to remember yet. The peak is None on devices that keep no count.
    """
    example(bench)  # made once for all
    with peak_memory(_device(bench)) as peak:
        training = Training(mixer, bench)
        training.step()
        with count_passes(training.model, bench.batch) as passes:
            for _ in range(bench.steps):
                training.step()
        del training
    return peak.bytes, Passes(passes.forward / bench.steps, passes.backward / bench.steps)


def report(results: Mapping) -> str:
    """What was measured, as text.

    Args:
        results: as `measure_costs` returns them.
    """
    bench, rows = results["bench"], results["rows"]
    heads = ["", "cost", "quartiles", "goal", "passes", "passes alone", "extra MB", *PAPER_S]
    width = "" if bench["width"] is None else f" width {bench['width']}"
    clock = "CPU time" if results["device"] == "cpu" else "wall clock"
    return "\n".join(
        [
            (
                f"{bench['model']}{width}, {bench['image_size']}×{bench['image_size']}, batch"
                f" {bench['batch']}, {bench['classes']} classes, {bench['precision']},"
                f" {results['device']}"
            ),
            "",
            as_text([heads, *map(_cells, rows)]),
            "",
            (
                "cost: a training step that mixes (prob is set to 1) as a ratio to the plain step;"
                f" median of {bench['rounds']} rounds of {bench['steps']} steps, {clock}"
            ),
            "passes: forward/backward in a step, counted; passes alone: what they cost, likewise",
            "extra MB: peak of tensor memory beyond the plain step's, in 10⁶ bytes",
            (
                f"{', '.join(PAPER_S)}: the paper's seconds per epoch (Tables 1 and 2) as ratios to"
                " its baseline's"
            ),
        ]
    )


def _cells(row: Mapping) -> list[str]:
    """The line of a method."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    goal, counted = row["goal"] or {}, [row["forward"], row["backward"]]
    over = {"ratio": "", "over_passes": " × passes"}
    limit = "".join(f"≤ {goal[key]:.2f}{words}" for key, words in over.items() if key in goal)
    passes = "/".join(f"{value:g}" for value in counted)
    passes += (
        "" if counted == list(row["stated"]) else f" (stated {'/'.join(map(str, row['stated']))})"
    )
    extra = row["extra_bytes"]
    return [
        row["method"],
        f"{row['ratio']:.3f}",
        f"{row['low']:.3f}–{row['high']:.3f}",
        limit + {True: ": met", False: ": missed", None: ""}[goal.get("met")],
        passes,
        shown(row["passes_ratio"]),
        "" if extra is None else f"{extra / 1e6:.1f}",
        *(shown(row["paper"].get(name)) for name in PAPER_S),
    ]


def _row(label: str, bench: CostSettings, plain_bytes: int | None) -> dict:
    """All that is measured of one method."""
    peak, passes = measure_memory(mixer_of(label), bench)
    times, name = _time(mixer_of(label), bench, passes), parse_spec(label)[0]
    own, alone = times["method"], times.get("passes", {}).get("ratio")
    paper = {data: took[name] / took["baseline"] for data, took in PAPER_S.items() if name in took}
    return {
        "method": label,
        **own,
        "forward": passes.forward,
        "backward": passes.backward,
        "stated": list(stated_passes(mixer_of(label))),
        "passes_ratio": alone,
        "peak_bytes": peak,
        "extra_bytes": None if peak is None else peak - plain_bytes,
        "paper": paper,
        "goal": judge(name, bench, own["ratio"], alone),
    }


def stated_passes(mixer: Mixer) -> tuple[int, int]:
    """Forward and backward passes of one step, as the method and its regularisers state them."""
    forward, backward = zip(mixer.passes, *(one.passes for one in parse_all(mixer.regularisers)))
    return sum(forward), sum(backward)


def _time(mixer: Mixer, bench: CostSettings, passes: Passes) -> dict:
    """`ratios` of the method's steps, and of its passes alone, to the plain step's; times per
    step.
    """
    method, plain = Training(mixer, bench), Training(None, bench)
    work = {"plain": plain.step, "method": method.step}
    if (passes.forward, passes.backward) != (1, 1):
        work["passes"] = lambda: plain.passes(passes.forward, passes.backward)
    device, turns = _device(bench), bench.steps
    # one after the other without waiting, as in a run: the host works ahead of a GPU
    if device.type != "cpu":
        work, turns = {name: _repeat(call, bench.steps) for name, call in work.items()}, 1
    found = ratios(work, bench.rounds, clock_of(device), turns)
    return {name: {**row, "time_s": row["time_s"] / bench.steps} for name, row in found.items()}


def _repeat(call: Callable[[], None], times: int) -> Callable[[], None]:
    def go() -> None:
        for _ in range(times):
            call()

    return go


def judge(name: str, bench: CostSettings, ratio: float, passes_ratio: float | None) -> dict | None:
    """The toolkit's goal for a method, and whether it is met; None for somebody else's method."""
    if name not in {**GOALS, **GOALS_ON_PASSES}:
        return None
    on_passes = name in GOALS_ON_PASSES
    over, key = (GOALS_ON_PASSES, "over_passes") if on_passes else (GOALS, "ratio")
    meant = (bench.model, bench.width or 64, bench.image_size, bench.batch) == GOALS_BENCH
    limit = over[name] * (1 if key == "ratio" or passes_ratio is None else passes_ratio)
    return {key: over[name], "met": ratio <= limit if meant else None}


def mixer_of(label: str) -> Mixer:
    """The method that `label` names, mixing in every step (the baseline mixes in none)."""
    mixer = build(make, label, seed=0)
    return replace(mixer, prob=1.0) if type(mixer).prob > 0 else mixer


def _device(bench: CostSettings) -> torch.device:
    return make_accelerator(
        resolve_precision(Settings(precision=bench.precision, device=bench.device))
    ).device


def _check_runnable(methods: Sequence[str], bench: CostSettings) -> None:
    """ValueError for a method or model that does not exist, cannot train here, or is named
    twice.
    """
    if isinstance(methods, str) or not methods:
        raise ValueError(f"methods must name at least one, got {methods!r}")
    if len(set(methods)) < len(methods):
        raise ValueError(f"a method may be named once, got {', '.join(methods)}")
    mixers = [mixer_of(label) for label in methods]
    with fork_rng(0):
        model = models.create(bench.model, num_classes=bench.classes, width=bench.width)
    for mixer in mixers:
        mixer.check(model)
    try:
        with torch.no_grad():
            model.train()(example(replace(bench, batch=2))[0])
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{bench.model} cannot train on images of side {bench.image_size}: {error}"
        ) from error


def main(
    bench: CostSettings = CostSettings(),
    methods: tuple[str, ...] = tuple(MIXERS),
    out: Path | None = None,
    json: bool = False,
) -> None:
    """Measure what methods cost: their training step against the plain one, in time, memory and
    passes.

    Every step mixes (prob is set to 1). On a GPU seconds for each method; on a CPU minutes, so take
    a smaller width or fewer rounds and steps there.

    Args:
        bench: What is timed, and how often.
        methods: Methods with their settings: cutmix, guidedmixup:saliency=ap. All of them, if none
            is named.
        out: JSON file for the results, written after every method; results of an earlier call are
            replaced.
        json: Print the results as JSON instead of a table.
    """
    with single_threaded():  # the clock of a CPU adds up its threads
        results = measure_costs(methods, bench, out=out)
    print(json_format.dumps(results) if json else report(results))


if __name__ == "__main__":
    raise SystemExit(call(main, "method_cost"))
