"""Type, unit and meaning of every column of every frame.

The builders take types and order from this table (:func:`shaped`), `docs/analysis.md` contains it, and
a test compares it with the frames, so that the three cannot drift apart::

    >>> [column.name for column in COLUMNS["checkpoints"]][:4]
    ['study', 'run', 'trial', 'seed']
    >>> unit("scores", "tokens")
    'tokens'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "Column", "Kind", "describe", "empty", "markdown", "shaped", "unit"]

Kind = Literal["category", "text", "whole", "number", "flag", "time"]

_DTYPES: Mapping[Kind, str] = {
    "category": "category",
    "text": "str",
    "whole": "Int64",
    "number": "float64",
    "flag": "boolean",
    "time": "datetime64[ns, UTC]",
}


@dataclass(frozen=True)
class Column:
    """One column of a frame."""

    name: str
    kind: Kind
    unit: str
    """Unit of the values; empty for names, flags and statuses."""
    text: str
    """One line of documentation."""


_RUN = (
    Column("study", "category", "", "Study that the run belongs to."),
    Column("run", "category", "", "Run folder inside the study, <trial>-<seed>."),
    Column("trial", "category", "", "Trial: one point of the search, one or more runs."),
    Column("seed", "whole", "", "Seed of initialisation and data order."),
)

_RUNS = (
    *_RUN,
    Column("name", "category", "", "Name of a named trial, such as natural or uniform."),
    Column("phase", "category", "", "Purpose of the trial: baseline, design, search, confirm."),
    Column("status", "category", "", "pending, training, scoring, paused, done or failed."),
    Column("reason", "text", "", "Why the run failed."),
    Column("score", "number", "score", "Number that the study optimises, at the last checkpoint."),
    Column("direction", "category", "", "maximize or minimize: which way the score is better."),
    Column("step", "whole", "steps", "Last optimiser step reached and scored."),
    Column("tokens", "whole", "tokens", "Tokens trained on at that step."),
    Column("tokens_asked", "whole", "tokens", "Tokens of the whole schedule."),
    Column("audit_ok", "flag", "", "Whether the realised mixture is the requested one."),
    Column("parameters", "whole", "parameters", "Parameters of the model, including embeddings."),
    Column("wall_seconds", "number", "seconds", "Wall-clock time of the run."),
    Column("created", "time", "UTC", "Time at which the record was created."),
    Column("started", "time", "UTC", "Time at which the run first left pending."),
    Column("finished", "time", "UTC", "Time at which the run was done or failed."),
    Column("host", "category", "", "Machine that last wrote the record."),
    Column("fingerprint", "text", "", "SHA-256 of everything that defines the result."),
    Column("git_commit", "category", "", "Commit of the platform; + marks a changed checkout."),
    Column("command", "text", "", "Command that started the run."),
)

_TRIALS = (
    Column("study", "category", "", "Study that the trial belongs to."),
    Column("trial", "category", "", "Trial: one point of the search, one or more runs."),
    Column("name", "category", "", "Name of a named trial, such as natural or uniform."),
    Column("phase", "category", "", "Purpose of the trial: baseline, design, search, confirm."),
    Column(
        "status",
        "category",
        "",
        "done if all of its runs are done, failed if any failed, paused if they wait.",
    ),
    Column("runs", "whole", "runs", "Number of recorded runs, one per seed."),
    Column("done", "whole", "runs", "Number of finished runs."),
    Column("failed", "whole", "runs", "Number of failed runs."),
    Column("score", "number", "score", "Mean score of the finished runs."),
    Column("score_sd", "number", "score", "Standard deviation over seeds; missing for one seed."),
    Column("direction", "category", "", "maximize or minimize: which way the score is better."),
    Column("tokens", "whole", "tokens", "Tokens trained on, summed over the runs."),
    Column("cpu_seconds", "number", "CPU seconds", "Training and scoring, summed over the runs."),
    Column("flops", "number", "FLOPs", "Training FLOPs, summed over the runs."),
    Column("last_finished", "time", "UTC", "Time at which its last run was done or failed."),
)

_CHECKPOINTS = (
    *_RUN,
    Column("step", "whole", "steps", "Optimiser step of the checkpoint."),
    Column("tokens", "whole", "tokens", "Tokens trained on at the checkpoint."),
    Column(
        "score", "number", "score", "The study's score at the checkpoint; missing if it has none."
    ),
    Column("direction", "category", "", "maximize or minimize: which way the score is better."),
)

_SCORES = (
    *_RUN,
    Column("step", "whole", "steps", "Optimiser step of the checkpoint."),
    Column("tokens", "whole", "tokens", "Tokens trained on at the checkpoint."),
    Column("task", "category", "", "Evaluation set."),
    Column("metric", "category", "", "Name of the metric (docs/evaluation.md)."),
    Column("value", "number", "of the metric", "Value of the metric; a missing value is never 0."),
    Column("stderr", "number", "of the metric", "Standard error over the items."),
    Column("n", "whole", "items", "Number of items scored."),
    Column("higher_is_better", "flag", "", "Direction of the metric."),
    Column("chance", "number", "of the metric", "Value of guessing; missing if it has no meaning."),
)

_TASKS = (
    Column("study", "category", "", "Study that scores the task."),
    Column("task", "category", "", "Evaluation set."),
    Column("domain", "category", "", "Ability that the task measures: english, math, code, …"),
    Column("form", "category", "", "cloze, letters, generative, code, rolling or preference."),
    Column("metric", "category", "", "First metric in the config: the task's main one."),
)

_SAMPLES = (
    *_RUN,
    Column("step", "whole", "steps", "Optimiser step of the checkpoint."),
    Column("task", "category", "", "Evaluation set."),
    Column("item", "text", "", "Item, the same in every run, so that comparisons can be paired."),
    Column("metric", "category", "", "Name of the metric (docs/evaluation.md)."),
    Column("value", "number", "of the metric", "Value for the item; a missing value is never 0."),
)

_METRICS = (
    *_RUN,
    Column("step", "whole", "steps", "Optimiser step."),
    Column("tokens", "whole", "tokens", "Tokens trained on after the step."),
    Column("loss", "number", "nats per token", "Training loss of the step."),
    Column("lr", "number", "learning rate", "Learning rate of the step."),
    Column("grad_norm", "number", "gradient norm", "Norm of the gradient before clipping."),
    Column("tokens_per_second", "number", "tokens per second", "Throughput of the step."),
    Column("seconds", "number", "seconds", "Wall-clock seconds since training began."),
)

_SOURCES = (
    *_RUN,
    Column("stage", "category", "", "Stage of the schedule."),
    Column("source", "category", "", "Source in the stage."),
    Column("domain", "category", "", "Domain of the source: english, math, code, …"),
    Column("weight", "number", "share of tokens", "Requested share within the stage."),
    Column("tokens", "number", "tokens", "Requested tokens of the source in the stage."),
    Column("available", "number", "tokens", "Tokens that the source contains."),
    Column("epochs", "number", "epochs", "Tokens / available; sums over stages to the schedule's."),
    Column("epoch_cap", "number", "epochs", "Cap on the whole schedule's epochs."),
    Column("exemption", "text", "", "Reason why the source may exceed the cap; missing if none."),
)

_AUDITS = (
    *_RUN,
    Column("stage", "category", "", "Stage of the schedule."),
    Column("source", "category", "", "Source in the stage."),
    Column("asked", "number", "share of tokens", "Requested share within the stage."),
    Column("realised", "number", "share of tokens", "Share that was read."),
    Column("gap", "number", "share of tokens", "Realised minus asked."),
    Column("tolerance", "number", "share of tokens", "Largest gap that passes."),
    Column("tokens", "whole", "tokens", "Tokens that were read."),
    Column("windows", "whole", "windows", "Windows that were read."),
    Column("epochs", "number", "epochs", "Epochs of the source that the whole schedule read."),
    Column("ok", "flag", "", "Whether the whole run passed the audit."),
)

_COST = (
    *_RUN,
    Column("phase", "category", "", "Purpose of the trial: baseline, design, search, confirm."),
    Column("status", "category", "", "Status of the run; failed runs count too."),
    Column("device", "category", "", "Device that trained the run."),
    Column("tokens", "whole", "tokens", "Tokens trained on."),
    Column("flops", "number", "FLOPs", "Training FLOPs."),
    Column("train_cpu_seconds", "number", "CPU seconds", "CPU time of training."),
    Column("eval_cpu_seconds", "number", "CPU seconds", "CPU time of scoring."),
    Column("wall_seconds", "number", "seconds", "Wall-clock time of the run."),
    Column("finished", "time", "UTC", "When the run was done or failed."),
)

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "runs": _RUNS,
    "trials": _TRIALS,
    "checkpoints": _CHECKPOINTS,
    "scores": _SCORES,
    "tasks": _TASKS,
    "samples": _SAMPLES,
    "metrics": _METRICS,
    "sources": _SOURCES,
    "audits": _AUDITS,
    "cost": _COST,
}
"""Frame → its columns, in order."""


def unit(frame: str, column: str) -> str:
    """Return the unit of ``column`` of ``frame``."""
    return next(found.unit for found in COLUMNS[frame] if found.name == column)


def describe(frame: str) -> pd.DataFrame:
    """Return the documentation of ``frame`` as a frame: column, type, unit, meaning."""
    import pandas as pd

    rows = [(c.name, c.kind, c.unit, c.text) for c in COLUMNS[frame]]
    return pd.DataFrame(rows, columns=["column", "type", "unit", "meaning"])


def markdown() -> str:
    """Return every frame's documentation as Markdown, as in `docs/analysis.md` between its markers."""
    lines = []
    for frame, columns in COLUMNS.items():
        lines += [f"**{frame}**", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.kind} | {c.unit or '–'} | {c.text} |" for c in columns]
        lines.append("")
    return "\n".join(lines)


