"""Work of one rank's worker process. Importing this module imports torch and TRL."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from ablations.data.manifest import StoreManifest
from ablations.files import file_sha256
from ablations.training.batching import MicroBatching
from ablations.training.placement import fit
from ablations.training.resume import Start
from ablations.training.rows.row_feed import RowFeed
from ablations.training.rows.row_rank import agree, begun_from, rank_work, trainer_arguments
from ablations.training.rows.start_model import load_model, load_tokenizer, start_folder
from ablations.training.rows.steps import Round, SaveAt, StepsOfARun, round_of
from ablations.training.train_job import TrainJob, TrainOutcome
from ablations.training.trl.reference import Reference

__all__ = ["train_rank"]

_DPO_METRICS = {
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
    "logps/chosen": "chosen_logprob",
    "logps/rejected": "rejected_logprob",
}
"""TRL's name of a mean over a step's pairs → its name in metrics.jsonl. Rewards are times beta."""


class _TrlSteps(StepsOfARun):
    """Steps of a run, with the means that TRL's trainers keep of a step."""

    def measured(self) -> dict[str, float]:
        """Return the means of DPO's rewards and log-probabilities, and forget them."""
        kept: dict[str, list[float]] = self._metrics["train"]  # type: ignore[attr-defined]
        more = {
            ours: math.fsum(values) / len(values)
            for theirs, ours in _DPO_METRICS.items()
            if (values := kept.get(theirs))
        }
        kept.clear()
        return more


