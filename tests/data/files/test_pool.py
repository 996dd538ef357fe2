"""The processes that work ahead: the order of the results, how far ahead, and that none of them is
left behind.
"""

import gc
import multiprocessing
import os
import signal
import threading
import time
import warnings
from contextlib import closing
from multiprocessing import active_children

import numpy as np
import psutil
import pytest

from catchup.data.files import pool
from catchup.data.files.pool import AHEAD, can_share, map_ahead, shared_memory, usual_workers

pytestmark = pytest.mark.slow


def slow_square(number):
    time.sleep(0.02 * (number % 3))  # the later ones of three are done before the first
    return number**2


def who(_):
    return os.getpid()


def picky(number):
    if number == 5:
        raise ValueError("five is not to my taste")
    return number


@pytest.fixture(autouse=True)
def nobody_is_left():
    gc.collect()
    before = {one.pid for one in active_children()}
    yield
    assert {one.pid for one in active_children()} <= before


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 11])
def test_the_order_is_that_of_the_tasks(workers, count):
    assert list(map_ahead(slow_square, range(count), workers)) == [
        number**2 for number in range(count)
    ]


def test_the_work_is_done_elsewhere_and_ahead_by_so_much():
    taken = []

    def tasks():
        for number in range(50):
            taken.append(number)
            yield number

    with closing(map_ahead(who, tasks(), 2)) as results:
        pids = [next(results) for _ in range(3)]
        assert os.getpid() not in pids
        assert len(taken) <= 3 + 2 * AHEAD
    assert list(map_ahead(who, range(3), 0)) == [os.getpid()] * 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_in_its_turn(workers):
    results, seen = map_ahead(picky, range(10), workers), []
    with pytest.raises(ValueError, match="^five is not to my taste$"):
        for number in results:
            seen.append(number)
    assert seen == [0, 1, 2, 3, 4]


def test_an_interrupt_of_the_loop_ends_the_workers():
    with pytest.raises(KeyboardInterrupt), closing(map_ahead(who, range(20), 2)) as results:
        for pid in results:
            assert psutil.pid_exists(pid)
            raise KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_group_are_the_runs_business(number):
    """Ctrl-C reaches every process of the terminal's group, and a cluster's SIGTERM every process
    of the job.
    """
    with warnings.catch_warnings(), closing(map_ahead(slow_square, range(30), 2)) as results:
        warnings.simplefilter("error")
        assert next(results) == 0
        assert len(active_children()) == 2
        for one in active_children():
            os.kill(one.pid, number)
        assert list(results) == [number**2 for number in range(1, 30)]


def test_a_killed_worker_costs_a_warning_and_no_results():
    with closing(map_ahead(slow_square, range(40), 2)) as results:
        seen = [next(results)]
        active_children()[0].kill()
        with pytest.warns(RuntimeWarning, match=r"was killed \(was there too little memory"):
            seen += list(results)
    assert seen == [number**2 for number in range(40)]


@pytest.mark.slow
def test_workers_go_when_the_run_is_killed():
    def run(pipe):
        results = map_ahead(who, iter(range(10**9)), 2)
        pipe.send({next(results) for _ in range(30)})
        time.sleep(60)

    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=run, args=(theirs,))
    process.start()
    pids = ours.recv()
    assert pids and all(psutil.pid_exists(pid) for pid in pids)
    process.kill()
    process.join()
    end = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_workers_of_a_thread():
    """A notebook's run is a thread; only a main thread may set what signals do."""
    found = []
    thread = threading.Thread(target=lambda: found.extend(map_ahead(slow_square, range(9), 2)))
    thread.start()
    thread.join()
    assert found == [number**2 for number in range(9)]


def test_a_process_that_may_have_no_children_works_itself(monkeypatch):
    class Daemon:
        daemon = True

    monkeypatch.setattr(pool.multiprocessing, "current_process", Daemon)
    assert list(map_ahead(who, range(3), 2)) == [os.getpid()] * 3


def test_workers_write_where_the_run_reads():
    if not can_share(2):
        pytest.skip("processes are not forked here")
    slots = shared_memory((4, 5))

    def write(number):
        slots[number] = number + 1

    assert list(map_ahead(write, range(4), 2)) == [None] * 4
    assert np.array_equal(slots, np.arange(1, 5, dtype=np.uint8)[:, None].repeat(5, 1))


@pytest.mark.parametrize(
    ("cores", "processes", "expected"),
    [
        (1, None, 0),
        (2, None, 1),
        (8, None, 7),
        (64, None, pool.MOST),
        (8, "4", 1),
        (8, "8", 0),
        (4, "8", 0),
    ],
)
def test_as_many_workers_as_there_are_processors_but_one(monkeypatch, cores, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert usual_workers() == expected
