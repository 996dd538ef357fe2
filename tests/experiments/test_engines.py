"""Engines with small jobs: every job answered once, whatever is killed; nothing left behind; bad
names refused.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
import work

from catchup.experiments import engines
from catchup.experiments.engines import Lost, here

TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module", autouse=True)
def _quick_start():
    """Processes forked from one that has imported torch: the same in all that is tested here,
    without the seconds that each import takes. What begins anew is tested once, below.
    """
    before = here.START
    here.START = "forkserver"
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["catchup.experiments.compare", "work"]
    )
    yield
    here.START = before


def answers(engine: str, what, jobs, folder) -> dict:
    found = list(engines.run_jobs(engines.make_engine(engine), what, jobs, folder))
    assert len(found) == len({number for number, _ in found}) == len(jobs)
    return dict(found)


def lines(folder: Path, pattern: str) -> list[int]:
    return [int(line) for path in folder.glob(pattern) for line in path.read_text().splitlines()]


def alive(pid: int) -> bool:
    """Does it run? A process that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def within(seconds: float, what) -> bool:
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_this_process_does_one_after_the_other(tmp_path):
    jobs = [(str(tmp_path), number, 0) for number in range(3)]
    found = answers("local", work.noted, jobs, tmp_path)
    assert found == {number: (number, os.getpid()) for number in range(3)}


