"""After the full run: what the proxies predicted, task by task, and what the full run did.

    against the baseline     pick minus baseline, proxies and full size; needs a full run of the
                             baseline too (``experiment=baseline`` of the promotion's folder)
    over the run             last checkpoint minus first, proxies and full run; always there

Changes are relative and turned so that more is better, one metric a task (bits per byte where there
are any: accuracies of small models move in steps of an item). The figure reported is Spearman's rank
correlation over tasks, with a bootstrap interval over tasks; and the share of tasks whose direction was
foretold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ablations.errors import Problem, UserError
from ablations.files import read_json, write_json, write_text
from ablations.runs import RunRecord, list_runs
from sweeps.promotion.gates import audit_gaps

__all__ = [
    "Comparison",
    "TaskChange",
    "after_run",
    "compare",
    "rank_correlation",
    "write_comparison",
]

FEWEST_TASKS = 5
"""Below this many tasks a bootstrap over tasks repeats a handful of values: no interval is given."""

_DRAWS = 2000

Basis = Literal["against the baseline", "over the run"]


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """One task's relative change, positive = better."""

    task: str
    metric: str
    predicted: float
    """By the proxies."""
    realised: float
    """By the full run."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The full run against its prediction."""

    promotion: str
    basis: Basis
    rows: tuple[TaskChange, ...]
    """Largest predicted gain first."""
    correlation: float | None
    """Spearman over tasks; None below three tasks or without any spread."""
    interval: tuple[float, float] | None
    """95%, bootstrap over tasks; None below five tasks."""
    same_direction: float | None
    """Share of tasks whose change has the sign predicted."""
    score: float | None
    """Score of the full run."""
    proxy_score: float | None
    """Mean score of the proxies."""
    audit_gaps: tuple[str, ...]
    """Where the full run read something else than asked; empty is good."""
    spikes: int
    """Loss spikes recorded."""
    unseen: tuple[str, ...]
    """Sources that the full run read and no proxy did: their effect was not foretold."""

    def text(self) -> str:
        """For people, as Markdown."""
        lines = [
            f"# {self.promotion}: the proxies' prediction and the full run",
            "",
            self._headline(),
            "",
            "| task | metric | predicted | realised |",
            "|---|---|--:|--:|",
            *(
                f"| {row.task} | {row.metric} | {row.predicted:+.2%} | {row.realised:+.2%} |"
                for row in self.rows
            ),
            "",
            f"Relative change {self.basis}, positive = better.",
            f"Realised mixture: {'; '.join(self.audit_gaps) or 'as asked in every stage'}.",
            *self._unforetold(),
            f"Loss spikes: {self.spikes}. Score {_told(self.score)}, proxies {_told(self.proxy_score)}.",
        ]
        return "\n".join(lines) + "\n"

    def _unforetold(self) -> list[str]:
        if not self.unseen:
            return []
        return [f"Read by the full run and by no proxy, so not foretold: {', '.join(self.unseen)}."]

    def _headline(self) -> str:
        if self.correlation is None:
            return f"{len(self.rows)} tasks: too few for a rank correlation."
        interval = "no interval below five tasks"
        if self.interval is not None:
            interval = f"95% interval {self.interval[0]:.2f} to {self.interval[1]:.2f}"
        return (
            f"Rank correlation of per-task change {self.basis}: **{self.correlation:.2f}** "
            f"({interval}, {len(self.rows)} tasks); {self.same_direction or 0.0:.0%} moved the way "
            "that the proxies foretold."
        )


def _told(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4f}"


def compare(folder: Path, runs_dir: Path) -> Comparison:
    """Compare the full run of the promotion in ``folder`` with its prediction.

    Raises:
        UserError: the full run has not finished.
    """
    record = read_json(folder / "promotion.json")
    full = _finished(runs_dir, record["name"], "full")
    if full is None:
        raise UserError(
            Problem(
                f"{runs_dir}/{record['name']}",
                "the full run has not finished",
                do=f"ablate run --config-dir {folder}/conf experiment=promoted",
            )
        )
    study = list_runs(runs_dir, record["study"])
    proxies = [run for run in _done(study) if run.manifest.trial == record["candidate"]["trial"]]
    baseline = _finished(runs_dir, record["name"], "baseline")
    against = record.get("baseline")
    if baseline is not None and against is not None:
        basis: Basis = "against the baseline"
        others = [run for run in _done(study) if run.manifest.trial == against["trial"]]
        predicted = _change(_mean_last(others), _mean_last(proxies))
        realised = _change(_mean_last([baseline]), _mean_last([full]))
    else:
        basis = "over the run"
        predicted = _change(_mean_first(proxies), _mean_last(proxies))
        realised = _change(_mean_first([full]), _mean_last([full]))
    rows = _rows(predicted, realised)
    x = [row.predicted for row in rows]
    y = [row.realised for row in rows]
    correlation, interval = rank_correlation(x, y)
    agree = [a * b > 0 for a, b in zip(x, y, strict=True)]
    result = full.result() or {}
    scores = [score for run in proxies if (score := (run.result() or {}).get("score")) is not None]
    tolerance = float(full.manifest.config["mixture"]["audit_tolerance"])
    return Comparison(
        promotion=record["name"],
        basis=basis,
        rows=tuple(rows),
        correlation=correlation,
        interval=interval,
        same_direction=sum(agree) / len(agree) if agree else None,
        score=result.get("score"),
        proxy_score=math.fsum(scores) / len(scores) if scores else None,
        audit_gaps=tuple(audit_gaps(full, tolerance)),
        spikes=sum(event["kind"] == "spike" for event in full.events()),
        unseen=tuple(
            s for s in _sources_read(full) if not any(s in _sources_read(p) for p in proxies)
        ),
    )


