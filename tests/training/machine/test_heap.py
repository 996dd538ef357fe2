"""Freed memory stays while it is to be kept, goes back afterwards, and changes nothing that is
computed.
"""

import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from catchup.training.machine import heap

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
glibc = pytest.mark.skipif(
    heap._glibc() is None
    or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 35)
    or HUGE.is_file()
    and "[always]" in HUGE.read_text(),
    reason=(
        "the C library is not glibc 2.35 or newer, its limits are set already, or all pages are"
        " huge"
    ),
)

FAULTS = """
import resource, sys, torch
from contextlib import nullcontext
from catchup.training.machine import heap

def work():
    torch.ones(10 * 2**20)  # 40 MiB, more than glibc ever keeps of itself

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
with heap.kept() if sys.argv[1] == "kept" else nullcontext():
    faults(3)
    print(faults(30), resource.getpagesize())
"""

RESIDENT = """
import resource, torch
from catchup.training.machine import heap

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

before = resident()
with heap.kept():
    torch.ones(50 * 2**20)  # 200 MiB
    held = resident()
print(before, held, resident())
"""


class Libc:
    """Notes what it is told."""

    def __init__(self):
        self.told, self.refused = [], ()

    def mallopt(self, limit, size):
        self.told.append((limit, size))
        return int(size not in self.refused)

    def malloc_trim(self, left):
        self.told.append(("trim", left))


@pytest.fixture
def libc(monkeypatch):
    """Stands in for the C library, once no run of another test is still ending in its thread."""
    for thread in threading.enumerate():
        if thread.name == "catchup-live":
            thread.join(60)
    noted = Libc()
    monkeypatch.setattr(heap, "_glibc", lambda: noted)
    return noted


@pytest.mark.slow
@glibc
def test_what_is_kept_is_not_asked_for_again():
    """The kernel's own count of the pages it handed over, in processes that do nothing else."""
    counts = {}
    for how in ("returned", "kept"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
        )
        counts[how], page = map(int, done.stdout.split())
    assert counts["returned"] >= 30 * 40 * 2**20 / page, (
        "glibc was expected to give large blocks back"
    )
    assert counts["kept"] < counts["returned"] / 4


@pytest.mark.slow
@glibc
def test_afterwards_the_memory_is_the_systems_again():
    """In a process of its own: another thread that trains would go on keeping it."""
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True
    )
    before, held, after = map(int, done.stdout.split())
    assert held - before > 150 * 2**20 and after - before < 20 * 2**20


def test_the_last_block_to_end_gives_back(libc):
    with heap.kept():
        begun = list(libc.told)
        with heap.kept():
            pass
        assert (
            libc.told
            == begun
            == [(heap.M_MMAP_THRESHOLD, 2**30), (heap.M_TRIM_THRESHOLD, heap.NEVER)]
        )
    assert libc.told[2:] == [*heap.ADAPTED.items(), ("trim", 0)]


def test_an_older_library_is_asked_for_less(libc):
    libc.refused = (2**30,)
    with heap.kept():
        assert libc.told == [
            (heap.M_MMAP_THRESHOLD, 2**30),
            (heap.M_MMAP_THRESHOLD, 2**25),
            (heap.M_TRIM_THRESHOLD, heap.NEVER),
        ]


def test_an_error_ends_it_too(libc):
    with pytest.raises(KeyError), heap.kept():
        raise KeyError
    assert libc.told[-1] == ("trim", 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000000"),
        ("MALLOC_MMAP_THRESHOLD_", "1000000"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1000000"),
    ],
)
def test_limits_of_somebody_else_are_left_alone(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert heap._glibc() is None


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_nothing_happens(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert heap._glibc() is None
    with heap.kept():
        pass
