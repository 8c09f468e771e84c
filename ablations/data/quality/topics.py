"""Topics of a source: which of k clusters a document belongs to, and words to name them by.

Words weighted by rarity (TF-IDF) are reduced to some dimensions (truncated SVD), scaled to length 1, and
clustered (k-means), all by scikit-learn. The number of the nearest cluster stands in the place of a
score, so a source is cut into topics as it is cut into buckets of quality.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.errors import DataError, Problem

__all__ = ["TopicModel", "agreement", "fit_topics"]

Floats = npt.NDArray[np.float64]

_WORDS = 50_000
_DIMENSIONS = 64
_NAMING_WORDS = 3
_CHARACTERS = 20_000
"""Characters read of a document: a topic shows at the beginning."""
_PATTERN = r"(?u)\b[^\W\d_]{3,}\b"


class TopicModel:
    """Clusters of documents.

    Args:
        words: The vocabulary, in the order of the columns.
        idf: Rarity of each word, [words].
        directions: Of the reduced space, [dimensions, words].
        centres: Of the clusters, [topics, dimensions].
    """

    def __init__(self, words: Sequence[str], idf: Floats, directions: Floats, centres: Floats):
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.words, self._idf = list(words), idf
        self._directions, self._centres = directions, centres
        self._vectorizer = TfidfVectorizer(
            vocabulary={word: column for column, word in enumerate(words)},
            token_pattern=_PATTERN,
            sublinear_tf=True,
        )
        self._vectorizer.idf_ = idf

    def scores(self, texts: Sequence[str]) -> Floats:
        """Return the number of each text's topic, as the score of a bucket."""
        weights = self._vectorizer.transform([text[:_CHARACTERS] for text in texts])
        places = _unit(weights @ self._directions.T)
        # Of unit vectors the nearest centre has the largest 2 x·c − c·c.
        nearness = 2.0 * places @ self._centres.T - (self._centres**2).sum(axis=1)
        found: Floats = nearness.argmax(axis=1).astype(np.float64)
        return found

    def save(self, folder: Path) -> None:
        """Write ``topics.npz`` and ``words.json``."""
        np.savez_compressed(
            folder / "topics.npz",
            idf=self._idf,
            directions=self._directions.astype(np.float32),
            centres=self._centres,
        )
        (folder / "words.json").write_text(json.dumps(self.words))

    @classmethod
    def read(cls, folder: Path) -> TopicModel:
        """Return the model that :meth:`save` wrote."""
        words = json.loads((folder / "words.json").read_text())
        with np.load(folder / "topics.npz", allow_pickle=False) as stored:
            return cls(
                words, stored["idf"], stored["directions"].astype(np.float64), stored["centres"]
            )

    def names(self) -> list[str]:
        """Return a name for each topic: the words that its centre weighs above the mean of all centres."""
        weights = self._centres @ self._directions
        above = weights - weights.mean(axis=0)
        names: list[str] = []
        for row in above:
            top = [_plain(self.words[column]) for column in np.argsort(-row)]
            kept = list(dict.fromkeys(word for word in top[: 4 * _NAMING_WORDS] if word))
            name = "_".join(kept[:_NAMING_WORDS]) or "topic"
            taken = sum(other == name or other.startswith(f"{name}_again") for other in names)
            names.append(f"{name}_again{taken}" if taken else name)
        return names


def fit_topics(texts: Sequence[str], into: int, *, seed: int) -> TopicModel:
    """Return ``into`` topics found in ``texts``.

    Raises:
        DataError: too few documents or words for so many topics.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    if len(texts) < 10 * into:
        raise DataError(
            Problem(
                "into",
                "too many topics for these documents",
                found=f"{into} topics, {len(texts)} documents",
                allowed="at least 10 documents for each topic",
                do="lower into, or raise documents",
            )
        )
    vectorizer = TfidfVectorizer(
        max_features=_WORDS,
        min_df=2,
        max_df=0.5,
        stop_words="english",
        token_pattern=_PATTERN,
        sublinear_tf=True,
    )
    try:
        weights: Any = vectorizer.fit_transform([text[:_CHARACTERS] for text in texts])
    except ValueError as error:  # no word is left
        raise DataError(Problem("source", "no words to find topics by", found=error)) from error
    most = min(weights.shape) - 1
    if most < into:
        raise DataError(
            Problem("into", "more topics than the words distinguish", found=into, allowed=most)
        )
    reduced = TruncatedSVD(min(_DIMENSIONS, most), random_state=seed % 2**32)
    places = _unit(reduced.fit_transform(weights))
    clusters = KMeans(into, n_init=4, random_state=seed % 2**32).fit(places)
    # float32 as on disk, so that a model that was read back finds the same topics.
    directions = reduced.components_.astype(np.float32).astype(np.float64)
    words = vectorizer.get_feature_names_out().tolist()
    return TopicModel(words, np.asarray(vectorizer.idf_), directions, clusters.cluster_centers_)


def agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return how far two clusterings of the same documents agree: 1 = the same, 0 = by chance."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(first, second))


def _unit(places: Floats) -> Floats:
    lengths = np.linalg.norm(places, axis=1, keepdims=True)
    return np.asarray(places / np.maximum(lengths, 1e-12))


def _plain(word: str) -> str:
    """Return a word as part of a source's name: ASCII letters; empty if it has others."""
    return word.lower() if word.isascii() and word.isalpha() else ""
