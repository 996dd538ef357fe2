"""The cells of the notebook that the browser tests run."""

NOTE = '''
import json, os, threading
from pathlib import Path

def put(name, values):
    """What the kernel holds, for the test to read: whole at every moment."""
    unfinished = Path(f"{name}.{threading.get_ident()}")
    unfinished.write_text(json.dumps(values))
    os.replace(unfinished, name)
'''
SPIRAL = (
    NOTE
    + '''
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
)
EXPLORER = '''
explorer = explore(spiral, turns=Range("Turns", 0, 10, 0.05, 1, "{:.2f} turns"),
                   colour=Choice("Colour", {"blue": "#0072B2", "orange": "#E69F00"}),
                   play=Play("Wind it up", "turns", 50),
                   more=Buttons("Once more", ["Draw again", "Stop"]))
explorer.disable("more/Stop")

def note(_=None):
    """The kernel's own view, not the browser's."""
    import zlib
    picture = zlib.crc32(explorer.image.value)
    put("explorer.json", {**explorer.values, "error": explorer.error, "picture": picture})

explorer.controls.observe(note, ["drawn", "error", "description"])
note()
explorer
'''
INSPECTOR = """
import torch
from torch import nn
from catchup.widgets import mask_inspector

def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 100, 3), nn.ReLU(),
                         nn.Conv2d(100, 12, 3, stride=2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))

images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
labels = torch.tensor([0, 1, 2, 3])
inspector = mask_inspector({"epoch 0": network(0), "epoch 9": network(9)}, images, labels,
                           blocks=("1", "3"), class_names=["ape", "bee", "cow", "doe"], layer="1")

def note_inspector(_=None):
    state = {name: getattr(inspector, name) for name in ("lam", "pair", "layer", "checkpoint")}
    put("inspector.json", {**state, "kept": len(inspector.kept)})

inspector.observe(note_inspector, ["lam", "pair", "layer", "checkpoint"])
note_inspector()
inspector.to_html("inspector.html")
inspector
"""
PANELS = (
    NOTE
    + """
import time
import torch
from catchup import Settings
from catchup.inspection import observe
from catchup.experiments.live import LiveRun
from catchup.mixers import make
from catchup.training import dataset_of, model_of
from catchup.widgets import activation_explorer, filter_browser, lam_playground, live_panel

# minutes, so that only Stop can end it
settings = Settings(subset=5, width=4, epochs=2000, batch_size=10, lr=0.01)
digits = dataset_of(settings)
run = LiveRun(model_of(settings, digits), make("catchup", seed=0), digits, settings, interval_s=0.2)
panel = live_panel(run)
panel.add_class("the-run")
told = run.on_change

def note_run(run):
    told(run)
    put("run.json", {"state": run.state, "step": run.step, "at": time.time()})

run.on_change = note_run
note_run(run)
panel
"""
)
WAITING = """
result = await run.finished()
print("after the wait:", run.state, result is not None)
"""
EXPLORERS = """
models = {epoch: model_of(Settings(width=4, seed=epoch), digits) for epoch in (0, 1, 2, 4)}
images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
store = observe(models, images, ["stem", "layer1", "layer4"])
shown = {"browser": filter_browser(store), "explorer": activation_explorer(store),
         "playground": lam_playground()}

def note_values(_=None):
    values = {name: {**one.values, "said": one.description, "error": one.error}
              for name, one in shown.items()}
    put("panels.json", values)

for name, one in shown.items():
    one.add_class(f"the-{name}")
    one.controls.observe(note_values, ["drawn", "description"])
note_values()
display(*shown.values())
"""
