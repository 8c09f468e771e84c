"""Details of several runs, aligned by item: the same items in all runs or none, with their groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.errors import Problem, UserError
from ablations.evaluation.results import read_details, read_groups
from ablations.record.run_record import RunRecord
from sweeps.verdict.item_noise import Groups
from sweeps.verdict.training_noise import Floats

__all__ = ["ItemTable", "item_tables"]


@dataclass(frozen=True)
class ItemTable:
    """One metric of one task, item by item."""

    values: Floats
    """Runs x items; a null is NaN."""
    groups: Groups
    """Group of each item; None if each item is a group of its own."""


def item_tables(
    records: Sequence[RunRecord], steps: Sequence[int | None], wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], ItemTable]:
    """Return (task, metric) → items, for the tasks whose details every run kept.

    Args:
        records: Records of the runs.
        steps: Step of each run whose details are read; None = it has none.
        wanted: Tasks and metrics to read.

    Raises:
        UserError: two runs answered different items of a task, or one run an item twice.
    """
    files = [
        {} if step is None else record.details(step)
        for record, step in zip(records, steps, strict=True)
    ]
    found: dict[tuple[str, str], ItemTable] = {}
    problems: list[Problem] = []
    for task in dict.fromkeys(task for task, _ in wanted):
        if not all(task in of_run for of_run in files):
            continue
        metrics = [metric for of_task, metric in wanted if of_task == task]
        read = [_read(of_run[task], metrics) for of_run in files]
        wrong = _other_items(task, records, [ids for ids, _ in read])
        problems += wrong
        if wrong:
            continue
        groups = _groups([of_run[task] for of_run in files], read[0][0])
        for metric in metrics:
            columns = [values.get(metric) for _, values in read]
            if all(column is not None for column in columns):
                whole = np.vstack([c for c in columns if c is not None])
                found[task, metric] = ItemTable(whole, groups)
    if problems:
        raise UserError(problems)
    return found


def _read(file: Path, metrics: Sequence[str]) -> tuple[list[str], dict[str, Floats]]:
    """Return item ids in ascending order, and each metric's values in that order; a null is NaN."""
    table = read_details(file, metrics)
    ids = [str(item) for item in table.column("item_id").to_pylist()]
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    values = {
        name: np.asarray(table.column(name).to_numpy(), dtype=np.float64)[order]
        for name in table.column_names[1:]
    }
    return [ids[i] for i in order], values


def _groups(files: Sequence[Path], ids: Sequence[str]) -> Groups:
    """Return the group of each item, from the first run that kept groups.

    An item without a group is a group of its own. None if no run kept groups.
    """
    named = next((groups for file in files if (groups := read_groups(file))), {})
    if not named:
        return None
    names = [("group", named[item]) if item in named else ("item", item) for item in ids]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=np.int64)


def _other_items(
    task: str, records: Sequence[RunRecord], ids: Sequence[Sequence[str]]
) -> list[Problem]:
    """Return a problem for each run whose items are not those of most runs."""
    sets = [frozenset(own) for own in ids]
    first = Counter(sets).most_common(1)[0][0]
    name = records[sets.index(first)].path.name
    problems = []
    for record, own in zip(records, ids, strict=True):
        if len(set(own)) < len(own):
            twice = len(own) - len(set(own))
            problems.append(
                Problem(record.path.name, f"answers items of {task} twice", found=f"{twice} items")
            )
        elif set(own) != first:
            problems.append(
                Problem(
                    record.path.name,
                    f"did not answer the same items of {task} as {name}",
                    found=f"{len(first - set(own))} missing, {len(set(own) - first)} others",
                    allowed=f"the {len(first)} items of {name}",
                    do="score both again with the same evaluation",
                )
            )
    return problems
