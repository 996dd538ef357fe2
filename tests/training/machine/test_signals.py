"""Ctrl-C and SIGTERM put off to the end of a step: nothing is lost, nothing is left behind,
handlers come back.
"""

import os
import random
import signal
import sys
import threading
import time

import endurance
import pytest
import torch
from endurance import handlers, network, weights
from kill_and_resume import ended, forked

from catchup import Settings, count_hooks, fit, train
from catchup.cli.commands import main
from catchup.mixers import make
from catchup.training import checkpoint
from catchup.training.folder import read_metrics
from catchup.training.machine.signals import TERMINATED, defer_signals
from catchup.training.trainer import dataset_of
from catchup.utils.files import read_json

TINY = Settings(
    subset=5, epochs=4, batch_size=5, lr=0.05, device="cpu", precision="fp32", validate_every=100
)
ITSELF = os.getpid


@pytest.fixture(autouse=True)
def _usual_handlers():
    """Another test of this process may have left handlers of its own (Ray sets one), which
    `defer_signals` would respect.
    """
    earlier = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for signum, handler in earlier.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="module")
def digits():
    data = dataset_of(TINY)
    return data.with_train(data.train)


@pytest.mark.slow
def test_sixty_interrupts_at_random_moments_change_nothing_and_leave_nothing(tmp_path):
    found = endurance.interrupts(trials=3, least=60, folder=tmp_path)
    assert found["interrupts"] >= 60 and found["identical"] == found["trials"] >= 3
    assert not any(
        found[key]
        for key in ("hooks_left", "handlers_changed", "left_over", "mode_changed", "rows_wrong")
    )


def test_an_interrupt_says_where_the_run_is_and_how_it_goes_on(digits, tmp_path):
    def kill(at):
        if at.step == 7:
            os.kill(ITSELF(), signal.SIGINT)

    with pytest.raises(
        KeyboardInterrupt, match=r"stopped after step 7 of 40; it is kept in .*: go on with resume"
    ):
        fit(
            network(),
            make("catchup", seed=0, layers=(0,)),
            digits,
            TINY,
            progress=False,
            on_step=kill,
            out=tmp_path,
        )
    seen = []
    fit(
        network(),
        make("catchup", seed=0, layers=(0,)),
        digits,
        TINY,
        progress=False,
        out=tmp_path,
        resume=True,
        on_step=lambda at: seen.append(at.step) or at.step == 9,
    )
    assert seen == [8, 9]
    with pytest.raises(KeyboardInterrupt, match="stopped after step 7 of 40; no folder keeps it"):
        fit(network(), make("baseline", seed=0), digits, TINY, progress=False, on_step=kill)


def test_an_interrupt_during_a_validation_is_heard_there(digits, tmp_path, monkeypatch):
    """The training of the epoch is kept; its measurement is made again."""
    from catchup.training import validation

    predict = validation.predict

    def slow(*arguments, **options):
        os.kill(ITSELF(), signal.SIGINT)
        return predict(*arguments, **options)

    short = Settings(**{**vars(TINY), "epochs": 2})
    whole = fit(network(), make("catchup", seed=0, layers=(0,)), digits, short, progress=False)
    model = network()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(validation, "predict", slow)
        fit(
            model, make("catchup", seed=0, layers=(0,)), digits, short, progress=False, out=tmp_path
        )
    assert read_metrics(tmp_path) == [] and model.training
    again = fit(
        model,
        make("catchup", seed=0, layers=(0,)),
        digits,
        short,
        progress=False,
        out=tmp_path,
        resume=True,
    )
    assert torch.equal(weights(again.model), weights(whole.model))


def test_sigterm_saves_and_leaves_with_143(digits, tmp_path):
    before = handlers()

    def kill(at):
        if at.step == 3:
            os.kill(ITSELF(), signal.SIGTERM)
            os.kill(ITSELF(), signal.SIGTERM)  # launchers repeat it

    with pytest.raises(SystemExit) as left:
        fit(
            network(),
            make("baseline", seed=0),
            digits,
            TINY,
            progress=False,
            on_step=kill,
            out=tmp_path,
        )
    assert left.value.code == 143 and handlers() == before
    seen = []
    fit(
        network(),
        make("baseline", seed=0),
        digits,
        TINY,
        progress=False,
        out=tmp_path,
        resume=True,
        on_step=lambda at: seen.append(at.step) or True,
    )
    assert seen == [4]


def test_train_keeps_no_result_of_a_run_that_was_stopped(tmp_path, monkeypatch):
    from catchup.training import loop

    settings = Settings(subset=5, width=2, epochs=1, batch_size=25, device="cpu", precision="fp32")
    step = loop.TrainingRun._step

    def killed(*arguments):
        os.kill(ITSELF(), signal.SIGTERM)
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(loop.TrainingRun, "_step", killed)
        train(settings, tmp_path / "run", progress=False)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
        "run.json",
    ]
    assert "result" not in read_json(tmp_path / "run" / "run.json")
    train(settings, tmp_path / "run", resume=True, progress=False)
    assert "result" in read_json(tmp_path / "run" / "run.json")


