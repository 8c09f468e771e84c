"""Classifiers of documents: text in, a score from 0 to 5 out.

fasttext       words and pairs of words; the score is the mean of the levels by their probability
linear         hashed words and pairs, weighted by rarity, and a ridge regression
transformers   any sequence classifier by name or folder, e.g. HuggingFaceFW/fineweb-edu-classifier;
               it is not trained here
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ablations.data.quality.annotations import HIGHEST, LOWEST, Annotation
from ablations.data.quality.fasttext_training import train_fasttext, training_options
from ablations.data.quality.topics import TopicModel
from ablations.errors import DataError, Problem

__all__ = [
    "Classifier",
    "Kind",
    "Scores",
    "open_classifier",
    "train_classifier",
]

Kind = Literal["fasttext", "linear", "transformers", "topics"]
Scores = npt.NDArray[np.float64]

_PREFIX = "__label__"
_FEATURES = 2**18
_TRANSFORMER_BATCH = 16
_TRANSFORMER_TOKENS = 512


class Classifier(Protocol):
    """Scores documents."""

    def scores(self, texts: Sequence[str]) -> Scores:
        """Return the score of each text."""
        ...

    def save(self, folder: Path) -> None:
        """Write the model into ``folder``."""
        ...


def train_classifier(
    kind: Kind, annotations: Sequence[Annotation], *, seed: int, model: str | None = None
) -> Classifier:
    """Return a classifier trained on ``annotations``.

    Args:
        kind: Kind of classifier; ``transformers`` is opened and not trained.
        annotations: Documents with scores.
        seed: Seed of the training.
        model: Name or folder of the transformers model.

    Raises:
        DataError: fewer than two different scores, or no transformers model of that name.
    """
    if kind == "transformers":
        return _Transformers(str(model))
    if len({round(a.score) for a in annotations}) < 2:
        raise DataError(
            Problem(
                "annotations", "all have the same score", do="annotate documents of each quality"
            )
        )
    if kind == "fasttext":
        return _train_fasttext(annotations, seed)
    return _train_linear(annotations)


def open_classifier(kind: Kind, folder: Path) -> Classifier:
    """Return the classifier that :meth:`Classifier.save` wrote into ``folder``."""
    if kind == "transformers":
        return _Transformers(str(folder / "model"))
    if kind == "topics":
        return TopicModel.read(folder)
    return _FastText.read(folder / "model.bin") if kind == "fasttext" else _Linear.read(folder)


def _one_line(text: str) -> str:
    """Return ``text`` as the one line that fastText reads."""
    return text.replace("\n", " ")


class _FastText:
    """fastText's supervised model over the rounded scores."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._predict = self._model.f.predict
        labels = self._model.labels
        self._levels = {label: float(label.removeprefix(_PREFIX)) for label in labels}
        self._count = len(labels)

    @classmethod
    def read(cls, file: Path) -> _FastText:
        """Return the model that :meth:`save` wrote."""
        import fasttext.FastText

        # The class itself: `load_model` prints a warning.
        return cls(fasttext.FastText._FastText(str(file)))

    def scores(self, texts: Sequence[str]) -> Scores:
        """Return the mean of the levels by their probability."""
        levels, count, predict = self._levels, self._count, self._predict
        found = np.empty(len(texts))
        for position, text in enumerate(texts):
            total = score = 0.0
            for probability, label in predict(_one_line(text) + "\n", count, 0.0, "strict"):
                total += probability
                score += probability * levels[label]
            # A text without a known word has no prediction: the lowest score.
            found[position] = score / total if total else LOWEST
        return found

    def save(self, folder: Path) -> None:
        """Write ``model.bin``."""
        self._model.save_model(str(folder / "model.bin"))


def _train_fasttext(annotations: Sequence[Annotation], seed: int) -> _FastText:
    with tempfile.TemporaryDirectory(prefix="ablations-fasttext-") as scratch:
        lines, model = Path(scratch) / "train.txt", Path(scratch) / "model.bin"
        with lines.open("w", encoding="utf-8") as stream:
            for a in annotations:
                stream.write(f"{_PREFIX}{round(a.score)} {_one_line(a.text)}\n")
        train_fasttext(lines, training_options(len(annotations), seed), model)
        return _FastText.read(model)


class _Linear:
    """Ridge regression on hashed words and pairs of words."""

    def __init__(self, idf: Scores, weights: Scores, intercept: float) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._idf, self._weights, self._intercept = idf, weights, intercept
        # Rarity times weight, once: a document is then one product of a sparse row.
        self._effect = idf * weights
        self._hasher = HashingVectorizer(
            n_features=_FEATURES, ngram_range=(1, 2), norm=None, alternate_sign=False
        )

    def scores(self, texts: Sequence[str]) -> Scores:
        """Return the regression's value, within 0 to 5."""
        counts = self._hasher.transform(texts)
        squared = counts.multiply(counts)
        lengths = np.sqrt(np.maximum(squared @ self._idf**2, 1e-12))
        values = counts @ self._effect / lengths + self._intercept
        return np.asarray(np.clip(values, LOWEST, HIGHEST), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write ``model.npz``."""
        np.savez_compressed(
            folder / "model.npz", idf=self._idf, weights=self._weights, intercept=self._intercept
        )

    @classmethod
    def read(cls, folder: Path) -> _Linear:
        """Return the model in ``model.npz``."""
        with np.load(folder / "model.npz", allow_pickle=False) as stored:
            return cls(stored["idf"], stored["weights"], float(stored["intercept"]))


def _train_linear(annotations: Sequence[Annotation]) -> _Linear:
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import RidgeCV

    hasher = HashingVectorizer(
        n_features=_FEATURES, ngram_range=(1, 2), norm=None, alternate_sign=False
    )
    weighting = TfidfTransformer()
    inputs = weighting.fit_transform(hasher.transform([a.text for a in annotations]))
    model = RidgeCV(alphas=(0.1, 1.0, 10.0)).fit(inputs, [a.score for a in annotations])
    return _Linear(np.asarray(weighting.idf_), np.asarray(model.coef_), float(model.intercept_))


class _Transformers:
    """A published sequence classifier: one output is the score, several are levels."""

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._model: Any = AutoModelForSequenceClassification.from_pretrained(name).eval()
        except (OSError, ValueError) as error:
            raise DataError(
                Problem(
                    "model",
                    "no sequence classifier that transformers can load",
                    found=f"{name}: {str(error).splitlines()[0][:150]}",
                    do="give a folder, or a name of the hub where it can be reached",
                )
            ) from error

    def scores(self, texts: Sequence[str]) -> Scores:
        """Return the scores; texts are cut to the first 512 tokens."""
        import torch

        found: list[float] = []
        for start in range(0, len(texts), _TRANSFORMER_BATCH):
            batch = self._tokenizer(
                list(texts[start : start + _TRANSFORMER_BATCH]),
                return_tensors="pt",
                padding=True,
                truncation=True,
                max_length=_TRANSFORMER_TOKENS,
            )
            with torch.inference_mode():
                outputs = self._model(**batch).logits.float()
            if outputs.shape[-1] == 1:
                found += outputs[:, 0].clamp(LOWEST, HIGHEST).tolist()
            else:
                levels = torch.arange(outputs.shape[-1], dtype=torch.float32)
                found += (outputs.softmax(-1) @ levels).tolist()
        return np.array(found)

    def save(self, folder: Path) -> None:
        """Write the model and its tokenizer, so that the artifact does not depend on a hub."""
        self._model.save_pretrained(os.fspath(folder / "model"))
        self._tokenizer.save_pretrained(os.fspath(folder / "model"))
