"""Breaks the package in one place after another, and shows that the tests notice each.

    python tests/bulk/mutations.py [--out data/results/mutations.json] [--only N ...]

First the tests have to pass with nothing broken. Then every place is a line of the package, made
wrong as a person could make it wrong, and the tests that ought to notice. It works on a copy; the
checkout is never changed. A place that no test notices is
a hole in the tests, and ends the script with exit code 1. `tests/repository/test_mutations.py`
holds that every place still exists.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from catchup.utils.files import write_json
from catchup.utils.provenance import surroundings

ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """One place: in `file` the text `was`, which occurs there once, becomes `now`; `tests` must
    fail.
    """

    file: str
    was: str
    now: str
    tests: str
    what: str


MUTATIONS = (
    Mutation(
        "mixers/catchup.py",
        "_sum_to_one(fi_source) - _sum_to_one(fi_target)",
        "_sum_to_one(fi_target) - _sum_to_one(fi_source)",
        "mixers/test_catchup.py",
        "RFI with the wrong sign",
    ),
    Mutation(
        "mixers/catchup.py",
        "k = int(lam * rfi.shape[1])",
        "k = round(lam * rfi.shape[1])",
        "mixers/test_catchup.py",
        "K rounded instead of cut off",
    ),
    Mutation(
        "mixers/catchup.py",
        "rfi.argsort(dim=1, stable=True)",
        "rfi.argsort(dim=1, stable=True, descending=True)",
        "mixers/test_catchup.py",
        "the highest RFI kept",
    ),
    Mutation(
        "mixers/parts/channels.py",
        "inverse = partner.argsort()",
        "inverse = partner",
        "mixers/test_catchup.py",
        "the gradient sent to the partner's partner",
    ),
    Mutation(
        "mixers/parts/channels.py",
        "maps.to(dtype).square().sum(dim).sqrt()",
        "maps.to(dtype).abs().sum(dim)",
        "benchmarks/test_throughput.py",
        "the l1 norm for the l2 norm",
    ),
    Mutation(
        "mixers/cutmix.py",
        "half = 0.5 * math.sqrt(1 - lam)",
        "half = 0.5 * (1 - lam)",
        "mixers/test_mixers.py",
        "CutMix's box of another area",
    ),
    Mutation(
        "mixers/cutmix.py",
        "1 - (bottom - top) * (right - left) / (height * width)",
        "draw.lam",
        "mixers/test_mixers.py",
        "the label not corrected for the cut box",
    ),
    Mutation(
        "mixers/moex.py",
        "(std[partner] / std)",
        "(std / std)",
        "mixers/test_moex.py",
        "moments swapped",
    ),
    Mutation(
        "mixers/puzzlemix.py",
        "(n_labels - 1)\n",
        "n_labels\n",
        "mixers/test_puzzlemix.py",
        "the levels of the mask",
    ),
    Mutation(
        "mixers/recursivemix.py",
        "return (1 - distance).clip(0).mean(axis=0)",
        "return (1 - distance).clip(0).max(axis=0)",
        "mixers/test_recursivemix.py",
        "RoIAlign without its mean",
    ),
    Mutation(
        "mixers/snapmix.py",
        "torch.where(says, spread / total, 1 / (height * width))",
        "torch.where(says, spread / total, 0)",
        "mixers/test_snapmix.py",
        "an empty semantic map",
    ),
    Mutation(
        "mixers/automix.py",
        "torch.lerp(images[partner], images,",
        "torch.lerp(images, images[partner],",
        "mixers/test_automix.py",
        "the mask on the wrong image",
    ),
    Mutation(
        "mixers/target.py",
        "1 - own_weight if partner_weight is None",
        "own_weight if partner_weight is None",
        "mixers/test_target.py",
        "label weights that do not sum to one",
    ),
    Mutation(
        "mixers/target.py",
        "return -(soft * log_p + (1 - soft) * log_q).mean()",
        "return -(soft * log_p).mean()",
        "mixers/test_target.py",
        "half of the binary cross-entropy",
    ),
    Mutation(
        "hooks/layers.py",
        "return act(layer, output)",
        "act(layer, output)",
        "hooks/test_layers.py",
        "the mixed maps thrown away",
    ),
    Mutation(
        "training/schedule.py",
        "min(1.0, (step + 1) / rises)",
        "min(1.0, step / rises)",
        "training/test_protocol.py",
        "a first step of rate 0",
    ),
    Mutation(
        "training/loop.py",
        "self.scheduler.step()",
        "pass",
        "training/test_training.py",
        "a rate that never changes",
    ),
    Mutation(
        "measures/robustness.py",
        "(images + eps * loss_gradient(model, images, labels).sign())",
        "(images - eps * loss_gradient(model, images, labels).sign())",
        "measures/test_robustness.py",
        "FGSM downhill",
    ),
    Mutation(
        "measures/robustness.py",
        "adversarial = (adversarial + step * gradient.sign()).clamp(low, high)",
        "adversarial = (adversarial + step * gradient.sign()).clamp(0, 1)",
        "measures/test_robustness.py",
        "PGD unbounded",
    ),
    Mutation(
        "measures/feature_drop.py",
        "round(fraction * features.shape[1])",
        "int(fraction * features.shape[1]) + 1",
        "measures/test_feature_drop.py",
        "one feature too many dropped",
    ),
    Mutation(
        "inspection/reliance.py",
        "1 / _shares(influence).square().sum(dim=-1)",
        "_shares(influence).square().sum(dim=-1)",
        "inspection/test_reliance.py",
        "the participation ratio upside down",
    ),
    Mutation(
        "measures/calibration.py",
        "(share * abs(mean - accuracy)",
        "(abs(mean - accuracy)",
        "measures/test_calibration.py",
        "ECE without weights",
    ),
    Mutation(
        "measures/ood.py",
        "needed = -(-95 * n_out // 100)",
        "needed = -(-5 * n_out // 100)",
        "measures/test_ood.py",
        "FPR at 5 % instead of 95 %",
    ),
    Mutation(
        "measures/cam.py",
        "align_corners=False",
        "align_corners=True",
        "measures/test_localization.py",
        "maps stretched otherwise",
    ),
    Mutation(
        "measures/hessian.py",
        'return _check_finite(total / len(images), "the product of Hessian and vector")',
        'return _check_finite(total, "the product of Hessian and vector")',
        "measures/test_hessian.py",
        "a sum for a mean",
    ),
    Mutation(
        "measures/significance.py",
        "stdtrit(len(values) - 1, (1 + level) / 2)",
        "stdtrit(len(values), (1 + level) / 2)",
        "measures/test_statistics.py",
        "degrees of freedom",
    ),
    Mutation(
        "experiments/report/verdict.py",
        "return int(value > 0) - int(value < 0)",
        "return int(value >= 0) - int(value < 0)",
        "experiments/report/test_verdict.py",
        "no difference called a gain",
    ),
    Mutation(
        "data/augment.py",
        "most = 2 * augmentation.pad\n",
        "most = augmentation.pad\n",
        "data/test_augment.py",
        "crops that reach one side only",
    ),
    Mutation(
        "data/images.py",
        "self.labels.index_select(0, index))",
        "self.labels[: len(index)])",
        "data/test_data.py",
        "labels of other images",
    ),
    Mutation(
        "mixers/parts/partners.py",
        "return maps.index_select(0, partner)",
        "return maps.flip(0)",
        "mixers/parts/test_partners.py",
        "partners of the other order",
    ),
    Mutation(
        "training/machine/accelerator.py",
        ', "_is_accelerate_prepared"',
        "",
        "training/machine/test_precision.py",
        "a model trained again in float32",
    ),
    Mutation(
        "training/machine/precision.py",
        "found or choose_precision(",
        "choose_precision(",
        "training/machine/test_precision.py",
        "a resumed run in the precision of another machine",
    ),
    Mutation(
        "training/machine/onednn.py",
        "// step == 0",
        "// step == 1",
        "training/machine/test_onednn.py",
        "wrong gradients of lone columns",
    ),
    Mutation(
        "training/checkpoint.py",
        "if hashlib.sha256(body).hexdigest().encode() != digest:",
        "if False:",
        "training/test_checkpoint.py",
        "a damaged checkpoint taken for a whole one",
    ),
    Mutation(
        "mixers/regularisers/cutout.py",
        "torch.where(holes(",
        "torch.where(~holes(",
        "mixers/regularisers/test_regularisers.py",
        "Cutout inside out",
    ),
    Mutation(
        "measures/corruptions/base.py",
        "images * weights[:, None, None]",
        "images",
        "measures/test_corruptions.py",
        "grey as the sum of the colours",
    ),
    Mutation(
        "experiments/report/records.py",
        'row.get("n_test"), _test_images(row)]',
        "_test_images(row)]",
        "experiments/report/test_report.py",
        "rows of other numbers of test images sorted together",
    ),
    Mutation(
        "experiments/report/protocol.py",
        'if row["epochs"] != column.epochs:',
        'if row["epochs"] < (column.epochs or 9999):',
        "experiments/report/test_report.py",
        "more epochs than the paper's passed over",
    ),
    Mutation(
        "experiments/evaluation.py",
        "if any(key not in earlier or earlier[key] != row[key] for key in same):",
        "if any(key in earlier and earlier[key] != row[key] for key in same):",
        "experiments/test_summary.py",
        "fields kept of a file without the checkpoint's hash",
    ),
    Mutation(
        "mixers/catchup.py",
        'draw.lam if self.label_rule == "lam" else',
        'draw.lam if self.label_rule == "lam" or draw.lam > 0.5 else',
        "mixers/test_catchup.py",
        "the share really kept obeyed for small λ alone",
    ),
    Mutation(
        "mixers/catchup.py",
        "clamp_min(torch.finfo(fi.dtype).tiny)",
        "clamp_min(1e-3)",
        "mixers/test_catchup.py",
        "weak maps whose influence does not sum to one",
    ),
    Mutation(
        "inspection/recorder.py",
        "if now.mixed != name:",
        "if now.mixed is None:",
        "inspection/test_recorder.py",
        "the plain gradient of steps that mix nothing alone",
    ),
    Mutation(
        "data/files/splits.py",
        "kept = int((readable < border).sum())",
        "kept = int((readable <= border).sum())",
        "data/test_data.py",
        "a test image among the training images",
    ),
    Mutation(
        "data/files/splits.py",
        "if kept == len(images):",
        "if kept > len(images):",
        "data/test_data.py",
        "a set without a test image taken",
    ),
    Mutation(
        "data/files/splits.py",
        "counts = value_counts(train.pixels)",
        "counts = value_counts(images.pixels)",
        "data/test_data.py",
        "mean and deviation of the test images too",
    ),
    Mutation(
        "data/images.py",
        "(_ranks(labels, counts, seed) < kept[labels])",
        "(_ranks(labels, counts, seed) <= kept[labels])",
        "data/test_data.py",
        "one image of each class too many",
    ),
    Mutation(
        "measures/calibration.py",
        "held / len(labels)]",
        "held / max(count)]",
        "measures/test_calibration.py",
        "shares of the fullest bin",
    ),
    Mutation(
        "measures/calibration.py",
        "if held else (None, None)",
        "if held else (None, 0.0)",
        "measures/test_calibration.py",
        "an empty bin that is always wrong",
    ),
    Mutation(
        "measures/calibration.py",
        "torch.searchsorted(edges, confidence)",
        "torch.searchsorted(edges, confidence, right=True)",
        "measures/test_calibration.py",
        "an edge in the upper bin",
    ),
    Mutation(
        "measures/calibration.py",
        "check_labels(labels, len(logits), logits.shape[1])",
        "pass",
        "measures/test_calibration.py",
        "labels that no logit stands for",
    ),
    Mutation(
        "measures/robustness.py",
        "loss_gradient(model, images, labels).sign()).clamp(0, 1)",
        "loss_gradient(model, images, labels).sign()).clamp(0, 2)",
        "measures/test_robustness.py",
        "pixels brighter than white",
    ),
    Mutation(
        "measures/robustness.py",
        'reduction="sum"',
        'reduction="mean"',
        "measures/test_robustness.py",
        "a gradient that depends on the batch",
    ),
    Mutation(
        "measures/robustness.py",
        "(images + eps).clamp(max=1)",
        "images + eps",
        "measures/test_robustness.py",
        "a ball beyond the pixel range",
    ),
    Mutation(
        "measures/robustness.py",
        "return (2 * draw - 1)",
        "return draw",
        "measures/test_robustness.py",
        "PGD that starts on the bright side alone",
    ),
    Mutation(
        "measures/robustness.py",
        "if several < single:",
        "if several <= single:",
        "experiments/test_summary.py",
        "masking seen where both attacks err alike",
    ),
    Mutation(
        "experiments/evaluation.py",
        "if test in MEASURES and test not in asked",
        "if test in MEASURES",
        "experiments/test_summary.py",
        "what was measured now hidden by what was measured before",
    ),
    Mutation(
        "experiments/evaluation.py",
        '"finished": len(rows) == settings["epochs"]',
        '"finished": len(rows) <= settings["epochs"]',
        "experiments/test_summary.py",
        "a stopped run called finished",
    ),
    Mutation(
        "experiments/evaluation.py",
        "learnt[-1] if learnt else None",
        "learnt[0] if learnt else None",
        "experiments/test_summary.py",
        "the training error of the first epoch",
    ),
    Mutation(
        "experiments/evaluation.py",
        "losses[-1] if losses else None",
        "losses[0] if losses else None",
        "experiments/test_summary.py",
        "the loss of the first epoch",
    ),
    Mutation(
        "training/trainer.py",
        "median(errors[-10:])",
        "median(errors)",
        "experiments/test_summary.py",
        "the median of all epochs",
    ),
    Mutation(
        "training/trainer.py",
        '"best_error_percent": min(errors)',
        '"best_error_percent": max(errors)',
        "experiments/test_summary.py",
        "the worst epoch called the best",
    ),
    Mutation(
        "inspection/recorder.py",
        "self._steps % self._every == 0",
        "self._steps % self._every == self._every - 1",
        "inspection/test_recorder.py",
        "the last of so many steps measured, not the first",
    ),
    Mutation(
        "inspection/recorder.py",
        "model.training and torch.is_grad_enabled() and not",
        "model.training and not",
        "inspection/test_recorder.py",
        "passes without gradients counted as steps",
    ),
    Mutation(
        "inspection/recorder.py",
        "tally.replaced + (~keep).sum(dim=0)",
        "tally.replaced + keep.sum(dim=0)",
        "inspection/test_recorder.py",
        "the kept counted as replaced",
    ),
    Mutation(
        "inspection/recorder.py",
        "return inside or before",
        "return before or inside",
        "inspection/test_recorder.py",
        "the kernels of the block before",
    ),
    Mutation(
        "inspection/recorder.py",
        "if name not in now.norms:\n            ",
        "if True:\n            ",
        "inspection/test_recorder_steps.py",
        "checkpointed blocks counted twice",
    ),
    Mutation(
        "inspection/tally.py",
        "(values * weight).sum(dim=0, dtype=torch.float32)",
        "values.sum(dim=0, dtype=torch.float32)",
        "inspection/test_recorder.py",
        "cells that do not count in the mean",
    ),
    Mutation(
        "inspection/tally.py",
        "torch.stack([silent.sum(), still.sum(), broken.sum()])",
        "torch.stack([still.sum(), silent.sum(), broken.sum()])",
        "inspection/test_recorder.py",
        "zero norms and zero gradients exchanged",
    ),
    Mutation(
        "experiments/report/verdict.py",
        "ours.n >= FEWEST",
        "ours.n > FEWEST",
        "experiments/report/test_verdict.py",
        "three seeds that are not enough",
    ),
    Mutation(
        "experiments/report/verdict.py",
        "ours.low - ROUNDING <= printed",
        "ours.low <= printed",
        "experiments/report/test_verdict.py",
        "the rounding of printed numbers forgotten",
    ),
    Mutation(
        "experiments/report/verdict.py",
        "return Verdict(OPPOSITE + scaled, sure, agrees)",
        "return Verdict(OPPOSITE, sure, agrees)",
        "experiments/report/test_verdict.py",
        "a scaled run that contradicts the paper outright",
    ),
    Mutation(
        "experiments/report/protocol.py",
        "return abs(share / wanted - 1) < 0.02",
        "return abs(share / wanted - 1) < 0.2",
        "experiments/report/test_report.py",
        "a fifth more data called the paper's share",
    ),
    Mutation(
        "experiments/report/records.py",
        "return 100 - value if column.accuracy else value",
        "return value",
        "experiments/report/test_report.py",
        "errors shown as accuracies",
    ),
    Mutation(
        "experiments/report/cells.py",
        "one.difference is None,",
        "one.difference is not None,",
        "experiments/report/test_report.py",
        "records without the reference shown first",
    ),
)


def copied(target: Path) -> Path:
    """A copy of the checkout in `target`: what git tracks and what it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def broken(source: str, mutation: Mutation) -> str:
    """The source of a file with the mutation in it; ValueError unless its place occurs once."""
    if source.count(mutation.was) != 1:
        raise ValueError(
            f"{mutation.file} has {source.count(mutation.was)} times {mutation.was!r}, wanted once"
        )
    return source.replace(mutation.was, mutation.now)


