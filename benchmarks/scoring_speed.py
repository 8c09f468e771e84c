"""Scoring against stock lighteval: the same items, weights and tokenizer, CPU time, in one process.

    python benchmarks/scoring_speed.py                              # generated items, 1M parameters
    python benchmarks/scoring_speed.py --items data/benchmarks      # the demo's real items
    python benchmarks/scoring_speed.py --size 25M --auto            # ours in the type that auto chooses

Stock is lighteval 0.13.0's TransformersModel, called below its response cache, at the batch size that is best
for it here. Repeats are interleaved and the fastest of each side counts. "first checkpoint" tokenises
and plans inside the clock, as stock does at every checkpoint; "further" reuses both, as a run does.
"""

from __future__ import annotations

import argparse
import copy
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from ablations.evaluation.items import ItemSources, Pool, load_items, rank
from ablations.evaluation.lighteval import MemoryModel, SuiteTask, build_task, sample_metrics
from ablations.evaluation.logprob_scorer import CausalLM
from ablations.evaluation.specs import TaskSpec
from ablations.precision import choose_dtype

TASKS = ("arc_easy", "hellaswag", "piqa", "commonsenseqa")
SIZES = {  # hidden, layers, heads, feed-forward; parameters with a vocabulary of 2,048
    "0.5M": (96, 2, 4, 256),
    "1M": (128, 4, 4, 344),
    "5M": (256, 6, 8, 688),
    "25M": (512, 8, 8, 1376),
    "135M": (576, 30, 9, 1536),
    "360M": (960, 32, 15, 2560),
    "1.7B": (2048, 24, 32, 8192),
}
BATCH_SIZES = (16, 32, 64, 128, 256)


@dataclass
class Case:
    """Items that both sides score."""

    folder: Path
    model: Any
    tokenizer: Any
    tasks: list[SuiteTask]
    device: str = "cpu"
    dtype: str = "float32"
    own: Any = None
    """The same weights in the type that ``auto`` chooses, for our side; None = those of both."""


def main() -> int:
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        case = _case(Path(folder), options)
        print(_describe(case, options.size))
        stock = _stock_model(case, options.window, 32)
        best = _best_batch_size(stock, case)
        stock.config.batch_size = stock.batch_size = best
        times = _race(case, stock, options)
        agreement = _agreement(case, stock, options)
    base = times["stock"]
    print(f"stock lighteval, batch size {best}: {base:.2f} CPU-s")
    for name in ("first checkpoint", "further checkpoints"):
        print(f"ours, {name}: {times[name]:.2f} CPU-s, ratio {base / times[name]:.2f}x")
    print(f"largest difference of a log-probability: {agreement['logprob']:.1e}")
    print(
        f"largest error against double precision, {agreement['checked']} continuations: "
        f"ours {agreement['ours']:.1e}, stock {agreement['stock']:.1e}"
    )
    print(f"accuracies equal: {agreement['equal']} ({agreement['compared']} compared)")
    fast = base / times["first checkpoint"] >= 2.0
    if case.own is not None:  # of another type, so the answers differ by rounding
        return 0 if fast else 1
    return 0 if fast and agreement["logprob"] < 1e-4 and agreement["equal"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=Path, help="folder of item files; generated where absent")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--count", type=int, default=150, help="items of a task")
    parser.add_argument("--size", choices=list(SIZES), default="1M")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--auto", action="store_true", help="score in the type that auto chooses")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


# ------------------------------------------------------------------------------------- the items


def _case(folder: Path, options: argparse.Namespace) -> Case:
    tasks = [
        build_task(name, _spec(name), [Pool("", items[: options.count])])
        for name, items in _items(options)
    ]
    texts = [doc.query + "".join(doc.choices) for task in tasks for doc in task.docs]
    tokenizer = _tokenizer(texts)
    device, dtype = getattr(options, "device", "cpu"), getattr(options, "dtype", "float32")
    model = _model(options.size, len(tokenizer), options.window).to(device, getattr(torch, dtype))
    chosen = choose_dtype("cpu") if getattr(options, "auto", False) else dtype
    own = None if chosen == dtype else copy.deepcopy(model).to(getattr(torch, chosen))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Case(folder, model, tokenizer, tasks, device, dtype, own)


def _spec(name: str) -> TaskSpec:
    return TaskSpec(form="cloze", domain="english", items=name, metrics=("acc", "acc_char", "bpb"))


