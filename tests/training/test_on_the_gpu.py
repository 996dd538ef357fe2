"""A step and a run on the GPU, beside those on the CPU. `CATCHUP_GPU_TESTS=cpu` puts the CPU in its
place, so that the tests themselves can be tested where there is none.
"""

import os

import pytest
import torch

from catchup import MIXERS, Settings, models
from catchup.experiments import evaluate
from catchup.training import train

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
CPU = torch.device("cpu")


@pytest.fixture
def device():
    if os.environ.get("CATCHUP_GPU_TESTS") == "cpu":
        return CPU
    if not torch.accelerator.is_available():
        pytest.skip("there is no GPU")
    return torch.accelerator.current_accelerator()


def losses(name: str, place) -> list[float]:
    """Of two steps of a method on eight images, all that chance decides being seeded."""
    torch.manual_seed(0)
    model = models.create("resnet18", num_classes=4, width=8).to(place)
    images, labels = torch.randn(8, 3, 32, 32).to(place), (torch.arange(8) % 4).to(place)
    mixer = MIXERS[name](seed=0)
    if mixer.prob is not None:
        mixer = MIXERS[name](seed=0, prob=0.0 if name == "baseline" else 1.0)
    found = []
    for _ in range(2):
        loss = mixer.loss(model, images, labels)
        loss.backward()
        found.append(loss.item())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return found


@pytest.mark.parametrize("name", ["catchup", "cutmix", "manifoldmixup", "randomchannel"])
@pytest.mark.parametrize("by_name", [False, True])
def test_a_step_is_that_of_the_cpu(name, by_name, device):
    place = f"{device.type}:0" if by_name and device != CPU else device
    assert losses(name, place) == pytest.approx(losses(name, CPU), rel=1e-3)


def test_a_run_is_trained_taken_up_and_evaluated(tmp_path, device):
    settings = Settings(
        data="digits", subset=5, width=8, epochs=2, batch_size=25, lr=0.05, method="catchup"
    )
    result = train(settings, tmp_path / "run", progress=False)
    again = train(settings, tmp_path / "run", resume=True, progress=False)
    assert again.finished and again.rows == result.rows
    row = evaluate(tmp_path / "run", ("clean", "fgsm"), progress=False)
    assert 0 <= row["top1_error"] <= row["fgsm_error"] <= 100
    assert next(result.model.parameters()).device.type == device.type
