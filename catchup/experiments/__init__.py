"""Experiments: many runs, trained, evaluated and compared on equal terms.

`evaluation` makes one evaluation object of a run (`pretrained` of a published network), `compare`
and `planning` fill a folder with paired runs, `budget` one for each budget, `engines/` say where
they are done, `background_bias` and `follow_filters` are the causal test, `live` a run that can be
watched, `demo` the first thing a newcomer sees, `report/` our records beside the printed numbers.
"""

from .background_bias import plan_background, run_background
from .budget import plan_budgets, run_budgets
from .compare import run_comparison, sweep
from .demo import run_demo
from .engines import make_engine
from .evaluation import evaluate
from .follow_filters import follow_run
from .live import LiveRun
from .planning import plan_runs
from .pretrained import evaluate_pretrained

__all__ = [
    "LiveRun",
    "evaluate",
    "evaluate_pretrained",
    "follow_run",
    "make_engine",
    "plan_background",
    "plan_budgets",
    "plan_runs",
    "run_background",
    "run_budgets",
    "run_comparison",
    "run_demo",
    "sweep",
]
