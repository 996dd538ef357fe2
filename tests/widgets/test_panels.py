"""Panels without a browser: each picture is the plain function's; the live panel's buttons drive
the run it shows.
"""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from catchup import Settings, fit
from catchup.experiments.live import LiveRun
from catchup.inspection import observe
from catchup.mixers import make
from catchup.plots.cards import activation_card, filter_card, live_card, playground_card
from catchup.training.trainer import dataset_of, model_of
from catchup.widgets import activation_explorer, filter_browser, lam_playground, live_panel, panels
from catchup.widgets.controls import as_png
from catchup.widgets.panels import DPI
from conftest import TinyNet

SMALL = Settings(subset=5, width=4, epochs=3, batch_size=10, lr=0.05)  # 5 steps an epoch
# what can be pressed
STATES = {
    "ready": {"start"},
    "running": {"pause", "stop"},
    "paused": {"start", "stop"},
    "stopped": {"start"},
    "finished": set(),
    "failed": {"start"},
}


@pytest.fixture(scope="module")
def store():
    """Three epochs of a model whose blocks have 6, 6 and 8 filters."""
    models = {}
    for epoch in (0, 2, 5):
        torch.manual_seed(epoch)
        models[epoch] = TinyNet()
    rows = [
        {
            "epoch": epoch,
            "block": "layer1",
            "filter": f,
            "norm": (f + 1.0) * epoch,
            "map_gradient": 0.1 * f / epoch,
        }
        for epoch in (1, 2, 5)
        for f in range(6)
    ]
    images = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return observe(models, images, rows=rows, classes="abcde")


@pytest.fixture(scope="module")
def digits():
    digits = dataset_of(SMALL)
    return replace(digits, test=digits.test.take(range(60)))


def shows(panel, figure) -> bool:
    assert not panel.error, panel.traceback
    return panel.image.value == as_png(figure, DPI)


def moved(panel, **values) -> bytes:
    """The new picture, which has to differ from the one before."""
    before = panel.image.value
    panel.set(**values)
    assert panel.image.value != before, f"{values} change nothing"
    return panel.image.value


# -- what needs no run -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_filter_browser_shows_the_filter_card(store):
    panel = filter_browser(store, block="layer1", filter=4)
    assert shows(panel, filter_card(store, "layer1", 4, "common"))
    norms = store.at(5, "layer1").norms.mean(dim=0).tolist()
    place = 1 + sum(norm > norms[4] for norm in norms)
    said = (
        f"Filter 4 of 6 in layer1: mean norm {norms[4]:.3g} at epoch 5, place {place} by strength."
    )
    assert panel.description == said
    for values in ({"filter": 2}, {"scale": "own"}, {"block": "stem"}):
        moved(panel, **values)
    assert shows(panel, filter_card(store, "stem", 2, "own")) and panel.description.startswith(
        "Filter 2 of 6 in stem"
    )
    panel.set(block="layer2", scale="common")
    assert filter_browser(store).image.value == moved(panel, filter=0), (
        "it starts with the last block"
    )


@pytest.mark.slow
def test_beyond_a_blocks_filters_the_last_one_is_shown(store):
    panel = filter_browser(store, filter=7)
    assert panel.description.startswith("Filter 7 of 8 in layer2")
    panel.set(block="layer1")
    assert shows(panel, filter_card(store, "layer1", 5)) and panel.description.startswith(
        "Filter 5 of 6 in layer1"
    )
    panel.set(block="layer2")
    assert panel.description.startswith("Filter 7 of 8 in layer2"), "the slider stayed where it was"


@pytest.mark.slow
def test_the_activation_explorer_shows_the_activation_card(store):
    panel = activation_explorer(store, block="layer1", image=2)
    assert shows(panel, activation_card(store, "layer1", 5, 2, "own")), (
        "it starts at the last epoch"
    )
    for values in ({"epoch": 1}, {"image": 3}, {"scale": "common"}, {"block": "layer2"}):
        moved(panel, **values)
    assert shows(panel, activation_card(store, "layer2", 2, 3, "common"))
    assert (
        panel.description
        == "layer2 at epoch 2, image 3: the 8 strongest of 8 filters hold 100 % of the norm."
    )
    assert panel.controls.controls["epoch"].spec("epoch")["texts"] == ["0", "2", "5"]


@pytest.mark.slow
def test_the_ten_strongest_hold_their_share():
    torch.manual_seed(0)
    store = observe({0: TinyNet(width=20)}, torch.rand(2, 3, 12, 12), ["stem"])
    norms = sorted(store.at(0, "stem").norms[1].tolist(), reverse=True)
    said = (
        "stem at epoch 0, image 1: the 10 strongest of 20 filters hold"
        f" {100 * sum(norms[:10]) / sum(norms):.0f} %"
    )
    assert activation_explorer(store, image=1).description == f"{said} of the norm."


