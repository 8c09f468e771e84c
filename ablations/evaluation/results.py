"""Scores of a checkpoint: their rows, their statistics and the per-item details behind them.

A value is the mean over the items that could be scored. A task without one is missing, with its
reason, and never 0. Standard errors come from the items, not from lighteval's bootstrap, which for
bits per byte is too small by the square root of its 1,000 rounds.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import DamagedError, Problem
from ablations.evaluation.specs import HIGHER_IS_BETTER, WITHOUT_CHANCE, Direction, TaskSpec
from ablations.files import replacing
from ablations.record.checksums import CHECKSUMS, listed, write_checksums

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CheckpointScores",
    "ItemScore",
    "MetricScore",
    "TaskScores",
    "missing",
    "read_details",
    "read_groups",
    "seal_details",
    "summarise",
    "write_details",
]


@dataclass(frozen=True, slots=True)
class ItemScore:
    """Scores of one item under one checkpoint."""

    item_id: str
    metrics: Mapping[str, float]
    """Metric → value; NaN if the item could not be scored."""
    gold: int
    """Index of the right choice; -1 if there is none."""
    choice_logprobs: tuple[float, ...]
    length_baseline: float
    """Score of choosing the longest answer; NaN if there are no choices."""
    num_choices: int
    num_bytes: int
    """Bytes of a rolling text, else of the gold answer."""
    cut_tokens: int
    """Tokens of the context that did not fit the window."""
    text: str | None = None
    """Generated text."""
    group: str | None = None
    """Passage, subject or document that it shares with other items; None if it has none."""
    parts: int = 1
    """Instructions of its prompt, of which ``inst_level_*`` is the share that is followed."""
    answer: str | None = None
    """Reference answer about a picture, from which chance is counted."""


@dataclass(frozen=True, kw_only=True)
class MetricScore:
    """Value of one metric of one task."""

    value: float | None
    """Mean over the items; None if it is missing."""
    stderr: float | None = None
    """Standard error over the items; None for fewer than two."""
    n: int = 0
    """Number of items behind the value."""
    higher_is_better: bool = True
    chance: float | None = None
    """Score of guessing; None if the metric has no chance level."""
    length_baseline: float | None = None
    """Score of choosing the longest answer; None if there are no choices."""
    groups: int | None = None
    """Groups of items, such as the questions of a picture, that the standard error counts as one draw each;
    None if each item is a draw of its own."""

    def row(self) -> dict[str, Any]:
        """Return the entry of ``scores.jsonl``."""
        entry = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.groups is None:  # as before there were pictures
            del entry["groups"]
        return entry


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """Scores of one task under one checkpoint."""

    metrics: Mapping[str, MetricScore]
    reason: str | None = None
    """Reason why the task is missing; None if it was scored."""
    too_long: int = 0
    """Items without a score because they do not fit the window."""
    cut: int = 0
    """Items whose context lost its beginning to fit the window."""

    def note(self) -> dict[str, Any]:
        """Return remarks on the values; empty if there are none."""
        remarks = {"missing": self.reason, "too_long": self.too_long, "cut": self.cut}
        return {name: value for name, value in remarks.items() if value}


@dataclass(frozen=True, kw_only=True)
class CheckpointScores:
    """Scores of all tasks under one checkpoint, and the score made of them."""

    step: int
    tasks: Mapping[str, TaskScores]
    score: float | None
    direction: Direction | None
    reason: str | None = None
    """Reason why the score is missing; None if there is one or the suite has no score."""
    seconds: float = 0.0
    """CPU seconds of scoring this checkpoint."""
    details: Mapping[str, Path] = field(default_factory=dict)
    """Task → its parquet file."""

    def row(self, tokens: int | None = None) -> dict[str, Any]:
        """Return the row of ``scores.jsonl``; ``tokens`` counts those that the checkpoint was trained on."""
        notes = {name: task.note() for name, task in self.tasks.items() if task.note()}
        return {
            "step": self.step,
            "tokens": tokens,
            "score": self.score,
            "direction": self.direction,
            "reason": self.reason,
            "metrics": {
                name: {metric: one.row() for metric, one in task.metrics.items()}
                for name, task in self.tasks.items()
            },
            "notes": notes,
            "cpu_seconds": round(self.seconds, 3),
        }

    def flat(self) -> dict[str, float | None]:
        """Return ``task/metric`` → value, as in ``result.json``."""
        return {
            f"{name}/{metric}": one.value
            for name, task in self.tasks.items()
            for metric, one in task.metrics.items()
        }


def summarise(spec: TaskSpec, items: Sequence[ItemScore]) -> TaskScores:
    """Return the scores of a task from those of its items."""
    metrics = {name: _summary(name, spec, items) for name in spec.metrics}
    # Margins are missing without a reference model, and a shuffled picture without another one; the other
    # metrics of these items are not.
    lost = all if spec.form in ("preference", "picture") else any
    unscored = sum(lost(math.isnan(v) for v in item.metrics.values()) for item in items)
    reason = None
    if items and unscored == len(items):
        reason = "none of its items fits the window"
    return TaskScores(
        metrics=metrics,
        reason=reason,
        too_long=unscored,
        cut=sum(item.cut_tokens > 0 for item in items),
    )


def missing(spec: TaskSpec, reason: str) -> TaskScores:
    """Return the scores of a task that could not be scored."""
    return TaskScores(
        metrics={name: _summary(name, spec, ()) for name in spec.metrics}, reason=reason
    )


def _summary(name: str, spec: TaskSpec, items: Sequence[ItemScore]) -> MetricScore:
    scored = [item for item in items if not math.isnan(item.metrics[name])]
    higher = HIGHER_IS_BETTER[name]
    if not scored:
        return MetricScore(value=None, higher_is_better=higher)
    values = [item.metrics[name] for item in scored]
    # Bits per byte of held-out text are counted over all bytes: a long document or answer weighs more.
    # The gain of a picture is the difference of two of them.
    in_bits = name == "bpb" or (spec.form == "picture" and name != "exact_match")
    by_bytes = spec.form == "rolling" or (in_bits and spec.source is not None)
    by_parts = name.startswith("inst_level")
    weights = [item.num_bytes if by_bytes else item.parts if by_parts else 1 for item in scored]
    groups = _groups(scored) if spec.form == "picture" else None
    value, stderr = _weighted_mean(values, weights, groups)
    choice = name in ("acc", "acc_char")
    baselines = [one.length_baseline for one in scored if not math.isnan(one.length_baseline)]
    return MetricScore(
        value=value,
        stderr=stderr,
        n=len(scored),
        higher_is_better=higher,
        chance=_chance(name, spec, scored),
        length_baseline=math.fsum(baselines) / len(baselines) if choice and baselines else None,
        groups=None if groups is None else len(set(groups)),
    )


def _groups(items: Sequence[ItemScore]) -> list[tuple[str, str]]:
    """Return the group of each item: questions of one picture are right or wrong together."""
    return [
        ("item", item.item_id) if item.group is None else ("group", item.group) for item in items
    ]


def _weighted_mean(
    values: Sequence[float], weights: Sequence[float], groups: Sequence[Any] | None = None
) -> tuple[float, float | None]:
    """Return a weighted mean and its standard error (ratio estimator; s / sqrt(n) for equal weights).

    Items of one group count as one draw, with the sum of their deviations; without groups each is one.
    """
    total = math.fsum(weights)
    mean = math.fsum(w * v for w, v in zip(weights, values, strict=True)) / total
    deviations = [w * (v - mean) for w, v in zip(weights, values, strict=True)]
    if groups is not None:
        sums: dict[Any, float] = {}
        for group, deviation in zip(groups, deviations, strict=True):
            sums[group] = sums.get(group, 0.0) + deviation
        deviations = list(sums.values())
    n = len(deviations)
    if n < 2:
        return mean, None
    spread = math.fsum(deviation**2 for deviation in deviations)
    return mean, math.sqrt(spread * n / (n - 1)) / total


def _chance(name: str, spec: TaskSpec, items: Sequence[ItemScore]) -> float | None:
    if name in WITHOUT_CHANCE:
        return None
    if spec.chance is not None:
        return spec.chance
    if spec.form == "picture":
        # Always the most frequent answer, capitals and outer white space aside: the best guess that sees
        # neither picture nor question.
        answers = Counter(str(item.answer).strip().casefold() for item in items)
        return answers.most_common(1)[0][1] / len(items)
    if name in ("acc", "acc_char"):
        return math.fsum(1.0 / item.num_choices for item in items) / len(items)
    return 0.5 if name == "reward_acc" else 0.0


def write_details(path: Path, items: Sequence[ItemScore], metrics: Sequence[str]) -> None:
    """Write one row for each item, completely or not at all, with the columns of docs/architecture.md."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"item_id": pa.array([item.item_id for item in items], pa.string())}
    for name in metrics:
        columns[name] = pa.array([item.metrics[name] for item in items], pa.float64())
    types = {
        "gold": pa.int64(),
        "choice_logprobs": pa.list_(pa.float64()),
        "length_baseline": pa.float64(),
        "num_bytes": pa.int64(),
        "cut_tokens": pa.int64(),
        "text": pa.string(),
        "group": pa.string(),
    }
    for name, kind in types.items():
        columns[name] = pa.array([getattr(item, name) for item in items], kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


_ABOUT_ITEMS = (
    "item_id",
    "gold",
    "choice_logprobs",
    "length_baseline",
    "num_bytes",
    "cut_tokens",
    "text",
    "group",
)
"""Columns of a details file that are not metrics."""


def seal_details(folder: Path) -> None:
    """Record the checksums of one checkpoint's details, after all of them are written."""
    if folder.is_dir():
        write_checksums(folder)


def read_details(path: Path, metrics: Collection[str] | None = None) -> pa.Table:
    """Return ``item_id`` and the metrics of a details file: those of ``metrics`` that it has, or all.

    Raises:
        DamagedError: the file is missing, is not a table, or changed since it was written.
    """

    def chosen(names: Sequence[str]) -> list[str]:
        kept = [name for name in names if name not in _ABOUT_ITEMS]
        return ["item_id", *(name for name in kept if metrics is None or name in metrics)]

    return _columns(path, chosen)


def read_groups(path: Path) -> dict[str, str]:
    """Return item → group of a details file; items without a group are left out.

    Files of older versions have no groups.

    Raises:
        DamagedError: as :func:`read_details`.
    """
    wanted = ["item_id", "group"]
    table = _columns(path, lambda names: wanted if "group" in names else [])
    if not table.column_names:
        return {}
    pairs = zip(table["item_id"].to_pylist(), table["group"].to_pylist(), strict=True)
    return {str(item): str(group) for item, group in pairs if group is not None}


def _columns(path: Path, chosen: Callable[[Sequence[str]], list[str]]) -> pa.Table:
    """Return the columns of a details file that ``chosen`` picks by name."""
    # Imported here: plans and published tables need no parquet.
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = _checked(path)
    # Opened once and read on this thread: for a file of 100 items pyarrow's read_table took 0.65 ms, this
    # takes 0.07 with its checksum, and a study of 500 trials on 20 tasks has 10,000 files.
    try:
        with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
            return file.read(columns=chosen(file.schema_arrow.names), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(
            Problem(str(path), "damaged: not a table of items", found=str(error).splitlines()[0])
        ) from error


def _checked(path: Path) -> bytes:
    """Return the content of a details file after comparing it with its checksum, if there is one."""
    entry = _listed(path.parent).get(path.name)
    problem = Problem(
        str(path),
        "damaged: its content is not what was written",
        do="score the checkpoint again, or restore the file from a copy",
    )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(replace(problem, what="cannot be read", found=error.strerror)) from error
    if entry is not None and hashlib.sha256(content).hexdigest() != entry[1]:
        raise DamagedError(problem)
    return content


def _listed(folder: Path) -> Mapping[str, tuple[int, str]]:
    path = folder / CHECKSUMS
    try:
        state = path.stat()
    except OSError:
        return {}
    return _listed_at(folder, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4096)
def _listed_at(folder: Path, _changed: int, _size: int) -> Mapping[str, tuple[int, str]]:
    """Return the checksums of a folder, kept because a checkpoint has one list for its twenty tasks."""
    return listed(folder)
