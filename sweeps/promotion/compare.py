"""Compare the full run with the sealed prediction of the difference between the mixtures.

    against the baseline     pick minus baseline, both at full size: this tests the sealed prediction;
                             it needs the full run of the baseline too (``experiment=baseline`` of the
                             promotion's folder)
    over the run             last checkpoint minus first, proxies and full run: learning progress, which
                             any mixture makes; shown if the baseline was not run at full size

The comparison also gives Spearman's rank correlation over tasks of the relative changes, with a bootstrap
interval over tasks. Tasks whose noise is larger than the difference are left out.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ablations.errors import ConfigError, DamagedError, Problem, UserError
from ablations.files import read_json, write_sealed, write_text
from ablations.record.run_record import RunRecord, list_runs
from sweeps.promotion.calibration import (
    COMPARISON_FILE,
    Calibration,
    calibration,
    keep_comparison,
)
from sweeps.promotion.changes import (
    changes,
    mean_first,
    mean_last,
    rank_correlation,
)
from sweeps.promotion.compare_text import text
from sweeps.promotion.gates import audit_gaps
from sweeps.promotion.promotion_inputs import require_whole
from sweeps.promotion.sealed_prediction import Expected, Prediction, digest, read_prediction
from sweeps.study.specs import loss_sign

__all__ = ["Comparison", "Outcome", "TaskChange", "after_run", "compare", "write_comparison"]

Basis = Literal["against the baseline", "over the run"]

Seal = Literal["kept", "broken", "unmarked", "none"]


@dataclass(frozen=True, kw_only=True)
class TaskChange:
    """Relative change of one task, positive = better."""

    task: str
    metric: str
    predicted: float
    """Change in the proxies."""
    realised: float
    """Change in the full run."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Test of one sealed interval; differences in the metric's units, positive = better."""

    task: str
    """Task, or ``score``."""
    metric: str
    mean: float
    """Predicted difference."""
    low: float | None
    high: float | None
    realised: float
    held: bool | None
    """True if the realised difference is inside the interval; None without an interval."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of a full run with its prediction."""

    promotion: str
    folder: str
    """Folder of the promotion."""
    runs_dir: str
    basis: Basis
    not_comparable: str | None
    """Reason why the full run cannot be compared with the prediction; None if it can."""
    seal: Seal
    """State of the prediction's digest in the labels of the full runs."""
    outcomes: tuple[Outcome, ...]
    """Score first, then the tasks by expected difference, largest first."""
    left_out: Mapping[str, str]
    """``task/metric`` → reason why it is not compared."""
    rows: tuple[TaskChange, ...]
    """Largest predicted gain first."""
    correlation: float | None
    """Spearman over tasks; None below three tasks, without any spread, or if nothing is comparable."""
    interval: tuple[float, float] | None
    """95% bootstrap interval over tasks; None below five tasks."""
    same_direction: float | None
    """Share of tasks whose change has the predicted sign."""
    score: float | None
    """Score of the full run."""
    baseline_score: float | None
    """Score of the baseline's full run."""
    proxy_score: float | None
    """Mean score of the proxies."""
    audit_gaps: tuple[str, ...]
    """Differences between the asked mixture and what the full runs read; empty is good."""
    spikes: int
    """Loss spikes recorded."""
    unseen: Mapping[str, float]
    """Source that the full run read and no proxy read → its share of the full run's tokens."""
    calibration: Calibration = field(default_factory=Calibration)

    def text(self) -> str:
        """Return the comparison for people, as Markdown."""
        return text(self)

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def compare(folder: Path, runs_dir: Path) -> Comparison:
    """Compare the full run of the promotion in ``folder`` with its prediction.

    Raises:
        ConfigError: The folder contains no readable promotion.
        UserError: The full run has not finished.
    """
    record = _promotion(folder)
    full = _finished(runs_dir, record["name"], "full")
    if full is None:
        conf = shlex.quote(f"{folder}/conf")
        raise UserError(
            Problem(
                f"{runs_dir}/{record['name']}",
                "the full run has not finished",
                do=f"ablate run --config-dir {conf} experiment=promoted",
            )
        )
    study = _done(list_runs(runs_dir, record["study"]))
    proxies = [run for run in study if run.manifest.trial == record["candidate"]["trial"]]
    against = record.get("baseline")
    others = [run for run in study if against and run.manifest.trial == against["trial"]]
    baseline = _finished(runs_dir, record["name"], "baseline") if against else None
    require_whole([run for run in (full, baseline, *proxies, *others) if run is not None])
    stored = record.get("prediction")
    prediction = None if stored is None else read_prediction(stored)
    unseen = _unseen(full, [*proxies, *others])
    outcomes, left_out = _outcomes(prediction, baseline, full)
    why = _why_not(unseen, full, baseline)
    if baseline is not None:
        pair = (mean_last(others), mean_last(proxies)), (mean_last([baseline]), mean_last([full]))
    else:
        pair = (mean_first(proxies), mean_last(proxies)), (mean_first([full]), mean_last([full]))
    rows = _rows(changes(*pair[0]), changes(*pair[1]), left_out)
    pairs = [row.predicted for row in rows], [row.realised for row in rows]
    correlation, interval = (None, None) if why else rank_correlation(*pairs)
    agree = [row.predicted * row.realised > 0 for row in rows]
    full_runs = [run for run in (full, baseline) if run is not None]
    tolerance = float(full.manifest.config["mixture"]["audit_tolerance"])
    found = Comparison(
        promotion=record["name"],
        folder=str(folder),
        runs_dir=str(runs_dir),
        basis="over the run" if baseline is None else "against the baseline",
        not_comparable=why,
        seal=_seal(stored, full_runs),
        outcomes=() if why else outcomes,
        left_out=left_out,
        rows=rows,
        correlation=correlation,
        interval=interval,
        same_direction=sum(agree) / len(agree) if agree and not why else None,
        score=_score(full),
        baseline_score=None if baseline is None else _score(baseline),
        proxy_score=_mean([_score(run) for run in proxies]),
        audit_gaps=tuple(gap for run in full_runs for gap in audit_gaps(run, tolerance)),
        spikes=sum(event["kind"] == "spike" for event in full.events()),
        unseen=unseen,
    )
    return replace(found, calibration=calibration(runs_dir, found.plain()))