def _sources_read(record: RunRecord) -> list[str]:
    """Sources that a run read, by its audit, in order."""
    rows = (record.audit() or {}).get("stages", ())
    return list(dict.fromkeys(row["source"] for row in rows if row["windows"]))


def _done(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [record for record in records if record.status == "done"]


def _finished(runs_dir: Path, study: str, trial: str) -> RunRecord | None:
    found = [run for run in _done(list_runs(runs_dir, study)) if run.manifest.trial == trial]
    return found[0] if found else None


_Values = dict[tuple[str, str], tuple[float, bool]]
"""(task, metric) → value, and whether more is better."""


def _mean_first(records: Sequence[RunRecord]) -> _Values:
    return _mean([run.scores()[0] for run in records if run.scores()])


def _mean_last(records: Sequence[RunRecord]) -> _Values:
    return _mean([run.scores()[-1] for run in records if run.scores()])


def _mean(rows: Sequence[Mapping[str, Any]]) -> _Values:
    """The mean of every metric that no row lacks."""
    found: dict[tuple[str, str], list[tuple[float, bool]]] = {}
    for row in rows:
        for task, metrics in row["metrics"].items():
            for name, metric in metrics.items():
                if metric["value"] is not None:
                    value = (float(metric["value"]), bool(metric["higher_is_better"]))
                    found.setdefault((task, name), []).append(value)
    return {
        key: (math.fsum(value for value, _ in values) / len(values), values[0][1])
        for key, values in found.items()
        if len(values) == len(rows)
    }


def _change(before: _Values, after: _Values) -> dict[str, tuple[str, float]]:
    """Task → its metric, and the relative change for the better."""
    changes: dict[str, tuple[str, float]] = {}
    for (task, metric), (then, higher) in before.items():
        if (task, metric) not in after or then == 0.0:
            continue
        change = (after[task, metric][0] - then) / abs(then)
        # Bits per byte go before any other metric of a task.
        if task not in changes or metric == "bpb":
            changes[task] = (metric, change if higher else -change)
    return changes


def _rows(
    predicted: Mapping[str, tuple[str, float]], realised: Mapping[str, tuple[str, float]]
) -> list[TaskChange]:
    rows = [
        TaskChange(task=task, metric=metric, predicted=change, realised=realised[task][1])
        for task, (metric, change) in predicted.items()
        if task in realised and realised[task][0] == metric
    ]
    return sorted(rows, key=lambda row: -row.predicted)


def rank_correlation(
    x: Sequence[float], y: Sequence[float]
) -> tuple[float | None, tuple[float, float] | None]:
    """Spearman's rank correlation, and its 95% bootstrap interval over the pairs."""
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(first) < 3:
        return None, None
    found = float(_spearman(first[None, :], second[None, :])[0])
    if not math.isfinite(found):
        return None, None
    if len(first) < FEWEST_TASKS:
        return found, None
    draws = np.random.default_rng(0).integers(0, len(first), size=(_DRAWS, len(first)))
    values = _spearman(first[draws], second[draws])
    low, high = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return found, (float(low), float(high))


def _spearman(x: Any, y: Any) -> Any:
    """Spearman's rank correlation of every row; NaN where a row has no spread."""
    from scipy import stats

    a, b = (stats.rankdata(values, axis=1) for values in (x, y))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.divide((a * b).sum(axis=1), spread, out=np.full(len(a), math.nan), where=spread > 0)


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Keep the comparison beside the full run's promotion; the newest counts."""
    write_json(folder / "comparison.json", asdict(comparison))
    path = folder / "comparison.md"
    write_text(path, comparison.text())
    return path


def after_run(config: Mapping[str, Any], record: RunRecord) -> None:
    """What ``ablate run`` calls at the end of a promoted run: print and keep the comparison."""
    folder = Path(config["after"]["promotion"])
    if not (folder / "promotion.json").is_file():
        print(f"no comparison: the promotion was moved away from {folder}")
        return
    if (
        record.manifest.trial != "full"
        and _finished(record.path.parents[1], folder.name, "full") is None
    ):
        print("no comparison yet: the promoted run itself has not finished")
        return
    comparison = compare(folder, record.path.parents[1])
    print(comparison.text())
    print(f"kept as {write_comparison(folder, comparison)}")
