"""Plan of a study: what ``ablate plan -m`` prints. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.study.preflight import Compose, require_trials
from sweeps.study.study_cost import (
    estimate_cost,
    estimate_rung_cost,
    print_cost,
    sweep_trunks,
    with_trunks,
)
from sweeps.study.sweep import Request

__all__ = ["plan_study"]


def plan_study(request: Request, compose: Compose, config_dirs: Sequence[Path] = ()) -> None:
    """Print the cost of a study; nothing is written.

    Args:
        request: Checked request of the command.
        compose: Composes a job's config from its overrides.
        config_dirs: Folders of the user's own configs.

    Raises:
        ConfigError: a trial that is known beforehand cannot be run.
    """
    require_trials(request.known_trials(), compose, config_dirs, request.spec, request.launcher)
    trunks = request.trunks(compose, config_dirs)
    if request.strategy is None:
        count = len(request.command.combinations)
        seeds = len(request.spec.seeds) or 1
        print(
            f"a plain sweep: {count} trial{'s' if count > 1 else ''}, {count * seeds} "
            f"run{'s' if count * seeds > 1 else ''}; `ablate plan` prints the cost of one run"
        )
        for line in sweep_trunks(trunks, seeds) if request.spec.trunks else ():
            print(line)
        return
    spec, strategy = request.spec, request.strategy
    price, rungs = request.resources.run_price, request.rungs
    plain = estimate_cost(spec, strategy, price, request.affordable)
    cost = plain if rungs is None else estimate_rung_cost(spec, strategy, price, rungs, plain)
    cost = with_trunks(cost, spec, trunks)
    print_cost(spec, strategy, cost, request.resources.thresholds)
