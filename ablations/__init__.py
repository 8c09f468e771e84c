"""One run, from sources to a score; and the names that a notebook or a script starts from.

The packages below import one another in one direction only, and a test proves it::

    data ──▶ mixture ──▶ training ──▶ evaluation ──▶ run

``ablations`` imports neither ``sweeps`` (many runs) nor ``analysis`` (figures and reports). The names below
stand in modules above it, and are looked up by name when they are first used, as the commands are::

    import ablations

    study = ablations.load_study("demo_ratio")          # runs, frames, question, verdict
    study.frames.trials                                 # a pandas frame, one row for each trial
    config = ablations.compose("model=proxy_11m", "training=proxy_11m")
    finished = ablations.run(config)                    # trains and scores
    ablations.verdict("demo_ratio").sentence
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablations.from_python import compose, run
    from analysis.from_python import Run, Study, load_run, load_study, verdict

__version__ = "0.1.0"

__all__ = [
    "Run",
    "Study",
    "__version__",
    "compose",
    "load_run",
    "load_study",
    "run",
    "verdict",
]

_HOMES = {
    "compose": "ablations.from_python",
    "run": "ablations.from_python",
    "Run": "analysis.from_python",
    "Study": "analysis.from_python",
    "load_run": "analysis.from_python",
    "load_study": "analysis.from_python",
    "verdict": "analysis.from_python",
}
"""Name → the module that it stands in; named, not imported, so that this package stays the lowest."""


def __getattr__(name: str) -> Any:
    """Return one of the names above, importing its module the first time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the names of the module, those that are not imported yet included."""
    return sorted({*globals(), *_HOMES})
