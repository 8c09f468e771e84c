"""CPU-seconds of a training step with pictures here, against a plain torch loop of the same model.

    python benchmarks/vlm_training.py

Both train the same steps of the demo's vision-language model (a text part of 1.5 M parameters, the vision
part of ``conf/method/vlm.yaml``) on the same batches of 8 rows of one picture, some 64 tokens each, in one
process, in turns. The plain loop has its batches as tensors before it begins; it computes the loss, clips the
gradient and steps AdamW. The platform looks its rows up, expands and normalises them, counts them, and writes
a row for each step and a checkpoint at the end.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from ablations.config.schema import conf_dir
from ablations.data.tokenizer import make_tokenizer
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.method import MethodSpec
from ablations.training.resume import Start
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.train_job import TrainJob
from ablations.training.vision import VisionSpec
from tests.oracles.chats import make_base_tokenizer
from tests.oracles.vision_rows import VISION_TOKENIZER, write_pictures

DEMO_FULL = ModelSpec(
    vocab_size=1024,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=512,
)
START = Start(kind="start", step=0)


def make_store(root: Path) -> Path:
    """Write a store of 200 rows of one picture of 64 x 64."""
    make_base_tokenizer(root)
    tokenizers = root / "tokenizers"
    make_tokenizer(VISION_TOKENIZER, tokenizers, [])
    return write_pictures(
        root / "tiny_vision/squares", tokenizers / "tiny_vision", 200, (1,), side=64, filler=12
    )


def write_model(folder: Path) -> Path:
    """Write a random language model of the demo's shape."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
    )
    shape = {name: getattr(DEMO_FULL, name) for name in names}
    LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)).save_pretrained(folder)
    return folder


def make_job(folder: Path, store: Path, model: Path, steps: int) -> TrainJob:
    """Return a job of ``steps`` steps of 8 rows."""
    training = TrainingSpec(
        sequence_length=80, batch_size=8, peak_lr=2e-3, weight_decay=0.0, adam_beta2=0.999
    )
    stage = Stage(name="main", steps=steps, mixture=Mixture({"squares": 1.0}))
    eye = yaml.safe_load((conf_dir() / "method/vlm.yaml").read_text())["vision"]
    return TrainJob(
        directory=folder,
        model=DEMO_FULL,
        training=training,
        execution=ExecutionSpec(device="cpu", threads=1),
        schedule=Schedule(stages=(stage,), sequence_length=1, batch_size=8),
        learning_rate=LearningRate(
            peak=2e-3, warmup_steps=2, decay_steps=steps - 2, total_steps=steps
        ),
        stores={"squares": store},
        seed=0,
        checkpoint_steps=(steps,),
        method=MethodSpec(kind="vlm", loss="answers", vision=VisionSpec(**eye)),
        start_model=str(model),
        tokenizer=store.parents[1] / "tokenizers" / store.parent.name,
        most_pictures=1,
    )


def batches_of(job: TrainJob) -> list[dict[str, Any]]:
    """Return the batches of a job as tensors."""
    from ablations.training.vlm.picture_feed import PictureFeed

    feed, size = PictureFeed(job, START, pad_id=0), job.training.batch_size
    made = [
        feed.batch(range(first, first + size))
        for first in range(0, job.schedule.total_samples, size)
    ]
    for batch in made:
        del batch["samples"]
    return made


def plain(job: TrainJob) -> tuple[float, float]:
    """Return CPU seconds and last loss of a plain loop."""
    import torch

    from ablations.training.vlm.vision_start import load_vlm, vision_start_folder

    model, batches = load_vlm(vision_start_folder(job)), batches_of(job)
    training, rate = job.training, job.learning_rate
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.peak_lr,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_eps,
        weight_decay=training.weight_decay,
    )
    began, loss = time.process_time(), torch.zeros(())
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = rate.at(step)
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return time.process_time() - began, float(loss.detach())


def here(job: TrainJob) -> tuple[float, float]:
    """Return CPU seconds and last loss of the platform's training of the same rows."""
    from ablations.files import read_json_lines
    from ablations.training.vlm import rank

    spent = []
    train = rank.VisionTrainer.train

    def timed(self: Any, *args: Any, **options: Any) -> Any:
        began = time.process_time()
        try:
            return train(self, *args, **options)
        finally:
            spent.append(time.process_time() - began)

    rank.VisionTrainer.train = timed
    try:
        rank.train_rank((job, START))
    finally:
        rank.VisionTrainer.train = train
    *_, last = read_json_lines(job.directory / "metrics.jsonl")
    return sum(spent), float(last["loss"])


def main() -> None:
    """Print CPU-seconds a step of both, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--turns", type=int, default=4)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    spent: dict[str, list[float]] = {"plain": [], "here": []}
    losses: dict[str, float] = {}
    tokens = 0.0
    with tempfile.TemporaryDirectory() as root:
        store, model = make_store(Path(root) / "data"), write_model(Path(root) / "model")
        for turn in range(given.turns):
            for name, train in (("plain", plain), ("here", here)):
                folder = Path(root) / f"{name}_{turn}"
                (folder / "checkpoints").mkdir(parents=True)
                job = make_job(folder, store, model, given.steps)
                seconds, losses[name] = train(job)
                spent[name].append(seconds / given.steps)
                tokens = float(batches_of(job)[0]["attention_mask"].sum()) / 8
    best = {name: min(seconds) for name, seconds in spent.items()}
    print(f"{tokens:.0f} tokens a row; last losses {losses['plain']:.6f} and {losses['here']:.6f}")
    print(f"CPU-seconds a step: plain loop {best['plain']:.4f}, here {best['here']:.4f}")
    print(f"ratio {best['plain'] / best['here']:.3f} (best of {given.turns} turns)")


if __name__ == "__main__":
    main()
