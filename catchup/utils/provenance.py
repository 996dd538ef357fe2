"""Where a result comes from: versions, hardware, command and commit."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("catchup-mix", "torch", "torchvision", "numpy", "accelerate", "timm")


def surroundings() -> dict:
    """Where a result comes from: versions, hardware, command, commit of the checkout if there is
    one.
    """
    import torch

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    hardware = {"processor": _processor(), "cores": os.cpu_count()}
    hardware |= {"threads": torch.get_num_threads(), "gpu": gpu}
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return {"versions": versions, "hardware": hardware, "command": command, "commit": _commit()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit() -> str | None:
    """The checkout's commit, with "+" if it has changes; None for an installed package."""
    checkout = Path(__file__).resolve().parents[2]

    def git(*args):
        how = {"cwd": checkout, "capture_output": True, "text": True, "timeout": 10}
        done = subprocess.run(["git", *args], **how)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/").resolve() != checkout:
            return None  # installed somewhere below another project's checkout
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit and commit + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.TimeoutExpired):
        return None
