"""lighteval behind the adapter: its own model's answers, without the faults of 0.13.0."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.evaluation.items import Pool
from ablations.evaluation.lighteval import MemoryModel, SuiteTask, build_task, sample_metrics
from ablations.evaluation.logprob_scorer import CausalLM
from ablations.evaluation.prompts import make_prompt
from ablations.evaluation.specs import TaskSpec

WORDS = "the cat sat on a mat dog ran blue sky red two plus four"


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "id": f"q{index}",
            "query": f"Question: {' '.join(draw.choices(WORDS.split(), k=8))}\nAnswer:",
            "choices": [
                " ".join(draw.choices(WORDS.split(), k=draw.randint(1, 5))) for _ in range(4)
            ],
            "gold": draw.randrange(4),
        }
        for index in range(count)
    ]


def quiz(shots: int = 0) -> SuiteTask:
    metrics = ("acc", "acc_char", "bpb")
    spec = TaskSpec(form="cloze", domain="d", items="quiz", metrics=metrics, shots=shots)
    return build_task("quiz", spec, [Pool("", rows(40), rows(3, seed=9))])


def memory_model(model: Any, tokenizer: Any, window: int = 64) -> MemoryModel:
    made = MemoryModel(tokenizer, window=window, batch_tokens=999)
    made.use(CausalLM(model))
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("shots", "window"), [(0, 64), (2, 64), (0, 24)])
def test_answers_are_those_of_lightevals_own_model(
    model: Any, tokenizer: Any, tmp_path: Path, shots: int, window: int
) -> None:
    task = quiz(shots)
    ours = memory_model(model, tokenizer, window).loglikelihood(task.docs)
    theirs = stock(model, tokenizer, tmp_path, window)._loglikelihood_tokens(task.docs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert mine.argmax_logits_eq_gold == other.argmax_logits_eq_gold
    for metric, own in zip(task.metrics, stock_accuracies(), strict=False):
        for doc, mine, other in zip(task.docs, ours, theirs, strict=True):
            assert metric.compute(doc, mine) == own.compute(doc, other)


def stock_accuracies() -> list[Any]:
    """lighteval's own ``acc`` and ``acc_char``."""
    from ablations.evaluation.lighteval.clean_import import undisturbed

    with undisturbed():
        from lighteval.metrics.metrics_sample import LoglikelihoodAcc
        from lighteval.metrics.normalizations import LogProbCharNorm

    return [LoglikelihoodAcc(), LoglikelihoodAcc(LogProbCharNorm(ignore_first_space=True))]


@pytest.mark.parametrize("unconditioned", [False, True])
def test_accuracies_are_those_of_lighteval(unconditioned: bool) -> None:
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc

    draw = random.Random(4)
    metrics = quiz().metrics[:2]
    seen: set[tuple[str, float]] = set()
    for _ in range(300):
        count = draw.randint(2, 5)
        choices = [" " * draw.randint(0, 2) + "x" * draw.randint(1, 9) for _ in range(count)]
        gold = draw.sample(range(count), draw.randint(1, 2))
        # Whole numbers make ties, in which the first choice counts.
        logprobs = [-float(draw.randint(1, 9)) for _ in range(count * (1 + unconditioned))]
        doc = Doc(query="q", choices=choices, gold_index=gold)
        response = ModelResponse(logprobs=logprobs, output_tokens=[[0]] * len(logprobs))
        for metric, own in zip(metrics, stock_accuracies(), strict=True):
            assert metric.compute(doc, response) == own.compute(doc, response), (doc, response)
            seen.add((metric.name, metric.compute(doc, response)))
    assert seen == {("acc", 0.0), ("acc", 1.0), ("acc_char", 0.0), ("acc_char", 1.0)}


