"""Views that figures and reports share: weights per trial, last checkpoints, values per task.

frames ──▶ weights(sources)        trial × source, shares of the whole schedule's tokens
       ├─▶ finals(scores)          the last scored checkpoint of every run
       └─▶ task_values(scores)     trial × task, mean over seeds, one metric per task
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "METRIC_ORDER",
    "finals",
    "main_metric",
    "score_direction",
    "searched_stage",
    "task_values",
    "weights",
]

METRIC_ORDER = ("bpb", "acc_char", "acc", "exact_match", "pass_at_1")
"""Metrics in the order of preference for a task without a named one: the smoothest first (recipe.md)."""


def weights(sources: pd.DataFrame, *, stage: str | None = None, per: str = "trial") -> pd.DataFrame:
    """Return the shares of tokens: one row per trial (or run), one column per source; rows sum to 1.

    Args:
        sources: Frame of sources.
        stage: Shares within this stage; over the whole schedule if None.
        per: "trial" or "run".
    """
    table = sources if stage is None else sources[sources["stage"] == stage]
    value = "weight" if stage is not None or _has_no_budget(table) else "tokens"
    wide = table.pivot_table(
        index=per, columns="source", values=value, aggfunc="sum", observed=True, fill_value=0.0
    )
    wide = wide.div(wide.sum(axis=1), axis=0)
    wide.columns = wide.columns.astype("str")
    wide.index = wide.index.astype("str")
    return wide


def searched_stage(sources: pd.DataFrame) -> str | None:
    """Return the only stage whose mixture differs between trials; None if no or several stages do."""
    stages = [str(stage) for stage in sources["stage"].unique()]
    if len(stages) < 2:
        return None
    varied = [s for s in stages if (weights(sources, stage=s).round(9).nunique() > 1).any()]
    return varied[0] if len(varied) == 1 else None


def _has_no_budget(sources: pd.DataFrame) -> bool:
    return bool((sources["tokens"].fillna(0.0) <= 0.0).all())


def finals(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the last scored checkpoint of every run."""
    if scores.empty:
        return scores
    last = scores.groupby(["study", "run"], observed=True)["step"].transform("max")
    return scores[scores["step"] == last]


def main_metric(scores: pd.DataFrame, prefer: Sequence[str] = METRIC_ORDER) -> dict[str, str]:
    """Return the main metric of each task: its first one in ``prefer``, else its first by name."""
    found: dict[str, str] = {}
    present = scores.groupby("task", observed=True)["metric"].unique()
    for task, metrics in present.items():
        names = [str(metric) for metric in metrics]
        ranked = [metric for metric in prefer if metric in names]
        found[str(task)] = (ranked or sorted(names))[0]
    return found


def task_values(
    scores: pd.DataFrame, *, per: str = "trial", prefer: Sequence[str] = METRIC_ORDER
) -> pd.DataFrame:
    """Return the mean over seeds of each task's main metric at the last checkpoint.

    The frame has one row per trial (or run) and one column per task.
    """
    last = finals(scores)
    chosen = main_metric(last, prefer)
    picked = last[last["metric"].astype("str") == last["task"].astype("str").map(chosen)]
    wide = picked.pivot_table(index=per, columns="task", values="value", observed=True)
    wide.columns = wide.columns.astype("str")
    wide.index = wide.index.astype("str")
    return wide


def score_direction(runs: pd.DataFrame, checkpoints: pd.DataFrame | None = None) -> str:
    """Return the direction of the study's score in most of its rows; maximize if none has one."""
    import pandas as pd

    parts = [runs["direction"].astype("str")]
    if checkpoints is not None:
        parts.append(checkpoints["direction"].astype("str"))
    known = pd.concat(parts).dropna()
    known = known[known.isin(["maximize", "minimize"])]
    return "maximize" if known.empty else str(known.mode().iloc[0])
