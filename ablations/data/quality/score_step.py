"""The step of a preparation that scores documents with a trained classifier."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from ablations.data.quality.artifact import open_artifact
from ablations.data.quality.classifiers import Classifier

__all__ = ["ScoreDocuments"]

_BATCH_DOCUMENTS = 256


class ScoreDocuments(BaseFilter):  # type: ignore[misc]
    """Note each document's score; drop those below ``least``.

    A filter of datatrove, as its ``FastTextClassifierFilter`` is. That one (0.10.1) keeps a copy of the
    model under its path's name in a cache, where an older model of the same path stays, and takes only
    fastText's models.

    Args:
        folder: The classifier.
        least: Lowest score that is kept; None = all.
    """

    name = "classifier"

    def __init__(self, folder: Path, least: float | None) -> None:
        super().__init__(batch_size=_BATCH_DOCUMENTS)
        self.folder, self.least = folder, least
        self.dropped: Counter[str] = Counter()
        self._classifier: Classifier | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the model out: each process opens its own."""
        return {**self.__dict__, "_classifier": None}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Score one document."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        """Score documents together."""
        if self._classifier is None:
            self._classifier = open_artifact(self.folder)
        kept: list[bool | tuple[bool, str]] = []
        scores = self._classifier.scores([document.text for document in batch]).tolist()
        for document, score in zip(batch, scores, strict=True):
            document.metadata["score"] = score
            if self.least is not None and score < self.least:
                reason = f"score below {self.least:g}"
                self.dropped[reason] += 1
                kept.append((False, reason))
            else:
                kept.append(True)
        return kept
