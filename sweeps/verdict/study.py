"""Observations of a study: its run folders, read once and checked for being comparable.

    manifest.json  ─▶ which candidate, which seed, which proxy
    ask.json       ─▶ name, phase, the seeds asked for first (later ones confirm)
    result.json    ─▶ score
    scores.jsonl   ─▶ metrics at every checkpoint
    details/       ─▶ items, paired by item_id

Replicates are runs whose configs differ in the seed alone, whatever their trial is called. Runs that
cannot be compared are refused by name: another tokenizer, another evaluation, other items.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from ablations.errors import ConfigError, Problem, UserError, unknown_name
from ablations.files import read_json
from ablations.runs import RunRecord, list_runs
from sweeps.verdict.arms import Arm, arm_of, choose_arm, mixture_of, transfers
from sweeps.verdict.details import item_tables
from sweeps.verdict.noise import Floats
from sweeps.verdict.observations import Candidate, Observations, ObservedRun, TaskData

__all__ = ["gather", "gather_records"]

_ELSEWHERE = ("runs_dir", "data_dir", "study", "trial", "seed", "execution", "labels", "progress")
"""Top-level config keys in which replicates may differ."""

_NO_RESULT = ("batch_tokens", "mirror")
"""Keys of the evaluation that change where items come from and how fast they are scored, no score."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One finished run, with what the study says of it."""

    record: RunRecord
    name: str
    trial: str
    seed: int
    config: Mapping[str, Any]
    """What defines the result, the seed left out."""
    result: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    """scores.jsonl up to the step of the result."""
    ask: Mapping[str, Any]
    """Name, phase and first seeds of the trial; empty for runs that no study asked for."""

    @property
    def identity(self) -> str:
        """What a candidate is: the config less the seed and where it ran."""
        return _canonical(self.config)

    @property
    def confirms(self) -> bool:
        """Whether this seed was added after its trial had been chosen."""
        return self.ask.get("phase") == "confirm" or (
            "seeds" in self.ask and self.seed not in self.ask["seeds"]
        )


def gather(runs_dir: Path, study: str) -> Observations:
    """Observations of the study in ``runs_dir``.

    Raises:
        UserError: no such study, or runs that cannot be compared.
    """
    records = list_runs(runs_dir, study)
    if not records:
        known = {record.path.parent.name for record in list_runs(runs_dir)}
        raise ConfigError(unknown_name("study", "study", study, known))
    return gather_records(study, records)


def gather_records(study: str, records: Sequence[RunRecord]) -> Observations:
    """Observations of run records that share a study."""
    left_out: dict[str, str] = {}
    loaded = [run for record in records if (run := _load(record, left_out)) is not None]
    if not loaded:
        return _nothing(study, left_out)
    _refuse_mixed(loaded)
    arms = [arm_of(run.config) for run in loaded]
    mixtures = [mixture_of(run.config) for run in loaded]
    chosen = choose_arm(arms, mixtures)
    direction = str(loaded[0].result["direction"])
    means = _arm_means(loaded, arms, mixtures)
    kept = [run for run, arm in zip(loaded, arms, strict=True) if chosen in (None, arm)]
    for run, arm in zip(loaded, arms, strict=True):
        if chosen not in (None, arm):
            left_out[run.name] = f"of another proxy ({arm.name}); used for transfer"
    observed = _observe(study, direction, kept, left_out)
    if chosen is None:
        return observed
    return replace(observed, transfer=transfers(means, chosen))


def _load(record: RunRecord, left_out: dict[str, str]) -> _Run | None:
    manifest, result = record.manifest, record.result()
    name = record.path.name
    if result is None or result.get("status") != "done":
        reason = (result or {}).get("reason") or manifest.reason or manifest.status
        state = "failed" if result else "not finished"
        left_out[name] = f"{state}: {str(reason).splitlines()[0]}"
        return None
    if result.get("score") is None or result.get("direction") not in ("maximize", "minimize"):
        left_out[name] = "its score is missing"
        return None
    if result.get("audit_ok") is False:
        left_out[name] = "it did not read the mixture that it was asked to (audit)"
        return None
    ask_file = record.path / "ask.json"
    ask = dict(read_json(ask_file)) if ask_file.exists() else {}
    labels = {key: manifest.labels[key] for key in ("name", "phase") if manifest.labels.get(key)}
    last = result.get("step")
    return _Run(
        record=record,
        name=name,
        trial=manifest.trial,
        seed=manifest.seed,
        config=_defining(manifest.config),
        result=result,
        rows=tuple(row for row in record.scores() if last is None or row["step"] <= last),
        ask={**labels, **ask},
    )


