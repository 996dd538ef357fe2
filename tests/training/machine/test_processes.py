"""A run of two processes (gloo), stopped by a signal that one of them gets, goes on to the very
same weights.
"""

import hashlib
import json
import os
import signal

import pytest
import torch
from joined import together
from torch import nn

from catchup import Settings, fit
from catchup.mixers import make
from catchup.training import checkpoint
from catchup.training.machine.distributed import all_gather, all_reduce_max, to_cpu, world
from catchup.training.seeds import fork_rng
from catchup.training.trainer import dataset_of
from conftest import TinyNet

# 4 steps an epoch
TINY = Settings(subset=5, epochs=3, batch_size=12, lr=0.05, device="cpu", precision="fp32")


class Normed(TinyNet):
    """With running statistics, of which every process has its own, and with chance of its own."""

    def __init__(self):
        super().__init__(10, 1)
        self.layer1 = nn.Sequential(self.layer1, nn.BatchNorm2d(6), nn.Dropout(0.2))
        self.layer2 = nn.Sequential(self.layer2, nn.BatchNorm2d(8))


@pytest.fixture(scope="module")
def digits():
    data = dataset_of(TINY)
    trained(data, "baseline", None)  # imports what is imported late, for all children
    return data


def trained(digits, method, out, **options):
    with fork_rng(0):
        model = Normed()
    settings = {
        "automix": {"block": "layer2"},
        "recursivemix": {"block": "layer2"},
        "catchup": {"blocks": ("layer1", "layer2")},
    }.get(method, {})
    mixer = make(method, seed=0, **settings)
    # whose processes must agree on when a box is empty; their histories differ anyway
    if method != "recursivemix":
        # each process draws other numbers, and has its own to keep
        mixer.rng.random(int(os.environ.get("RANK", 0)))
    return fit(model, mixer, digits, TINY, out=out, progress=False, resume=True, **options), mixer


def everything(result, mixer) -> str:
    """SHA-256 of what a process ends with: its weights, statistics, history, generators."""
    parts = [*result.model.state_dict().values(), torch.get_rng_state()]
    parts += [value for module in mixer.modules.values() for value in module.state_dict().values()]
    parts += [value for value in mixer.state.values() if isinstance(value, torch.Tensor)]
    content = b"".join(value.detach().numpy().tobytes() for value in parts)
    return hashlib.sha256(content + repr(mixer.rng.bit_generator.state).encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["automix", "recursivemix", "catchup"])
def test_both_stop_at_one_step_and_go_on_to_the_same_weights(digits, tmp_path, method):
    def work(folder, rank, killed=None):
        def step(at):
            if killed is not None and at.step == killed and rank == 1:
                os.kill(os.getpid(), signal.SIGTERM)  # a cluster's signals come when they come

        ends = everything(*trained(digits, method, tmp_path / folder, on_step=step))
        (tmp_path / f"{folder}-{rank}").write_text(ends)

    assert together(lambda rank: work("whole", rank)) == [0, 0]
    for killed in (6, 11):
        assert together(lambda rank, killed=killed: work("parts", rank, killed)) == [143, 143]
        state = checkpoint.load(tmp_path / "parts" / "checkpoint.pt")
        assert (state["epoch"], state["under_way"]["batches"]) == divmod(killed, 4) and len(
            state["ranks"]
        ) == 2
    assert together(lambda rank: work("parts", rank)) == [0, 0]
    for rank in (0, 1):
        assert (tmp_path / f"parts-{rank}").read_text() == (tmp_path / f"whole-{rank}").read_text()
    with pytest.raises(
        ValueError, match=r"written by 2 process\(es\), and this run has 1.*--nproc-per-node=2"
    ):
        trained(digits, method, tmp_path / "parts")


def test_numbers_that_are_none_in_one_process_end_both(digits, tmp_path):
    def work(rank):
        def spoil(at):
            if rank == 1 and at.step == 3:
                digits.train.pixels.zero_()
                object.__setattr__(
                    mixer, "loss", lambda *a, **o: Baseline.loss(mixer, *a, **o) * float("nan")
                )

        from catchup.mixers import Baseline

        mixer = Baseline(seed=0)
        with fork_rng(0):
            model = Normed()
        try:
            fit(model, mixer, digits, TINY, out=tmp_path / "run", progress=False, on_step=spoil)
        except FloatingPointError as error:
            (tmp_path / str(rank)).write_text(str(error))

    assert together(work) == [0, 0]
    for rank in range(2):
        assert "not finite at step 4" in (tmp_path / str(rank)).read_text()


def test_what_processes_tell_each_other(tmp_path):
    assert (
        all_reduce_max(1, -2.5) == [1, -2.5]
        and all_gather({"a": 1}) == [{"a": 1}]
        and world() == (0, 1)
    )

    def work(rank):
        torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
        told = [
            all_reduce_max(float(rank), -float(rank), float("-inf")),
            world(),
            [
                state["x"].tolist()
                for state in all_gather({"x": torch.tensor([rank]), "y": [None, (1, "b")]})
            ],
        ]
        (tmp_path / str(rank)).write_text(json.dumps(told))

    assert together(work) == [0, 0]
    for rank in range(2):
        assert json.loads((tmp_path / str(rank)).read_text().replace("-Infinity", "null")) == [
            [1, 0, None],
            [rank, 2],
            [[0], [1]],
        ]
    kept = to_cpu({"a": [torch.ones(1, requires_grad=True)], "b": (1, None)})
    assert not kept["a"][0].requires_grad and kept["b"] == (1, None)


def test_another_number_of_threads_is_told(digits, tmp_path, monkeypatch):
    trained(digits, "baseline", tmp_path)
    with (
        monkeypatch.context() as patch,
        pytest.warns(UserWarning, match="with threads 1, and goes on with 2: the"),
    ):
        patch.setattr(torch, "get_num_threads", lambda: 2)
        trained(digits, "baseline", tmp_path)