def _promotion(folder: Path) -> dict[str, Any]:
    """Read ``promotion.json`` and refuse a folder or file that is not a promotion."""
    path = folder / "promotion.json"
    wrong = Problem("compare", "not a promotion folder", found=str(folder))
    if not path.is_file():
        raise ConfigError(wrong)
    try:
        record: dict[str, Any] = read_json(path)
        record["name"], record["study"], record["candidate"]["trial"]
    except DamagedError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            replace(
                wrong, where=str(path), what="damaged", found=f"{type(error).__name__}: {error}"
            )
        ) from None
    return record


def _seal(stored: Mapping[str, Any] | None, runs: Sequence[RunRecord]) -> Seal:
    """Compare the prediction's digest with the one in the labels of the full runs."""
    if stored is None:
        return "none"
    marks = {run.manifest.labels.get("prediction") for run in runs}
    if None in marks:
        return "unmarked"
    return "kept" if marks == {digest(stored)} else "broken"


def _outcomes(
    prediction: Prediction | None, baseline: RunRecord | None, full: RunRecord
) -> tuple[tuple[Outcome, ...], dict[str, str]]:
    """Test every sealed interval; also return what is left out, with the reason."""
    if prediction is None:
        return (), {}
    left_out = dict(prediction.not_comparable)
    found = []
    differences = {} if baseline is None else _differences(prediction, baseline, full)
    tasks = sorted(prediction.tasks, key=lambda row: -abs(row.mean))
    for row in [*([prediction.score] if prediction.score else []), *tasks]:
        key = f"{row.task}/{row.metric}" if row.metric else row.task
        if row.metric and not row.signal:
            left_out[key] = "without signal: the proxies' noise is larger than their difference"
        elif baseline is not None and key not in differences:
            left_out[key] = "not scored by both full runs"
        elif key in differences:
            found.append(_outcome(row, differences[key]))
    return tuple(found), left_out


