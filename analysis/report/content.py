"""What a report says, gathered once and rendered as HTML or as Markdown.

    record folders ─▶ Frames ─┐
    study.json, verdict.json ─┼─▶ ReportContent ─▶ html.py      one self-contained file
    surrogates of the score ──┘                 └▶ markdown.py  for a pull request

Numbers are kept as numbers here; how they are written is the renderer's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import DataError, Problem
from ablations.evaluation.score_rule import formula
from analysis.figures.mixtures import mixture_frame, pooled_seed_sd
from analysis.frames import Frames
from analysis.frames.views import searched_stage
from analysis.score_fit import QUICK_FAMILIES, ScoreFit, fit_score
from analysis.study_files import (
    Judged,
    VerdictMode,
    definition_of,
    judged,
    question_of,
    rerun_command,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ReportContent", "gather_report"]


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """Everything that a report of one study is made of."""

    study: str
    question: str
    frames: Frames
    mixtures: pd.DataFrame
    """Of `figures.mixture_frame`."""
    sources: tuple[str, ...]
    """Sources that the mixtures are made of."""
    stage: str | None
    """The stage whose weights these are; None = shares of the whole schedule."""
    searched: tuple[str, ...]
    """Those whose weight differs between trials."""
    judged: Judged
    fit: ScoreFit | None
    """The surrogate of the score; None with too few trials or where none was asked for."""
    score: str
    """What the score is, with its direction."""
    seed_sd: float
    """Seed noise of the score, pooled over trials with several runs; NaN where there are none."""
    commands: Mapping[str, str]
    """Run → the command that repeats it."""
    provenance: Mapping[str, Sequence[str]]
    """What the runs were made with: every value that occurs."""
    created: float
    """Seconds since the epoch at which the report was made."""
    arguments: tuple[str, ...] = field(default=())
    """The command that began the study."""

    @property
    def counts(self) -> dict[str, int]:
        """Status → runs."""
        found: dict[str, int] = self.frames.runs["status"].astype("str").value_counts().to_dict()
        return found

    @property
    def running(self) -> int:
        """Runs that have neither finished nor failed."""
        return sum(n for status, n in self.counts.items() if status not in ("done", "failed"))

    @property
    def synthetic(self) -> bool:
        """Whether any record says that it was made up."""
        return any((f.manifest.get("labels") or {}).get("synthetic") for f in self.frames.files)


def gather_report(
    runs_dir: Path,
    study: str,
    *,
    verdict: VerdictMode = "auto",
    surrogates: Sequence[str] = QUICK_FAMILIES,
) -> ReportContent:
    """Read a study, judge it and fit its score.

    Args:
        runs_dir: Where records are.
        study: The study.
        verdict: Where the verdict comes from (`analysis.study_files.judged`).
        surrogates: Families on the leaderboard; none = no surrogate.

    Raises:
        DataError: there is no such study, or no run in it.
    """
    frames = Frames.read(runs_dir, study)
    if not frames.files:
        raise DataError(
            Problem(f"study {study!r}", "holds no run yet", found=str(Path(runs_dir) / study))
        )
    definition = definition_of(Path(runs_dir) / study)
    stage = searched_stage(frames.sources)
    mixtures, names = mixture_frame(frames.trials, frames.sources, stage=stage)
    searched = tuple(name for name in names if mixtures[name].nunique() > 1)
    fit = fit_score(mixtures, names, families=surrogates) if surrogates and searched else None
    verdict_found = judged(runs_dir, study, frames.files, verdict)
    return ReportContent(
        study=study,
        question=question_of(definition, study),
        frames=frames,
        mixtures=mixtures,
        sources=tuple(names),
        stage=stage,
        searched=searched,
        judged=verdict_found,
        fit=fit,
        score=_score(verdict_found, frames),
        seed_sd=pooled_seed_sd(frames.trials),
        commands={run.run: rerun_command(run) for run in frames.files},
        provenance=_provenance(frames),
        created=time.time(),
        arguments=tuple(map(str, definition.arguments)) if definition else (),
    )


def _score(found: Judged, frames: Frames) -> str:
    """The score's rule in words: from the verdict, else from the config."""
    rule, direction = _rule(frames.files[0].manifest.get("config") or {})
    if found.verdict is not None:
        rule, direction = found.verdict.score, str(found.verdict.direction)
    better = "lower" if direction == "minimize" else "higher"
    return f"{rule}; {better} is better"


def _rule(config: Mapping[str, Any]) -> tuple[str, str]:
    rule = (config.get("evaluation") or {}).get("score") or {}
    return formula(rule.get("terms") or {}), str(rule.get("direction", "maximize"))


def _commit(full: str | None) -> str:
    """Twelve digits of a commit, and the + of a changed checkout."""
    return "unknown" if not full else full[:12] + ("+" if full.endswith("+") else "")


def _provenance(frames: Frames) -> dict[str, list[str]]:
    """Every version, commit and machine that occurs among the runs."""
    found: dict[str, set[str]] = {}
    for run in frames.files:
        for name, version in (run.manifest.get("versions") or {}).items():
            found.setdefault(str(name), set()).add(str(version))
        found.setdefault("commit", set()).add(_commit(run.manifest.get("git_commit")))
        found.setdefault("machine", set()).add(str(run.manifest.get("host") or "unknown"))
    return {name: sorted(values) for name, values in sorted(found.items())}
