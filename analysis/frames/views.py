"""Views that figures and reports share: weights a trial, last checkpoints, values a task.

frames ──▶ weights(sources)        trial × source, shares of the whole schedule's tokens
       ├─▶ finals(scores)          the last scored checkpoint of every run
       └─▶ task_values(scores)     trial × task, mean over seeds, one metric a task
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
"""Which metric stands for a task where none is named: the smoothest first (recipe.md)."""


def weights(sources: pd.DataFrame, *, stage: str | None = None, per: str = "trial") -> pd.DataFrame:
    """A row a trial (or run), a column a source: its share of tokens; rows sum to 1.

    Args:
        sources: The frame of sources.
        stage: Shares within this stage; over the whole schedule when None.
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
    """The one stage whose mixture differs between trials; None where no or several stages do."""
    stages = [str(stage) for stage in sources["stage"].unique()]
    if len(stages) < 2:
        return None
    varied = [s for s in stages if (weights(sources, stage=s).round(9).nunique() > 1).any()]
    return varied[0] if len(varied) == 1 else None


def _has_no_budget(sources: pd.DataFrame) -> bool:
    return bool((sources["tokens"].fillna(0.0) <= 0.0).all())


def finals(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last scored checkpoint of every run."""
    if scores.empty:
        return scores
    last = scores.groupby(["study", "run"], observed=True)["step"].transform("max")
    return scores[scores["step"] == last]


def main_metric(scores: pd.DataFrame, prefer: Sequence[str] = METRIC_ORDER) -> dict[str, str]:
    """Task → the metric that stands for it: the first of ``prefer`` it has, else its first."""
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
    """A row a trial (or run), a column a task: its main metric at the last checkpoint, mean of seeds."""
    last = finals(scores)
    chosen = main_metric(last, prefer)
    picked = last[last["metric"].astype("str") == last["task"].astype("str").map(chosen)]
    wide = picked.pivot_table(index=per, columns="task", values="value", observed=True)
    wide.columns = wide.columns.astype("str")
    wide.index = wide.index.astype("str")
    return wide


def score_direction(runs: pd.DataFrame, checkpoints: pd.DataFrame | None = None) -> str:
    """Which way the study's score is better: what most of its rows say; maximize if none does."""
    import pandas as pd

    parts = [runs["direction"].astype("str")]
    if checkpoints is not None:
        parts.append(checkpoints["direction"].astype("str"))
    said = pd.concat(parts).dropna()
    said = said[said.isin(["maximize", "minimize"])]
    return "maximize" if said.empty else str(said.mode().iloc[0])
