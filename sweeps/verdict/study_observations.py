"""Observations of a study: its run folders, read once and checked to be comparable.

    manifest.json  ─▶ candidate, seed, proxy
    trial.json     ─▶ name, phase, the seeds asked for first (later ones confirm)
    result.json    ─▶ score
    scores.jsonl   ─▶ metrics at every checkpoint
    details/       ─▶ items, paired by item_id

Replicates are runs whose configs differ in the seed alone, whatever the name of their trial. Runs that
cannot be compared are refused by name: another tokenizer, another evaluation, other items.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.errors import ConfigError, unknown_name
from ablations.evaluation.score_rule import formula
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.objective import SCORE
from sweeps.study.run_results import folders_by_trial, refused_in
from sweeps.study.specs import loss_sign
from sweeps.verdict.loading import LoadedRun, load_run, refuse_mixed, score_terms
from sweeps.verdict.observations import Candidate, Observations, ObservedRun
from sweeps.verdict.proxies import ProxyConfig, choose_proxy, mixture_of, proxy_of, transfers
from sweeps.verdict.question import Question, broken, question_of
from sweeps.verdict.run_metrics import over_checkpoints, picture_gains, task_data

__all__ = ["gather", "gather_records"]


def gather(runs_dir: Path, study: str, objective: str | None = None) -> Observations:
    """Return the observations of a study.

    Args:
        runs_dir: Folder of all studies.
        study: Name of the study.
        objective: One of its objectives; None = its first.

    Raises:
        UserError: no such study, or runs that cannot be compared.
    """
    records = list_runs(runs_dir, study)
    refused = {
        name: f"failed: {reason.splitlines()[0]}"
        for name, reason in refused_in(runs_dir / study).items()
    }
    if not records:
        known = {record.path.parent.name for record in list_runs(runs_dir)}
        raise ConfigError(unknown_name("study", "study", study, known))
    observed = gather_records(study, records, question_of(runs_dir / study, objective))
    return replace(observed, left_out={**refused, **observed.left_out}) if refused else observed


def gather_records(
    study: str, records: Sequence[RunRecord], question: Question | None = None
) -> Observations:
    """Return the observations of run records of one study; without a question, of their score.

    Raises:
        UserError: runs that cannot be compared.
    """
    # Thousands of rows are kept and none is garbage: collecting between them took a quarter of the time.
    with _without_collection():
        return _gathered(study, records, question or Question())


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Switch Python's collection of cyclic garbage off in the block, if it is on."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _gathered(study: str, records: Sequence[RunRecord], question: Question) -> Observations:
    left_out: dict[str, str] = {}
    folders = folders_by_trial(records[0].path.parent) if records else {}
    loaded = [
        run
        for record in records
        if (run := load_run(record, question, left_out, folders)) is not None
    ]
    if not loaded:
        return _nothing(study, left_out)
    refuse_mixed(loaded, question)
    proxies = [proxy_of(run.config) for run in loaded]
    mixtures = [mixture_of(run.config) for run in loaded]
    chosen = choose_proxy(proxies, mixtures)
    kept = [run for run, proxy in zip(loaded, proxies, strict=True) if chosen in (None, proxy)]
    for run, proxy in zip(loaded, proxies, strict=True):
        if chosen not in (None, proxy):
            left_out[run.name] = f"of another proxy ({proxy.name}); used for transfer"
    observed = _observe(study, question, kept, left_out)
    if chosen is None:
        return observed
    return replace(observed, transfer=transfers(_proxy_means(loaded, proxies, mixtures), chosen))


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


def _proxy_means(
    runs: Sequence[LoadedRun], proxies: Sequence[ProxyConfig], mixtures: Sequence[str]
) -> dict[ProxyConfig, dict[str, float]]:
    """Return proxy → mixture → mean score, higher is better."""
    sign = -loss_sign(runs[0].direction)
    found: dict[ProxyConfig, dict[str, list[float]]] = {}
    for run, proxy, mixture in zip(runs, proxies, mixtures, strict=True):
        found.setdefault(proxy, {}).setdefault(mixture, []).append(sign * run.score)
    return {
        proxy: {mixture: float(np.mean(scores)) for mixture, scores in of_proxy.items()}
        for proxy, of_proxy in found.items()
    }


def _observe(
    study: str, question: Question, runs: Sequence[LoadedRun], left_out: Mapping[str, str]
) -> Observations:
    position = {key: n for n, key in enumerate(dict.fromkeys(run.identity for run in runs))}
    members: list[list[LoadedRun]] = [[] for _ in position]
    for run in runs:
        members[position[run.identity]].append(run)
    firsts = [of_candidate[0] for of_candidate in members]
    names = _names(firsts)
    direction = runs[0].direction
    rule = question.terms(score_terms(runs[0].config), runs[0].keys, direction)
    form = question.objective.form if question.objective.metrics == (SCORE,) else None
    tasks = task_data(runs, rule)
    baseline = _baseline(question, firsts, names)
    results = {
        name: [run.result for run in of_candidate]
        for name, of_candidate in zip(names, members, strict=True)
    }
    as_result = _same if question.objective.is_recorded else _as_result
    breaks = broken(question, results, baseline)
    return Observations(
        study=study,
        direction=direction,
        score=formula(rule, question.objective.left_out if form else ()),
        rule=rule,
        form=form,
        left_out_metrics=question.objective.left_out if form else {},
        objective=question.objective.name,
        question=question.text,
        candidates=tuple(
            Candidate(
                name=name, trial=run.trial, weights=_weights(run.config), breaks=breaks.get(name)
            )
            for name, run in zip(names, firsts, strict=True)
        ),
        runs=tuple(
            ObservedRun(
                name=run.name,
                candidate=position[run.identity],
                seed=run.seed,
                score=run.score,
                confirms=run.confirms,
            )
            for run in runs
        ),
        tasks=tasks,
        pictures=picture_gains(runs),
        score_trajectories=tuple(
            over_checkpoints(run, lambda row: question.value(as_result(row))) for run in runs
        ),
        first_baseline=baseline,
        left_out=left_out,
        caveats=_caveats(left_out, details=all(task.items is not None for task in tasks)),
    )


def _names(firsts: Sequence[LoadedRun]) -> list[str]:
    """Return the names of the candidates; one that is not unique is followed by its trial's name."""
    names = [str(run.spec.get("name") or run.trial) for run in firsts]
    times = Counter(names)
    return [
        name if times[name] == 1 else f"{name} ({run.trial})"
        for name, run in zip(names, firsts, strict=True)
    ]


def _same(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return row


def _as_result(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of scores.jsonl in the form of a result."""
    metrics = {
        f"{task}/{metric}": value.get("value")
        for task, of_task in row["metrics"].items()
        for metric, value in of_task.items()
    }
    return {"score": row.get("score"), "metrics": metrics}


def _caveats(left_out: Mapping[str, str], *, details: bool) -> tuple[str, ...]:
    caveats = []
    running = sum(why.startswith("not finished") for why in left_out.values())
    if running:
        caveats.append(f"{running} run(s) of the study have not finished: the verdict may change.")
    if not details:
        caveats.append("Details of some runs are missing, so item noise is not counted.")
    return tuple(caveats)


def _baseline(question: Question, firsts: Sequence[LoadedRun], names: Sequence[str]) -> str | None:
    """Return the baseline that the study names, else one named "baseline", else the first enqueued."""
    for name in (question.baseline, "baseline"):
        if name in names:
            return name
    baselines = [
        (run.trial, name)
        for run, name in zip(firsts, names, strict=True)
        if run.spec.get("phase") == "baseline"
    ]
    return min(baselines)[1] if baselines else None


def _weights(config: Mapping[str, Any]) -> dict[str, float]:
    return dict((config.get("mixture") or {}).get("weights") or {})