def _items(options: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for number, name in enumerate(options.tasks):
        if options.items is None:
            yield name, _generated(number, options.count)
        else:
            sources = ItemSources(benchmarks=options.items)
            pools = load_items(_spec(name), sources)
            yield name, sorted((i for pool in pools for i in pool.items), key=rank)


def _generated(seed: int, count: int) -> list[dict[str, Any]]:
    """Items of the shapes of ARC, HellaSwag, PIQA, CommonsenseQA: words of context and of choices."""
    shape = ((25, 5, 4), (40, 20, 4), (12, 22, 2), (16, 2, 5))[seed % 4]
    draw = random.Random(seed)
    syllables = [a + b for a in "bcdfghklmnprst" for b in ("a", "e", "i", "on", "us", "ar")]

    def words(mean: int) -> str:
        size = max(1, round(draw.gauss(mean, mean / 3)))
        return " ".join("".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(size))

    return [
        {
            "id": str(index),
            "query": f"Question: {words(shape[0])}\nAnswer:",
            "choices": [words(shape[1]) for _ in range(shape[2])],
            "gold": draw.randrange(shape[2]),
        }
        for index in range(count)
    ]


def _tokenizer(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")


def _model(size: str, vocabulary: int, window: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, feed_forward = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=window,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def _describe(case: Case, size: str) -> str:
    parameters = sum(parameter.numel() for parameter in case.model.parameters())
    items = sum(len(task.docs) for task in case.tasks)
    names = ", ".join(task.name for task in case.tasks)
    own = str((case.own or case.model).dtype).removeprefix("torch.")
    return (
        f"{size} model ({parameters:,} parameters), {items} items of {names}; "
        f"stock in {case.dtype}, ours in {own}"
    )


# -------------------------------------------------------------------------------------- the sides


def _stock_model(case: Case, window: int, batch_size: int) -> Any:
    import logging

    logging.disable(logging.WARNING)
    from lighteval.models.transformers.transformers_model import (
        TransformersModel,
        TransformersModelConfig,
    )

    config = TransformersModelConfig(
        model_name=str(case.folder),
        batch_size=batch_size,
        max_length=window,
        device=case.device,
        dtype=case.dtype,
        cache_dir=str(case.folder / "cache"),
    )
    model = TransformersModel.from_model(model=case.model, config=config)
    type(model).disable_tqdm = property(lambda self: True)
    return model


def _stock(stock: Any, case: Case) -> list[list[Any]]:
    answers = []
    for task in case.tasks:
        responses = stock._loglikelihood_tokens(task.docs)
        _stock_accuracies(task, responses)
        answers.append(responses)
    return answers


def _stock_accuracies(task: SuiteTask, responses: Sequence[Any]) -> list[dict[str, float]]:
    """Return lighteval's own accuracies of each item, under the platform's names."""
    from lighteval.metrics.metrics_sample import LoglikelihoodAcc
    from lighteval.metrics.normalizations import LogProbCharNorm

    metrics = {
        "acc": LoglikelihoodAcc(),
        "acc_char": LoglikelihoodAcc(LogProbCharNorm(ignore_first_space=True)),
    }
    return [
        {name: metric.compute(doc, response) for name, metric in metrics.items()}
        for doc, response in zip(task.docs, responses, strict=True)
    ]


def _memory_model(case: Case, options: argparse.Namespace) -> MemoryModel:
    model = MemoryModel(case.tokenizer, window=options.window, batch_tokens=options.batch_tokens)
    model.use(CausalLM(case.own or case.model))
    return model


def _ours(model: MemoryModel, case: Case) -> None:
    for task in case.tasks:
        sample_metrics(task, model)


def _clock(case: Case, work: Callable[[], object]) -> float:
    """Seconds: of CPU time, on a GPU of wall time until all its kernels are over."""
    if case.device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _best_batch_size(stock: Any, case: Case) -> int:
    """The fastest of several on a third of the items."""
    third = [SuiteTask(task.name, task.spec, task.docs[::3], task.metrics) for task in case.tasks]
    sample = replace(case, tasks=third)
    spent = {}
    for size in BATCH_SIZES:
        stock.config.batch_size = stock.batch_size = size
        spent[size] = min(_clock(sample, lambda: _stock(stock, sample)) for _ in range(2))
    return min(spent, key=lambda size: spent[size])


def _race(case: Case, stock: Any, options: argparse.Namespace) -> dict[str, float]:
    spent: dict[str, list[float]] = {}
    for _ in range(options.repeats):
        spent.setdefault("stock", []).append(_clock(case, lambda: _stock(stock, case)))
        model = _memory_model(case, options)
        spent.setdefault("first checkpoint", []).append(
            _clock(case, lambda m=model: _ours(m, case))
        )
        spent.setdefault("further checkpoints", []).append(
            _clock(case, lambda m=model: _ours(m, case))
        )
    return {name: min(times) for name, times in spent.items()}


def _agreement(case: Case, stock: Any, options: argparse.Namespace) -> dict[str, Any]:
    model = _memory_model(case, options)
    doubled = copy.deepcopy(case.model).double()
    errors: dict[str, list[float]] = {"ours": [], "stock": []}
    worst, equal, compared = 0.0, True, 0
    for task, theirs in zip(case.tasks, _stock(stock, case), strict=True):
        ours = model.loglikelihood(task.docs)
        for mine, other in zip(ours, theirs, strict=True):
            pairs = zip(mine.logprobs, other.logprobs, strict=True)
            worst = max(worst, *(abs(a - b) for a, b in pairs))
        metrics = [metric for metric in task.metrics if metric.name.startswith("acc")]
        left = [
            {metric.name: metric.compute(doc, response) for metric in metrics}
            for doc, response in zip(task.docs, ours, strict=True)
        ]
        equal = equal and left == _stock_accuracies(task, theirs)
        compared += len(left) * len(metrics)
        for doc, *answers in list(zip(task.docs, ours, theirs, strict=True))[:10]:
            for index, true in enumerate(_in_double(doubled, model, doc, options.window)):
                for side, answer in zip(("ours", "stock"), answers, strict=True):
                    errors[side].append(abs(answer.logprobs[index] - true))
    return {
        "logprob": worst,
        "equal": equal,
        "compared": compared,
        "checked": len(errors["ours"]),
        **{side: max(found) for side, found in errors.items()},
    }


def _in_double(doubled: Any, model: MemoryModel, doc: Any, window: int) -> list[float]:
    """Log-probabilities of a document's choices, one forward pass each, in double precision."""
    (context,) = model._contexts([doc])
    found = []
    for branch in model.tokenizer(list(doc.choices), add_special_tokens=False)["input_ids"]:
        text = [*context, *branch][-window:]
        with torch.no_grad():
            logits = doubled(input_ids=torch.tensor([text])).logits[0]
        first = len(text) - len(branch)
        targets = torch.tensor(text[first:])[:, None]
        logprobs = torch.log_softmax(logits[first - 1 : -1], -1)
        found.append(float(logprobs.gather(1, targets).sum()))
    return found


if __name__ == "__main__":
    sys.exit(main())