@pytest.mark.parametrize("shots", [0, 2, 5])
def test_documents_are_those_of_lightevals_own_task(shots: int) -> None:
    from ablations.evaluation.lighteval.clean_import import undisturbed

    with undisturbed():
        from lighteval.tasks.lighteval_task import LightevalTask, LightevalTaskConfig
        from lighteval.tasks.requests import Doc

    def prompt(row: dict[str, Any], name: str) -> Doc:
        made = make_prompt(row, "cloze", "{query}")
        return Doc(query=made.query, choices=list(made.choices), gold_index=list(made.gold))

    config = LightevalTaskConfig(
        name="quiz",
        prompt_function=prompt,
        hf_repo="local",
        hf_subset="default",
        metrics=[],
        evaluation_splits=["items"],
        hf_avail_splits=["items", "shots"],
        few_shots_split="shots",
        few_shots_select="sequential",
        num_fewshots=shots,
        generation_size=7,
        stop_sequence=["."],
    )
    task = LightevalTask(config)
    task.dataset = {"items": rows(40), "shots": rows(3, seed=9)}
    spec = TaskSpec(
        form="cloze",
        domain="d",
        items="quiz",
        metrics=("bpb",),
        shots=shots,
        max_new_tokens=7,
        stop=(".",),
    )
    ours = build_task("quiz", spec, [Pool("", rows(40), rows(3, seed=9))]).docs

    def plain(doc: Doc) -> tuple[Any, ...]:
        examples = [(shot.id, shot.query, shot.get_golds()) for shot in doc.fewshot_samples]
        kept = doc.task_name, doc.id, doc.query, doc.get_golds(), doc.generation_size, examples
        return *kept, list(doc.stop_sequences)

    assert [plain(doc) for doc in ours] == [plain(doc) for doc in task.get_docs()]
    assert {len(doc.fewshot_samples) for doc in ours} == {min(shots, 3)}


def stock(model: Any, tokenizer: Any, folder: Path, window: int) -> Any:
    from ablations.evaluation.lighteval.clean_import import undisturbed

    with undisturbed():
        from lighteval.models.transformers.transformers_model import (
            TransformersModel,
            TransformersModelConfig,
        )

        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        config = TransformersModelConfig(
            model_name=str(folder),
            batch_size=8,
            max_length=window,
            device="cpu",
            dtype="float32",
            cache_dir=str(folder / "cache"),
        )
        return TransformersModel.from_model(model=model, config=config)


def test_few_shot_examples_stand_before_the_item(tokenizer: Any, model: Any) -> None:
    task = quiz(shots=2)
    prompt = memory_model(model, tokenizer)._text_of(task.docs[0])
    blocks = prompt.split("\n\n")
    assert len(blocks) == 3
    assert blocks[0].startswith("Question: ")
    assert not blocks[0].endswith("Answer:")
    assert blocks[2] == task.docs[0].query


def test_a_second_checkpoint_does_not_get_the_firsts_answers(model: Any, tokenizer: Any) -> None:
    import copy

    task, adapter = quiz(), memory_model(model, tokenizer)
    first = sample_metrics(task, adapter)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(-1.0)
    adapter.use(CausalLM(other))
    second = sample_metrics(task, adapter)
    assert [one.choice_logprobs for one in first] != [one.choice_logprobs for one in second]


def test_responses_hold_true_token_counts(model: Any, tokenizer: Any) -> None:
    task = quiz()
    responses = memory_model(model, tokenizer).loglikelihood(task.docs)
    for doc, response in zip(task.docs, responses, strict=True):
        counted = [len(tokenizer.encode(choice)) for choice in doc.choices]
        assert [len(tokens) for tokens in response.output_tokens] == counted


def test_normalising_by_the_unconditioned_answer_works(model: Any, tokenizer: Any) -> None:
    task = quiz()
    for doc in task.docs:
        doc.unconditioned_query = "Answer:"
    responses = memory_model(model, tokenizer).loglikelihood(task.docs)
    assert {len(response.logprobs) for response in responses} == {8}


