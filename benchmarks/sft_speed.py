"""Tokens per CPU-second of fine-tuning here, against TRL alone on the same rows in the same order.

    python benchmarks/sft_speed.py --data data/demo_chat --model RUN/exports/600

Both train the same steps of the same model in one process, in turns. TRL alone gets a finished data set of
token ids and labels, and writes no checkpoint. The platform looks its rows up, counts them, and writes a row
for each step and a checkpoint at the end.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.batching import MicroBatching
from ablations.training.method import MethodSpec
from ablations.training.resume import Start
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.train_job import TrainJob

DEMO_FULL = ModelSpec(
    vocab_size=1024,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=512,
)


def make_job(folder: Path, data: Path, model: Path, steps: int) -> TrainJob:
    """The job of ``conf/experiment/demo_sft_ratio.yaml``, of ``steps`` steps."""
    training = TrainingSpec(
        sequence_length=160, batch_size=8, peak_lr=2e-3, weight_decay=0.0, adam_beta2=0.999
    )
    mixture = Mixture({"chat_turns": 0.5, "code_tasks": 0.5})
    return TrainJob(
        directory=folder,
        model=DEMO_FULL,
        training=training,
        execution=ExecutionSpec(device="cpu", threads=1),
        schedule=Schedule(
            stages=(Stage(name="main", steps=steps, mixture=mixture),),
            sequence_length=1,
            batch_size=8,
        ),
        learning_rate=LearningRate(
            peak=2e-3, warmup_steps=2, decay_steps=steps - 2, total_steps=steps, shape="cosine"
        ),
        stores={name: data / name for name in mixture},
        seed=0,
        checkpoint_steps=(steps,),
        method=MethodSpec(kind="sft"),
        start_model=str(model),
        tokenizer=data.parent / "tokenizers" / data.name,
    )


def alone(job: TrainJob) -> float:
    """CPU seconds of TRL alone."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from ablations.training.rows.row_feed import RowFeed
    from ablations.training.rows.start_model import load_model, load_tokenizer, start_folder
    from ablations.training.rows.steps import round_of
    from ablations.training.trl.rank import _arguments

    feed = RowFeed(job, Start(kind="start", step=0))
    rows = feed.conversations(range(job.schedule.total_samples))
    dataset = Dataset.from_list([{k: v.tolist() for k, v in row.items()} for row in rows])
    cut = MicroBatching(micro_batch_size=8, micro_batches=1)
    trainer: Any = SFTTrainer(
        model=load_model(start_folder(job)),
        args=_arguments(job, round_of(job, 0), cut),
        train_dataset=dataset,
        processing_class=load_tokenizer(Path(str(job.tokenizer))),
    )
    trainer.remove_callback(PrinterCallback)
    began = time.process_time()
    trainer.train()
    return time.process_time() - began


def here(job: TrainJob) -> float:
    """CPU seconds of the platform's training of the same rows."""
    from ablations.training.trl import rank

    spent = []
    plain = rank._Sft.train

    def timed(self: Any, *args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return plain(self, *args, **options)
        finally:
            spent.append(time.process_time() - began)

    rank._Sft.train = timed
    try:
        rank.train_rank((job, Start(kind="start", step=0)))
    finally:
        rank._Sft.train = plain
    return sum(spent)


def main() -> None:
    """Print tokens per CPU-second of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/demo_chat"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    from ablations.training.rows.row_feed import RowFeed

    spent: dict[str, list[float]] = {"alone": [], "here": []}
    tokens = 0
    for _ in range(given.turns):
        for name, train in (("alone", alone), ("here", here)):
            with tempfile.TemporaryDirectory() as folder:
                job = make_job(Path(folder), given.data.resolve(), given.model, given.steps)
                feed = RowFeed(job, Start(kind="start", step=0))
                rows = feed.conversations(range(job.schedule.total_samples))
                tokens = sum(row["input_ids"].size for row in rows)
                spent[name].append(train(job))
    best = {name: tokens / min(seconds) for name, seconds in spent.items()}
    print(f"TRL alone {best['alone']:,.0f} tokens per CPU-second, here {best['here']:,.0f}")
    print(f"ratio {best['here'] / best['alone']:.3f} (best of {given.turns} turns)")


if __name__ == "__main__":
    main()
