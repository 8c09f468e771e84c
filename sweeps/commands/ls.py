"""Run ``ablate ls``: list runs with status and the objective of their study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.documents import Answer
from sweeps.commands.command_options import LsOptions, read_options
from sweeps.study.listing import ListedRun, listed_runs, sorted_runs
from sweeps.study.run_results import refused_in

__all__ = ["LsResult", "answer", "main"]


@dataclass(frozen=True, kw_only=True)
class LsResult:
    """Runs in the order that was asked for."""

    runs: tuple[ListedRun, ...]
    hidden: int
    """Runs that passed the filters and were left out by ``limit``."""
    begun: tuple[str, ...]
    """Studies that have a definition and no run."""


def main(config: Mapping[str, Any]) -> int:
    """Print one line for each run, of one study or of all."""
    options = read_options(LsOptions, config, alone=True)
    result: LsResult = answer(config).result
    if not result.runs:
        for name in result.begun:
            print(f"{name}: begun, no run yet; the command that began it goes on")
        if result.begun:
            return 0
        filtered = options.status or options.match != "*"
        made = "no run passes the filters" if filtered else "`ablate run` makes one"
        print(f"no runs under {Path(options.runs_dir)}/; {made}")
        return 0
    names = {run.score_name for run in result.runs if run.trial is not None}
    number = names.pop() if len(names) == 1 else "score"
    head = tuple(number if name == "score" else name for name in _HEAD)
    _print_columns([head, *(_row(run, whole=options.verbose) for run in result.runs)])
    if result.hidden:
        print(f"… {result.hidden} more; limit=null lists all")
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Return the runs for a program."""
    options = read_options(LsOptions, config, alone=True)
    root = Path(options.runs_dir)
    begun = _begun(root, options.study)
    if options.study is not None and options.study in begun:
        return Answer(result=LsResult(runs=(), hidden=0, begun=begun))
    found = listed_runs(root, options.study, status=options.status, match=options.match)
    ordered = sorted_runs(found, options.sort, reverse=options.reverse)
    shown = ordered if options.limit is None else ordered[: options.limit]
    return Answer(result=LsResult(runs=tuple(shown), hidden=len(ordered) - len(shown), begun=begun))


_HEAD = ("run", "status", "step", "tokens", "score", "mixture", "reason")
_REASON = {"damaged": 120}
"""Characters of a reason that are shown; 60 for all other runs."""


def _begun(root: Path, study: str | None) -> tuple[str, ...]:
    """Return the studies that have a definition and no run: their launcher could not start one."""
    return tuple(
        path.parent.name
        for path in sorted(root.glob("*/study.json"))
        if study in (None, path.parent.name)
        and not any(path.parent.glob("*/manifest.json"))
        and not refused_in(path.parent)
    )


def _row(run: ListedRun, *, whole: bool) -> tuple[str, ...]:
    lines = (run.reason or "").splitlines()
    reason = " ".join(lines) if whole else "".join(lines[:1])[: _REASON.get(run.status, 60)]
    return (
        run.run,
        run.status,
        "" if run.step is None else f"{run.step:,}",
        "" if run.tokens is None else f"{run.tokens:,}",
        "" if run.score is None else f"{run.score:.4f}",
        " ".join(f"{name}={weight:.3g}" for name, weight in run.weights.items()),
        reason,
    )


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
