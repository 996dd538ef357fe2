"""Before training starts it is known which blocks run, and what they return."""

import pytest
import torch
from torch import nn

from catchup import CatchUpMix, Settings, count_hooks, fit
from catchup.mixers import CutMix
from catchup.mixers.feature import check_blocks_run
from catchup.training.trainer import dataset_of
from conftest import TinyNet

IMAGES = torch.rand(2, 3, 8, 8)


class Gapped(TinyNet):
    """A stage that is registered and never runs, one that runs twice, one without maps."""

    def __init__(self, classes=5, channels=3):
        super().__init__(classes, channels)
        self.unused = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
        self.twice, self.flat = nn.Identity(), nn.Flatten()

    def forward(self, images):
        maps = self.layer2(self.layer1(self.stem(images)))
        self.flat(maps)
        return self.fc(self.twice(self.twice(maps)).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "blocks, words",
    [
        (("stem", "unused"), "block 'unused' does not run .*of those drawn, stem can be"),
        (("twice",), "block 'twice' runs 2 times .*none can be"),
        (("stem", "flat"), "block 'flat' must return maps"),
    ],
)
def test_a_block_that_cannot_be_mixed_is_named(blocks, words):
    model = Gapped()
    with pytest.raises(ValueError, match=words):
        check_blocks_run(CatchUpMix(seed=0, blocks=blocks), model, IMAGES)
    assert count_hooks(model) == 0


def test_only_what_may_be_drawn_has_to_run():
    mixer = CatchUpMix(seed=0, blocks=("stem", "unused"), layers=(0, 1))
    check_blocks_run(mixer, Gapped(), IMAGES)
    check_blocks_run(CutMix(seed=0), nn.Identity(), IMAGES)


def test_looking_changes_nothing():
    model = TinyNet(5, 3)
    model.dropout = nn.Dropout()
    model.layer1.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes, drawn = [part.training for part in model.modules()], torch.get_rng_state()
    mixer = CatchUpMix(seed=0)
    before = mixer.state_dict()["rng"]
    check_blocks_run(mixer, model, IMAGES)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert modes == [part.training for part in model.modules()]
    assert torch.equal(drawn, torch.get_rng_state()) and mixer.state_dict()["rng"] == before
    assert mixer.last is None and all(part.grad is None for part in model.parameters())


def test_a_forward_pass_that_fails_is_left_to_the_first_step():
    class Failing(TinyNet):
        def forward(self, images):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    check_blocks_run(CatchUpMix(seed=0), Failing(5, 3), IMAGES)


def test_fit_names_the_block_before_anything_is_written(tmp_path):
    settings = Settings(subset=3, epochs=1, batch_size=10, device="cpu", precision="fp32")
    mixer = CatchUpMix(seed=0, blocks=("stem", "unused"))
    with pytest.raises(ValueError, match="block 'unused' does not run"):
        fit(Gapped(10, 1), mixer, dataset_of(settings), settings, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
