"""Runs of a study as a verdict needs them, and the refusal of those that cannot be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ablations.errors import Problem, UserError
from ablations.record.contents import read_contents
from ablations.record.paused import paused_at
from ablations.record.run_record import RunRecord
from sweeps.study.run_results import trial_fields
from sweeps.study.specs import Direction
from sweeps.verdict.canonical import canonical
from sweeps.verdict.question import Question
from sweeps.verdict.training_noise import Floats

__all__ = ["LoadedRun", "load_run", "refuse_mixed", "score_terms"]

_ELSEWHERE = ("runs_dir", "data_dir", "study", "trial", "seed", "execution", "labels", "progress")
"""Top-level config keys in which replicates may differ."""

_NO_RESULT = ("batch_tokens", "mirror")
"""Keys of the evaluation that change the place of items or the speed of scoring, and no score."""


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """One finished run, with its part of the study's definition."""

    record: RunRecord
    name: str
    trial: str
    seed: int
    config: Mapping[str, Any]
    """Keys of the config that define the result, without the seed."""
    result: Mapping[str, Any]
    score: float
    """Value of the objective, in its own direction."""
    direction: Direction
    """Direction in which the score is better."""
    rows: tuple[Mapping[str, Any], ...]
    """Rows of scores.jsonl up to the step of the result."""
    spec: Mapping[str, Any]
    """Name, phase and first seeds of the trial; empty for runs of no study."""
    items: Mapping[str, str] = field(default_factory=dict)
    """Item file → SHA-256 of its content when it was scored; empty in older records."""

    @cached_property
    def identity(self) -> str:
        """Key that replicates of one candidate share: the config without the seed and the place."""
        return canonical(self.config)

    @cached_property
    def tokens(self) -> Floats:
        """Tokens at each row; a model scored without its training has steps instead: only order matters."""
        return np.array([float(row["tokens"] or row["step"]) for row in self.rows])

    @property
    def keys(self) -> tuple[str, ...]:
        """``task/metric`` of every metric that it was scored on."""
        return tuple(self.result.get("metrics") or {})

    @property
    def confirms(self) -> bool:
        """True if this seed was added after its trial had been chosen."""
        return self.spec.get("phase") == "confirm" or (
            "seeds" in self.spec and self.seed not in self.spec["seeds"]
        )


def load_run(
    record: RunRecord,
    question: Question,
    left_out: dict[str, str],
    folders: Mapping[str, Sequence[Path]] | None = None,
) -> LoadedRun | None:
    """Return the run of a record; None, with the reason put into ``left_out``, if it does not count.

    Args:
        record: Record of the run.
        question: Question of the study.
        left_out: Run → reason for which it does not count; added to.
        folders: Trial → folders of its runs, if they were listed already.
    """
    name = record.path.name
    contents = read_contents(record, judged=True)
    manifest, result = contents.manifest, contents.result
    if manifest is None or contents.ailments:
        refused = _refused_before_it_began(record)
        left_out[name] = f"failed: {refused}" if refused else f"damaged: {contents.ailments[0]}"
        return None
    if result is None or result.get("status") != "done":
        if result is None and (paused := paused_at(record)) is not None:
            left_out[name] = (
                f"paused at {paused.get('share', 0.0):.0%} of its tokens: used for the ranking of "
                "mixtures, not judged"
            )
            return None
        reason = (result or {}).get("reason") or manifest.reason or manifest.status
        state = "failed" if result else "not finished"
        left_out[name] = f"{state}: {str(reason).splitlines()[0]}"
        return None
    score = question.value(result)
    direction = question.objective.direction or result.get("direction")
    if score is None or direction not in ("maximize", "minimize"):
        left_out[name] = "its score is missing"
        return None
    if result.get("audit_ok") is False:
        left_out[name] = "it did not read the mixture that it was asked to (audit)"
        return None
    last = result.get("step")
    return LoadedRun(
        record=record,
        name=name,
        trial=manifest.trial,
        seed=manifest.seed,
        config=_defining(manifest.config),
        result=result,
        score=float(score),
        direction=direction,
        rows=tuple(row for row in contents.scores if last is None or row["step"] <= last),
        spec=trial_fields(record, manifest, folders),
        items=manifest.items,
    )


def _refused_before_it_began(record: RunRecord) -> str | None:
    """Return the reason of a failure that the driver recorded before the run had a record, else None."""
    if (record.path / "manifest.json").exists():
        return None
    try:
        result = record.result() or {}
    except UserError:
        return None
    reasons = str(result.get("reason") or "no reason is recorded").splitlines()
    return reasons[0] if result.get("status") == "failed" else None


