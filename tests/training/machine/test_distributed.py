"""One run on two processes (gloo) against the same run on one.

Batch norm's statistics and the partners of a mix are of each process's share, so the two can only
be equal, up to the rounding of another order of summation, for a network without batch norm that
mixes nothing. That is what is compared.
"""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from joined import free_port, together

from catchup import Settings, fit
from catchup.data import Augmentation, Dataset, Images
from catchup.mixers import make
from catchup.training.folder import read_metrics
from conftest import TinyNet

# 53 images in batches of 16: three whole batches and one of five, of which one process gets three
# and the other two.
N, BATCH, EPOCHS = 53, 16, 3
SETTINGS = Settings(
    epochs=EPOCHS, batch_size=BATCH, lr=0.2, augment=False, precision="fp32", device="cpu"
)


def made() -> Dataset:
    """Five classes of noise around a mean of their own: easy, so that the loss falls."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(N) % 5
    means = torch.randint(40, 216, (5, 3, 1, 1), generator=generator)
    pixels = (
        (means[labels] + torch.randint(-30, 31, (N, 3, 8, 8), generator=generator))
        .clamp(0, 255)
        .to(torch.uint8)
    )
    classes = tuple("abcde")
    return Dataset(
        "made",
        Images(pixels, labels, classes),
        Images(pixels[:20], labels[:20], classes),
        (0.5,) * 3,
        (0.25,) * 3,
        Augmentation(),
    )


def one_run(method: str, out: Path | None) -> dict:
    """What a process sees of a run: its rows, the images of its shares, layer and λ of every step,
    its weights.
    """
    torch.manual_seed(0)
    mixer, draws, taken, batches = make(method, seed=0), [], [], Images.batches

    def noted(images, shares):
        taken.extend(share.tolist() for share in shares)
        return batches(images, shares)

    with patch.object(Images, "batches", noted):
        result = fit(
            TinyNet(),
            mixer,
            made(),
            SETTINGS,
            out=out,
            progress=False,
            on_step=lambda _: draws.append([mixer.last.draw.layer, mixer.last.draw.lam]),
        )
    weights = torch.cat([value.flatten() for value in result.model.state_dict().values()]).tolist()
    return {"rows": result.rows, "taken": taken, "draws": draws, "weights": weights}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """{method: what the two processes saw}, and the folder of their runs."""
    out = tmp_path_factory.mktemp("two")

    def work(rank):
        for method in ("baseline", "catchup"):
            (out / f"{method}-{rank}.json").write_text(json.dumps(one_run(method, out / method)))
        torch.distributed.destroy_process_group()

    assert together(work) == [0, 0]
    return {
        method: [json.loads((out / f"{method}-{rank}.json").read_text()) for rank in range(2)]
        for method in ("baseline", "catchup")
    }, out


@pytest.fixture(scope="module")
def alone():
    return one_run("baseline", None)


def test_two_processes_have_the_loss_curve_of_one(both, alone):
    """The last batch, of five images in shares of three and two, too: the gradient is that of the
    whole batch.
    """
    for found in both[0]["baseline"]:
        assert len(found["rows"]) == EPOCHS
        for ours, expected in zip(found["rows"], alone["rows"]):
            assert ours["step"] == expected["step"] and ours["lr"] == expected["lr"]
            for key in ("train_loss", "val_loss"):
                assert ours[key] == pytest.approx(expected[key], rel=2e-5)
            for key in (
                "train_accuracy_mixed_percent",
                "val_error_percent",
                "clean_train_error_percent",
            ):
                assert ours[key] == pytest.approx(expected[key], abs=1e-4)
        torch.testing.assert_close(
            torch.tensor(found["weights"]), torch.tensor(alone["weights"]), rtol=1e-4, atol=1e-6
        )
    losses = [row["train_loss"] for row in alone["rows"]]
    assert losses[-1] < losses[0] - 0.05  # a curve, and no straight line


@pytest.mark.parametrize("method", ["baseline", "catchup"])
def test_every_image_is_taken_once_an_epoch_by_one_of_them(both, alone, method):
    first, second = (found["taken"] for found in both[0][method])
    assert [len(share) for share in first] == [8, 8, 8, 3] * EPOCHS
    assert [len(share) for share in second] == [8, 8, 8, 2] * EPOCHS
    for epoch in range(EPOCHS):
        steps = slice(4 * epoch, 4 * epoch + 4)
        assert sorted(sum(first[steps] + second[steps], [])) == list(range(N))
    for ours, theirs, whole in zip(first, second, alone["taken"]):
        assert sorted(ours + theirs) == sorted(whole)  # the same batches as one process has


def test_measurements_are_of_all_processes_and_one_of_them_writes(both):
    for method, (first, second) in both[0].items():
        for ours, theirs in zip(first["rows"], second["rows"]):
            for key in (
                "train_loss",
                "train_accuracy_mixed_percent",
                "val_loss",
                "val_error_percent",
            ):
                assert ours[key] == theirs[key] and math.isfinite(ours[key])
        assert first["weights"] == second["weights"]
        folder = both[1] / method
        assert read_metrics(folder) == first["rows"]  # its times, not the other's
        assert {path.name for path in folder.iterdir()} == {"metrics.jsonl", "checkpoint.pt"}


def test_processes_mix_by_the_same_layer_and_share_each_its_own_images(both):
    """So λ and the layer are of the whole batch, as with one process; the partners are of the
    process's share.
    """
    first, second = (found["draws"] for found in both[0]["catchup"])
    assert (
        first == second
        and len({layer for layer, _ in first}) > 1
        and len({lam for _, lam in first}) > 1
    )


# The exchange ends while the process holds the interpreter and is about to end: gloo's thread waits
# in order to free the tensor. `Slow` then lets it go on, in the middle of the end. The other
# process only has to come late.
ENDS = """
import atexit, sys, time
from pathlib import Path
import torch
from catchup import Settings, fit
from catchup.mixers import make
from catchup.training import dataset_of, model_of