@pytest.mark.slow
def test_the_playground_shows_the_playground():
    panel = lam_playground()
    assert shows(panel, playground_card(1.0, 0.5, 64))
    assert panel.description == "α 1, λ 0.50: 32 of 64 filters stay, labels 0.50 and 0.50."
    for values in ({"lam": 0.29}, {"alpha": 0.2}, {"channels": 512}):
        moved(panel, **values)
    assert shows(panel, playground_card(0.2, 0.29, 512))
    assert panel.description == "α 0.2, λ 0.29: 148 of 512 filters stay, labels 0.29 and 0.71."
    ours, theirs = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    panel = lam_playground(ours, theirs, alpha=5, lam=0.3)
    assert (
        shows(panel, playground_card(5.0, 0.3, 64, ours, theirs))
        and panel.image.value != lam_playground().image.value
    )


@pytest.mark.slow
def test_what_cannot_be_drawn_is_said_in_the_panel(store, monkeypatch):
    panel = lam_playground(torch.zeros(3, 4, 4), torch.zeros(3, 5, 5))
    assert panel.error == "ValueError: image and partner need one size, got (4, 4) and (5, 5)"
    for name, make_panel, move in (
        ("filter_card", filter_browser, {"filter": 1}),
        ("activation_card", activation_explorer, {"image": 1}),
    ):
        panel = make_panel(store)
        before, card = panel.image.value, getattr(panels, name)
        monkeypatch.setattr(panels, name, lambda *_: 1 / 0)
        panel.set(**move)
        assert panel.error == "ZeroDivisionError: division by zero" and panel.image.value == before
        assert "in card" in panel.traceback
        monkeypatch.setattr(panels, name, card)
        panel.redraw()
        assert not panel.error and panel.image.value != before


@pytest.mark.parametrize(
    "make_panel, sentence",
    [
        (lambda store: filter_browser(store, block="layer3"), "Did you mean"),
        (lambda store: filter_browser(store, filter=8), "must lie in 0 … 7, got 8"),
        (
            lambda store: activation_explorer(store, block="x"),
            "Choose one of: stem, layer1, layer2",
        ),
        (lambda store: activation_explorer(store, image=-1), "must lie in 0 … 3, got -1"),
        (lambda store: lam_playground(lam=1.5), "must lie in 0 … 1, got 1.5"),
        (lambda store: lam_playground(alpha=3), "unknown α '?3.0"),
    ],
)
def test_a_wrong_start_is_refused(store, make_panel, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_panel(store)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_panel, move",
    [
        (filter_browser, {"filter": 3}),
        (activation_explorer, {"epoch": 0}),
        (lambda _: lam_playground(), {"lam": 0.1}),
    ],
)
def test_run_twice_both_work_and_closing_the_first_leaves_the_second(store, make_panel, move):
    first, second = make_panel(store), make_panel(store)
    assert first.image.value == second.image.value
    assert moved(first, **move) != second.image.value, "each has its own values"
    first.close()
    assert moved(second, **move) == first.image.value


# -- the live panel --------------------------------------------------------------------------------


def live(digits, method="catchup", **options) -> LiveRun:
    mixer = make(method, seed=0) if isinstance(method, str) else method
    return LiveRun(
        model_of(SMALL, digits), mixer, digits, SMALL, **{"interval_s": 60.0, "every": 1, **options}
    )


