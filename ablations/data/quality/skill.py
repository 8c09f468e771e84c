"""Skill of a classifier: how well it orders the documents of one source.

A classifier that only distinguishes sources looks good on documents of several: every encyclopedia page
above every chat. As a filter it then keeps or drops whole sources. So skill is Spearman's rank
correlation of scores and annotations *within* each source, and it counts only if it is above what
annotations shuffled within each source give.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ablations.data.quality.annotations import Annotation
from ablations.data.quality.classifiers import Scores

__all__ = ["Evaluation", "LanguageCalibration", "SourceSkill", "evaluate"]

_FEWEST = 10
"""Documents of a source below which its rank correlation is not counted."""
_SHUFFLES = 999
_LEVEL = 0.002
"""Largest share of shuffled annotations that may reach the skill of a classifier that is accepted."""


@dataclass(frozen=True, kw_only=True)
class SourceSkill:
    """Agreement on the held-out annotations of one source."""

    source: str
    documents: int
    spearman: float | None
    """Rank correlation of scores and annotations; None if either is constant, or documents are too few."""
    macro_f1: float
    """Mean F1 of the levels 0 to 5 that occur, of rounded scores."""
    threshold_f1: float | None
    """F1 of "at or above the threshold"; None if no document is."""
    confusion: tuple[tuple[int, ...], ...]
    """Documents [annotated level 0 to 5][predicted level 0 to 5]."""


@dataclass(frozen=True, kw_only=True)
class LanguageCalibration:
    """Scores of one language against its annotations."""

    language: str
    documents: int
    bias: float
    """Mean score less mean annotation."""
    error: float
    """Mean distance between score and annotation in groups of equal rounded score, by their size."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Skill of a classifier on annotations that it was not trained on."""

    documents: int
    threshold: float
    sources: tuple[SourceSkill, ...]
    languages: tuple[LanguageCalibration, ...]
    pooled_spearman: float | None
    """Rank correlation over all documents, whatever their source."""
    within_spearman: float
    """Mean rank correlation within sources, by their documents; 0 if none can be measured."""
    shuffled_spearman: float
    """Value that 99.8% of annotations shuffled within each source stay below."""
    p_value: float
    """Share of shuffled annotations whose skill reaches ``within_spearman``."""

    @property
    def usable(self) -> bool:
        """Return whether the classifier orders the documents of one source better than by chance."""
        return self.within_spearman > 0.0 and self.p_value <= _LEVEL

    @property
    def sentence(self) -> str:
        """Return the result in one sentence."""
        figures = (
            f"rank correlation {self.within_spearman:.2f} within sources "
            f"(annotations shuffled: below {self.shuffled_spearman:.2f}, p = {self.p_value:.3f})"
        )
        if self.usable:
            return f"orders the documents of one source: {figures}"
        if len(self.sources) > 1 and self.pooled_spearman and self.pooled_spearman > 0.2:
            return (
                "only distinguishes sources, and does not order the documents of one: "
                f"{figures}, but {self.pooled_spearman:.2f} over all sources together"
            )
        return f"does not order documents: {figures}"

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "usable": self.usable, "sentence": self.sentence}


def evaluate(
    annotations: Sequence[Annotation], scores: Scores, *, threshold: float, seed: int
) -> Evaluation:
    """Return the skill of ``scores`` on held-out annotations.

    Args:
        annotations: Held-out documents.
        scores: Score of each.
        threshold: Score from which a document counts as good, for F1.
        seed: Seed of the shuffles.
    """
    given = np.array([a.score for a in annotations])
    groups: dict[str, list[int]] = {}
    for position, annotation in enumerate(annotations):
        groups.setdefault(annotation.source, []).append(position)
    within, shuffled = _within(groups, given, scores, seed)
    return Evaluation(
        documents=len(annotations),
        threshold=threshold,
        sources=tuple(
            _source_skill(source, given[rows], scores[rows], threshold)
            for source, rows in groups.items()
        ),
        languages=_calibrations(annotations, given, scores),
        pooled_spearman=_spearman(given, scores),
        within_spearman=within,
        shuffled_spearman=float(np.quantile(shuffled, 1.0 - _LEVEL)),
        p_value=float((1 + np.count_nonzero(shuffled >= within)) / (1 + len(shuffled))),
    )


def _source_skill(source: str, given: Scores, scores: Scores, threshold: float) -> SourceSkill:
    truth, found = _levels(given), _levels(scores)
    confusion = np.zeros((6, 6), dtype=int)
    np.add.at(confusion, (truth, found), 1)
    f1 = [_f1(truth == level, found == level) for level in np.unique(truth).tolist()]
    return SourceSkill(
        source=source,
        documents=len(given),
        spearman=_spearman(given, scores),
        macro_f1=float(np.mean([value or 0.0 for value in f1])),
        threshold_f1=_f1(given >= threshold, scores >= threshold),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def _levels(values: Scores) -> Any:
    return np.clip(np.floor(values + 0.5), 0, 5).astype(int)


def _f1(truth: Any, found: Any) -> float | None:
    both, either = (
        np.count_nonzero(truth & found),
        np.count_nonzero(truth) + np.count_nonzero(found),
    )
    return None if not np.count_nonzero(truth) else 2.0 * both / either


def _standard_ranks(values: Scores) -> Scores | None:
    """Return ranks of mean 0 and length 1; None if all values are the same or there are too few."""
    from scipy.stats import rankdata

    if len(values) < _FEWEST:
        return None
    ranks = rankdata(values) - (len(values) + 1) / 2
    length = math.sqrt(float(ranks @ ranks))
    return np.asarray(ranks / length) if length > 0.0 else None


def _spearman(given: Scores, scores: Scores) -> float | None:
    left, right = _standard_ranks(given), _standard_ranks(scores)
    return None if left is None or right is None else float(left @ right)


def _within(
    groups: Mapping[str, Sequence[int]], given: Scores, scores: Scores, seed: int
) -> tuple[float, Scores]:
    """Return the mean rank correlation within sources, and the same for each shuffle."""
    rng = np.random.default_rng(seed)
    total, found, shuffled = 0, 0.0, np.zeros(_SHUFFLES)
    for rows in groups.values():
        left, right = _standard_ranks(given[rows]), _standard_ranks(scores[rows])
        if left is None:
            continue  # one score only: nothing to order
        total += len(rows)
        if right is None:
            continue  # the classifier gives every document of the source the same score
        found += len(rows) * float(left @ right)
        for shuffle in range(_SHUFFLES):
            shuffled[shuffle] += len(rows) * float(rng.permutation(left) @ right)
    return (found / total, shuffled / total) if total else (0.0, shuffled)


def _calibrations(
    annotations: Sequence[Annotation], given: Scores, scores: Scores
) -> tuple[LanguageCalibration, ...]:
    found = []
    languages = np.array([a.language for a in annotations])
    for language in dict.fromkeys(languages.tolist()):
        mine = languages == language
        truth, own = given[mine], scores[mine]
        level = _levels(own)
        gaps = [abs(own[level == k].mean() - truth[level == k].mean()) for k in np.unique(level)]
        sizes = [np.count_nonzero(level == k) for k in np.unique(level)]
        found.append(
            LanguageCalibration(
                language=language,
                documents=len(truth),
                bias=float(own.mean() - truth.mean()),
                error=float(np.average(gaps, weights=sizes)),
            )
        )
    return tuple(found)
