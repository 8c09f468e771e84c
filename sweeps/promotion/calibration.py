"""Count how many sealed intervals held, over all promotions of a runs folder.

    runs/<promotion>/comparison.json     the newest comparison of each promotion

A prediction counts only if the full run recorded its digest when it started. The intervals are 90%
intervals: over many promotions about nine of ten should hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.files import read_json, write_sealed

__all__ = ["COMPARISON_FILE", "Calibration", "calibration", "keep_comparison"]

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Counts of sealed intervals that were tested."""

    promotions: int = 0
    """Promotions with at least one tested interval."""
    scores: int = 0
    """Intervals of scores."""
    scores_held: int = 0
    tasks: int = 0
    """Intervals of tasks."""
    tasks_held: int = 0
    unreadable: tuple[str, ...] = ()
    """Comparisons that could not be read and were not counted."""

    def text(self, runs_dir: Path | str) -> str:
        """Return one line for people."""
        if not self.promotions:
            counts = "no sealed interval has been put to the test yet"
        else:
            counts = (
                f"{self.scores_held} of {self.scores} intervals of scores and {self.tasks_held} of "
                f"{self.tasks} of tasks held, over {self.promotions} promotion"
                f"{'' if self.promotions == 1 else 's'} (about 90% should)"
            )
        bad = f"; not readable: {', '.join(self.unreadable)}" if self.unreadable else ""
        return f"Calibration in {runs_dir}: {counts}{bad}."


def keep_comparison(runs_dir: Path, promotion: str, stored: Mapping[str, Any]) -> None:
    """Write a comparison next to its full runs, replacing an older one."""
    folder = runs_dir / promotion
    if folder.is_dir():
        write_sealed(folder / COMPARISON_FILE, stored)


def calibration(runs_dir: Path, newest: Mapping[str, Any]) -> Calibration:
    """Count over the comparisons in ``runs_dir``, with ``newest`` replacing the one of its promotion.

    A comparison that cannot be read is listed and not counted, because one damaged file must not stop
    the comparison of another promotion.
    """
    kept: dict[str, Mapping[str, Any]] = {}
    unreadable = []
    for path in sorted(runs_dir.glob(f"*/{COMPARISON_FILE}")):
        if path.parent.name == newest["promotion"]:
            continue
        try:
            stored = read_json(path)
            _held([stored])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(str(path))
            continue
        kept[path.parent.name] = stored
    kept[str(newest["promotion"])] = newest
    rows = _held(list(kept.values()))
    return Calibration(
        promotions=len({name for name, _, _ in rows}),
        scores=sum(key == "score" for _, key, _ in rows),
        scores_held=sum(held for _, key, held in rows if key == "score"),
        tasks=sum(key != "score" for _, key, _ in rows),
        tasks_held=sum(held for _, key, held in rows if key != "score"),
        unreadable=tuple(unreadable),
    )


def _held(comparisons: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, bool]]:
    """Return (promotion, task, True if it held) for every interval that was tested."""
    return [
        (str(one["promotion"]), str(row["task"]), bool(row["held"]))
        for one in comparisons
        if one["seal"] == "kept"
        for row in one["outcomes"]
        if row["held"] is not None
    ]
