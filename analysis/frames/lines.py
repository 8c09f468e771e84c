"""Frames from line files and item details: checkpoints, scores, metrics, samples.

`scores.jsonl` nests task → metric → numbers. Arrow parses thousands of such rows into one column per
(task, metric, field), and numpy interleaves these into tidy rows without a Python object per cell.
`benchmarks/analysis_frames.py` measures it on 2,000,000 cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.evaluation.results import read_details
from ablations.files import finite_or_none
from analysis.frames.build import identity
from analysis.frames.columns import empty, shaped
from analysis.records import RunFiles, read_lines, study_objective

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["metrics_frame", "samples_frame", "score_frames"]

Array = np.ndarray[Any, Any]

_FIELDS = ("value", "stderr", "n", "higher_is_better", "chance")
"""Fields of a cell of `scores.jsonl`."""


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Cells of the rows of one chunk, row after row."""

    counts: Array
    """Number of cells in each row."""
    pair: Array
    """Position of each cell's (task, metric) in ``pairs``."""
    fields: dict[str, Array]
    """Field → one float per cell, NaN if missing."""
    pairs: list[tuple[str, str]]
    """Pairs of task and metric."""


def score_frames(runs: Sequence[RunFiles]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames of checkpoints and of scores, which come from the same file."""
    points: list[dict[str, Array]] = []
    cells: list[_Cells] = []
    for table, owner in read_lines(runs, "scores.jsonl"):
        table, owner = _last_of_each_step(table, owner)
        points.append(
            {
                "owner": owner,
                "step": _numbers(table, "step"),
                "tokens": _numbers(table, "tokens"),
                "score": _numbers(table, "score"),
                "direction": _texts(table, "direction"),
            }
        )
        cells.append(_cells(table))
    if not points:
        return empty("checkpoints"), empty("scores")
    joined = {key: np.concatenate([point[key] for point in points]) for key in points[0]}
    scores = _scores(runs, joined, cells)
    return _declared(runs, _checkpoints(runs, joined), scores), scores


def _declared(
    runs: Sequence[RunFiles], checkpoints: pd.DataFrame, scores: pd.DataFrame
) -> pd.DataFrame:
    """Replace the runs' recorded score by the objective that a study declares."""
    import pandas as pd

    folders = {run.study: run.path.parent for run in runs}
    objectives = {study: study_objective(folder) for study, folder in folders.items()}
    declared = {study: one for study, one in objectives.items() if not one.is_recorded}
    if not declared:
        return checkpoints
    values = checkpoints["score"].to_numpy(dtype=float, na_value=np.nan, copy=True)
    directions = checkpoints["direction"].astype(object).to_numpy(copy=True)
    table = scores[scores["study"].isin(list(declared))]
    keys = table["task"].astype("str") + "/" + table["metric"].astype("str")
    cells = table.assign(key=keys).groupby(["study", "run", "step"], observed=True)
    found = {
        at: dict(zip(group["key"], group["value"].astype(float), strict=True))
        for at, group in cells
    }
    places = zip(checkpoints["study"], checkpoints["run"], checkpoints["step"], strict=True)
    for row, (study, run, step) in enumerate(places):
        if study in declared:
            objective = declared[study]
            metrics = {k: finite_or_none(v) for k, v in found.get((study, run, step), {}).items()}
            value = objective.value({"score": values[row], "metrics": metrics})
            values[row] = np.nan if value is None else value
            directions[row] = objective.direction or directions[row]
    # Of categories of its own: a study may declare a direction that no run recorded.
    direction = pd.Categorical(directions) if len(directions) else checkpoints["direction"]
    kept = {name: kind for name, kind in checkpoints.dtypes.items() if name != "direction"}
    return checkpoints.assign(
        score=pd.array(values, dtype=checkpoints["score"].dtype), direction=direction
    ).astype(kept)


def _last_of_each_step(table: pa.Table, owner: Array) -> tuple[pa.Table, Array]:
    """Keep the last row of a step that has several, as `RunRecord.scores` does."""
    import pandas as pd

    keys = pd.DataFrame({"owner": owner, "step": _numbers(table, "step")})
    keep = (~keys.duplicated(keep="last") & keys["step"].notna()).to_numpy()
    if keep.all():
        return table, owner
    return table.filter(keep), owner[keep]


def _checkpoints(runs: Sequence[RunFiles], points: dict[str, Array]) -> pd.DataFrame:
    columns: dict[str, Any] = {key: points[key] for key in ("score", "direction")}
    columns |= {key: _whole(points[key]) for key in ("step", "tokens")}
    return shaped("checkpoints", identity(runs, points["owner"]) | columns)


def _cells(table: pa.Table) -> _Cells:
    """Return the cells of a chunk, ordered by row, then by the order of tasks in the file."""
    rows = table.num_rows
    columns = list(_metric_columns(table))
    grids = {name: np.full((rows, len(columns)), np.nan) for name in _FIELDS}
    present = np.zeros((rows, len(columns)), dtype=bool)
    for position, (_, _, cell) in enumerate(columns):
        present[:, position] = np.asarray(cell.is_valid())
        for field, values in zip(cell.type, cell.flatten(), strict=True):
            if field.name in grids:
                grids[field.name][:, position] = _floats(values)
    return _Cells(
        counts=np.count_nonzero(present, axis=1),
        pair=np.nonzero(present)[1].astype(np.int32),
        fields={name: grid[present] for name, grid in grids.items()},
        pairs=[(task, metric) for task, metric, _ in columns],
    )


def _metric_columns(table: pa.Table) -> Iterator[tuple[str, str, Any]]:
    """Yield (task, metric, struct array) of every cell column; a task that is always null has none."""
    import pyarrow as pa

    if "metrics" not in table.column_names or not pa.types.is_struct(table["metrics"].type):
        return
    metrics = table["metrics"].combine_chunks()
    # flatten() makes a field null if its struct is null.
    for task_field, task in zip(metrics.type, metrics.flatten(), strict=True):
        if not pa.types.is_struct(task.type):
            continue
        for metric_field, cell in zip(task.type, task.flatten(), strict=True):
            if pa.types.is_struct(cell.type):
                yield task_field.name, metric_field.name, cell


def _floats(values: Any) -> Array:
    """Return numbers and flags as floats, NaN if missing or neither."""
    import pyarrow as pa

    if pa.types.is_boolean(values.type) or pa.types.is_integer(values.type):
        values = values.cast(pa.float64())
    if not pa.types.is_floating(values.type):
        return np.full(len(values), np.nan)
    found: Array = values.to_numpy(zero_copy_only=False)
    return found


def _scores(
    runs: Sequence[RunFiles], points: dict[str, Array], chunks: list[_Cells]
) -> pd.DataFrame:
    import pandas as pd

    pairs = sorted({pair for chunk in chunks for pair in chunk.pairs})
    if not pairs:
        return empty("scores")
    place = {pair: position for position, pair in enumerate(pairs)}
    codes = np.concatenate(
        [np.asarray([place[p] for p in c.pairs], dtype=np.int32)[c.pair] for c in chunks if c.pairs]
    )
    counts = np.concatenate([chunk.counts for chunk in chunks])

    def joined(name: str) -> Array:
        # Each chunk's part is freed as soon as it is copied, which halves the memory of two million rows.
        return np.concatenate([chunk.fields.pop(name) for chunk in chunks])

    better = joined("higher_is_better")
    columns = {
        "step": _whole(np.repeat(points["step"], counts)),
        "tokens": _whole(np.repeat(points["tokens"], counts)),
        "task": _recoded(pd.Categorical([task for task, _ in pairs]), codes),
        "metric": _recoded(pd.Categorical([metric for _, metric in pairs]), codes),
        "higher_is_better": pd.arrays.BooleanArray(better == 1.0, np.isnan(better)),
    }
    del better
    columns["n"] = _whole(joined("n"))
    columns |= {name: joined(name) for name in ("value", "stderr", "chance")}
    return shaped("scores", identity(runs, np.repeat(points["owner"], counts)) | columns)


def _recoded(categories: pd.Categorical, codes: Array) -> pd.Categorical:
    import pandas as pd

    chosen = np.asarray(categories.codes)[codes]
    return pd.Categorical.from_codes(chosen, dtype=categories.dtype, validate=False)


def metrics_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """Return one row per run and step; the last one of a step that was repeated after a resume."""
    names = ("step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "seconds")
    parts = []
    for table, owner in read_lines(runs, "metrics.jsonl"):
        table, owner = _last_of_each_step(table, owner)
        values = {name: _numbers(table, name) for name in names}
        order = np.lexsort((values["step"], owner))
        part = {name: column[order] for name, column in values.items()}
        parts.append(part | {"owner": owner[order]})
    if not parts:
        return empty("metrics")
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    owner = joined.pop("owner")
    joined["step"], joined["tokens"] = _whole(joined["step"]), _whole(joined["tokens"])
    return shaped("metrics", identity(runs, owner) | joined)


def samples_frame(
    runs: Sequence[RunFiles],
    *,
    tasks: Iterable[str] | None = None,
    metrics: Iterable[str] | None = None,
    step: int | None = None,
) -> pd.DataFrame:
    """Return one row per run, task, item and metric.

    Args:
        runs: Runs to read.
        tasks: Tasks to read; all if None.
        metrics: Metrics to read; all if None.
        step: Checkpoint to read; the last one of each run if None.
    """
    import pandas as pd

    only_tasks = None if tasks is None else set(tasks)
    only_metrics = None if metrics is None else set(metrics)
    parts = []
    for position, run in enumerate(runs):
        for at, file in _detail_files(run.path, step):
            if only_tasks is None or file.stem in only_tasks:
                part = _items(file, only_metrics)
                parts.append(part.assign(owner=position, step=at, task=file.stem))
    if not parts:
        return empty("samples")
    table = pd.concat(parts, ignore_index=True)
    owner = table.pop("owner").to_numpy()
    return shaped("samples", identity(runs, owner) | {name: table[name] for name in table})


def _detail_files(folder: Path, step: int | None) -> Iterator[tuple[int, Path]]:
    details = folder / "details"
    if not details.is_dir():
        return
    steps = sorted(int(entry.name) for entry in details.iterdir() if entry.name.isdigit())
    wanted = [at for at in steps if at == step] if step is not None else steps[-1:]
    for at in wanted:
        for file in sorted((details / str(at)).glob("*.parquet")):
            yield at, file


def _items(file: Path, metrics: set[str] | None) -> pd.DataFrame:
    table = read_details(file, metrics).to_pandas()
    table["item_id"] = table["item_id"].astype("str")
    tidy = table.melt(id_vars="item_id", var_name="metric", value_name="value")
    return tidy.rename(columns={"item_id": "item"})


def _numbers(table: pa.Table, name: str) -> Array:
    """Return a column as floats: NaN if missing, absent or not a number."""
    import pyarrow as pa

    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = table[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return np.full(table.num_rows, np.nan)
    found: Array = column.cast(pa.float64()).to_numpy()
    return found


def _texts(table: pa.Table, name: str) -> Array:
    import pyarrow as pa

    if name not in table.column_names or not pa.types.is_string(table[name].type):
        return np.full(table.num_rows, None, dtype=object)
    return np.asarray(table[name].to_pylist(), dtype=object)


def _whole(values: Array) -> Any:
    """Return floats as nullable integers; exact up to 2^53, above any token budget."""
    import pandas as pd

    missing = np.isnan(values)
    known = np.where(missing, 0, values) if missing.any() else values
    return pd.arrays.IntegerArray(known.astype(np.int64), missing)
