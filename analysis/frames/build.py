"""Frames from the small files of runs: runs, trials, sources, audits, cost.

Each builder is a pure function of the result of :func:`analysis.records.scan`; columns and types
come from :data:`analysis.frames.columns.COLUMNS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.frames.columns import empty, shaped
from analysis.frames.config_columns import parameters, planned_sources, planned_tasks, total_tokens
from analysis.records import RunFiles, collector_paused, command_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "audits_frame",
    "cost_frame",
    "identity",
    "label",
    "runs_frame",
    "sources_frame",
    "tasks_frame",
    "trials_frame",
]


def runs_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return one row per run."""
    manifests = [run.manifest for run in runs]
    results = [run.reached for run in runs]
    configs = [_mapping(manifest, "config") for manifest in manifests]
    costs = [_mapping(result, "cost") for result in results]

    def of(rows: Iterable[Mapping[str, Any]], key: str) -> list[Any]:
        return [row.get(key) for row in rows]

    return shaped(
        "runs",
        identity(runs, np.arange(len(runs)))
        | {key: of(manifests, key) for key in ("created", "started", "finished", "host")}
        | {key: of(manifests, key) for key in ("fingerprint", "git_commit")}
        | {key: of(results, key) for key in ("score", "direction", "step", "tokens", "audit_ok")}
        | {
            "name": [label(manifest, "name") for manifest in manifests],
            "phase": [label(manifest, "phase") for manifest in manifests],
            "status": [_status(run) for run in runs],
            "reason": [_reason(run) for run in runs],
            "tokens_asked": [total_tokens(config) for config in configs],
            "parameters": _per_model(configs),
            "wall_seconds": of(costs, "wall_seconds"),
            "command": [command_line(m.get("command") or ()) for m in manifests],
        },
    )