@atexit.register
def threads():  # registered first, so called last
    print(*(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))

def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

class Slow:
    def __del__(self):
        busy(1)

short = Settings(subset=2, width=4, epochs=1, batch_size=10, device="cpu", precision="fp32")
digits = dataset_of(short)
fit(model_of(short, digits), make("baseline", seed=0), digits, short, progress=False)
slow, told = Slow(), torch.ones(3)
torch.distributed.barrier()
if torch.distributed.get_rank():
    time.sleep(0.3)
    torch.distributed.all_reduce(told)
else:
    torch.distributed.all_reduce(told, async_op=True)
    del told
    sys.setswitchinterval(0.5)
    busy(0.6)
"""


def started(program: str) -> list[subprocess.Popen]:
    """Two processes that run it, as torchrun would start them."""
    joined = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**joined, "RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]


@pytest.mark.slow
def test_a_process_whose_last_exchange_is_still_being_cleared_away_ends_well():
    both = started(ENDS)
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert not any("gloo" in threads for threads, _ in said), said


# One process fails while an exchange that the other one is late for is under way.
FAILS = """
import time
import torch
from catchup import Settings, fit
from catchup.mixers import make
from catchup.training import dataset_of, model_of

short = Settings(subset=2, width=4, epochs=1, batch_size=10, device="cpu", precision="fp32")
digits = dataset_of(short)
for attempt in range(2):
    def broken(_):
        if attempt and torch.distributed.get_rank() == 0:
            torch.distributed.all_reduce(torch.ones(3), async_op=True)
            raise OSError("no more")
        if attempt:
            time.sleep(60)

    try:
        fit(model_of(short, digits), make("baseline", seed=0), digits, short, progress=False,
            on_step=broken)
    except OSError as error:
        said = str(error)
raise SystemExit(said)  # as the command line does
"""


@pytest.mark.slow
def test_a_process_that_fails_waits_for_nobody():
    """Its launcher has to see it, in order to end the others; an earlier run of the same process
    went well.
    """
    both = started(FAILS)
    begun = time.monotonic()
    said = both[0].communicate(timeout=120)[1]
    took = time.monotonic() - begun
    both[1].kill()
    both[1].communicate()
    assert both[0].returncode != 0 and "no more" in said and took < 50
