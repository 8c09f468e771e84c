"""Small conversations, preferences, chat tokenizer and model, for tests of post-training."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.prepare import prepare
from ablations.data.rows.chat_template import ChatSpec
from ablations.data.rows.row_specs import RowSpec
from ablations.data.tokenizer import TokenizerSpec, make_tokenizer
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.method import MethodSpec
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.train_job import TrainJob

CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
)

CHAT_TOKENIZER = TokenizerSpec(
    name="tiny_chat", kind="chat", base="tiny", chat=ChatSpec(template=CHATML)
)

TINY_CHAT_MODEL = ModelSpec(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
"""The model of the base: its vocabulary has no markers of turns."""

_WORDS = ("red", "green", "blue", "seven", "eight", "nine", "cat", "dog", "house", "river", "sings")


def words(seed: object, count: int) -> str:
    """Return some words."""
    return " ".join(random.Random(f"{seed}").choices(_WORDS, k=count))


def conversation(seed: object, turns: int = 1, length: int = 6) -> list[dict[str, str]]:
    """Return messages of a user and an assistant in turns."""
    made = []
    for turn in range(turns):
        made.append({"role": "user", "content": f"{seed}: {words((seed, turn), length)}?"})
        made.append({"role": "assistant", "content": words((seed, turn, "a"), length) + "."})
    return made


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a jsonl file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row_source(path: Path, **rows: Any) -> SourceSpec:
    """Return a source of rows in a file."""
    return SourceSpec(
        domain="english",
        tokens_available=10_000,
        origin=FilesOrigin(kind="files", paths=(str(path),)),
        rows=RowSpec(**{"kind": "conversations", "max_tokens": 48, **rows}),
        heldout_share=0.1,
        licence="none",
    )


def make_base_tokenizer(data_dir: Path) -> None:
    """Make the tokenizer of the pretraining, ``tiny``."""
    tokenizers = data_dir / "tokenizers"
    tokenizers.mkdir(parents=True, exist_ok=True)
    spec = TokenizerSpec(name="tiny", kind="bpe", vocab_size=300)
    make_tokenizer(spec, tokenizers, [words(n, 20) for n in range(50)])


def prepare_rows(data_dir: Path, sources: dict[str, SourceSpec]) -> dict[str, Path]:
    """Prepare sources with the chat tokenizer; return their folders."""
    make_base_tokenizer(data_dir)
    return {one.name: one.folder for one in prepare(sources, CHAT_TOKENIZER, data_dir)}


def prepare_two_kinds(data_dir: Path) -> dict[str, Path]:
    """Prepare short and long conversations, and preferences."""
    raw = data_dir / "raw"
    short = [{"messages": conversation(f"s{n}", 1, 3)} for n in range(60)]
    long = [{"messages": conversation(f"l{n}", 2, 5 + n % 4)} for n in range(80)]
    pairs = [
        {
            "prompt": f"p{n}: {words((n, 'p'), 4)}?",
            "chosen": words((n, "c"), 6),
            "rejected": words((n, "r"), 3),
        }
        for n in range(60)
    ]
    files = {
        name: write_rows(raw / f"{name}.jsonl", rows)
        for name, rows in {"short": short, "long": long, "pairs": pairs}.items()
    }
    sources = {name: row_source(files[name]) for name in ("short", "long")}
    sources["pairs"] = row_source(files["pairs"], kind="preferences")
    return prepare_rows(data_dir, sources)


def write_base_model(folder: Path, seed: int = 0) -> Path:
    """Write a random model of TINY_CHAT_MODEL's shape as a transformers folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    )
    shape = {name: getattr(TINY_CHAT_MODEL, name) for name in names}
    model = LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True))
    model.save_pretrained(folder)
    return folder


def make_row_job(
    directory: Path,
    stores: dict[str, Path],
    model: Path | str,
    *,
    weights: dict[str, float] | None = None,
    steps: int = 8,
    method: MethodSpec | None = None,
    checkpoint_steps: tuple[int, ...] = (),
    seed: int = 1,
    execution: ExecutionSpec | None = None,
    **training: Any,
) -> TrainJob:
    """A job of one stage over row stores."""
    given = weights or {"short": 0.5, "long": 0.5}
    spec = TrainingSpec(
        **{"sequence_length": 48, "batch_size": 4, "peak_lr": 1e-2, "weight_decay": 0.0, **training}
    )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = next(iter(stores.values())).parents[1] / "tokenizers" / CHAT_TOKENIZER.name
    return TrainJob(
        directory=directory,
        model=TINY_CHAT_MODEL,
        training=spec,
        execution=execution or ExecutionSpec(device="cpu", threads=1),
        schedule=Schedule(
            stages=(Stage(name="main", steps=steps, mixture=Mixture(given)),),
            sequence_length=1,
            batch_size=spec.batch_size,
        ),
        learning_rate=LearningRate(
            peak=spec.peak_lr, warmup_steps=2, decay_steps=steps // 2, total_steps=steps
        ),
        stores={name: stores[name] for name in given},
        seed=seed,
        checkpoint_steps=checkpoint_steps or (steps,),
        method=method or MethodSpec(kind="sft"),
        start_model=str(model),
        tokenizer=tokenizer,
    )