@pytest.mark.parametrize(
    ("cores", "gpu", "engine"),
    [
        (1, False, engines.Local()),
        (2, False, engines.Pool(jobs=2, threads=1)),
        (16, False, engines.Pool(jobs=16, threads=1)),
        (16, True, engines.Local()),
    ],
)
def test_the_usual_engine_uses_every_processor_or_the_gpu(cores, gpu, engine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    assert engines.make_engine("auto") == engine


@pytest.mark.slow
def test_a_pool_works_in_the_callers_folder_on_its_share_of_the_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    for engine, threads in (("pool:jobs=2", 3), ("pool:jobs=2,threads=1", 1)):
        (found,) = answers(engine, work.surroundings, [None], tmp_path).values()
        assert found.pop("pid") != os.getpid()
        assert found == {"folder": str(tmp_path), "threads": threads, "ignores_ctrl_c": True}
    assert (
        engines.make_engine("pool").at_once == 6 and engines.make_engine("pool:jobs=3").at_once == 3
    )


@pytest.mark.slow
def test_eight_processes_do_every_job_once_while_some_are_killed(tmp_path):
    """R15: 40 jobs, 8 processes, six of them killed from outside and four by their own jobs."""
    jobs, killed = [(str(tmp_path), number, 0.05) for number in range(40)], []

    def kill():
        for _ in range(6):
            time.sleep(0.15)
            busy = [
                path
                for path in tmp_path.glob("begun-*")
                if not (tmp_path / path.name.replace("begun", "done")).exists()
            ]
            pids = [int(path.read_text().split()[-1]) for path in busy if path.read_text()]
            if pids and alive(pids[0]):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

    hunter = threading.Thread(target=kill)
    hunter.start()
    started = time.monotonic()
    found = answers("pool:jobs=8", work.noted, jobs, tmp_path)
    hunter.join()
    assert {number: answer[0] for number, answer in found.items()} == {
        number: number for number in range(40)
    }
    assert killed and not set(killed) & {process for _, process in found.values()} - set(
        lines(tmp_path, "done-*")
    )
    done = Counter({number: len(lines(tmp_path, f"done-{number}")) for number in range(40)})
    begun = Counter({number: len(lines(tmp_path, f"begun-{number}")) for number in range(40)})
    lost = sum(begun.values()) - sum(done.values())
    # taken up again only where it was cut off
    assert min(done.values()) == 1 and lost <= len(killed)
    # a kill between a job's end and its answer repeats it
    assert sum(done.values()) - 40 <= len(killed) - lost
    assert time.monotonic() - started < 60
    assert within(10, lambda: not any(map(alive, lines(tmp_path, "begun-*"))))


@pytest.mark.slow
def test_a_job_that_always_dies_is_given_up_and_the_others_are_not(tmp_path):
    jobs = [(str(tmp_path), number, 0) for number in (1, 0, 0)]
    found = answers("pool:jobs=2", work.always_dies, jobs, tmp_path)
    assert isinstance(found[0], Lost) and "ended without an answer" in str(found[0])
    assert [found[1][0], found[2][0]] == [0, 0]
    assert len(lines(tmp_path, "begun-1")) == engines.ATTEMPTS


def test_leaving_early_ends_the_processes(tmp_path):
    jobs = [(str(tmp_path), 0, 0), (str(tmp_path), 1, 60), (str(tmp_path), 2, 60)]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in engines.run_jobs(engines.make_engine("pool:jobs=2"), work.noted, jobs, tmp_path):
            within(10, (tmp_path / "begun-2").exists)
            raise KeyboardInterrupt
    assert (
        within(10, lambda: not any(map(alive, lines(tmp_path, "begun-*"))))
        and time.monotonic() - started < 30
    )
    assert [path.name for path in tmp_path.glob("done-*")] == ["done-0"]


@pytest.mark.slow
def test_processes_that_begin_anew_end_with_a_coordinator_that_is_killed(tmp_path):
    """kill -9 of the one that hands out the jobs: nobody is left at work, so that it can be called
    again.
    """
    script = tmp_path / "call.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {TESTS!r})
import work
from pathlib import Path
from catchup.experiments import engines

if __name__ == "__main__":
    jobs = [({str(tmp_path)!r}, 0, 0), ({str(tmp_path)!r}, 1, 100)]
    pool = engines.make_engine("pool:jobs=1")
    for number, answer in engines.run_jobs(pool, work.noted, jobs, Path()):
        print(number, answer, flush=True)
""")
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True
    ) as coordinator:
        first = coordinator.stdout.readline()
        assert within(60, (tmp_path / "begun-1").exists) and first.startswith("0 (0, ")
        (worker,) = lines(tmp_path, "begun-1")
        assert alive(worker) and worker != coordinator.pid
        coordinator.kill()
        coordinator.wait()
        assert within(10, lambda: not alive(worker))


def test_each_process_has_one_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [here._gpus(count) for count in (0, 1, 3)] == [[], [], ["0", "1", "2"]]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    assert here._gpus(2) == ["5", "7"]
    monkeypatch.setattr(here.signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        here.threading, "Thread", lambda **_: type("", (), {"start": lambda self: None})()
    )
    here._begin(None, "7")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slrum", "unknown engine 'slrum'. Did you mean 'slurm'?"),
        ("pool:job=2", "unknown setting of pool 'job'"),
        ("local:jobs=2", "the engine local has no settings"),
        ("pool:jobs=0", "jobs must be a whole number of at least 1"),
        ("pool:jobs=two", "jobs must be a whole number"),
        ("pool:jobs=true", "got True"),
        ("pool:2", "an engine is"),
        ("pool:jobs=1.5", "got 1.5"),
        ("slurm:hours=0", "hours must be a number of at least 0.02, got 0"),
        ("slurm:gpus=-1", "gpus"),
        ("slurm:cluster=pbs", "unknown cluster 'pbs'"),
        ("ray:cpus=0", "cpus"),
    ],
)
def test_unknown_engines_and_settings_are_refused(text, words):
    with pytest.raises(ValueError) as error:
        engines.make_engine(text)
    assert words in str(error.value)


def test_what_an_engine_needs_is_asked_first(monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="needs the command sbatch.*slurm:cluster=local"):
        engines.make_engine("slurm").check()
    engines.make_engine("slurm:cluster=local").check()
    for engine, package, extra in (("slurm", "submitit", "cluster"), ("ray", "ray", "ray")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            ImportError,
            match=rf"needs the package {package}: from a clone, pip install -e '\.\[{extra}\]'",
        ):
            engines.make_engine(engine).check()


def test_slurm_is_told_what_the_settings_say():
    engine = engines.make_engine(
        "slurm:partition=gpu,account=lab,hours=1.5,gpus=1,cpus=4,memory_gb=8,jobs=20"
    )
    assert engine.parameters() == {
        "name": "catchup",
        "timeout_min": 90,
        "gpus_per_node": 1,
        "cpus_per_task": 4,
        "mem_gb": 8,
        "slurm_partition": "gpu",
        "slurm_account": "lab",
        "slurm_array_parallelism": 20,
    }
    assert engines.make_engine("slurm").parameters() == {
        "name": "catchup",
        "timeout_min": 240,
        "gpus_per_node": 0,
    }


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM of three scripts, which note how they were called."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, says in (
        ("sbatch", "Submitted batch job 12"),
        ("scancel", ""),
        ("srun", ""),
        ("sacct", ""),
    ):
        (place / name).write_text(f'#!/bin/sh\necho "$@" >> {place}/{name}.log\necho {says}\n')
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)
    return place


def test_slurm_is_handed_an_array_and_what_has_not_answered_is_taken_back(tmp_path, slurm):
    pytest.importorskip("submitit")
    engine = engines.make_engine("slurm:partition=gpu,gpus=1,jobs=3")
    engine.check()
    with engine.crew(work.noted, tmp_path) as crew:
        tickets = crew.start([(str(tmp_path), number, 0) for number in range(5)])
        assert [ticket.job_id for ticket in tickets] == [f"12_{number}" for number in range(5)]
        script = next(tmp_path.rglob("*.sh"))
        # one call for all five
        assert crew.at_once == 1000 and len((slurm / "sbatch.log").read_text().split()) == 1
    for line in (
        "--array=0-4%3",
        "--partition=gpu",
        "--gpus-per-node=1",
        "--time=240",
        "--job-name=catchup",
    ):
        assert f"#SBATCH {line}\n" in script.read_text()
    assert sorted((slurm / "scancel.log").read_text().split()) == [
        f"12_{number}" for number in range(5)
    ]


def test_a_job_whose_time_is_up_is_queued_again_as_it_is(tmp_path):
    submitit = pytest.importorskip("submitit")
    task = engines.Task(work.noted, str(tmp_path), 2)
    again = task.checkpoint((str(tmp_path), 1, 0))
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function == task and again.args == ((str(tmp_path), 1, 0),)


@pytest.mark.slow
def test_submitit_takes_up_a_killed_job_again(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit.local.local.LocalJob, "_results_timeout_s", 1)
    monkeypatch.setenv("PYTHONPATH", TESTS)
    found = answers("slurm:cluster=local", work.dies_once, [(str(tmp_path), 1, 0)], tmp_path)
    assert (
        found[0][0] == 1
        and len(lines(tmp_path, "begun-1")) == 2
        and len(lines(tmp_path, "done-1")) == 1
    )
    assert any((tmp_path / ".submitit").iterdir())


class StandIn:
    """As much of Ray as an engine uses, done at once in this process; what is to die does so when
    it is asked for.
    """

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args, **options: self.calls.append((name, args, options))

    def is_initialized(self):
        return False

    def remote(self, **options):
        self.calls.append(("remote", (), options))
        return lambda function: type(
            "Remote", (), {"remote": staticmethod(lambda *args: (function, args))}
        )

    def wait(self, tickets, num_returns):
        return tickets[:num_returns], tickets[num_returns:]

    def get(self, ticket):
        function, (task, job) = ticket
        if job == "dies":
            raise self.exceptions.RayError("The worker died unexpectedly\nwith a long log")
        return function(task, job)


def test_ray_is_told_what_the_settings_say(tmp_path, monkeypatch):
    """With a stand-in: which calls are made. That Ray itself takes them is the next test, where Ray
    can start.
    """
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    found = answers("ray:address=auto,gpus=0.5,jobs=3", work.surroundings, [None, "dies"], tmp_path)
    assert found[0]["pid"] == os.getpid() and "The worker died unexpectedly)" in str(found[1])
    (_, _, start), (_, _, options) = ray.calls[:2]
    assert start == {"address": "auto", "include_dashboard": None, "log_to_driver": True}
    assert options == {"num_cpus": 1, "num_gpus": 0.5, "max_retries": 0}
    assert [name for name, *_ in ray.calls] == ["init", "remote", "shutdown"]
    with (
        pytest.raises(KeyboardInterrupt),
        engines.make_engine("ray:jobs=3,cpus=2").crew(work.surroundings, tmp_path) as crew,
    ):
        (ticket,) = crew.start(["long"])
        raise KeyboardInterrupt
    assert ray.calls[3][2] == {
        "address": None,
        "include_dashboard": False,
        "log_to_driver": True,
        "num_cpus": 6,
    }
    assert ray.calls[-2:] == [("cancel", (ticket,), {"force": True}), ("shutdown", (), {})]


def test_two_workers_of_ray(tmp_path, monkeypatch):
    """Two jobs on an instance of our own, one of which dies the first time."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", TESTS)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # which options there are, it knows without a start
    ray.remote(num_cpus=1, num_gpus=0.5, max_retries=0)(work.noted)
    try:
        ray.init(num_cpus=2, include_dashboard=False)
    except Exception as error:
        # its own limit of 15 s for its agents is not enough on a busy machine
        pytest.skip(f"Ray does not start here: {error}")
    try:
        jobs = [(str(tmp_path), number, 0) for number in range(2)]
        found = answers("ray:jobs=2", work.dies_once, jobs, tmp_path)
        assert ray.is_initialized()  # it was there before
    finally:
        ray.shutdown()
    assert [found[number][0] for number in range(2)] == [0, 1] and found[0][1] != os.getpid()
    assert len(lines(tmp_path, "begun-1")) == 2 and len(lines(tmp_path, "done-1")) == 1
