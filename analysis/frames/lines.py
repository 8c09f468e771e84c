"""Frames from line files and details: checkpoints, scores, metrics, samples.

`scores.jsonl` nests task → metric → numbers. Arrow parses thousands of such rows into one column a
(task, metric, field), which are then interleaved into tidy rows by numpy: no Python object a cell.
Measured on 2,000,000 cells: see `benchmarks/analysis_frames.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.frames.build import identity
from analysis.frames.columns import empty, shaped
from analysis.records import RunFiles, read_lines

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["checkpoints_frame", "metrics_frame", "samples_frame", "score_frames"]

Array = np.ndarray[Any, Any]

_NOT_METRICS = ("item_id", "gold", "choice_logprobs", "length_baseline")
"""Columns of a details file that are not one float a metric."""


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Some cells of the scores of one chunk, row after row; the arrays have one length."""

    owner: Array
    step: Array
    tokens: Array
    pair: Array
    """Position in ``pairs``."""
    fields: dict[str, Array]
    pairs: list[tuple[str, str]]
    """(task, metric)."""


def score_frames(runs: Sequence[RunFiles]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of checkpoints and of scores, which one file holds."""
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
        cells.append(_cells(table, owner))
    return _checkpoints(runs, points), _scores(runs, cells)


def checkpoints_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """One row a scored checkpoint."""
    return score_frames(runs)[0]


def _last_of_each_step(table: pa.Table, owner: Array) -> tuple[pa.Table, Array]:
    """Of a step that was scored twice, the last row counts, as in `RunRecord.scores`."""
    import pandas as pd

    keys = pd.DataFrame({"owner": owner, "step": _numbers(table, "step")})
    keep = (~keys.duplicated(keep="last") & keys["step"].notna()).to_numpy()
    if keep.all():
        return table, owner
    return table.filter(keep), owner[keep]


def _checkpoints(runs: Sequence[RunFiles], points: list[dict[str, Array]]) -> pd.DataFrame:
    if not points:
        return empty("checkpoints")
    joined = {key: np.concatenate([point[key] for point in points]) for key in points[0]}
    owner = joined.pop("owner")
    for key in ("step", "tokens"):
        joined[key] = _whole(joined[key])
    return shaped("checkpoints", identity(runs, owner) | joined)


def _cells(table: pa.Table, owner: Array) -> _Cells:
    """The cells of a chunk, ordered by row, then by the order of tasks in the file."""
    rows = table.num_rows
    columns = list(_metric_columns(table))
    pairs = [(task, metric) for task, metric, _ in columns]
    fields = ("value", "stderr", "n", "higher_is_better", "chance")
    grids = {name: np.full((rows, len(pairs)), np.nan) for name in fields}
    present = np.zeros((rows, len(pairs)), dtype=bool)
    for position, (_, _, cell) in enumerate(columns):
        present[:, position] = np.asarray(cell.is_valid())
        for name in fields:
            grids[name][:, position] = _field(cell, name, rows)
    taken = present.ravel()
    repeat = len(pairs)
    return _Cells(
        owner=np.repeat(owner, repeat)[taken],
        step=np.repeat(_numbers(table, "step"), repeat)[taken],
        tokens=np.repeat(_numbers(table, "tokens"), repeat)[taken],
        pair=np.tile(np.arange(repeat, dtype=np.int32), rows)[taken],
        fields={name: grid.ravel()[taken] for name, grid in grids.items()},
        pairs=pairs,
    )


def _metric_columns(table: pa.Table) -> Iterator[tuple[str, str, Any]]:
    """(task, metric, struct array) of every cell column; a task that is null in every row has none."""
    import pyarrow as pa

    if "metrics" not in table.column_names or not pa.types.is_struct(table["metrics"].type):
        return
    metrics = table["metrics"].combine_chunks()
    for task_field in metrics.type:
        task = _child(metrics, task_field.name)
        if not pa.types.is_struct(task.type):
            continue
        for metric_field in task.type:
            cell = _child(task, metric_field.name)
            if pa.types.is_struct(cell.type):
                yield task_field.name, metric_field.name, cell


def _child(array: Any, name: str) -> Any:
    """A field of a struct array that is null wherever the struct is."""
    from pyarrow import compute

    return compute.struct_field(array, [array.type.get_field_index(name)])


def _field(cell: Any, name: str, rows: int) -> Array:
    import pyarrow as pa

    if cell.type.get_field_index(name) < 0:
        return np.full(rows, np.nan)
    values = _child(cell, name)
    if pa.types.is_null(values.type) or pa.types.is_string(values.type):
        return np.full(rows, np.nan)
    found: Array = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def _scores(runs: Sequence[RunFiles], chunks: list[_Cells]) -> pd.DataFrame:
    import pandas as pd

    pairs = sorted({pair for chunk in chunks for pair in chunk.pairs})
    if not pairs:
        return empty("scores")
    place = {pair: position for position, pair in enumerate(pairs)}
    codes = np.concatenate(
        [np.asarray([place[p] for p in c.pairs], dtype=np.int32)[c.pair] for c in chunks if c.pairs]
    )
    tasks = pd.Categorical([task for task, _ in pairs])
    metrics = pd.Categorical([metric for _, metric in pairs])

    def joined(name: str) -> Array:
        return np.concatenate([chunk.fields[name] for chunk in chunks])

    owner = np.concatenate([chunk.owner for chunk in chunks])
    better = joined("higher_is_better")
    return shaped(
        "scores",
        identity(runs, owner)
        | {
            "step": _whole(np.concatenate([chunk.step for chunk in chunks])),
            "tokens": _whole(np.concatenate([chunk.tokens for chunk in chunks])),
            "task": _recoded(tasks, codes),
            "metric": _recoded(metrics, codes),
            "value": joined("value"),
            "stderr": joined("stderr"),
            "n": _whole(joined("n")),
            "higher_is_better": pd.arrays.BooleanArray(better == 1.0, np.isnan(better)),
            "chance": joined("chance"),
        },
    )


def _recoded(categories: pd.Categorical, codes: Array) -> pd.Categorical:
    import pandas as pd

    chosen = np.asarray(categories.codes)[codes]
    return pd.Categorical.from_codes(chosen, dtype=categories.dtype, validate=False)


def metrics_frame(runs: Sequence[RunFiles]) -> pd.DataFrame:
    """One row a run and step; of a step that was trained again after a resume, the last row."""
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
    """One row a run, task, item and metric.

    Args:
        runs: The runs to read.
        tasks: Only these; every task when None.
        metrics: Only these; every metric when None.
        step: Only this checkpoint; the last one of each run when None.
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
    from pyarrow import parquet

    names = [
        name
        for name in parquet.read_schema(file).names
        if name not in _NOT_METRICS and (metrics is None or name in metrics)
    ]
    table = parquet.read_table(file, columns=["item_id", *names]).to_pandas()
    table["item_id"] = table["item_id"].astype("str")
    tidy = table.melt(id_vars="item_id", var_name="metric", value_name="value")
    return tidy.rename(columns={"item_id": "item"})


def _numbers(table: pa.Table, name: str) -> Array:
    """A column as floats: NaN where missing, absent or not a number."""
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
    """Floats as whole numbers that may be missing; exact up to 2^53, above any token budget."""
    import pandas as pd

    missing = np.isnan(values)
    return pd.arrays.IntegerArray(np.where(missing, 0, values).astype(np.int64), missing)
