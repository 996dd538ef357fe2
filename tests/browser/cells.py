"""The cells of the notebook that the browser tests run."""

SPIRAL = '''
import json
from pathlib import Path
import numpy as np
from matplotlib.figure import Figure
from catchup.widgets import Buttons, Choice, Play, Range, explore

def spiral(turns, colour, more):
    """One curve; the picture of exactly 9 turns fails."""
    if turns == 9:
        raise ValueError(f"no spiral has {turns} turns")
    figure = Figure(figsize=(7, 3))
    t = np.linspace(0, 1, 200)
    figure.subplots().plot(t * np.cos(6.28 * turns * t), t * np.sin(6.28 * turns * t), color=colour)
    return figure, f"A spiral of {turns:.2f} turns, drawn again {more['Draw again']} times."
'''
EXPLORER = '''
explorer = explore(spiral, turns=Range("Turns", 0, 10, 0.05, 1, "{:.2f} turns"),
                   colour=Choice("Colour", {"blue": "#0072B2", "orange": "#E69F00"}),
                   play=Play("Wind it up", "turns", 50), more=Buttons("Once more", ["Draw again", "Stop"]))
explorer.disable("more/Stop")

def note(_=None):
    """What the kernel holds, for the test to read: the kernel's own view, not the browser's."""
    import zlib
    picture = zlib.crc32(explorer.image.value)
    Path("explorer.json").write_text(json.dumps({**explorer.values, "error": explorer.error, "picture": picture}))

explorer.controls.observe(note, ["drawn", "error", "description"])
note()
explorer
'''
INSPECTOR = '''
import torch
from torch import nn
from catchup.widgets import mask_inspector

def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 100, 3), nn.ReLU(), nn.Conv2d(100, 12, 3, stride=2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))

images, labels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])
inspector = mask_inspector({"epoch 0": network(0), "epoch 9": network(9)}, images, labels, blocks=("1", "3"),
                           class_names=["ape", "bee", "cow", "doe"], layer="1")

def note_inspector(_=None):
    state = {name: getattr(inspector, name) for name in ("lam", "pair", "layer", "checkpoint")}
    Path("inspector.json").write_text(json.dumps({**state, "kept": len(inspector.kept)}))

inspector.observe(note_inspector, ["lam", "pair", "layer", "checkpoint"])
note_inspector()
inspector.to_html("inspector.html")
inspector
'''