def failures(checkout: Path, tests: str) -> list[str]:
    """The tests of a file that fail in a checkout, at most the first; ValueError if they cannot be
    run.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--no-header", f"tests/{tests}"],
        cwd=checkout,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    failed = [
        line.split(" - ")[0].removeprefix("FAILED ").removeprefix("ERROR ")
        for line in done.stdout.splitlines()
        if line.startswith(("FAILED", "ERROR"))
    ]
    if done.returncode not in (0, 1) and not failed:
        raise ValueError(f"tests/{tests} cannot be run: {done.stdout[-500:]}{done.stderr[-500:]}")
    return failed


def check_unbroken(checkout: Path, tests: str) -> None:
    """ValueError unless these tests pass as long as nothing is broken: one that fails anyway would
    count as noticing.
    """
    if failed := failures(checkout, tests):
        raise ValueError(f"{failed[0]} fails with nothing broken, so it can notice nothing")


def outcome(checkout: Path, mutation: Mutation) -> dict:
    """Whether the tests, which `check_unbroken` has seen pass, notice; the file is whole again
    afterwards.
    """
    path, started = checkout / "catchup" / mutation.file, time.perf_counter()
    whole = path.read_text()
    path.write_text(broken(whole, mutation))
    try:
        failed = failures(checkout, mutation.tests)
    finally:
        path.write_text(whole)
    return {
        "what": mutation.what,
        "file": f"catchup/{mutation.file}",
        "noticed": bool(failed),
        "by": failed[0] if failed else None,
        "time_s": round(time.perf_counter() - started, 1),
    }


def main() -> int:
    """Runs them, prints a line each and the count."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", type=int, nargs="+", default=range(len(MUTATIONS)))
    chosen, rows = parser.parse_args(), []
    with tempfile.TemporaryDirectory(prefix="catchup-mutations-") as folder:
        checkout = copied(Path(folder))
        for tests in sorted({MUTATIONS[number].tests for number in chosen.only}):
            check_unbroken(checkout, tests)
            print(f"unbroken, tests/{tests} pass", flush=True)
        for number in chosen.only:
            rows.append(outcome(checkout, MUTATIONS[number]))
            row = rows[-1]
            fate = f"noticed by {row['by']}" if row["noticed"] else "SURVIVED"
            print(f"{number:2} {row['what']} ({row['file']}): {fate}", flush=True)
    noticed = sum(row["noticed"] for row in rows)
    print(f"{noticed} of {len(rows)} noticed")
    if chosen.out:
        write_json(chosen.out, {"mutations": rows, "noticed": noticed, **surroundings()})
    return 0 if noticed == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
