"""Work of one rank's worker process. Importing this module imports torch and transformers."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, TrainingArguments

from ablations.training.batching import MicroBatching
from ablations.training.placement import fit
from ablations.training.resume import Start
from ablations.training.rows.row_rank import begun_from, rank_work, trainer_arguments
from ablations.training.rows.start_model import load_tokenizer
from ablations.training.rows.steps import SaveAt, StepsOfARun, round_of
from ablations.training.train_job import TrainJob, TrainOutcome
from ablations.training.vlm.picture_feed import PictureFeed
from ablations.training.vlm.vision_start import load_vlm, vision_start_folder

__all__ = ["VisionTrainer", "train_rank"]


class VisionTrainer(StepsOfARun, Trainer):  # type: ignore[misc]
    """Trainer of transformers on rows with pictures."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: the Trainer counts the parameters for it at every step, and the plan has the FLOPs."""
        del inputs
        return 0


class _Samples:
    """Data set of sample indices: the collator reads their rows."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, sample: int) -> int:
        return sample


def train_rank(argument: tuple[TrainJob, Start]) -> TrainOutcome:
    """Train this rank's part of a job to its end."""
    job, start = argument
    with rank_work(job, start) as work:
        job, cut = fit(job, work.device)
        assert job.tokenizer is not None
        tokenizer = load_tokenizer(job.tokenizer)
        feed = PictureFeed(job, start, tokenizer.pad_token_id)
        feed.only_on_the_first_rank(work.rank)
        begun = begun_from(job, work.rank, vision_start_folder)
        work.announce()
        if start.step < job.schedule.total_steps:
            _train(job, start, feed, cut, begun, tokenizer)
    return work.outcome()


def _train(
    job: TrainJob,
    start: Start,
    feed: PictureFeed,
    cut: MicroBatching,
    begun: str,
    tokenizer: Any,
) -> None:
    network, part = load_vlm(begun), round_of(job, start.step)
    # The text part has no padding id: its embedding would leave out the row of the texts' separator.
    network.config.text_config.eos_token_id = tokenizer.eos_token_id
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    arguments = trainer_arguments(job, part, cut)
    if job.execution.ranks > 1:
        # A rank whose rows show no picture does not use the vision part in that step.
        arguments["ddp_find_unused_parameters"] = True

    def collate(samples: Sequence[int]) -> dict[str, Any]:
        return feed.batch(samples)

    trainer: Any = VisionTrainer(
        model=network,
        args=TrainingArguments(**arguments),
        train_dataset=_Samples(job.schedule.total_samples),
        data_collator=collate,
        processing_class=tokenizer,
        callbacks=[SaveAt(job, part)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.begin(job, part, feed, cut.micro_batch_size)
    trainer.recall(start.step)
    gc.freeze()  # the Trainer collects once as it begins: 0.25 s with the libraries' objects
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on settings that are ours on purpose
        trainer.train(resume_from_checkpoint=_text(start.checkpoint))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
