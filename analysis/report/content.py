"""Content of a report, gathered once and rendered as HTML or as Markdown.

    record folders ─▶ Frames ─┐
    study.json, verdict.json ─┼─▶ ReportContent ─▶ html.py      one self-contained file
    surrogates of the score ──┘                 └▶ markdown.py  for a pull request

Numbers stay numbers here; the renderers format them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import DataError, Problem, UserError
from ablations.evaluation.score_rule import formula
from analysis.direction import lower_is_better
from analysis.figures.mixtures import mark_verdict, mixture_frame, pooled_seed_sd
from analysis.frames import Frames
from analysis.frames.config_columns import varied_parameters
from analysis.frames.views import searched_stage
from analysis.promotions import PromotionSummary, promotions
from analysis.report.post_training import counted_words
from analysis.score_fit import QUICK_FAMILIES, ScoreFit, fit_score
from analysis.study_files import (
    LoadedVerdict,
    VerdictMode,
    definition_of,
    load_verdict,
    question_of,
    rerun_command,
)

if TYPE_CHECKING:
    import pandas as pd

    from sweeps.study.specs import Direction

__all__ = ["ReportContent", "gather_report"]


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """All inputs of a report of one study."""

    study: str
    question: str
    frames: Frames
    mixtures: pd.DataFrame
    """Frame from `figures.mixture_frame`."""
    sources: tuple[str, ...]
    """Sources of the mixtures."""
    stage: str | None
    """Stage whose weights are shown; None = shares of the whole schedule."""
    searched: tuple[str, ...]
    """Sources whose weight differs between trials."""
    loaded: LoadedVerdict
    fit: ScoreFit | None
    """Surrogate of the score; None with too few trials or if none was requested."""
    score: str
    """Definition of the score, with its direction."""
    seed_sd: float
    """Seed noise of the score, pooled over trials with several runs; NaN if there are none."""
    commands: Mapping[str, str]
    """Run → command that repeats it."""
    provenance: Mapping[str, Sequence[str]]
    """Versions, commits and machines of the runs: name → every value that occurs."""
    created: float
    """Time of the report, in seconds since the epoch."""
    arguments: tuple[str, ...] = field(default=())
    """Arguments of the command that started the study."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Config path of each parameter that differs between trials → trial → value."""
    promoted: tuple[PromotionSummary, ...] = ()
    """Promotions of the study, oldest first."""
    reused: tuple[str, ...] = field(default=())
    """Sentences on the low rung and on runs of earlier studies; empty for a study without them."""

    @cached_property
    def counted(self) -> str:
        """Return what the runs' budgets count: tokens, or the samples of a post-training."""
        kinds = {(config.get("method") or {}).get("kind") for config in self.configs}
        return counted_words.get(str(kinds.pop()), "tokens") if len(kinds) == 1 else "tokens"

    @property
    def configs(self) -> list[Mapping[str, Any]]:
        """Return the config of each run."""
        return [run.manifest.get("config") or {} for run in self.frames.files]

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Return the mixtures with what the verdict found of each; as they are without a verdict."""
        verdict = self.loaded.verdict
        if verdict is None or self.mixtures.empty:
            return self.mixtures
        return mark_verdict(
            self.mixtures,
            pick=self.trial_of(verdict.pick),
            won=verdict.outcome == "winner",
            may_be_best=verdict.may_be_best,
        )

    def trial_of(self, candidate: str) -> str:
        """Return the trial of a candidate of the verdict."""
        rows = self.loaded.verdict.candidates if self.loaded.verdict else ()
        return next((row.trial for row in rows if row.name == candidate), candidate)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of runs in each status."""
        found: dict[str, int] = self.frames.runs["status"].astype("str").value_counts().to_dict()
        return found

    @property
    def running(self) -> int:
        """Return the number of runs that have neither finished, failed nor paused."""
        ended = ("done", "failed", "paused")
        return sum(n for status, n in self.counts.items() if status not in ended)

    @property
    def synthetic(self) -> bool:
        """Return whether any record has the label ``synthetic``."""
        return any((f.manifest.get("labels") or {}).get("synthetic") for f in self.frames.files)


