"""The only code that knows lighteval: its tasks, prompts, few-shot examples and metrics over our loop.

    TaskSpec + items ──build_task──▶ LightevalTask ──▶ Docs ──MemoryModel──▶ ModelResponses ──▶ metrics

What lighteval 0.13.0 gets wrong is put right here: nothing is downloaded (tasks are made from our items, the
built-in ones never imported), nothing is cached (its response cache knows models by config, not by
weights), token counts are true ones, rolling log-likelihood works, a continuation longer than the
window is reported instead of crashing, and metrics are built directly so that their names are stable.
"""

from __future__ import annotations

import logging
import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablations.evaluation import preload
from ablations.evaluation.columns import Item
from ablations.evaluation.engine import BranchScore, Network, Prepared, prepare, score
from ablations.evaluation.generation import Generated, generate
from ablations.evaluation.items import Pool
from ablations.evaluation.prompts import Prompt, longest_choice, make_prompt
from ablations.evaluation.requests import Request
from ablations.evaluation.results import ItemScore
from ablations.evaluation.sandbox import passes
from ablations.evaluation.specs import HIGHER_IS_BETTER, TaskSpec

with preload.undisturbed():
    from lighteval.metrics import apply_metric
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
    from lighteval.models.abstract_model import LightevalModel, ModelConfig
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.lighteval_task import LightevalTask, LightevalTaskConfig
    from lighteval.tasks.prompt_manager import PromptManager
    from lighteval.tasks.requests import Doc, SamplingMethod
    from lighteval.utils.language import Language

# It warns of every generated answer without an expression in it, which for a small model is every one.
logging.getLogger("lighteval").setLevel(logging.ERROR)

__all__ = ["MemoryModel", "SuiteTask", "build_task", "sample_metrics"]


# ------------------------------------------------------------------------------------------ tasks


@dataclass(frozen=True)
class SuiteTask:
    """A task ready to be scored: lighteval's documents and metrics, made once for all checkpoints."""

    name: str
    spec: TaskSpec
    docs: list[Doc]
    metrics: tuple[SampleLevelMetric, ...]


def build_task(name: str, spec: TaskSpec, pools: Sequence[Pool]) -> SuiteTask:
    """The lighteval task of ``spec`` over the items of ``pools``."""
    docs: list[Doc] = []
    with preload.undisturbed():
        metrics = tuple(_METRICS[metric](spec) for metric in spec.metrics)
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
    """What lighteval calls to turn a row into a document; picklable, unlike a closure."""

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
            specific={"item_id": row.get("id"), "prompt": prompt},
        )


def _prompt(doc: Doc) -> Prompt:
    prompt: Prompt = doc.specific["prompt"]
    return prompt


# ---------------------------------------------------------------------------------------- metrics


class _BitsPerByte(SampleLevelComputation):  # type: ignore[misc]
    """Bits the model needs a byte of the first gold answer, its leading space included."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        gold = doc.gold_index[0]
        size = len(doc.choices[gold].encode())
        return -float(model_response.logprobs[gold]) / math.log(2) / size


class _TextBitsPerByte(SampleLevelComputation):  # type: ignore[misc]
    """Bits the model needs a byte of a text."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        return -float(sum(model_response.logprobs)) / math.log(2) / len(doc.query.encode())


class _PassesTests(SampleLevelComputation):  # type: ignore[misc]
    """1 where the generated code passes its tests in a locked-down child, else 0."""

    def compute(self, doc: Doc, model_response: ModelResponse, **_: Any) -> float:
        checks = _prompt(doc).checks
        assert checks is not None  # form "code" makes them
        program = checks.before + model_response.final_text[0] + checks.after
        return float(passes(program))


