"""A run's state: a checkpoint whole on the outside and wrong inside is refused in words."""

import pytest

from catchup import Settings, fit
from catchup.mixers import make
from catchup.training import checkpoint
from catchup.training import folder as runs
from catchup.training.checkpoint import CheckpointError
from catchup.training.seeds import seeded
from catchup.training.trainer import dataset_of
from conftest import TinyNet

TINY = Settings(subset=3, epochs=1, batch_size=10, lr=0.05, device="cpu", precision="fp32")


def trained(out, **options):
    with seeded(0):
        model = TinyNet(10, 1)
    return fit(
        model, make("catchup", seed=0), dataset_of(TINY), TINY, out=out, progress=False, **options
    )


@pytest.mark.parametrize("part", ["model", "optimizer", "schedule", "rows", "mixer", "torch_rng"])
@pytest.mark.parametrize("instead", ["nothing", "a number"])
def test_a_missing_or_garbled_part_is_named(tmp_path, part, instead):
    trained(tmp_path, on_step=lambda at: at.step == 2)
    path = tmp_path / runs.CHECKPOINT
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