def test_text_matches_ignore_case_articles_and_punctuation(model: Any, tokenizer: Any) -> None:
    from lighteval.models.model_output import ModelResponse

    spec = TaskSpec(
        form="generative", domain="d", items="x", metrics=("exact_match",), max_new_tokens=4
    )
    item = {"id": "0", "query": "Who?", "choices": ["The Cat"], "gold": 0, "answers": ["a dog"]}
    task = build_task("x", spec, [Pool("", [item])])
    match = task.metrics[0]
    for text, expected in ((" cat.", 1), ("Dog", 1), ("bird", 0), ("", 0)):
        assert match.compute(task.docs[0], ModelResponse(text=[text])) == expected


@pytest.mark.parametrize(
    ("match", "text", "expected"),
    [
        ("number", "so 7 and then 1,004.", 1.0),
        ("number", "#### 1004.00", 1.0),
        ("number", "1005", 0.0),
        ("number", "none", 0.0),
        ("latex", "so it is $\\boxed{1004}$", 1.0),
        ("latex", "so it is $\\boxed{12}$", 0.0),
    ],
)
def test_numbers_and_expressions_match_by_value(match: Any, text: str, expected: float) -> None:
    from lighteval.models.model_output import ModelResponse

    spec = TaskSpec(
        form="generative",
        domain="d",
        items="x",
        metrics=("exact_match",),
        max_new_tokens=4,
        match=match,
    )
    gold = "#### 1,004" if match == "number" else "$\\boxed{1004}$"
    item = {"id": "0", "query": "?", "choices": [gold], "gold": 0}
    task = build_task("x", spec, [Pool("", [item])])
    response = ModelResponse(text=[text])
    assert task.metrics[0].compute(task.docs[0], response) == expected


@pytest.mark.slow
def test_importing_the_adapter_changes_nothing_and_loads_no_built_in_task() -> None:
    code = (
        "import random, sys, numpy, torch\n"
        "random.seed(1); numpy.random.seed(1); torch.manual_seed(1)\n"
        "import ablations.evaluation.lighteval\n"
        "assert torch.is_grad_enabled()\n"
        "left = random.random(), numpy.random.rand(), float(torch.rand(1))\n"
        "random.seed(1); numpy.random.seed(1); torch.manual_seed(1)\n"
        "assert left == (random.random(), numpy.random.rand(), float(torch.rand(1)))\n"
        "assert not any(name.startswith('lighteval.tasks.tasks') for name in sys.modules)\n"
        "assert 'lighteval.models.transformers.transformers_model' not in sys.modules\n"
    )
    run_bare(code)


_HEAVY = (
    "inspect_ai",
    "sklearn",
    "scipy.stats",
    "pandas",
    "nltk",
    "sacrebleu",
    "lighteval.metrics",
)


@pytest.mark.slow
def test_metrics_are_imported_for_generated_answers_alone() -> None:
    code = (
        "import sys\n"
        "from ablations.evaluation.lighteval import build_task\n"
        "from ablations.evaluation.specs import METRICS, TaskSpec\n"
        "def heavy(form):\n"
        "    spec = TaskSpec(form=form, domain='d', items='x', metrics=METRICS[form],\n"
        "                    prompt='{query} {options}', max_new_tokens=4)\n"
        "    build_task('x', spec, [])\n"
        f"    return [name for name in {_HEAVY!r} if name in sys.modules]\n"
        "for form in ('cloze', 'letters', 'rolling', 'code', 'preference'):\n"
        "    assert heavy(form) == [], (form, heavy(form))\n"
        "assert 'lighteval.metrics' in heavy('generative')\n"
        "assert 'inspect_ai' not in sys.modules\n"
    )
    run_bare(code)


def run_bare(code: str) -> None:
    environment = {"PATH": "/nonexistent", "OMP_NUM_THREADS": "1"}  # no git either
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