def until(condition, timeout_s=20.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def pressable(panel) -> set[str]:
    return {
        name for name in ("start", "pause", "stop") if f"run/{name}" not in panel.controls.disabled
    }


def broken(after):
    """A method whose loss fails after so many steps."""

    class Broken(type(make("baseline"))):
        steps = 0

        def loss(self, *args, **options):
            Broken.steps += 1
            if Broken.steps > after:
                raise RuntimeError("no loss today")
            return super().loss(*args, **options)

    return Broken(seed=0)


@pytest.mark.slow
def test_its_picture_is_the_live_card_at_every_stage(digits):
    run = live(digits)
    panel = live_panel(run, block="layer2")
    assert (
        shows(panel, live_card([], []))
        and panel.description == "Not started. Step 0 of ?, 0 of 3 epochs."
    )
    panel.press("run", "start")
    run.wait()
    losses = [loss for _, loss in run.losses]
    last = [row for row in run.histograms() if row["block"] == "layer2"][-1]
    assert (
        last["epoch"] == 3 and len(losses) == 15 and shows(panel, live_card(run.rows, losses, last))
    )
    error = run.rows[-1]["val_error_percent"]
    assert (
        panel.description
        == f"Finished. Step 15 of 15, 3 of 3 epochs. Validation error {error:.1f} %."
    )
    other = live_panel(run)
    assert (
        shows(other, live_card(run.rows, losses, run.histograms()[-1]))
        and other.image.value != panel.image.value
    )


@pytest.mark.slow
def test_the_buttons_follow_the_states_and_drive_the_run(digits):
    run = live(digits, interval_s=0.0)
    panel, told, pictures = live_panel(run), [], set()
    changed = run.on_change

    def watched(run):
        changed(run)
        told.append((run.state, pressable(panel), panel.description.split(".")[0]))
        pictures.add(panel.image.value)

    run.on_change = watched
    assert pressable(panel) == STATES["ready"]
    panel.press("run", "start")
    until(lambda: len(run.losses) >= 2)
    panel.press("run", "pause")
    until(lambda: told[-1][0] == "paused")
    step = run.step
    time.sleep(0.1)
    assert run.step == step and panel.description.startswith(f"Paused. Step {step} of 15")
    panel.press("run", "start")
    until(lambda: run.step > step)
    panel.press("run", "stop")
    run.wait()
    assert run.state == "stopped" and panel.description.startswith(
        "Stopped; start goes on from here. Step "
    )
    panel.press("run", "start")
    assert run.wait().finished and len(pictures) >= 15
    assert {state for state, _, _ in told} == {"running", "paused", "stopped", "finished"}
    for state, buttons, said in told:
        assert buttons == STATES[state] and panels.STATES[state].startswith(said)
    assert panel.values == {"run": {"start": 3, "pause": 1, "stop": 1}} and not panel.error


@pytest.mark.slow
def test_going_on_is_told_at_once(digits):
    run = live(digits)
    panel = live_panel(run)
    panel.press("run", "start")
    panel.press("run", "pause")
    until(lambda: pressable(panel) == STATES["paused"])
    states, changed = [], run.on_change
    run.on_change = lambda run: (states.append(run.state), changed(run))
    panel.press("run", "start")
    run.wait()
    assert states == ["running", "finished"]


@pytest.mark.slow
def test_a_run_that_fails_shows_why_and_can_be_tried_again(digits):
    run = live(digits, broken(after=2))
    panel = live_panel(run)
    panel.press("run", "start")
    until(lambda: not run._alive())
    assert panel.error == "RuntimeError: no loss today" and "in loss" in panel.traceback
    assert (
        panel.description.startswith("Failed. Step 2 of 15")
        and pressable(panel) == STATES["failed"]
    )
    assert live_panel(run).error == panel.error, "a panel that comes later says it too"
    run.mixer = make("baseline", seed=0)
    panel = live_panel(run)
    panel.press("run", "start")
    assert run.wait().finished and not panel.error and not panel.traceback
    assert [step for step, _ in run.losses] == list(range(1, 16)), (
        "the steps that failed are forgotten"
    )


@pytest.mark.slow
def test_pictures_that_fail_do_not_cost_the_run(digits, monkeypatch):
    expected = fit(
        model_of(SMALL, digits), make("catchup", seed=0), digits, SMALL, progress=False
    ).rows
    run = live(digits)
    panel = live_panel(run)
    before, card = panel.image.value, panels.live_card
    monkeypatch.setattr(panels, "live_card", lambda *_: {}["ink"])
    panel.press("run", "start")
    result = run.wait()
    assert result.finished and run.error is None and panel.error == "KeyError: 'ink'"
    assert panel.image.value == before and pressable(panel) == STATES["finished"]
    assert [row["train_loss"] for row in run.rows] == [row["train_loss"] for row in expected]
    monkeypatch.setattr(panels, "live_card", card)
    panel.redraw()
    assert not panel.error and panel.description.startswith("Finished.")


@pytest.mark.slow
def test_closed_while_it_trains_nothing_happens_to_the_run(digits, monkeypatch):
    run = live(digits, interval_s=0.0)
    panel = live_panel(run)
    panel.press("run", "start")
    panel.press("run", "pause")  # so that no picture is under way
    until(lambda: panel.description.startswith("Paused."))
    panel.close()
    drawn = []
    monkeypatch.setattr(panels, "live_card", lambda *_: drawn.append(run.step))
    assert run.start().wait().finished and run.error is None and not drawn


@pytest.mark.slow
def test_a_second_panel_takes_over_and_the_first_does_no_harm(digits):
    run = live(digits)
    first, second = live_panel(run), live_panel(run)
    second.press("run", "start")
    first.press("run", "start")
    run.wait()
    assert run.step == len(run.losses) == 15 and len(run.rows) == 3
    assert second.description.startswith("Finished.") and first.description.startswith(
        "Not started."
    )
    assert not first.error + second.error
    first.close()
    assert pressable(second) == set()


@pytest.mark.slow
def test_started_twice_it_is_one_run(digits):
    run = live(digits)
    panel, before = live_panel(run), threading.active_count()
    for _ in range(5):
        panel.press("run", "start")
    assert threading.active_count() <= before + 1
    assert run.wait().finished and [step for step, _ in run.losses] == list(range(1, 16))
    panel.press("run", "start")
    assert run.state == "finished" and run.step == 15


@pytest.mark.slow
def test_losses_that_were_thinned_out_stand_at_their_steps(digits, monkeypatch):
    monkeypatch.setattr("catchup.experiments.live.POINTS", 6)
    run = live(digits)
    panel = live_panel(run)
    run.start().wait()
    kept = dict(run.losses)
    assert sorted(kept) == [4, 8, 12]
    # each step by the next one that was kept
    losses = [kept[4 * -(-step // 4)] for step in range(1, 13)]
    assert (
        shows(panel, live_card(run.rows, losses, run.histograms()[-1]))
        and "Step 15 of 15" in panel.description
    )
    assert np.array_equal(panels._of_every_step([]), [])
