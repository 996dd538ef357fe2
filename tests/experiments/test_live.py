"""A run in a thread: the same weights as without one, however often it was paused and stopped."""

import _thread
import hashlib
import threading
import time

import pytest

from catchup import Settings, count_hooks, fit
from catchup.experiments.live import POINTS, LiveRun
from catchup.mixers import make
from catchup.training.trainer import dataset_of, model_of

SMALL = Settings(subset=5, width=4, epochs=3, batch_size=10, lr=0.05)  # 5 steps an epoch


@pytest.fixture(scope="module")
def digits():
    return dataset_of(SMALL)


@pytest.fixture(scope="module")
def plain(digits):
    return digest(
        fit(model_of(SMALL, digits), make("catchup", seed=0), digits, SMALL, progress=False).model
    )


def digest(model) -> str:
    return hashlib.sha256(
        b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    ).hexdigest()


def live(digits, **options) -> LiveRun:
    return LiveRun(model_of(SMALL, digits), make("catchup", seed=0), digits, SMALL, **options)


def until(condition, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def test_the_weights_are_those_of_fit(digits, plain, tmp_path):
    run = live(digits, out=tmp_path / "run").start()
    result = run.wait()
    assert run.state == "finished" and result.finished and digest(run.model) == plain
    assert [row["epoch"] for row in run.rows] == [1, 2, 3] and (
        tmp_path / "run" / "checkpoint.pt"
    ).exists()
    assert [step for step, _ in run.losses] == list(range(1, 16)) and run.steps == 15
    assert {row["epoch"] for row in run.histograms()} <= {1, 2, 3} and run.filters()
    assert count_hooks(run.model) == 0 and run.start().wait() is result


def test_stopped_and_started_again_and_again_it_is_the_same_run(digits, plain):
    run, states = live(digits, every=1), []
    run.on_change, run.interval_s = lambda run: states.append(run.state), 0.0
    for step in (2, 5, 11):
        run.start()
        until(lambda step=step: len(run.losses) >= step)
        asked = time.monotonic()
        run.stop()
        result = run.wait()
        assert time.monotonic() - asked < 1 and count_hooks(run.model) == 0
        if run.state == "finished":
            break
        assert run.state == "stopped" and not result.finished
    assert run.start().wait().finished and digest(run.model) == plain
    assert [step for step, _ in run.losses] == list(range(1, 16)) and [
        row["epoch"] for row in run.rows
    ] == [1, 2, 3]
    assert states[0] == "running" and states[-1] == "finished"
    assert sorted({row["epoch"] for row in run.filters()}) == [1, 2, 3]


def test_a_start_that_comes_while_it_stops_is_not_lost(digits, plain):
    run, states = live(digits), []

    def impatient(run):
        states.append(run.state)
        if run.state == "stopped":
            run.start()

    run.on_change, run.interval_s = impatient, 60.0
    run.start()
    until(lambda: run.losses)
    run.stop()
    assert run.wait().finished and states == ["running", "stopped", "running", "finished"]
    assert digest(run.model) == plain and run.step == 15


@pytest.mark.slow
def test_every_epoch_of_a_stopped_run_is_told_once_and_by_its_number(digits):
    run = live(digits, every=1, interval_s=0.0)
    for step in (6, 9, 11):  # the second start ends before an epoch does
        run.on_change = lambda run, step=step: run.step >= step and run.stop()
        run.start().wait()
    assert run.state == "stopped" and run.step == 11 and len(run.rows) == 2
    keys = [(row["epoch"], row["block"], row["filter"]) for row in run.filters()]
    assert len(set(keys)) == len(keys)
    for rows in (run.filters(), run.histograms()):  # of the second epoch steps 7 to 9, not 6 or 10
        assert {row["epoch"]: row["images"] for row in rows} == {1: 50, 2: 30, 3: 10}


@pytest.mark.slow
def test_a_stop_during_a_validation_is_heard_and_the_run_goes_on(digits, plain):
    run = live(digits)
    hook = run.model.register_forward_pre_hook(
        # not in the look at the blocks before the first step
        lambda model, _: None if model.training or not run.step else run.stop()
    )
    result = run.start().wait()
    assert run.state == "stopped" and run.step == 5 and result.rows == run.rows == []
    hook.remove()
    assert run.start().wait().finished and digest(run.model) == plain and len(run.rows) == 3


@pytest.mark.slow
def test_paused_it_stands_still_and_goes_on(digits, plain):
    run = live(digits).start()
    run.pause()
    until(lambda: run.state in ("paused", "finished"))
    step = len(run.losses)
    time.sleep(0.2)
    assert len(run.losses) == step
    assert run.start().wait().finished and digest(run.model) == plain


def test_a_paused_run_can_be_stopped(digits):
    run = live(digits).start()
    run.pause()
    until(lambda: run.state in ("paused", "finished"))
    run.stop()
    assert run.wait() is not None and run.state in ("stopped", "finished")


@pytest.mark.slow
def test_an_interrupt_while_waiting_stops_the_run_and_keeps_it(digits, plain):
    # slow enough on a busy machine
    run = live(digits, on_change=lambda run: time.sleep(0.3), interval_s=0.0).start()
    threading.Timer(0.2, _thread.interrupt_main).start()
    result = run.wait()
    assert run.state == "stopped" and not result.finished
    run.on_change = None
    assert run.start().wait().finished and digest(run.model) == plain


@pytest.mark.slow
def test_awaited_it_leaves_the_loop_to_others(digits, plain):
    import asyncio

    async def both():
        run, turns = live(digits).start(), 0

        async def other():
            nonlocal turns
            while not run._done.is_set():
                turns += 1
                await asyncio.sleep(0.01)

        result, _ = await asyncio.gather(run.finished(), other())
        return result, turns

    result, turns = asyncio.run(both())
    assert result.finished and digest(result.model) == plain and turns > 3


def test_what_fails_is_said(digits):
    class Broken(type(make("baseline"))):
        def loss(self, *args, **options):
            raise RuntimeError("no loss today")

    run = LiveRun(model_of(SMALL, digits), Broken(seed=0), digits, SMALL).start()
    with pytest.raises(RuntimeError, match="no loss today"):
        run.wait()
    assert run.state == "failed" and count_hooks(run.model) == 0


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_run(digits, plain):
    def cannot(run):
        raise OSError("no ink")

    run = live(digits, on_change=cannot).start()
    assert run.wait().finished and digest(run.model) == plain and str(run.error) == "no ink"


def test_losses_are_thinned_out_and_a_used_folder_is_refused(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("catchup.experiments.live.POINTS", 6)
    run = live(digits).start()
    run.wait()
    steps = [step for step, _ in run.losses]
    assert (
        len(steps) <= 7 and steps[-1] >= 12 and len({b - a for a, b in zip(steps, steps[1:])}) == 1
    )
    assert POINTS == 1000
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        live(digits, out=tmp_path)