@pytest.mark.slow
def test_the_command_line_ends_with_143_and_its_run_goes_on(tmp_path):
    out = tmp_path / "run"
    command = [
        "train",
        "--out",
        str(out),
        "--device",
        "cpu",
        "--subset",
        "5",
        "--width",
        "2",
        "--epochs",
        "2000",
        "--batch-size",
        "10",
    ]

    def work():
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        raise SystemExit(main(command))

    child, end = forked(work), time.monotonic() + 240
    while not (out / "metrics.jsonl").exists() or not read_metrics(out):
        assert time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.05)
    os.kill(child, signal.SIGTERM)
    assert ended(child) == 143
    state, kept = checkpoint.load(out / "checkpoint.pt"), read_metrics(out)
    assert state["epoch"] == len(kept) >= 1 and sorted(path.name for path in out.iterdir()) == [
        "checkpoint.pt",
        "metrics.jsonl",
        "run.json",
    ]


def test_errors_at_200_places_of_a_hooked_step_leave_the_model_as_it_was():
    """Raised between two lines of the package's Python, in the mixing as well as around it."""
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6)
    model, rng, raised = network(), random.Random(0), 0
    plain = model(images)
    while raised < 200:
        mixer = make(
            "catchup",
            seed=rng.randrange(99),
            layers=(1, 2),
            blocks=("layer1", "layer2"),
            regularisers=("dropblock:block=2",),
        )
        try:
            _lines(
                lambda mixer=mixer: mixer.loss(model, images, labels), stop_at=rng.randrange(1, 250)
            )
        except InterruptedError:
            raised += 1
        assert count_hooks(model) == 0
    assert torch.equal(model(images), plain)


def _lines(work, stop_at=None) -> int:
    """Number of lines of the package's Python that `work` runs; an InterruptedError is raised in
    one of them.
    """
    seen = 0

    def trace(frame, event, _argument):
        nonlocal seen
        if os.sep + "catchup" + os.sep not in frame.f_code.co_filename:
            return None
        if event == "line":
            seen += 1
            if stop_at is not None and seen >= max(1, stop_at):
                sys.settrace(None)
                raise InterruptedError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return seen


# -- the block itself ------------------------------------------------------------------------------


def test_the_earlier_handlers_are_back_and_the_signal_takes_effect_on_leaving():
    before, reached = handlers(), []
    with pytest.raises(KeyboardInterrupt):
        with defer_signals() as asked:
            assert handlers() != before and not asked
            os.kill(ITSELF(), signal.SIGINT)
            reached.append(bool(asked))
    assert reached == [True] and handlers() == before
    with defer_signals():
        pass
    assert handlers() == before


def test_a_second_ctrl_c_breaks_through_unless_a_launcher_repeats_it():
    before = handlers()
    with pytest.raises(KeyboardInterrupt, match="second Ctrl-C"):
        with defer_signals():
            os.kill(ITSELF(), signal.SIGINT)
            os.kill(ITSELF(), signal.SIGINT)
            pytest.fail("not reached")
    assert handlers() == before
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with defer_signals(patient=True):
            os.kill(ITSELF(), signal.SIGINT)
            os.kill(ITSELF(), signal.SIGINT)
            reached.append(True)
    assert reached


@pytest.mark.parametrize(
    ("signum", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_outweighs_an_error_which_stays_visible(signum, raised):
    with pytest.raises(raised) as found:
        with defer_signals():
            os.kill(ITSELF(), signum)
            raise FloatingPointError("also")
    assert isinstance(found.value.__context__, FloatingPointError)
    with pytest.raises(FloatingPointError):
        with defer_signals():
            raise FloatingPointError("alone")


def test_sigterm_outweighs_ctrl_c_in_either_order():
    for order in ((signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)):
        with pytest.raises(SystemExit) as left, defer_signals():
            for signum in order:
                os.kill(ITSELF(), signum)
        assert left.value.code == TERMINATED == 143


def test_nested_blocks_share_what_was_asked_and_raise_once():
    before, reached = handlers(), []
    with defer_signals() as outer:
        own = handlers()
        with pytest.raises(KeyboardInterrupt):
            os.kill(ITSELF(), signal.SIGINT)
            with defer_signals() as inner:
                assert inner is outer and inner and handlers() == own
        reached.append(bool(outer))  # it was raised once, and somebody has dealt with it
        assert handlers() == own
    assert reached == [False] and handlers() == before


def test_what_is_ignored_or_anothers_stays_so(monkeypatch):
    others = lambda *_: None  # noqa: E731
    before = handlers()
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, others)
        with defer_signals() as asked:
            assert handlers() == (signal.SIG_IGN, others)
            os.kill(ITSELF(), signal.SIGINT)
            os.kill(ITSELF(), signal.SIGTERM)
            assert not asked
        assert handlers() == (signal.SIG_IGN, others)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # a handler set by C code
    with defer_signals():
        monkeypatch.undo()
        assert handlers() == before


def test_in_another_thread_nothing_is_put_off():
    before, seen = handlers(), []

    def work():
        with defer_signals() as asked:
            seen.append((handlers(), bool(asked)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
