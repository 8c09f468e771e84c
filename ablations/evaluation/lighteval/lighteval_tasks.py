"""Tasks as lighteval's own, and the scores of their items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.evaluation.dataset_readers import Item
from ablations.evaluation.items import Pool, group_of
from ablations.evaluation.lighteval import clean_import
from ablations.evaluation.lighteval.item_metrics import REFERENCE, build_metrics, prompt_of
from ablations.evaluation.lighteval.lighteval_model import MemoryModel
from ablations.evaluation.prompts import longest_choice, make_prompt
from ablations.evaluation.results import ItemScore
from ablations.evaluation.specs import TaskSpec

with clean_import.undisturbed():
    from lighteval.metrics import apply_metric
    from lighteval.metrics.utils.metric_utils import SampleLevelMetric
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.lighteval_task import LightevalTask, LightevalTaskConfig
    from lighteval.tasks.requests import Doc, SamplingMethod

__all__ = ["SuiteTask", "build_task", "refer_to", "sample_metrics"]


@dataclass(frozen=True)
class SuiteTask:
    """Task ready to be scored: lighteval's documents and metrics, made once for all checkpoints."""

    name: str
    spec: TaskSpec
    docs: list[Doc]
    metrics: tuple[SampleLevelMetric, ...]


def build_task(name: str, spec: TaskSpec, pools: Sequence[Pool]) -> SuiteTask:
    """Make the lighteval task of ``spec`` over the items of ``pools``."""
    docs: list[Doc] = []
    with clean_import.undisturbed():
        metrics = build_metrics(spec)
        for pool in pools:
            task = LightevalTask(_task_config(name, spec, metrics))
            task.dataset = {"items": pool.items, "shots": pool.shots}
            if pool.items:
                docs += task.get_docs()
    return SuiteTask(name, spec, docs, metrics)


def _task_config(
    name: str, spec: TaskSpec, metrics: tuple[SampleLevelMetric, ...]
) -> LightevalTaskConfig:
    return LightevalTaskConfig(
        name=name,
        prompt_function=_PromptFunction(spec),
        hf_repo="local",
        hf_subset="default",
        metrics=list(metrics),
        evaluation_splits=["items"],
        hf_avail_splits=["items", "shots"],
        few_shots_split="shots",
        few_shots_select="sequential",
        num_fewshots=spec.shots,
        generation_size=spec.max_new_tokens,
        stop_sequence=list(spec.stop),
    )


class _PromptFunction:
    """Callable that turns a row into a document for lighteval; picklable, unlike a closure."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.__name__ = f"prompt_{spec.form}"

    def __call__(self, row: Item, task_name: str | None = None) -> Doc:
        prompt = make_prompt(row, self.spec.form, self.spec.prompt)
        return Doc(
            query=prompt.query,
            choices=list(prompt.choices),
            gold_index=list(prompt.gold),
            task_name=task_name or "",
            specific={"item_id": row.get("id"), "group": group_of(row), "prompt": prompt},
        )


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
        for method in dict.fromkeys(metric.category for metric in task.metrics):
            responses[method] = model.respond(method, task.docs)
            metrics = [metric for metric in task.metrics if metric.category == method]
            outputs = apply_metric(responses[method], task.docs, metrics)
            for index, output in enumerate(outputs):
                values[index].update(_known(output, responses[method][index]))
    return [_item_score(task, i, doc, values[i], responses) for i, doc in enumerate(task.docs)]


def _known(output: Mapping[str, Any], response: ModelResponse) -> dict[str, float]:
    """Return the metrics of an item, all NaN if a log-probability is missing."""
    missing = any(math.isnan(logprob) for logprob in response.logprobs)
    return {name: math.nan if missing else float(value) for name, value in output.items()}


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
    )