def _defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a config that replicates share."""
    kept = {key: value for key, value in config.items() if key not in _ELSEWHERE}
    evaluation = kept.get("evaluation")
    if isinstance(evaluation, Mapping):
        kept["evaluation"] = {k: v for k, v in evaluation.items() if k not in _NO_RESULT}
    return kept


def refuse_mixed(runs: Sequence[LoadedRun], question: Question) -> None:
    """Refuse runs that no statistics can compare.

    Raises:
        UserError: every reason at once, each with the name of its run.
    """
    problems: list[Problem] = []
    for part in ("tokenizer", "evaluation"):
        parts = [canonical(run.config.get(part)) for run in runs]
        first = _most(runs, parts)
        expected = canonical(first.config.get(part))
        for run, own in zip(runs, parts, strict=True):
            if own != expected:
                problems.append(
                    Problem(
                        run.name,
                        f"was run with another {part} than {first.name}",
                        found=_difference(run.config.get(part), first.config.get(part), part),
                        do="score them alike, or keep them in two studies",
                    )
                )
    problems += _mixed_trials(runs)
    problems += _mixed_items(runs)
    if not problems:
        problems = [*_mixed_directions(runs), *_mixed_metrics(runs, question)]
    if problems:
        raise UserError(problems)


def _mixed_items(runs: Sequence[LoadedRun]) -> Iterator[Problem]:
    """Yield the runs that were scored on other items of a file than most; older records do not show it."""
    for file in sorted({file for run in runs for file in run.items}):
        recorded = [run for run in runs if file in run.items]
        first = _most(recorded, [run.items[file] for run in recorded])
        for run in recorded:
            if run.items[file] != first.items[file]:
                yield Problem(
                    run.name,
                    f"was scored on other items of {file} than {first.name}",
                    found=f"sha256 {run.items[file][:12]}",
                    allowed=f"sha256 {first.items[file][:12]}",
                    do="score them alike, or keep them in two studies",
                )


def _mixed_directions(runs: Sequence[LoadedRun]) -> Iterator[Problem]:
    first = _most(runs, [run.direction for run in runs])
    for run in runs:
        if run.direction != first.direction:
            yield Problem(
                run.name,
                f"its score goes another way than that of {first.name}",
                found=run.direction,
                allowed=first.direction,
            )


def _mixed_metrics(runs: Sequence[LoadedRun], question: Question) -> Iterator[Problem]:
    """Yield the runs whose score is made of other metrics: held-out tasks follow the sources of a run."""
    scored = []
    alike: dict[tuple[str, Direction, tuple[str, ...]], frozenset[str]] = {}
    for run in runs:
        rule, keys = score_terms(run.config), run.keys
        which = (canonical(rule), run.direction, keys)
        if which not in alike:
            terms = question.terms(rule, keys, run.direction).values()
            alike[which] = frozenset(
                key for key in keys if any(fnmatchcase(key, term["metrics"]) for term in terms)
            )
        scored.append(alike[which])
    first = _most(runs, scored)
    expected = scored[runs.index(first)]
    for run, own in zip(runs, scored, strict=True):
        if own != expected:
            yield Problem(
                run.name,
                f"its score is made of other metrics than that of {first.name}",
                found=", ".join(sorted(own ^ expected)),
                do="score all runs on the same tasks, those of weight 0 included",
            )


def score_terms(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the terms of a config's score rule, in plain values."""
    return dict(((config.get("evaluation") or {}).get("score") or {}).get("terms") or {})


def _most(runs: Sequence[LoadedRun], keys: Sequence[Hashable]) -> LoadedRun:
    """Return the first of the runs that agree with most others: a problem names the one that differs."""
    return runs[keys.index(Counter(keys).most_common(1)[0][0])]


def _mixed_trials(runs: Sequence[LoadedRun]) -> list[Problem]:
    """Return a problem for each run that differs from its replicates in more than the seed."""
    first: dict[str, LoadedRun] = {}
    problems = []
    for run in runs:
        other = first.setdefault(run.trial, run)
        if run.identity != other.identity:
            problems.append(
                Problem(
                    run.name,
                    f"is not a replicate of {other.name}: their fingerprints differ in more "
                    "than the seed",
                    found=_difference(run.config, other.config, ""),
                    do="give it a trial name of its own",
                )
            )
    return problems


def _difference(mine: Any, other: Any, where: str) -> str:
    """Return the first config key in which two values differ, with both values."""
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        for key in sorted({*mine, *other}):
            if canonical(mine.get(key)) != canonical(other.get(key)):
                return _difference(mine.get(key), other.get(key), f"{where}.{key}".strip("."))
    return f"{where} = {mine!r}, not {other!r}"
