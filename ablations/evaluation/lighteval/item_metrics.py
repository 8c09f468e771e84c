"""Metrics of an item, computed from lighteval's documents and responses.

Accuracy over choices is computed here, and tests compare it with lighteval's ``LoglikelihoodAcc``: the import
of lighteval's metrics takes longer than the scoring of a small run. Generated answers are matched by
lighteval's metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablations.evaluation.lighteval import clean_import
from ablations.evaluation.prompts import Prompt
from ablations.evaluation.sandbox.sandbox import passes
from ablations.evaluation.specs import TaskSpec

with clean_import.undisturbed():
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc, SamplingMethod

__all__ = ["EVALUATION_BETA", "REFERENCE", "ItemMetric", "build_metrics", "prompt_of"]

REFERENCE = "reference"
"""Key of a document's ``specific``: the reference model's log-probabilities of its choices."""

EVALUATION_BETA = 0.1
"""Weight of the margin in the held-out DPO loss: that of the paper (arXiv 2305.18290), whatever beta a run
was trained with, so that runs of different betas can be compared."""

Compute = Callable[[Doc, ModelResponse], float]


@dataclass(frozen=True)
class ItemMetric:
    """Metric of an item."""

    name: str
    method: SamplingMethod
    """Kind of response that it is computed from."""
    compute: Compute
    """Function of the item's document and the model's response."""


def prompt_of(doc: Doc) -> Prompt:
    """Return the prompt that a document was made from."""
    prompt: Prompt = doc.specific["prompt"]
    return prompt


def build_metrics(spec: TaskSpec) -> tuple[ItemMetric, ...]:
    """Return the metrics of a task, in the order of the task."""
    if spec.form == "instructions":
        return _instruction_metrics(spec)
    return tuple(_METRICS[metric](spec) for metric in spec.metrics)


def _instruction_metrics(spec: TaskSpec) -> tuple[ItemMetric, ...]:
    # Imported here: it takes seconds, and few suites check instructions.
    from ablations.evaluation.lighteval.instruction_checks import Followed

    followed = Followed()
    return tuple(
        ItemMetric(name, SamplingMethod.GENERATIVE, followed.metric(name)) for name in spec.metrics
    )


def _accuracy(doc: Doc, response: ModelResponse) -> float:
    """Return 1 if the most probable choice is a gold one, else 0."""
    return _best_is_gold(doc, response.logprobs[: len(doc.choices)])


def _character_accuracy(doc: Doc, response: ModelResponse) -> float:
    """Return the accuracy by log-probability per character, without a choice's leading space."""
    lengths = [len(choice.removeprefix(" ")) for choice in doc.choices]
    logprobs = response.logprobs[: len(lengths)]
    return _best_is_gold(doc, [x / length for x, length in zip(logprobs, lengths, strict=True)])


def _best_is_gold(doc: Doc, values: Sequence[float]) -> float:
    return float(int(np.argmax(values)) in doc.gold_index)


def _bits_per_byte(doc: Doc, response: ModelResponse) -> float:
    """Return the bits per byte of the first gold answer, its leading space included."""
    gold = doc.gold_index[0]
    size = len(doc.choices[gold].encode())
    return -float(response.logprobs[gold]) / math.log(2) / size


def _text_bits_per_byte(doc: Doc, response: ModelResponse) -> float:
    """Return the bits per byte of a text."""
    return -float(sum(response.logprobs)) / math.log(2) / len(doc.query.encode())


def _margin(name: str, function: Callable[[float], float]) -> ItemMetric:
    """Return a function of the nats that the chosen answer gained over the rejected one.

    The gain is against the reference model; without one the metric is NaN.
    """

    def compute(doc: Doc, response: ModelResponse) -> float:
        reference = doc.specific.get(REFERENCE)
        if reference is None:
            return math.nan
        chosen, rejected = (
            float(own) - float(before)
            for own, before in zip(response.logprobs[:2], reference[:2], strict=True)
        )
        return function(chosen - rejected)

    return ItemMetric(name, SamplingMethod.LOGPROBS, compute)


def _dpo_loss(margin: float) -> float:
    """Return -log sigmoid(beta · margin)."""
    return float(np.logaddexp(0.0, -EVALUATION_BETA * margin))


def _passes_tests(doc: Doc, response: ModelResponse) -> float:
    """Return 1 if the generated code passes its tests in the sandbox, else 0."""
    checks = prompt_of(doc).checks
    assert checks is not None  # form "code" makes them
    program = checks.before + response.final_text[0]
    return float(passes(program, checks.after, given=checks.before))


def _exact_match(spec: TaskSpec) -> ItemMetric:
    # Imported here: it takes seconds, and most suites generate no answers.
    from ablations.evaluation.lighteval.answer_matching import answer_match

    return ItemMetric("exact_match", SamplingMethod.GENERATIVE, answer_match(spec.match))


def _bpb(spec: TaskSpec) -> ItemMetric:
    if spec.form == "rolling":
        return ItemMetric("bpb", SamplingMethod.PERPLEXITY, _text_bits_per_byte)
    return ItemMetric("bpb", SamplingMethod.LOGPROBS, _bits_per_byte)


_METRICS: Mapping[str, Callable[[TaskSpec], ItemMetric]] = {
    "acc": lambda _: ItemMetric("acc", SamplingMethod.LOGPROBS, _accuracy),
    "acc_char": lambda _: ItemMetric("acc_char", SamplingMethod.LOGPROBS, _character_accuracy),
    "bpb": _bpb,
    "margin": lambda _: _margin("margin", float),
    "reward_acc": lambda _: _margin("reward_acc", lambda margin: float(margin > 0)),
    "dpo_loss": lambda _: _margin("dpo_loss", _dpo_loss),
    "exact_match": _exact_match,
    "pass_at_1": lambda _: ItemMetric("pass_at_1", SamplingMethod.GENERATIVE, _passes_tests),
}
