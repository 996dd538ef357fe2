"""Checkpoints of earlier formats, committed as they were written, still load, go on and are
evaluated.

tests/golden/formatN/NAME: stopped after 6 of 12 steps, in the middle of epoch 2. A new format gets
a folder of its own.
"""

import shutil
from pathlib import Path

import pytest
import torch

from catchup import Settings, fit, train
from catchup.experiments.evaluation import evaluate
from catchup.mixers import make
from catchup.training import checkpoint
from catchup.training.folder import CHECKPOINT, RUN
from catchup.training.trainer import dataset_of
from catchup.utils.files import read_json
from conftest import TinyNet

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = [folder for folder in sorted(GOLDEN.glob("*/*")) if (folder / RUN).exists()]


def close(one, other) -> bool:
    """Equal up to what another processor may round otherwise, 0.0003 of the weights' length
    (AVX-512 after AVX2); a generator forgotten makes it 0.02 and more.
    """
    first, second = (state["model"] for state in (one, other))
    assert first.keys() == second.keys()
    apart = sum((first[key].double() - second[key].double()).square().sum() for key in first).sqrt()
    return bool(
        apart <= 3e-3 * sum(value.double().square().sum() for value in second.values()).sqrt()
    )


def test_the_files_are_there_and_small():
    assert len(RUNS) >= 2
    assert all(path.stat().st_size <= 102_400 for path in GOLDEN.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_a_run_of_an_earlier_format_goes_on_to_the_weights_of_a_whole_one(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    state = checkpoint.load(tmp_path / "old" / CHECKPOINT)
    assert state["epoch"] == 1 and state["under_way"]["batches"] == 2
    settings = Settings.from_dict(read_json(folder / RUN)["settings"])
    train(settings, tmp_path / "old", resume=True, progress=False)
    train(settings, tmp_path / "new", progress=False)
    one, other = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("old", "new"))
    assert close(one, other) and not close(one, state)
    row = evaluate(tmp_path / "old", ("clean",), device="cpu", progress=False)
    assert row["finished"] and row["epochs"] == 3


def test_a_methods_own_networks_of_an_earlier_format_are_taken_up(tmp_path):
    shutil.copytree(GOLDEN / "format2" / "automix-own-model", tmp_path / "old")
    settings = Settings(
        subset=5, epochs=3, batch_size=16, lr=0.05, method="automix", device="cpu", precision="fp32"
    )
    for name in ("old", "new"):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = TinyNet(10, 1)
        fit(
            model,
            make("automix", seed=0, block="layer2", block_form="printed"),
            dataset_of(settings),
            settings,
            out=tmp_path / name,
            resume=True,
            progress=False,
        )
    one, other = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("old", "new"))
    assert close(one, other) and set(one["mixer"]["modules"]) == {"momentum", "mix_block"}