def _plain_words(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces."""
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
    "exact_match": lambda spec: _metric("exact_match", _match(spec), SamplingMethod.GENERATIVE),
    "pass_at_1": lambda spec: _metric("pass_at_1", _PassesTests(), SamplingMethod.GENERATIVE),
}


def sample_metrics(task: SuiteTask, model: MemoryModel) -> list[ItemScore]:
    """Score every item of ``task`` with the weights that ``model`` holds now."""
    values: list[dict[str, float]] = [{} for _ in task.docs]
    responses: dict[SamplingMethod, list[ModelResponse]] = {}
    with preload.undisturbed():
        for method in dict.fromkeys(metric.category for metric in task.metrics):
            responses[method] = model.respond(method, task.docs)
            metrics = [metric for metric in task.metrics if metric.category == method]
            outputs = apply_metric(responses[method], task.docs, metrics)
            for index, output in enumerate(outputs):
                values[index].update(_known(output, responses[method][index]))
    return [_item_score(task, i, doc, values[i], responses) for i, doc in enumerate(task.docs)]


def _known(output: Mapping[str, Any], response: ModelResponse) -> dict[str, float]:
    """The metrics of an item, or NaN for all where a log-probability is missing."""
    missing = any(math.isnan(logprob) for logprob in response.logprobs)
    return {name: math.nan if missing else float(value) for name, value in output.items()}


def _item_score(
    task: SuiteTask,
    index: int,
    doc: Doc,
    values: Mapping[str, float],
    responses: Mapping[SamplingMethod, list[ModelResponse]],
) -> ItemScore:
    prompt = _prompt(doc)
    rolling = task.spec.form == "rolling"
    chosen = task.spec.form in ("cloze", "letters")
    asked = [answers[index] for answers in responses.values()]
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
        cut_tokens=max(answer.truncated_tokens_count for answer in asked),
        text=generated[index].final_text[0] if generated else None,
    )


# ------------------------------------------------------------------------------------------ model


class MemoryModel(LightevalModel):  # type: ignore[misc]
    """A lighteval model over weights in memory; what does not depend on them is prepared once.

    :meth:`use` changes the weights. Requests are tokenised and batched at their first use and kept
    for the next checkpoint, which shares the tokenizer and the window.
    """

    def __init__(self, tokenizer: Any, *, window: int, batch_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._window = window
        self._batch_tokens = batch_tokens
        self._network: Network | None = None
        self._prepared: dict[tuple[str, int], tuple[list[Doc], Any]] = {}
        self._prompts = PromptManager(use_chat_template=False, tokenizer=tokenizer)
        self.config = ModelConfig(model_name="in memory")

    def use(self, network: Network) -> None:
        """Score with these weights from now on."""
        self._network = network

    @property
    def network(self) -> Network:
        """The weights in use."""
        assert self._network is not None, "use() comes first"
        return self._network

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens, for every checkpoint in turn."""
        return self._tokenizer

    @property
    def add_special_tokens(self) -> bool:
        """As lighteval's own default: whatever the tokenizer puts before a text."""
        return True

    @property
    def max_length(self) -> int:
        """Positions of the model: context and continuation together."""
        return self._window

    def respond(self, method: SamplingMethod, docs: list[Doc]) -> list[ModelResponse]:
        """The answers to ``docs`` by one of lighteval's three ways to ask."""
        asked = {
            SamplingMethod.LOGPROBS: self.loglikelihood,
            SamplingMethod.PERPLEXITY: self.loglikelihood_rolling,
            SamplingMethod.GENERATIVE: self.greedy_until,
        }
        return asked[method](docs)

    def loglikelihood(self, docs: list[Doc]) -> list[ModelResponse]:
        """Log-probabilities of every choice; then, where asked for, without the context (PMI)."""
        groups, prepared, requests = self._once("choices", docs, self._choices)
        scores = score(self.network, prepared)
        return [
            _choice_response([(requests[number], scores[number]) for number in group])
            for group in groups
        ]

    def loglikelihood_rolling(self, docs: list[Doc]) -> list[ModelResponse]:
        """Log-probabilities of a text's windows; every token is predicted once."""
        groups, prepared = self._once("rolling", docs, self._windows)
        scores = score(self.network, prepared)
        return [
            ModelResponse(logprobs=[scores[number][0].logprob for number in group])
            for group in groups
        ]

    def greedy_until(self, docs: list[Doc]) -> list[ModelResponse]:
        """Greedy text after every prompt, up to a stop text."""
        contexts = self._once("contexts", docs, self._contexts)
        first = docs[0]
        texts: list[Generated] = generate(
            self.network,
            self._tokenizer,
            contexts,
            max_new_tokens=first.generation_size,
            stop=tuple(first.stop_sequences or ()),
            window=self._window,
            batch_tokens=self._batch_tokens,
        )
        return [
            ModelResponse(
                text=[one.text],
                output_tokens=[list(one.tokens)],
                truncated_tokens_count=one.cut_tokens,
            )
            for one in texts
        ]

    def _once(self, kind: str, docs: list[Doc], make: Any) -> Any:
        """``make(docs)``, kept for the next call with the same list."""
        key = (kind, id(docs))
        if key not in self._prepared:
            self._prepared[key] = (docs, make(docs))
        return self._prepared[key][1]

    def _choices(self, docs: list[Doc]) -> tuple[list[list[int]], Prepared, list[Request]]:
        """Requests of every document: one where its choices share a context, else one a choice."""
        pairs: list[tuple[str, list[str]]] = []
        groups: list[list[int]] = []
        for doc in docs:
            first = len(pairs)
            pairs += self._pairs(doc)
            groups.append(list(range(first, len(pairs))))
        contexts = self._encode([context for context, _ in pairs], special=True)
        branches = iter(self._encode([text for _, texts in pairs for text in texts]))
        requests = [
            Request(context, [next(branches) for _ in texts])
            for context, (_, texts) in zip(contexts, pairs, strict=True)
        ]
        return groups, self._prepare(requests, self._window), requests

    def _pairs(self, doc: Doc) -> list[tuple[str, list[str]]]:
        prompt, context = _prompt(doc), self._prompts.prepare_prompt(doc)
        # Of generated tasks the first reference alone is measured; its aliases only count as matches.
        single = len(prompt.gold) == len(prompt.choices)
        choices = doc.choices[:1] if single else doc.choices
        if prompt.contexts is not None:
            shots = context.removesuffix(doc.query)
            pairs = [
                (shots + own, [choice])
                for own, choice in zip(prompt.contexts, choices, strict=True)
            ]
        else:
            pairs = [(context, choices)]
        if doc.unconditioned_query is not None:
            pairs.append((doc.unconditioned_query, choices))
        return [_move_space(context, texts) for context, texts in pairs]

    def _windows(self, docs: list[Doc]) -> tuple[list[list[int]], Prepared]:
        """Windows that overlap by the one token that predicts the first of the next."""
        requests: list[Request] = []
        groups: list[list[int]] = []
        for ids in self._encode([doc.query for doc in docs]):
            text, first = [self._prefix, *ids], len(requests)
            for start in range(0, len(ids), self._window):
                window = text[start : start + self._window + 1]
                requests.append(Request(window[:1], [window[1:]]))
            groups.append(list(range(first, len(requests))))
        # The last token of a window is predicted and never fed: one more than the window fits.
        return groups, self._prepare(requests, self._window + 1)

    def _contexts(self, docs: list[Doc]) -> list[list[int]]:
        return self._encode([self._prompts.prepare_prompt(doc) for doc in docs], special=True)

    def _prepare(self, requests: list[Request], window: int) -> Prepared:
        pack = self.network.packs
        return prepare(requests, window=window, batch_tokens=self._batch_tokens, pack=pack)

    @property
    def _prefix(self) -> int:
        """The token that stands before a document: in training, the end of the one before."""
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        prefix: int = bos if bos is not None else eos if eos is not None else 0
        return prefix

    def _encode(self, texts: list[str], *, special: bool = False) -> list[list[int]]:
        """Token ids; contexts (``special``) begin as the tokenizer begins a text and do not end."""
        if not texts:
            return []
        encoded = self._tokenizer(texts, add_special_tokens=special, return_attention_mask=False)
        rows: list[list[int]] = encoded["input_ids"]
        if not special:
            return rows
        eos = self._tokenizer.eos_token_id
        rows = [row[:-1] if row and row[-1] == eos else row for row in rows]
        return [row or [self._prefix] for row in rows]


def _move_space(context: str, choices: list[str]) -> tuple[str, list[str]]:
    """White space at a context's end goes to the continuations, as tokenizers expect it."""
    bare = context.rstrip()
    space = context[len(bare) :]
    return bare, [space + choice for choice in choices]


def _choice_response(answered: list[tuple[Request, list[BranchScore]]]) -> ModelResponse:
    answers = [one for _, scores in answered for one in scores]
    return ModelResponse(
        logprobs=[one.logprob for one in answers],
        argmax_logits_eq_gold=[one.greedy for one in answers],
        output_tokens=[list(branch) for request, _ in answered for branch in request.branches],
        truncated_tokens_count=max(one.cut_tokens for one in answers),
    )
