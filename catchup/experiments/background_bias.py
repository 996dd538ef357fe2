"""A test of the story itself: does a network that struggles to learn lean on the background, and
does mixing help?

The paper's claim (Kang, Kang & Kim, AAAI 2024, Section 1) is about cause: filters with large norms
grow first, take the easy way out, and leave the others without gradient; handing an image's strong
maps over to its partner lets the weak ones catch up, and the network leans on more. On `shapes`
(see `catchup.data.sets.shapes`) it is known which way is the easy one, how far it leads, and where
it misleads: the background tells the class in a share ρ of the training images, and in the test
sets "broken" and "reversed" it does not. `run_background` asks what a method does to the accuracy
there (see `catchup.measures.cues`), over ρ and over budgets. Whose the filters of a run are asks
`catchup.experiments.follow_filters`.

DIR/RHO/EPOCHS/         a comparison (see `catchup.experiments.compare`)
DIR/background.jsonl    one line for every finished run below DIR
DIR/background.png      accuracy over the budgets

Where it misleads: mixing learns its images later, so that at an equal budget a method that has not
finished is worse for that reason. Hence a second reading, at equal learning
(`catchup.measures.equal_learning`). "catchup" is the paper's method with CutMix at the input in a
sixth of its steps, "randomchannel" has no input mix: their difference is not the choice of channels
alone. Seeds take their subsets from one pool of 10 240 training scenes, so that a fifth of the
images is common to two seeds of 2 048; the test scenes are the same for all. What is not shown: the
outcome on photographs, where a background may be of use; and networks of another size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.sets.readers import parse_shapes_bias
from ..data.sets.shapes import CUES, KINDS
from ..measures.equal_learning import describe_match, match_learning
from ..measures.statistics import comparison, method_of
from ..training.folder import EVALUATION
from ..training.learning import describe_learning
from ..training.settings import Settings
from ..utils.choices import pick
from ..utils.files import read_lines, write_atomically
from ..utils.schema import read_evaluation
from ..utils.text import as_text
from . import engines
from .budget import check_contents, judge_rows, plan_budgets
from .compare import sweep
from .planning import Comparison

SETTINGS = Settings(
    data="shapes",
    subset=256,
    model="resnet18",
    width=16,
    stem_stride=2,
    batch_size=64,
    lr=0.05,
    validate_every=20,
)
TESTS = ("clean", "cues")
RHOS = (1 / KINDS, 0.8, 0.95)
BUDGETS = (60, 240)
ROWS, FIGURE = "background.jsonl", "background.png"
COLUMNS = {
    "train_accuracy": "training images",
    "kept_accuracy": "cue kept",
    "broken_accuracy": "cue broken",
    "reversed_accuracy": "cue reversed",
    "cue_followed": "reversed, cue followed",
}


def plan_background(
    comparison: Comparison,
    rhos: Sequence[float] = RHOS,
    budgets: Sequence[int] = BUDGETS,
    cue: str = "texture",
) -> list[Comparison]:
    """One comparison for each ρ and budget, in a folder of its own.

    Args:
        comparison: what is compared, and where; its data, epochs and tests are not read.
        rhos: each in [0, 1], none of them twice.
        budgets: epochs, ≥ 1, none of them twice.
        cue: which attribute of the background agrees with the class, "texture" or "colour".
    Raises:
        ValueError: for values that are not so.
    """
    pick("cue", cue, CUES)
    shares = tuple(map(float, rhos))
    if not shares or not all(0 <= rho <= 1 for rho in shares) or len(set(shares)) < len(shares):
        raise ValueError(f"rhos must lie in [0, 1], at least one, none twice; got {rhos!r}")
    return [
        part
        for rho in shares
        for part in plan_budgets(
            replace(
                comparison,
                out=Path(comparison.out) / str(rho),
                tests=(),
                settings=replace(comparison.settings, data=f"shapes:{rho}:{cue}"),
            ),
            budgets,
            TESTS,
        )
    ]


def run_background(
    comparison: Comparison,
    *,
    rhos: Sequence[float] = RHOS,
    budgets: Sequence[int] = BUDGETS,
    cue: str = "texture",
    engine: str | engines.Engine = "local",
    progress: bool = True,
) -> list[dict]:
    """Trains every method at every ρ and budget with every seed and measures it where the
    background helps, is silent, and lies; what is finished is kept.

    Runs of one seed and ρ are paired: same images, initial weights, and order. Over ρ only the
    backgrounds of the training images change. Called again with others it adds them.

    Args:
        comparison, rhos, budgets, cue: as for `plan_background`.
        engine: where the runs are done (see `catchup.experiments.engines`).
        progress: bars on standard error.
    Returns:
        `read_runs` of the folder.
    Raises:
        ValueError, ImportError: as `catchup.experiments.compare.sweep`, before anything is trained.
    """
    parts, out = plan_background(comparison, rhos, budgets, cue), Path(comparison.out)
    check_contents(out, _is_share, (ROWS, FIGURE), "is no share of the background")
    for folder in dict.fromkeys(part.out.parent for part in parts):
        check_contents(folder, str.isdecimal, (), "is no budget")
    sweep(parts, engine=engine, progress=progress)
    rows = read_runs(out)
    write_atomically(out / ROWS, "".join(json.dumps(row) + "\n" for row in rows).encode())
    if rows:
        from ..plots import save_cues

        save_cues(rows, out / FIGURE)
    return rows


def read_runs(out: Path) -> list[dict]:
    """One row for every finished run of a folder that `run_background` filled, whatever was asked
    for last: by ρ, then by budget, the baseline first.

    Returns:
        What was measured of the evaluation object of each, its `cues` beside the rest; rho and cue;
        and `learning`, judged beside the run of half its budget where there is one.
    Raises:
        ValueError: if an evaluation object is damaged.
    """
    rows: list[dict] = []
    for path in sorted(Path(out).glob(f"*/*/*/{EVALUATION}")):
        held = read_evaluation(path)
        data, _, argument = (held["data"] or "").partition(":")
        if data == "shapes" and held.get("finished") and held.get("cues"):
            rho, cue = parse_shapes_bias(argument)
            measured = {key: value for key, value in held.items() if value is not None}
            rows.append({"rho": rho, "cue": cue, **measured.pop("cues"), **measured})
    rows.sort(key=lambda row: (row["method"] != "baseline", row["method"], row["seed"]))
    judged = [
        row
        for rho in sorted({row["rho"] for row in rows})
        for row in judge_rows([one for one in rows if one["rho"] == rho])
    ]
    return sorted(judged, key=lambda row: (row["rho"], row["epochs"]))


def read_rows(path: Path) -> list[dict]:
    """The rows that `run_background` left in a file. ValueError naming the file if it is missing or
    holds something else.
    """
    return read_lines(path)


def describe_background(rows: Sequence[Mapping]) -> str:
    """The outcome of `run_background` as text: at equal budget, a table for each ρ and budget, mean
    ± standard deviation over the seeds, paired differences; then, at equal learning, a sentence for
    each pair; then which networks are still learning.

    Raises:
        ValueError: if there are no rows; as `catchup.comparison`.
    """
    if not rows:
        raise ValueError("there are no rows to report, got an empty sequence")
    said = [f"{rows[0]['n_train']} training images, {rows[0]['n_test']} test images of each kind"]
    for rho in dict.fromkeys(row["rho"] for row in rows):
        here = [row for row in rows if row["rho"] == rho]
        for epochs in sorted({row["epochs"] for row in here}):
            some = _paired([row for row in here if row["epochs"] == epochs])
            seeds = len({row["seed"] for row in some})
            words = f"the background's {rows[0]['cue']} agrees in {100 * rho:g} % of the training"
            words += f" images, {epochs} epochs, {seeds} paired seed{'s' * (seeds > 1)}; percent"
            said += ["", words, as_text(comparison(some, COLUMNS))]
        said += ["", *describe_equal_learning(here)]
    learning = describe_learning([row for row in rows if "learning" in row])
    return "\n".join([*said, *(["", learning] if learning else [])])


def describe_equal_learning(rows: Sequence[Mapping]) -> list[str]:
    """A line for every pair at equal learning: each run of a method's largest budget beside the
    shortest run of the first method that knows as many of its training images.

    Args:
        rows: of one ρ, as `run_background` returns them.
    """
    first, *others = dict.fromkeys(method_of(row) for row in rows)
    return [
        f"ρ = {rows[0]['rho']:g}, {describe_match(match)}"
        for method in others
        for match in match_learning(rows, method, plain=first)
    ]


def _paired(rows: Sequence[Mapping]) -> list[Mapping]:
    """The rows of the seeds that the first method has."""
    seeds = {row["seed"] for row in rows if method_of(row) == method_of(rows[0])}
    return [row for row in rows if row["seed"] in seeds]


def _is_share(name: str) -> bool:
    """Is this a folder's name for a ρ?"""
    try:
        return 0 <= float(name) <= 1
    except ValueError:
        return False