def _outcome(row: Expected, realised: float) -> Outcome:
    held = None
    if row.low is not None and row.high is not None:
        held = row.low <= realised <= row.high
    return Outcome(
        task=row.task,
        metric=row.metric,
        mean=row.mean,
        low=row.low,
        high=row.high,
        realised=realised,
        held=held,
    )


def _differences(prediction: Prediction, baseline: RunRecord, full: RunRecord) -> dict[str, float]:
    """Return ``score`` and ``task/metric`` → full run minus the baseline's, positive = better."""
    before, after = mean_last([baseline]), mean_last([full])
    found = {
        f"{task}/{metric}": (value - before[task, metric][0]) * (1.0 if higher else -1.0)
        for (task, metric), (value, higher) in after.items()
        if (task, metric) in before
    }
    scores = [prediction.objective.value(run.result() or {}) for run in (full, baseline)]
    if scores[0] is not None and scores[1] is not None:
        found["score"] = -loss_sign(prediction.direction) * (scores[0] - scores[1])
    return found


def _why_not(
    unseen: Mapping[str, float], full: RunRecord, baseline: RunRecord | None
) -> str | None:
    """Return why nothing can be compared; a source added equally to both full runs is no reason."""
    if not unseen:
        return None
    named = ", ".join(f"{name} ({share:.1%} of its tokens)" for name, share in unseen.items())
    if baseline is None:
        return (
            f"the full run read {named}, which no proxy read; only the same addition in the "
            "baseline's full run would take its effect out"
        )
    ours, theirs = _shares(full), _shares(baseline)
    tolerance = 2.0 * float(full.manifest.config["mixture"]["audit_tolerance"]) + 0.002
    uneven = [n for n in unseen if abs(ours.get(n, 0.0) - theirs.get(n, 0.0)) > tolerance]
    if not uneven:
        return None
    listed = ", ".join(f"{n} ({ours.get(n, 0.0):.1%} and {theirs.get(n, 0.0):.1%})" for n in uneven)
    return f"no proxy read {listed}, and winner and baseline read different shares of it"


def _unseen(full: RunRecord, proxies: Sequence[RunRecord]) -> dict[str, float]:
    """Return source that the full run read and no proxy read → share of its tokens."""
    seen = {source for run in proxies for source in _shares(run)}
    return {source: share for source, share in _shares(full).items() if source not in seen}


def _shares(record: RunRecord) -> dict[str, float]:
    """Return source → share of the windows that a run read, from its audit, in its order."""
    counts: dict[str, float] = {}
    for row in (record.audit() or {}).get("stages", ()):
        if row["windows"]:
            counts[row["source"]] = counts.get(row["source"], 0.0) + row["windows"]
    total = math.fsum(counts.values())
    return {source: count / total for source, count in counts.items()}


def _rows(
    predicted: Mapping[str, tuple[str, float]],
    realised: Mapping[str, tuple[str, float]],
    left_out: Mapping[str, str],
) -> tuple[TaskChange, ...]:
    """Return the tasks that both sides measured by the same metric, largest predicted gain first."""
    rows = [
        TaskChange(task=task, metric=metric, predicted=change, realised=realised[task][1])
        for task, (metric, change) in predicted.items()
        if task in realised and realised[task][0] == metric and f"{task}/{metric}" not in left_out
    ]
    return tuple(sorted(rows, key=lambda row: -row.predicted))


def _score(record: RunRecord) -> float | None:
    value = (record.result() or {}).get("score")
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _done(records: Sequence[RunRecord]) -> list[RunRecord]:
    return [record for record in records if record.status == "done"]


def _finished(runs_dir: Path, study: str, trial: str) -> RunRecord | None:
    found = [run for run in _done(list_runs(runs_dir, study)) if run.manifest.trial == trial]
    return found[0] if found else None


def write_comparison(folder: Path, comparison: Comparison) -> Path:
    """Write the comparison into the promotion and next to its full runs, replacing an older one."""
    keep_comparison(Path(comparison.runs_dir), comparison.promotion, comparison.plain())
    write_sealed(folder / COMPARISON_FILE, comparison.plain())
    path = folder / "comparison.md"
    write_text(path, comparison.text())
    return path


def after_run(config: Mapping[str, Any], record: RunRecord) -> None:
    """Print and store the comparison; ``ablate run`` calls this at the end of a promoted run."""
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