class _Sft(_TrlSteps, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer on finished rows."""


class _Dpo(_TrlSteps, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on finished rows, with log-probabilities of the reference that are computed once."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset  # ``_reference`` computes them


def train_rank(argument: tuple[TrainJob, Start]) -> TrainOutcome:
    """Train this rank's part of a job to its end."""
    job, start = argument
    with rank_work(job, start) as work:
        job, cut = _fit(job, work.device)
        feed = RowFeed(job, start)
        feed.only_on_the_first_rank(work.rank)
        begun = begun_from(job, work.rank, start_folder)
        work.announce()
        step, checkpoint = start.step, start.checkpoint
        while step < job.schedule.total_steps:
            part = round_of(job, step)
            inside = step > part.first_step
            base = begun if part.number == 0 else str(job.checkpoints_dir / str(part.first_step))
            _train_round(job, part, feed, cut, base, checkpoint if inside else None, step)
            step, checkpoint = part.first_step + part.steps, None
    return work.outcome()


def _fit(job: TrainJob, device: torch.device) -> tuple[TrainJob, MicroBatching]:
    """Return the job and the division of its batch; a pair is two rows, so half as many fit on a GPU."""
    job, cut = fit(job, device)
    size = cut.micro_batch_size
    chosen = job.execution.micro_batch_size or device.type == "cpu"
    if job.method.kind == "dpo" and not chosen and size % 2 == 0:
        cut = MicroBatching(micro_batch_size=size // 2, micro_batches=cut.micro_batches * 2)
    return job, cut


def _train_round(
    job: TrainJob,
    part: Round,
    feed: RowFeed,
    cut: MicroBatching,
    base: str,
    checkpoint: Path | None,
    step: int,
) -> None:
    """Train one round, from ``base`` or, in its middle, from a checkpoint."""
    assert job.tokenizer is not None
    tokenizer = load_tokenizer(job.tokenizer)
    network = load_model(base)
    agree(network, tokenizer)
    samples = range(
        part.first_step * job.training.batch_size,
        (part.first_step + part.steps) * job.training.batch_size,
    )
    dataset = Dataset.from_dict({"sample": np.arange(samples.start, samples.stop)})
    kind = job.method.kind
    collate = _Pairs(feed, tokenizer) if kind == "dpo" else _Conversations(feed, tokenizer)
    build = _Dpo if kind == "dpo" else _Sft
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TRL's advice on settings that are ours on purpose
        trainer: Any = build(
            model=network,
            args=_arguments(job, part, cut),
            train_dataset=dataset,
            data_collator=collate,
            processing_class=tokenizer,
            callbacks=[SaveAt(job, part)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.begin(job, part, feed, cut.micro_batch_size)
        trainer.recall(step)
        if isinstance(collate, _Pairs):
            collate.reference = _reference(trainer, job, part, feed, base, samples, collate)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


def _arguments(job: TrainJob, part: Round, cut: MicroBatching) -> Any:
    """Return TRL's arguments: every one that the config states, and none that would change a row."""
    shared = {**trainer_arguments(job, part, cut), "max_length": None}
    if job.method.kind == "sft":
        return SFTConfig(**shared, packing=False, dataset_kwargs={"skip_prepare_dataset": True})
    return DPOConfig(
        **shared,
        beta=job.method.beta,
        loss_type=[job.method.loss_type],
        precompute_ref_log_probs=True,
    )


class _Conversations:
    """Collator of SFT: TRL's, on rows that are looked up by their sample."""

    def __init__(self, feed: RowFeed, tokenizer: Any) -> None:
        self._feed = feed
        self._pad = DataCollatorForLanguageModeling(pad_token_id=tokenizer.pad_token_id)

    def __call__(self, examples: Sequence[dict[str, int]]) -> dict[str, Any]:
        samples = [example["sample"] for example in examples]
        return {**self._pad(self._feed.conversations(samples)), "samples": torch.tensor(samples)}


class _Pairs:
    """Collator of DPO: TRL's, on rows that are looked up by their sample, with the reference's numbers."""

    def __init__(self, feed: RowFeed, tokenizer: Any) -> None:
        self._feed = feed
        self._pad = DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)
        self.reference: Reference | None = None

    def __call__(self, examples: Sequence[dict[str, int]]) -> dict[str, Any]:
        assert self.reference is not None
        samples = [example["sample"] for example in examples]
        rows: list[dict[str, Any]] = list(self._feed.pairs(samples))
        for row, sample in zip(rows, samples, strict=True):
            row["ref_chosen_logps"], row["ref_rejected_logps"] = self.reference.of(sample)
        return {**self._pad(rows), "samples": torch.tensor(samples)}

    def bare(self, samples: Sequence[int]) -> dict[str, Any]:
        """Return the batch of samples without numbers of a reference."""
        return dict(self._pad(self._feed.pairs(samples)))


def _reference(
    trainer: Any,
    job: TrainJob,
    part: Round,
    feed: RowFeed,
    base: str,
    samples: range,
    collate: _Pairs,
) -> Reference:
    """Return the log-probabilities of the round's reference, which is the model that it begins from."""
    placed = feed.order.locate(np.arange(samples.start, samples.stop))
    keys = placed.source.astype(np.int64) << 40 | placed.window
    batch = trainer.args.per_device_train_batch_size
    made = Reference(job.directory, part.number, samples, keys, _identity(job, base, batch))
    model = trainer.model.to(trainer.args.device)
    model.eval()

    def compute(chosen: Sequence[int]) -> Any:
        inputs = {k: v.to(trainer.args.device) for k, v in collate.bare(chosen).items()}
        logps = trainer.compute_ref_log_probs(model, inputs)
        return torch.stack(logps, dim=1).float().cpu().numpy()

    write = int(os.environ.get("RANK", "0")) == 0
    made.ready(compute, batch=batch, write=write)
    return made


def _identity(job: TrainJob, base: str, batch: int) -> str:
    """Return a text that is equal where model, stores and batch of the reference are."""
    files = [file_sha256(path) for path in _weights(Path(base))]
    stores = {name: StoreManifest.read(path).checksums() for name, path in job.stores.items()}
    return json.dumps([files or base, stores, batch, job.training.dtype], sort_keys=True)


def _weights(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.glob("*.safetensors"))