def identity(runs: Sequence[RunFiles], owner: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return the columns study, run, trial and seed of rows that belong to the runs in ``owner``.

    Categories are coded once per run, not once per row: for two million score rows this takes 20 ms
    instead of seconds.
    """
    import pandas as pd

    def repeated(values: list[str]) -> pd.Categorical:
        codes, names = pd.factorize(np.asarray(values, dtype=object), sort=True)
        return pd.Categorical.from_codes(codes[owner], pd.Index(names, dtype="str"), validate=False)

    seeds = pd.array([run.manifest.get("seed") for run in runs], dtype="Int64")
    return {
        "study": repeated([run.study for run in runs]),
        "run": repeated([run.run for run in runs]),
        "trial": repeated([str(run.manifest.get("trial", run.run)) for run in runs]),
        "seed": seeds.take(owner),
    }


def label(manifest: Mapping[str, Any], key: str) -> str | None:
    """Return the label that the study gave the run under ``key``."""
    value = _mapping(manifest, "labels").get(key)
    return None if value is None or value == "" else str(value)


def _status(run: RunFiles) -> str:
    """Return the status in the result, which is written last, else that in the manifest."""
    status = (run.result or {}).get("status") or run.manifest.get("status") or "pending"
    return str(status)


def _reason(run: RunFiles) -> str | None:
    reason = (run.result or {}).get("reason") or run.manifest.get("reason")
    return None if reason is None else str(reason)


def _per_model(configs: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Return the number of parameters of each run, counted once for each model."""
    known: dict[str, int | None] = {}
    counts = []
    for config in configs:
        key = repr(config.get("model"))
        if key not in known:
            known[key] = parameters(config)
        counts.append(known[key])
    return counts


def trials_frame(runs: pd.DataFrame, cost: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trial, from the frames of runs and of cost."""
    import pandas as pd

    if runs.empty:
        return empty("trials")
    table = runs[["study", "trial", "name", "phase", "direction", "finished"]].astype(
        {"study": "str", "trial": "str", "name": "str", "phase": "str", "direction": "str"}
    )
    table["done"] = (runs["status"] == "done").astype("int64")
    table["failed"] = (runs["status"] == "failed").astype("int64")
    table["paused"] = (runs["status"] == "paused").astype("int64")
    begun = ["training", "scoring", "paused", "done"]
    table["begun"] = runs["status"].isin(begun).astype("int64")
    table["score"] = runs["score"].where(runs["status"] == "done")
    table["tokens"] = cost["tokens"].astype("float64")
    table["flops"] = cost["flops"]
    table["cpu_seconds"] = cost["train_cpu_seconds"] + cost["eval_cpu_seconds"].fillna(0.0)
    grouped = table.groupby(["study", "trial"], sort=True)
    sums = grouped[["done", "failed", "paused", "begun"]].sum()
    sizes = grouped.size()
    spent = grouped[["tokens", "flops", "cpu_seconds"]].sum(min_count=1)
    first = grouped[["name", "phase", "direction"]].first()
    index = sums.index
    return shaped(
        "trials",
        {
            "study": index.get_level_values(0),
            "trial": index.get_level_values(1),
            **{key: first[key].to_numpy(dtype=object, na_value=None) for key in first},
            "status": _trial_status(sums, sizes),
            "runs": sizes.to_numpy(),
            "done": sums["done"].to_numpy(),
            "failed": sums["failed"].to_numpy(),
            "score": grouped["score"].mean().to_numpy(),
            "score_sd": grouped["score"].std().to_numpy(),
            "tokens": pd.array(spent["tokens"].round(), dtype="Float64").astype("Int64"),
            "cpu_seconds": spent["cpu_seconds"].to_numpy(),
            "flops": spent["flops"].to_numpy(),
            "last_finished": grouped["finished"].max().array,
        },
    )


def _trial_status(sums: pd.DataFrame, sizes: pd.Series) -> np.ndarray[Any, Any]:
    conditions = [
        (sums["failed"] > 0).to_numpy(),
        (sums["done"] == sizes).to_numpy(),
        ((sums["paused"] > 0) & (sums["paused"] + sums["done"] == sizes)).to_numpy(),
        (sums["begun"] > 0).to_numpy(),
    ]
    names = ["failed", "done", "paused", "training"]
    return np.select(conditions, names, default="pending")


def cost_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return the cost of each run, including failed ones, one row per run."""
    results = [run.reached for run in runs]
    costs = [_mapping(result, "cost") for result in results]
    keys = ("device", "flops", "train_cpu_seconds", "eval_cpu_seconds", "wall_seconds")
    return shaped(
        "cost",
        identity(runs, np.arange(len(runs)))
        | {key: [cost.get(key) for cost in costs] for key in keys}
        | {
            "phase": [label(run.manifest, "phase") for run in runs],
            "status": [_status(run) for run in runs],
            "tokens": [_own_tokens(result) for result in results],
            "finished": [run.manifest.get("finished") for run in runs],
        },
    )


def _own_tokens(result: Mapping[str, Any]) -> float | None:
    """Return the tokens of a run without those of its trunk, which are counted once."""
    tokens = result.get("tokens")
    return None if tokens is None else tokens - (_mapping(result, "trunk").get("tokens") or 0)


def sources_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return the requested mixtures: one row per run, stage and source."""
    asked = ("stage", "source", "domain", "weight", "tokens", "available")
    columns = (*asked, "epochs", "epoch_cap", "exemption")
    asked_of = attrgetter(*asked)

    def rows(run: RunFiles) -> Iterator[tuple[Any, ...]]:
        for row in planned_sources(_mapping(run.manifest, "config")):
            epochs = row.tokens / row.available if row.available else None
            yield (*asked_of(row), epochs, row.epoch_cap, row.exemption)

    return _tidy("sources", runs, columns, rows)


def audits_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return the mixtures that were read: one row per run, stage and source."""
    read = ("stage", "source", "asked", "realised", "tokens", "windows")

    def rows(run: RunFiles) -> Iterator[tuple[Any, ...]]:
        audit = run.audit or {}
        epochs = _mapping(audit, "epochs")
        tolerance, ok = audit.get("tolerance"), audit.get("ok")
        for row in audit.get("stages") or ():
            gap = _difference(row.get("realised"), row.get("asked"))
            yield (*map(row.get, read), gap, tolerance, epochs.get(row.get("source", "")), ok)

    return _tidy("audits", runs, [*read, "gap", "tolerance", "epochs", "ok"], rows)


def tasks_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return one row per study and task, from the first run config that names the task."""
    rows: dict[tuple[str, str], tuple[Any, ...]] = {}
    seen: set[tuple[str, str]] = set()
    for run in runs:
        study = run.study
        config = _mapping(run.manifest, "config")
        key = (study, repr(_mapping(config, "evaluation")) + repr(config.get("source")))
        if key in seen:
            continue
        seen.add(key)
        for task in planned_tasks(config):
            rows.setdefault((study, task.task), (task.domain, task.form, task.metric))
    if not rows:
        return empty("tasks")
    columns = list(zip(*(key + value for key, value in rows.items()), strict=True))
    names = ("study", "task", "domain", "form", "metric")
    return shaped(
        "tasks", {name: list(column) for name, column in zip(names, columns, strict=True)}
    )


def _tidy(
    frame: str,
    runs: Sequence[RunFiles],
    columns: Sequence[str],
    rows: Callable[[RunFiles], Iterable[tuple[Any, ...]]],
) -> pd.DataFrame:
    """Build a frame from the ``rows`` of every run; each row has the values of ``columns``."""
    with collector_paused():
        of_runs = [list(rows(run)) for run in runs]
        values = zip(*itertools.chain.from_iterable(of_runs), strict=True)
        collected = dict(zip(columns, map(list, values), strict=False))
    if not collected:
        return empty(frame)
    owner = np.repeat(np.arange(len(runs)), [len(of_run) for of_run in of_runs])
    return shaped(frame, identity(runs, owner) | collected)


def _difference(left: Any, right: Any) -> float | None:
    return None if left is None or right is None else float(left) - float(right)


def _mapping(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = of.get(key)
    return found if isinstance(found, Mapping) else {}
