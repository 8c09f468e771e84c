"""Stages of post-training after a full run: the picks of studies of method=sft and dpo, frozen.

A stage keeps what its study decided: method, mixture, schedule, learning rate. Its model is the full run's,
and it begins from the checkpoint before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config.schema import RunConfig, dump, load
from ablations.errors import ConfigError, Problem
from sweeps.promotion.promotion_inputs import choose, picked_runs
from sweeps.promotion.specs import PostStageSpec
from sweeps.verdict.verdict_record import CandidateRow, Verdict, read_verdict

__all__ = ["PostStage", "read_post_stages", "recommended"]

_OF_THE_STUDY = ("method", "tokenizer", "mixture", "schedule", "training", "evaluation", "source")
"""Parts that a stage takes from its study."""

_DROPPED = (
    "promotion",
    "search",
    "labels",
    "experiment",
    "warm_start",
    "program",
    "after",
    "compare",
)


@dataclass(frozen=True, kw_only=True)
class PostStage:
    """A stage after the full run."""

    name: str
    study: str
    candidate: CandidateRow
    sentence: str
    """The verdict of its study."""
    config: RunConfig
    """Training of the stage; its start is set when the promotion has its name."""
    values: Mapping[str, Any]
    """The same as plain values, every default written out."""

    def plain(self) -> dict[str, Any]:
        """Return what ``promotion.json`` keeps of the stage."""
        schedule = self.config.build_schedule()
        return {
            "name": self.name,
            "study": self.study,
            "candidate": self.candidate.name,
            "trial": self.candidate.trial,
            "verdict": self.sentence,
            "method": dump(self.config.method),
            "samples": schedule.total_samples,
            "steps": schedule.total_steps,
            "peak_lr": self.config.training.peak_lr,
            "weights": {
                name: weight
                for stage in schedule.stages
                for name, weight in stage.mixture.items()
                if weight > 0
            },
        }


def read_post_stages(
    specs: Mapping[str, PostStageSpec],
    plain: Mapping[str, Any],
    full: RunConfig,
    config_dirs: tuple[Path, ...],
) -> tuple[PostStage, ...]:
    """Return the stages after a full run, in order.

    Args:
        specs: Name → stage.
        plain: Composed config of the promotion.
        full: Config of the full run.
        config_dirs: Config folders searched for sources.

    Raises:
        UserError: a study has no verdict or no finished run of its pick.
        ConfigError: a study trained on text, or its tokenizer is not derived from the full run's.
    """
    stages, problems = [], []
    for name, spec in specs.items():
        runs_dir = Path(full.runs_dir)
        verdict = read_verdict(runs_dir / spec.study)
        candidate = recommended(verdict, spec.pick)
        proxy = picked_runs(runs_dir, spec.study, candidate)[0].manifest.config
        problems += list(_problems(name, proxy, full))
        if problems:
            continue
        config = load(_values(plain, proxy, full), config_dirs)
        whole = dump(config)
        stages.append(
            PostStage(
                name=name,
                study=spec.study,
                candidate=candidate,
                sentence=verdict.sentence,
                config=config,
                values={key: whole[key] for key in (*_OF_THE_STUDY, "model")},
            )
        )
    if problems:
        raise ConfigError(problems)
    return tuple(stages)


def recommended(verdict: Verdict, asked: str | None) -> CandidateRow:
    """Return the candidate of a stage: the one that was asked for, a winner, or else what the verdict keeps.

    No gate stands before a stage, so a tie does not replace a baseline. Without a baseline, as in a search of
    parameters alone, it is the verdict's pick.

    Raises:
        UserError: no candidate has the given name or trial.
    """
    kept = verdict.baseline if verdict.outcome != "winner" else None
    known = any(row.name == kept for row in verdict.candidates)
    return choose(verdict, kept if asked is None and known else asked)


def _problems(name: str, proxy: Mapping[str, Any], full: RunConfig) -> Iterator[Problem]:
    where = f"promotion.after.{name}"
    if "method" not in proxy:
        yield Problem(where, "its study trained on text", allowed="a study of method=sft or dpo")
        return
    base = (proxy.get("tokenizer") or {}).get("base")
    if base != full.tokenizer.name:
        yield Problem(
            where,
            "the tokenizer of its study is not derived from the full run's",
            found=base,
            allowed=full.tokenizer.name,
        )


def _values(plain: Mapping[str, Any], proxy: Mapping[str, Any], full: RunConfig) -> dict[str, Any]:
    kept = {key: value for key, value in plain.items() if key not in _DROPPED}
    return {
        **kept,
        **{key: proxy[key] for key in _OF_THE_STUDY},
        "model": dump(full.model),
        "warm_start": {"checkpoint": "the stage before"},
        "trial": None,
    }
