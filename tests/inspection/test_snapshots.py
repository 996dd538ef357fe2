"""Snapshots hold the weights of their epoch, whatever the model does afterwards."""

import pytest
import torch

import catchup
from catchup import Settings, count_hooks
from catchup.inspection.snapshots import Snapshots
from catchup.mixers import make
from catchup.training.trainer import dataset_of, model_of

SMALL = Settings(subset=5, width=4, epochs=3, batch_size=16, lr=0.05, precision="fp32")


@pytest.mark.slow
def test_each_snapshot_answers_as_the_model_did_then():
    digits = dataset_of(SMALL)
    model, answers = model_of(SMALL, digits), {}
    images = digits.test.pixels[:5] / 255

    def answer(row):
        keep(row)
        with torch.no_grad():
            answers[row["epoch"]] = model.eval()(images)

    keep = Snapshots(model)
    answer({"epoch": 0})
    with catchup.recording(model, every=1):  # whose hooks are not to be copied
        catchup.fit(model, make("catchup", seed=0), digits, SMALL, progress=False, on_epoch=answer)
    assert keep.epochs == (0, 1, 2, 3)
    for epoch, expected in answers.items():
        then = keep.model(epoch)
        assert not then.training and count_hooks(then) == 0
        with torch.no_grad():
            torch.testing.assert_close(then(images), expected)
    assert not torch.equal(answers[1], answers[3])
    assert list(keep.models((1, 3))) == ["epoch 1", "epoch 3"] and keep.model(1) is not keep.model(
        1
    )


def test_a_copy_loses_its_hooks_and_the_model_keeps_them(tiny):
    with tiny.layer1.register_forward_hook(lambda *_: None), catchup.recording(tiny, every=1):
        assert count_hooks(Snapshots(tiny).model(0)) == 0 and count_hooks(tiny) == 1


@pytest.mark.slow
def test_only_the_epochs_asked_for_are_kept(tiny):
    keep = Snapshots(tiny, epochs=(2, 4))
    for epoch in range(1, 6):
        keep({"epoch": epoch})
    assert keep.epochs == (0, 2, 4)
    with pytest.raises(ValueError, match="no snapshot of epoch 3; kept are 0, 2, 4"):
        keep.model(3)
    with pytest.raises(ValueError, match="epochs must be integers in a list or range, .* got 5"):
        Snapshots(tiny, epochs=5)
    with pytest.raises(ValueError, match="before torch.compile"):
        Snapshots(torch.compile(tiny))
    for bad in ((-1,), (1.5,), (True,)):
        with pytest.raises(ValueError, match="epochs must be a whole number of at least 0"):
            Snapshots(tiny, epochs=bad)
