"""``ablate run``: train and score one run; ``-m`` hands the config to the sweeper instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablations.progress import RunProgress
from ablations.schema import load

__all__ = ["main"]


def main(config: Mapping[str, Any]) -> int:
    """Do what is left of the run; print where its record is and what it scored."""
    # Imported here: `--help` and `--cfg` need no training.
    from ablations.run import execute

    run = load(config, config.get("config_dirs", ()))
    with RunProgress(shown=bool(config.get("progress", True))) as progress:
        finished = execute(run, progress=progress)
    result = finished.result
    score = result.get("score")
    print(f"{finished.record.path}: {result['status']}", end="")
    print("" if score is None else f", score {score:.4f} ({result['direction']})")
    for name, value in sorted(result["metrics"].items()):
        print(f"  {name:<36} {'missing' if value is None else format(value, '.4f')}")
    return 0
