"""Promotions of a study, as a report shows them.

promotions/<promotion>/promotion.json      the decision, its cost and its gates
promotions/<promotion>/comparison.json     the full run against the sealed prediction, once it has run
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import read_json_or_none

__all__ = ["PromotionSummary", "promotions"]


@dataclass(frozen=True, kw_only=True)
class PromotionSummary:
    """One promotion in the words of a report."""

    name: str
    study: str
    candidate: str
    full: str
    """Name of the full config."""
    day: str
    """Day of the promotion, as ``2026-11-22``."""
    by: str
    cost: str
    """Estimated cost of the full run."""
    overridden: Sequence[str]
    """Gates that were overridden."""
    outcome: str
    """Score of the full run against its prediction; empty if they were not compared."""
    after: Sequence[str] = ()
    """Studies whose picks are trained after the full run, in order."""


def promotions(folder: Path) -> list[PromotionSummary]:
    """Return the promotions under ``folder``, by name; one that cannot be read is left out."""
    if not folder.is_dir():
        return []
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    return [one for name in names if (one := _read(folder / name)) is not None]


def _read(folder: Path) -> PromotionSummary | None:
    record = read_json_or_none(folder / "promotion.json")
    try:
        return _summary(record, read_json_or_none(folder / "comparison.json"))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _summary(record: Mapping[str, Any], comparison: Any) -> PromotionSummary:
    # Imported here: a study without a promotion needs none of it.
    from sweeps.promotion.schedule_text import cost_words

    return PromotionSummary(
        name=str(record["name"]),
        study=str(record["study"]),
        candidate=str(record["candidate"]["name"]),
        full=str(record["full"]["name"]),
        day=str(record["provenance"]["created"])[:10],
        by=str(record["provenance"]["by"]),
        cost=cost_words(record["cost"]),
        overridden=[gate["name"].replace("_", " ") for gate in record["gates"] if gate["override"]],
        outcome=_outcome(comparison) if isinstance(comparison, Mapping) else "",
        after=[str(stage["study"]) for stage in record.get("after") or ()],
    )


def _outcome(comparison: Mapping[str, Any]) -> str:
    """Return the score of the full run against its sealed prediction, in one sentence."""
    if comparison["not_comparable"]:
        return f"The full run cannot be compared: {comparison['not_comparable']}."
    score = next((row for row in comparison["outcomes"] if row["task"] == "score"), None)
    if score is None:
        return ""
    text = f"The full run measured {score['realised']:+.3g}, {score['mean']:+.3g} was expected"
    if score["held"] is None:
        return f"{text}."
    place = "inside" if score["held"] else "outside"
    return f"{text}: {place} the interval {score['low']:+.3g} to {score['high']:+.3g}."
