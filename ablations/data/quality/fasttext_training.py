"""fastText's training in a process of its own, so that the same text and seed give the same model.

With one thread fastText 0.9.2 fills the first tenth of its input matrix and leaves the rest as malloc
returned it. In a new process that memory is zero. In one that has already freed a block as large it holds
old bytes: the scores then differ from run to run, or the training ends with "Encountered NaN".
``MALLOC_PERTURB_=165`` shows it at once. Several threads fill the whole matrix, but their result depends on
their timing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ablations.errors import DataError, Problem

__all__ = ["train_fasttext", "training_options"]

_FEATURES = 2**18
_DIVERGED = 3
"""Exit code of a child whose training diverged at every rate."""


def training_options(count: int, seed: int) -> dict[str, Any]:
    """Return fastText's options for ``count`` annotations."""
    return {
        "dim": 32,
        "epoch": max(5, min(50, 50_000 // count)),
        "lr": 0.5,
        "wordNgrams": 2,
        "bucket": _FEATURES,
        "minCount": 1 if count < 10_000 else 5,
        "thread": 1,  # the result of several depends on their timing
        "seed": seed % 2**31,
        "verbose": 0,
    }


def train_fasttext(lines: Path, options: dict[str, Any], out: Path) -> None:
    """Write the model of the labelled ``lines`` to ``out``; where it diverges, at a lower learning rate.

    Raises:
        DataError: it diverges at a twentieth of the rate too, or its process died.
    """
    command = [sys.executable, "-c", _TRAIN, str(lines), json.dumps(options), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode == 0:
        return
    message = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == _DIVERGED:
        raise DataError(
            Problem("annotations", "fastText diverges on them", found=message, do="kind=linear")
        )
    raise DataError(
        Problem(
            "fastText",
            "its training died",
            found=f"exit code {done.returncode}: {message}",
            do="repeat the command; it starts over",
        )
    )


def _environment() -> dict[str, str]:
    """Return this process's environment with a malloc that takes each large block from the system.

    The system's blocks are zero, and they return to it when they are freed.
    """
    found = {name: value for name, value in os.environ.items() if name != "MALLOC_PERTURB_"}
    return {**found, "MALLOC_MMAP_THRESHOLD_": str(2**17)}


# Imports fastText alone: a child that imported the package would pay for it at each training.
_TRAIN = f"""
import json, sys
import fasttext
lines, options, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
for factor in (1.0, 0.4, 0.15, 0.05):
    try:
        model = fasttext.train_supervised(lines, **{{**options, "lr": factor * options["lr"]}})
    except RuntimeError as error:  # "Encountered NaN."
        found = error
    else:
        model.save_model(out)
        sys.exit(0)
print(found, file=sys.stderr)
sys.exit({_DIVERGED})
"""
