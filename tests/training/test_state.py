"""A run's state: a checkpoint whole on the outside and wrong inside is refused in words."""

import pytest

from catchup import Settings, fit
from catchup.mixers import make
from catchup.training import checkpoint
from catchup.training.checkpoint import CheckpointError
from catchup.training.folder import CHECKPOINT, METRICS
from catchup.training.seeds import fork_rng
from catchup.training.trainer import dataset_of
from conftest import TinyNet

TINY = Settings(subset=3, epochs=1, batch_size=10, lr=0.05, device="cpu", precision="fp32")


def trained(out, **options):
    with fork_rng(0):
        model = TinyNet(10, 1)
    return fit(
        model, make("catchup", seed=0), dataset_of(TINY), TINY, out=out, progress=False, **options
    )


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "rows", "mixer", "torch_rng"])
@pytest.mark.parametrize("instead", ["nothing", "a number"])
def test_a_missing_or_garbled_part_is_named(tmp_path, part, instead):
    trained(tmp_path, on_step=lambda at: at.step == 2)
    path = tmp_path / CHECKPOINT
    state = checkpoint.load(path)
    assert part in state
    if instead == "nothing":
        del state[part]
    else:
        state[part] = 3
    checkpoint.save(path, state)
    held = path.read_bytes()
    with pytest.raises(CheckpointError) as error:
        trained(tmp_path, resume=True)
    assert (
        str(tmp_path) in str(error.value)
        and "train it again" in str(error.value)
        or part == "model"
    )
    assert path.read_bytes() == held


def garble_generator(state):
    state["under_way"]["augment"] = state["under_way"]["augment"][:-1]


IMPOSSIBLE = {
    "too many batches": lambda state: state["under_way"].update(batches=10**9),
    "a negative batch": lambda state: state["under_way"].update(batches=-1),
    "another epoch": lambda state: state["under_way"].update(number=5),
    "an augmentation generator of another size": garble_generator,
    "a global generator of another size": lambda state: state.update(
        torch_rng=state["torch_rng"][:-1]
    ),
    "a schedule elsewhere": lambda state: state["schedule"].update(last_epoch=10**9),
    "more epochs than rows": lambda state: state.update(epoch=7),
}


@pytest.mark.parametrize("garble", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_an_impossible_part_is_refused_and_nothing_is_written(tmp_path, garble):
    trained(tmp_path, on_step=lambda at: at.step == 2)
    path = tmp_path / CHECKPOINT
    state = checkpoint.load(path)
    garble(state)
    checkpoint.save(path, state)
    held = path.read_bytes()
    with pytest.raises(CheckpointError, match="impossible.*train it again"):
        trained(tmp_path, resume=True)
    assert path.read_bytes() == held


def test_a_lost_checkpoint_is_not_made_up_for_in_silence(tmp_path):
    trained(tmp_path / "done")
    (tmp_path / "done" / CHECKPOINT).unlink()
    with pytest.raises(ValueError, match="has lost its checkpoint.pt: 1 epochs were finished"):
        trained(tmp_path / "done", resume=True)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / METRICS).touch()
    with pytest.warns(UserWarning, match="begins anew"):
        trained(tmp_path / "begun", resume=True)
