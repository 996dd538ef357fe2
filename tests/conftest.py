"""Shared by all tests: small, single-threaded models, and a guard that no test reaches for the
network.
"""

import os
import signal
import socket
import sys

# Tests start a hundred processes that import torch: where bytecode may not be kept, each of them
# compiles it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import pytest  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    """Any connection beyond this machine fails at once."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
            "localhost",
        ):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _no_figures():
    """pyplot keeps its figures for the whole process: no test sees those of the one before."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c():
    """Tests interrupt themselves, also where the test run is a shell's job in the background, which
    ignores Ctrl-C.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# for the processes that tests start, notebook kernels among them
os.environ["OMP_NUM_THREADS"] = "1"


class TinyNet(nn.Module):
    """A stem and two residual stages, ten thousand times smaller than a real one."""

    def __init__(self, classes: int = 5, channels: int = 3, width: int = 6):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
        self.layer1 = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1)
        )
        self.layer2 = nn.Sequential(
            nn.Conv2d(width, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(self.stem(images))).mean(dim=(2, 3)))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return TinyNet()


@pytest.fixture
def batch():
    """(images (7, 3, 8, 8), labels (7,) of 5 classes): an odd batch."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 3, 8, 8, generator=generator), torch.randint(5, (7,), generator=generator)
