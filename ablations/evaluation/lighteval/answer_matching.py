"""Match generated answers with their references, by lighteval's metrics.

The import takes 1.4 CPU-seconds (``benchmarks/cold_start.py``), so that only a suite with a task of
generated answers imports this module. Its warm server does so ahead of its runs.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Callable, Sequence

from ablations.evaluation.lighteval import clean_import
from ablations.evaluation.specs import Match

with clean_import.undisturbed():
    from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
    from lighteval.metrics.metrics_sample import ExactMatches, SampleLevelComputation
    from lighteval.metrics.utils.extractive_match_utils import (
        ExprExtractionConfig,
        LatexExtractionConfig,
    )
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc
    from lighteval.utils.language import Language

__all__ = ["answer_match", "text_match"]


def answer_match(match: Match) -> Callable[[Doc, ModelResponse], float]:
    """Return the function that is 1 if a generated answer matches one of its references, else 0."""
    metric = _metric(match)

    def compute(doc: Doc, response: ModelResponse) -> float:
        return float(metric.compute(doc=doc, model_response=response))

    return compute


@functools.cache
def text_match(match: Match) -> Callable[[str, Sequence[str]], float]:
    """Return the function of a text and its references that is 1 if it matches one of them, else 0."""
    matches = answer_match(match)

    def compute(text: str, references: Sequence[str]) -> float:
        gold = list(range(len(references)))
        doc = Doc(query="", choices=list(references), gold_index=gold)
        return matches(doc, ModelResponse(text=[text]))

    return compute


def _metric(match: Match) -> SampleLevelComputation:
    if match == "latex":
        targets = (LatexExtractionConfig(), ExprExtractionConfig())
        return MultilingualExtractiveMatchMetric(
            language=Language.ENGLISH,
            gold_extraction_target=targets,
            pred_extraction_target=targets,
        )
    normalise = _plain_words if match == "text" else _last_number
    return ExactMatches(normalize_gold=normalise, normalize_pred=normalise, strip_strings=True)


def _plain_words(text: str) -> str:
    """Normalise as SQuAD does: lower case, no punctuation, no articles, single spaces."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _last_number(text: str) -> str:
    found = re.findall(r"-?\d[\d,]*\.?\d*", text.replace("$", ""))
    if not found:
        return "no number"
    number = str(found[-1]).replace(",", "").rstrip(".")
    return number.rstrip("0").rstrip(".") if "." in number else number
