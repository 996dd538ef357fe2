"""benchmarks/gpu.sh: its commands are ones that there are, and in small they run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import method_cost, throughput
from benchmarks.command import call
from catchup import MIXERS
from catchup.cli import commands

ROOT = Path(__file__).parents[2]


def gpu(*arguments: str, **more: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(
        [ROOT / "benchmarks" / "gpu.sh", *arguments], env=env, capture_output=True, text=True
    )


def listed(part: str, **more: str) -> list[list[str]]:
    done = gpu("--list", part, **more)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(line[:2] == [sys.executable, "-m"] for line in lines)
    return [line[2:] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"DRY": "1"}], ids=["whole", "small"])
def test_every_command_is_one_that_there_is(more, monkeypatch):
    asked = []
    monkeypatch.setattr(throughput, "measure", lambda *given, **_: asked.append(given) or {})
    monkeypatch.setattr(throughput, "report", str)
    monkeypatch.setattr(method_cost, "measure_costs", lambda *given, **_: asked.append(given) or {})
    monkeypatch.setattr(method_cost, "report", str)
    (speed,) = listed("throughput", **more)
    assert speed[0] == "benchmarks.throughput" and call(throughput.main, "t", speed[1:]) == 0
    costs = listed("cost", **more)
    for cost in costs:
        assert cost[0] == "benchmarks.method_cost" and call(method_cost.main, "c", cost[1:]) == 0
    assert len(asked) == 1 + len(costs) and (more or len(costs) == len(MIXERS))
    ((module, *command),) = listed("main", **more)
    assert module == "catchup.cli" and commands._call(command).comparison.methods == (
        "baseline",
        "catchup",
    )
    ((module, *_, marked, _),) = listed("tests", **more)
    assert (module, marked) == ("pytest", "gpu")


@pytest.mark.slow
def test_a_part_that_there_is_not_is_refused():
    done = gpu("--list", "everything")
    assert done.returncode == 2 and "unknown part 'everything'" in done.stderr


@pytest.mark.slow
def test_it_runs_in_small_and_leaves_nothing(tmp_path):
    done = gpu("cost", "main", DRY="1", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "catchup − baseline" in done.stdout and not list(tmp_path.glob("tmp.*"))
