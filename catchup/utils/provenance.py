"""Where a result comes from: versions, hardware, command and commit."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]  # or the folder that it is installed in
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
    return {"versions": versions, "hardware": hardware, "command": _command(), "commit": _commit()}


def _command() -> str:
    """How this process was started: a command, a module of a checkout (`python -m NAME`), or a
    script by its place in the checkout.
    """
    spec, place = getattr(sys.modules["__main__"], "__spec__", None), Path(sys.argv[0])
    start = [place.name]
    if spec is not None:
        start = ["python", "-m", spec.name.removesuffix(".__main__")]
    elif place.suffix == ".py":
        inside = place.resolve().is_relative_to(CHECKOUT)
        start = ["python", str(place.resolve().relative_to(CHECKOUT) if inside else place.name)]
    return shlex.join([*start, *sys.argv[1:]])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _commit() -> str | None:
    """The checkout's commit, with "+" if it has changes; None for an installed package."""

    def git(*args):
        how = {"cwd": CHECKOUT, "capture_output": True, "text": True, "timeout": 10}
        done = subprocess.run(["git", *args], **how)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        if Path(git("rev-parse", "--show-toplevel") or "/").resolve() != CHECKOUT:
            return None  # installed somewhere below another project's checkout
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit and commit + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.TimeoutExpired):
        return None