def gather_report(
    runs_dir: Path,
    study: str,
    *,
    verdict: VerdictMode = "auto",
    surrogates: Sequence[str] = QUICK_FAMILIES,
    promotions_dir: Path | None = None,
) -> ReportContent:
    """Read a study, load or compute its verdict, and fit its score.

    Args:
        runs_dir: Folder of the records.
        study: Name of the study.
        verdict: Origin of the verdict (`analysis.study_files.load_verdict`).
        surrogates: Families on the leaderboard; none = no surrogate.
        promotions_dir: Parent folder of the promotions; None = they are not shown.

    Raises:
        DataError: the study does not exist or has no run.
    """
    frames = Frames.read(runs_dir, study)
    if not frames.files:
        raise DataError(
            Problem(f"study {study!r}", "has no run yet", found=str(Path(runs_dir) / study))
        )
    definition = definition_of(Path(runs_dir) / study)
    stage = searched_stage(frames.sources)
    mixtures, names = mixture_frame(frames.trials, frames.sources, stage=stage)
    searched = tuple(name for name in names if mixtures[name].nunique() > 1)
    fit = fit_score(mixtures, names, families=surrogates) if surrogates and searched else None
    loaded = load_verdict(runs_dir, study, frames.files, verdict)
    return ReportContent(
        study=study,
        question=question_of(definition, study),
        frames=frames,
        mixtures=mixtures,
        sources=tuple(names),
        stage=stage,
        searched=searched,
        loaded=loaded,
        fit=fit,
        score=_score(loaded, frames),
        seed_sd=pooled_seed_sd(frames.trials),
        commands={run.run: rerun_command(run) for run in frames.files},
        provenance=_provenance(frames),
        created=time.time(),
        arguments=tuple(map(str, definition.arguments)) if definition else (),
        parameters=varied_parameters(
            (str(run.manifest.get("trial")), run.manifest.get("config") or {})
            for run in frames.files
        ),
        promoted=tuple(
            one
            for one in (promotions(promotions_dir) if promotions_dir is not None else ())
            if study in (one.study, *one.after)
        ),
        reused=tuple(_reused(Path(runs_dir) / study)),
    )


def _reused(folder: Path) -> Iterator[str]:
    """Yield what the low rung and the runs of earlier studies were worth."""
    from ablations.trunks import trunk_costs
    from sweeps.study.old_runs import kept_evidence
    from sweeps.study.reuse import reuse_sentence
    from sweeps.study.rungs import read_rung

    try:
        rung, old = read_rung(folder), kept_evidence(folder)
    except UserError as error:
        yield f"Not readable: {error}"
        return
    if rung is not None:
        guard = "it ran unguarded" if rung.judged is None else str(rung.judged)
        runs = "runs of a smaller model ended" if rung.model is not None else "runs paused"
        then = "were run in full" if rung.model is not None else "went on"
        yield (
            f"Explored {runs} at {rung.share:.0%} of their tokens; {len(rung.chosen)} of them "
            f"{then}. {guard[0].upper()}{guard[1:]}."
        )
    if trunks := trunk_costs(folder):
        flops, hours = (
            sum(cost.flops for cost in trunks),
            sum(cost.wall_seconds * cost.devices for cost in trunks) / 3600.0,
        )
        yield (
            f"The first {trunks[0].step:,} steps are equal in all runs of a group and were trained once: "
            f"{len(trunks)} trunk{'s' if len(trunks) > 1 else ''}, {flops:.3g} FLOPs, {hours:.2g} device "
            "hours. The cost of the runs below does not contain them."
        )
    if old is not None:
        yield f"New are the runs of this study. Old are {'; '.join(old.notes)}."
        said = reuse_sentence(old)
        yield f"{said[0].upper()}{said[1:]}."


def _score(found: LoadedVerdict, frames: Frames) -> str:
    """Return the definition of the score in words: from the verdict, else from the config."""
    rule, direction = _rule(frames.files[0].manifest.get("config") or {})
    if found.verdict is not None:
        rule, direction = found.verdict.score, found.verdict.direction
    better = "lower" if lower_is_better(direction) else "higher"
    return f"{rule}; {better} is better"


def _rule(config: Mapping[str, Any]) -> tuple[str, Direction]:
    rule = (config.get("evaluation") or {}).get("score") or {}
    lower = rule.get("direction") == "minimize"
    return formula(rule.get("terms") or {}), "minimize" if lower else "maximize"


def _commit(full: str | None) -> str:
    """Return twelve digits of a commit, with the + of a changed checkout."""
    return "unknown" if not full else full[:12] + ("+" if full.endswith("+") else "")


def _provenance(frames: Frames) -> dict[str, list[str]]:
    """Return every version, commit and machine of the runs."""
    found: dict[str, set[str]] = {}
    for run in frames.files:
        for name, version in (run.manifest.get("versions") or {}).items():
            found.setdefault(str(name), set()).add(str(version))
        found.setdefault("commit", set()).add(_commit(run.manifest.get("git_commit")))
        found.setdefault("machine", set()).add(str(run.manifest.get("host") or "unknown"))
    return {name: sorted(values) for name, values in sorted(found.items())}