def _defining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that replicates share."""
    kept = {key: value for key, value in config.items() if key not in _ELSEWHERE}
    evaluation = kept.get("evaluation")
    if isinstance(evaluation, Mapping):
        kept["evaluation"] = {k: v for k, v in evaluation.items() if k not in _NO_RESULT}
    return kept


def _nothing(study: str, left_out: Mapping[str, str]) -> Observations:
    return Observations(
        study=study,
        direction="maximize",
        score="",
        rule={},
        candidates=(),
        runs=(),
        tasks=(),
        left_out=left_out,
    )


def _refuse_mixed(runs: Sequence[_Run]) -> None:
    """Refuse runs that no statistics can compare; every reason at once, each by name."""
    problems: list[Problem] = []
    for part, say in (("tokenizer", "another tokenizer"), ("evaluation", "another evaluation")):
        first = _most(runs, [_canonical(run.config.get(part)) for run in runs])
        for run in runs:
            if _canonical(run.config.get(part)) != _canonical(first.config.get(part)):
                problems.append(
                    Problem(
                        run.name,
                        f"was run with {say} than {first.name}",
                        found=_difference(run.config.get(part), first.config.get(part), part),
                        do="score them alike, or keep them in two studies",
                    )
                )
    first = _most(runs, [str(run.result["direction"]) for run in runs])
    for run in runs:
        if run.result["direction"] != first.result["direction"]:
            problems.append(
                Problem(
                    run.name,
                    f"its score goes another way than that of {first.name}",
                    found=run.result["direction"],
                    allowed=first.result["direction"],
                )
            )
    problems += _mixed_trials(runs)
    if problems:
        raise UserError(problems)


def _most(runs: Sequence[_Run], keys: Sequence[str]) -> _Run:
    """The first of the runs that agree with most others: it is the odd one that is named."""
    return runs[keys.index(Counter(keys).most_common(1)[0][0])]


def _mixed_trials(runs: Sequence[_Run]) -> list[Problem]:
    """Trials whose replicates differ in more than the seed."""
    first: dict[str, _Run] = {}
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
    """The first config key in which two values differ."""
    if isinstance(mine, Mapping) and isinstance(other, Mapping):
        for key in sorted({*mine, *other}):
            if _canonical(mine.get(key)) != _canonical(other.get(key)):
                return _difference(mine.get(key), other.get(key), f"{where}.{key}".strip("."))
    return f"{where} = {mine!r}, not {other!r}"


def _arm_means(
    runs: Sequence[_Run], arms: Sequence[Arm], mixtures: Sequence[str]
) -> dict[Arm, dict[str, float]]:
    """Arm → mixture → mean score, higher is better."""
    sign = 1.0 if runs[0].result["direction"] == "maximize" else -1.0
    found: dict[Arm, dict[str, list[float]]] = {}
    for run, arm, mixture in zip(runs, arms, mixtures, strict=True):
        found.setdefault(arm, {}).setdefault(mixture, []).append(sign * run.result["score"])
    return {
        arm: {mixture: float(np.mean(scores)) for mixture, scores in of_arm.items()}
        for arm, of_arm in found.items()
    }


def _observe(
    study: str, direction: Any, runs: Sequence[_Run], left_out: Mapping[str, str]
) -> Observations:
    identities = list(dict.fromkeys(run.identity for run in runs))
    firsts = [next(run for run in runs if run.identity == mark) for mark in identities]
    names = _names(firsts)
    rule = ((runs[0].config.get("evaluation") or {}).get("score") or {}).get("terms") or {}
    caveats = []
    running = sum(why.startswith("not finished") for why in left_out.values())
    if running:
        caveats.append(f"{running} run(s) of the study have not finished: the verdict may change.")
    tasks = _tasks(runs, rule)
    if tasks and any(task.items is None for task in tasks):
        caveats.append("Details of some runs are missing, so item noise is not counted.")
    return Observations(
        study=study,
        direction=direction,
        score=_say(rule),
        rule=rule,
        candidates=tuple(
            Candidate(name=name, trial=run.trial, weights=_weights(run.config))
            for name, run in zip(names, firsts, strict=True)
        ),
        runs=tuple(
            ObservedRun(
                name=run.name,
                candidate=identities.index(run.identity),
                seed=run.seed,
                score=float(run.result["score"]),
                confirms=run.confirms,
            )
            for run in runs
        ),
        tasks=tasks,
        score_trajectories=tuple(_path(run, lambda row: row.get("score")) for run in runs),
        first_baseline=_first_baseline(firsts, names),
        left_out=left_out,
        caveats=tuple(caveats),
    )


def _names(firsts: Sequence[_Run]) -> list[str]:
    """What people call the candidates: the study's name for it, the trial's where that is not unique."""
    called = [str(run.ask.get("name") or run.trial) for run in firsts]
    return [
        name if called.count(name) == 1 else f"{name} ({run.trial})"
        for name, run in zip(called, firsts, strict=True)
    ]


def _first_baseline(firsts: Sequence[_Run], names: Sequence[str]) -> str | None:
    """The candidate called "baseline", or the baseline that the study enqueued first."""
    if "baseline" in names:
        return "baseline"
    baselines = [
        (run.trial, name)
        for run, name in zip(firsts, names, strict=True)
        if run.ask.get("phase") == "baseline"
    ]
    return min(baselines)[1] if baselines else None


def _weights(config: Mapping[str, Any]) -> dict[str, float]:
    return dict((config.get("mixture") or {}).get("weights") or {})


def _say(rule: Mapping[str, Any]) -> str:
    parts = [
        f"{term.get('weight', 1.0):g} × {term['metrics']}"
        + (" (above chance)" if term.get("rescale") else "")
        for term in rule.values()
    ]
    return " + ".join(parts) or "the score of the runs"


def _tasks(runs: Sequence[_Run], rule: Mapping[str, Any]) -> tuple[TaskData, ...]:
    """Every metric of the score, and the headline metric of tasks outside it."""
    facts: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in runs:
        for task, metrics in (run.rows[-1]["metrics"] if run.rows else {}).items():
            for metric, value in metrics.items():
                facts.setdefault((task, metric), value)
    patterns = [term["metrics"] for term in rule.values()]
    scored = {key for key in facts if any(fnmatchcase("/".join(key), p) for p in patterns)}
    headline: dict[str, str] = {}
    for task, metric in facts:
        headline.setdefault(task, metric)
    wanted = [key for key in facts if key in scored or _is_headline(key, headline, scored)]
    tables = item_tables(
        [run.record for run in runs], [run.result.get("step") for run in runs], wanted
    )
    return tuple(_task(runs, key, facts[key], tables.get(key)) for key in wanted)


def _is_headline(
    key: tuple[str, str], headline: Mapping[str, str], scored: set[tuple[str, str]]
) -> bool:
    task, metric = key
    return headline[task] == metric and not any(other == task for other, _ in scored)


def _task(
    runs: Sequence[_Run], key: tuple[str, str], facts: Mapping[str, Any], items: Floats | None
) -> TaskData:
    task, metric = key

    def value(row: Mapping[str, Any]) -> float | None:
        found: float | None = ((row["metrics"].get(task) or {}).get(metric) or {}).get("value")
        return found

    paths = tuple(_path(run, value) for run in runs)
    return TaskData(
        task=task,
        metric=metric,
        higher_is_better=bool(facts.get("higher_is_better", True)),
        chance=facts.get("chance"),
        values=np.array([scores[-1] if len(scores) else math.nan for _, scores in paths]),
        trajectories=paths,
        items=items,
    )


def _path(run: _Run, value: Any) -> tuple[Floats, Floats]:
    """(tokens, value) over the checkpoints of a run; a missing value is NaN."""
    tokens = np.array([float(row["tokens"]) for row in run.rows])
    values = [value(row) for row in run.rows]
    return tokens, np.array([math.nan if v is None else float(v) for v in values])


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