def empty(frame: str) -> pd.DataFrame:
    """Return ``frame`` without rows, with its columns and types."""
    return shaped(frame, {column.name: [] for column in COLUMNS[frame]})


def shaped(frame: str, values: Mapping[str, Any]) -> pd.DataFrame:
    """Build a frame of ``values`` with exactly the documented columns, order and types.

    Columns that ``values`` lacks are missing in every row.

    Raises:
        KeyError: ``values`` has a column that is not documented.
    """
    import pandas as pd

    documented = COLUMNS[frame]
    unknown = set(values) - {column.name for column in documented}
    if unknown:
        raise KeyError(f"columns of {frame} that COLUMNS does not document: {sorted(unknown)}")
    length = max((len(value) for value in values.values()), default=0)
    built = {c.name: _typed(values.get(c.name), c.kind, length) for c in documented}
    return pd.DataFrame(built, copy=False)


def _typed(values: Any, kind: Kind, length: int) -> Any:
    import pandas as pd

    if values is None:
        values = [None] * length
    if isinstance(values, pd.Categorical) and kind == "category":
        return values
    if kind == "time" and isinstance(values, pd.api.extensions.ExtensionArray):
        return values.astype(_DTYPES["time"])
    if kind == "time":
        seconds = pd.to_numeric(pd.Series(values, dtype="object"), errors="coerce")
        return pd.to_datetime(seconds.astype("float64"), unit="s", utc=True).astype(_DTYPES["time"])
    if kind in ("category", "text"):
        series = pd.Series(values, dtype="str")
        return series.astype("category") if kind == "category" else series
    return pd.Series(values, dtype=_DTYPES[kind], copy=False)
