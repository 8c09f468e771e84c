"""Metrics of an item: lighteval's own where it has them."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ablations.evaluation.lighteval import clean_import
from ablations.evaluation.prompts import Prompt
from ablations.evaluation.sandbox.sandbox import passes
from ablations.evaluation.specs import HIGHER_IS_BETTER, TaskSpec

with clean_import.undisturbed():
    from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
    from lighteval.metrics.metrics_sample import (
        ExactMatches,
        LoglikelihoodAcc,
        SampleLevelComputation,
    )
    from lighteval.metrics.normalizations import LogProbCharNorm
    from lighteval.metrics.utils.extractive_match_utils import (
        ExprExtractionConfig,
        LatexExtractionConfig,
    )
    from lighteval.metrics.utils.metric_utils import SampleLevelMetric
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc, SamplingMethod
    from lighteval.utils.language import Language

__all__ = ["EVALUATION_BETA", "REFERENCE", "build_metrics", "prompt_of"]

REFERENCE = "reference"
"""Key of a document's ``specific``: the reference model's log-probabilities of its choices."""

EVALUATION_BETA = 0.1
"""Weight of the margin in the held-out DPO loss: that of the paper (arXiv 2305.18290), whatever beta a run
was trained with, so that runs of different betas can be compared."""


def prompt_of(doc: Doc) -> Prompt:
    """Return the prompt that a document was made from."""
    prompt: Prompt = doc.specific["prompt"]
    return prompt


def build_metrics(spec: TaskSpec) -> tuple[SampleLevelMetric, ...]:
    """Return the lighteval metrics of a task, in the order of the task."""
    return tuple(_METRICS[metric](spec) for metric in spec.metrics)


class _BitsPerByte(SampleLevelComputation):  # type: ignore[misc]
    """Bits per byte of the first gold answer, its leading space included."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        gold = doc.gold_index[0]
        size = len(doc.choices[gold].encode())
        return -float(model_response.logprobs[gold]) / math.log(2) / size


class _TextBitsPerByte(SampleLevelComputation):  # type: ignore[misc]
    """Bits per byte of a text."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        return -float(sum(model_response.logprobs)) / math.log(2) / len(doc.query.encode())


class _Margin(SampleLevelComputation):  # type: ignore[misc]
    """A function of the nats that the chosen answer gained over the rejected one, against the reference."""

    def __init__(self, function: Callable[[float], float]) -> None:
        self._function = function

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        reference = doc.specific.get(REFERENCE)
        if reference is None:
            return math.nan
        chosen, rejected = (
            float(own) - float(before)
            for own, before in zip(model_response.logprobs[:2], reference[:2], strict=True)
        )
        return self._function(chosen - rejected)


def _dpo_loss(margin: float) -> float:
    """Return -log sigmoid(beta · margin)."""
    return float(np.logaddexp(0.0, -EVALUATION_BETA * margin))


class _PassesTests(SampleLevelComputation):  # type: ignore[misc]
    """1 if the generated code passes its tests in the sandbox, else 0."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        checks = prompt_of(doc).checks
        assert checks is not None  # form "code" makes them
        program = checks.before + model_response.final_text[0]
        return float(passes(program, checks.after, given=checks.before))


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


def _match(spec: TaskSpec) -> SampleLevelComputation:
    if spec.match == "latex":
        targets = (LatexExtractionConfig(), ExprExtractionConfig())
        return MultilingualExtractiveMatchMetric(
            language=Language.ENGLISH,
            gold_extraction_target=targets,
            pred_extraction_target=targets,
        )
    normalise = _plain_words if spec.match == "text" else _last_number
    return ExactMatches(normalize_gold=normalise, normalize_pred=normalise, strip_strings=True)


def _metric(
    name: str, function: SampleLevelComputation, method: SamplingMethod
) -> SampleLevelMetric:
    return SampleLevelMetric(
        metric_name=name,
        higher_is_better=HIGHER_IS_BETTER[name],
        category=method,
        sample_level_fn=function,
        corpus_level_fn=np.mean,
    )


def _bpb(spec: TaskSpec) -> SampleLevelMetric:
    if spec.form == "rolling":
        return _metric("bpb", _TextBitsPerByte(), SamplingMethod.PERPLEXITY)
    return _metric("bpb", _BitsPerByte(), SamplingMethod.LOGPROBS)


_CHARACTERS = LogProbCharNorm(ignore_first_space=True)

_METRICS: Mapping[str, Callable[[TaskSpec], SampleLevelMetric]] = {
    "acc": lambda spec: _metric("acc", LoglikelihoodAcc(), SamplingMethod.LOGPROBS),
    "acc_char": lambda spec: _metric(
        "acc_char", LoglikelihoodAcc(_CHARACTERS), SamplingMethod.LOGPROBS
    ),
    "bpb": _bpb,
    "margin": lambda spec: _metric("margin", _Margin(float), SamplingMethod.LOGPROBS),
    "reward_acc": lambda spec: _metric(
        "reward_acc", _Margin(lambda margin: float(margin > 0)), SamplingMethod.LOGPROBS
    ),
    "dpo_loss": lambda spec: _metric("dpo_loss", _Margin(_dpo_loss), SamplingMethod.LOGPROBS),
    "exact_match": lambda spec: _metric("exact_match", _match(spec), SamplingMethod.GENERATIVE),
    "pass_at_1": lambda spec: _metric("pass_at_1", _PassesTests(), SamplingMethod.GENERATIVE),
}
