"""Tasks as lighteval's own, and the scores of their items."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.evaluation.dataset_readers import Item
from ablations.evaluation.items import Pool, group_of
from ablations.evaluation.lighteval import clean_import
from ablations.evaluation.lighteval.item_metrics import (
    REFERENCE,
    ItemMetric,
    build_metrics,
    prompt_of,
)
from ablations.evaluation.lighteval.lighteval_model import MemoryModel
from ablations.evaluation.prompts import longest_choice, make_prompt
from ablations.evaluation.results import ItemScore
from ablations.evaluation.specs import TaskSpec

with clean_import.undisturbed():
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.prompt_manager import FewShotSampler
    from lighteval.tasks.requests import Doc, SamplingMethod

__all__ = ["SuiteTask", "build_task", "refer_to", "sample_metrics"]

_ORDER_SEED = 42
"""Seed of the order of the documents: that of lighteval's ``LightevalTask``."""


@dataclass(frozen=True)
class SuiteTask:
    """Task ready to be scored: lighteval's documents and metrics, made once for all checkpoints."""

    name: str
    spec: TaskSpec
    docs: list[Doc]
    metrics: tuple[ItemMetric, ...]


def build_task(name: str, spec: TaskSpec, pools: Sequence[Pool]) -> SuiteTask:
    """Make the documents and the metrics of ``spec`` over the items of ``pools``.

    The documents and their order are those of lighteval's ``LightevalTask``, whose import takes seconds more.
    """
    with clean_import.undisturbed():
        metrics = build_metrics(spec)
        if spec.form == "instructions":
            _require_checkers(pools)
        docs = [doc for pool in pools for doc in _docs(name, spec, pool)]
    return SuiteTask(name, spec, docs, metrics)


def _require_checkers(pools: Sequence[Pool]) -> None:
    from ablations.evaluation.lighteval.instruction_checks import require_checkers

    require_checkers(item for pool in pools for item in pool.items)


def _docs(name: str, spec: TaskSpec, pool: Pool) -> list[Doc]:
    """Return the documents of a pool, in an order that its number of items decides."""
    docs = [_doc(spec, row, index) for index, row in enumerate(pool.items)]
    random.Random(_ORDER_SEED).shuffle(docs)
    sampler = FewShotSampler(_Shots(spec, pool))
    for doc in docs:
        doc.task_name = f"{name}|{spec.shots}"
        doc.fewshot_samples = sampler.sample_fewshot_examples(spec.shots, 0, formatted_doc=doc)
    return docs


def _doc(spec: TaskSpec, row: Item, index: int) -> Doc:
    prompt = make_prompt(row, spec.form, spec.prompt, chat=spec.chat)
    specific: dict[str, Any] = {
        "item_id": row.get("id"),
        "group": group_of(row),
        "prompt": prompt,
    }
    if spec.form == "instructions":  # by lighteval's names
        specific["instructions_id_list"] = list(row["instruction_id_list"])
        specific["kwargs"] = [dict(one) for one in row["kwargs"]]
    return Doc(
        query=prompt.query,
        choices=list(prompt.choices),
        gold_index=list(prompt.gold),
        id=str(index),
        specific=specific,
        generation_size=spec.max_new_tokens,
        stop_sequences=list(spec.stop),
    )


class _Shots:
    """Few-shot examples of a pool, in the form that lighteval's sampler reads."""

    fewshot_selection = "sequential"
    fewshot_split = "shots"

    def __init__(self, spec: TaskSpec, pool: Pool) -> None:
        self._spec, self._pool = spec, pool

    def fewshot_docs(self) -> list[Doc]:
        """Return the examples as documents; called once, for the first item."""
        return [_doc(self._spec, row, index) for index, row in enumerate(self._pool.shots)]


def refer_to(task: SuiteTask, model: MemoryModel) -> None:
    """Keep the log-probabilities that the weights in ``model`` give the choices, as the reference's."""
    with clean_import.undisturbed():
        responses = model.respond(SamplingMethod.LOGPROBS, task.docs)
    for doc, response in zip(task.docs, responses, strict=True):
        doc.specific[REFERENCE] = tuple(response.logprobs)


def sample_metrics(task: SuiteTask, model: MemoryModel) -> list[ItemScore]:
    """Score each item of ``task`` with the weights that ``model`` uses now."""
    values: list[dict[str, float]] = [{} for _ in task.docs]
    responses: dict[SamplingMethod, list[ModelResponse]] = {}
    with clean_import.undisturbed():
        for method in dict.fromkeys(metric.method for metric in task.metrics):
            responses[method] = model.respond(method, task.docs)
            metrics = [metric for metric in task.metrics if metric.method == method]
            for index, response in enumerate(responses[method]):
                values[index].update(_values(metrics, task.docs[index], response))
    return [_item_score(task, i, doc, values[i], responses) for i, doc in enumerate(task.docs)]


def _values(metrics: Sequence[ItemMetric], doc: Doc, response: ModelResponse) -> dict[str, float]:
    """Return the metrics of an item, all NaN if a log-probability is missing."""
    if any(math.isnan(logprob) for logprob in response.logprobs):
        return {metric.name: math.nan for metric in metrics}
    return {metric.name: metric.compute(doc, response) for metric in metrics}


def _item_score(
    task: SuiteTask,
    index: int,
    doc: Doc,
    values: Mapping[str, float],
    responses: Mapping[SamplingMethod, list[ModelResponse]],
) -> ItemScore:
    prompt = prompt_of(doc)
    rolling = task.spec.form == "rolling"
    chosen = task.spec.form in ("cloze", "letters", "preference")
    answers = [response[index] for response in responses.values()]
    logprobs = responses.get(SamplingMethod.LOGPROBS)
    generated = responses.get(SamplingMethod.GENERATIVE)
    measured = doc.query if rolling else prompt.choices[prompt.gold[0]]
    return ItemScore(
        item_id=str(doc.specific["item_id"]),
        metrics=values,
        gold=prompt.gold[0] if chosen else -1,
        choice_logprobs=tuple(logprobs[index].logprobs) if logprobs else (),
        length_baseline=longest_choice(prompt) if task.spec.form == "cloze" else math.nan,
        num_choices=len(prompt.choices),
        num_bytes=len(measured.encode()),
        cut_tokens=max(answer.truncated_tokens_count for answer in answers),
        text=generated[index].final_text[0] if generated else None,
        group=doc.specific["group"],
        parts=len(doc.specific.get("instructions_id_list", "1")),
    )
