"""Runs of earlier studies that one command names: read, or as the study keeps them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from sweeps.study.old_runs import Evidence, kept_evidence, read_evidence, settle_evidence
from sweeps.study.resources import Resources, is_run_config, naming_every_source
from sweeps.study.reuse import DESIGN_RUNS, design_for
from sweeps.study.specs import SearchSpec, StrategySpec
from sweeps.study.strategy import Strategy

__all__ = ["designed_for", "evidence_request", "settle_old_runs", "strategy_with"]


def evidence_request(
    spec: SearchSpec,
    base: Mapping[str, Any],
    folder: Path,
    resources: Resources,
    config_dirs: Sequence[Path],
) -> Evidence | None:
    """Return the old runs of a command; None if it names no study.

    Args:
        spec: Specification of the search.
        base: Config that the runs share.
        folder: Folder of the study; its ``evidence.json`` takes precedence.
        resources: Tokens of the sources.
        config_dirs: Folders of the user's own configs.

    Raises:
        UserError: no such study, or runs that measure something else.
    """
    if not spec.evidence or spec.space is None:
        return None
    if not is_run_config(base):
        raise ConfigError(
            Problem("search.evidence", "these runs have no config to compare", allowed="[]")
        )
    kept = kept_evidence(folder)
    if kept is not None and list(kept.studies) == list(spec.evidence):
        return kept
    # Imported here: studies of other applications have no schema.
    from ablations.config.schema import load
    from ablations.precision import with_precision

    run = with_precision(load(naming_every_source(base, spec.space), config_dirs))
    return read_evidence(
        folder.parent,
        spec.evidence,
        spec.evidence_split,
        run,
        spec.space,
        resources.tokens or {},
    )


def strategy_with(evidence: Evidence | None, spec: StrategySpec) -> StrategySpec:
    """Return the strategy with the smaller design that a search with old runs needs."""
    if evidence is None or spec.design_trials is not None:
        return spec
    return replace(spec, design_trials=DESIGN_RUNS)


def designed_for(strategy: Strategy, evidence: Evidence | None) -> Strategy:
    """Return the strategy with a design that spreads the weights of new sources."""
    if evidence is None:
        return strategy
    made = design_for(strategy.space, strategy.design, evidence.added)
    return replace(strategy, design=tuple(made))


def settle_old_runs(
    folder: Path, spec: SearchSpec, evidence: Evidence | None, *, begun: bool
) -> None:
    """Write the old runs before the first trial, and print what they are.

    Raises:
        ConfigError: the study was begun with other evidence.
    """
    settle_evidence(folder, spec.evidence, evidence, begun=begun)
    if evidence is not None and not begun:
        print(f"study {folder.name!r}: {'; '.join(evidence.notes)}", file=sys.stderr, flush=True)
