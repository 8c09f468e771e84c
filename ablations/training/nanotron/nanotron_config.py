"""nanotron's Config object, made from a TrainJob without a file.

nanotron's own learning-rate schedule, checkpoint interval and data section have no effect: rate,
checkpoints and samples of a step are functions of the step (engine.py), which nanotron 0.4 cannot express.
"""

from __future__ import annotations

from typing import Any

import torch

from ablations.training.batching import MicroBatching
from ablations.training.checkpoints import PARTIAL
from ablations.training.nanotron.compat import nanotron_trainer
from ablations.training.nanotron.decoder import LlamaShape
from ablations.training.resume import Start
from ablations.training.train_job import TrainJob

nanotron_trainer()

from nanotron.config import (  # noqa: E402
    CheckpointsArgs,
    Config,
    GeneralArgs,
    LoggingArgs,
    LRSchedulerArgs,
    ModelArgs,
    OptimizerArgs,
    ParallelismArgs,
    TokenizerArgs,
    TokensArgs,
)
from nanotron.config.models_config import ExistingCheckpointInit, RandomInit  # noqa: E402
from nanotron.parallel.pipeline_parallel.engine import (  # noqa: E402
    AllForwardAllBackwardPipelineEngine,
    OneForwardOneBackwardPipelineEngine,
)
from nanotron.parallel.tensor_parallel.nn import TensorParallelLinearMode  # noqa: E402

__all__ = ["DTYPES", "nanotron_config"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_PP_ENGINES = {
    "1f1b": OneForwardOneBackwardPipelineEngine,
    "afab": AllForwardAllBackwardPipelineEngine,
}


def nanotron_config(job: TrainJob, cut: MicroBatching, start: Start) -> Config:
    """Return nanotron's config of a job."""
    execution, total = job.execution, job.schedule.total_steps
    resume = start.checkpoint if start.load_optimizer else None
    return Config(
        general=GeneralArgs(project="ablations", run=job.directory.name, seed=job.seed),
        parallelism=ParallelismArgs(
            dp=execution.dp,
            pp=execution.pp,
            tp=execution.tp,
            pp_engine=_PP_ENGINES[execution.pp_engine](),
            tp_mode=TensorParallelLinearMode.ALL_REDUCE,
            tp_linear_async_communication=False,
        ),
        model=ModelArgs(
            model_config=LlamaShape(**vars(job.model)),
            init_method=_init_method(job, start),
            dtype=DTYPES[job.training.dtype],
        ),
        tokenizer=TokenizerArgs(),
        checkpoints=CheckpointsArgs(
            checkpoints_path=job.checkpoints_dir / PARTIAL,
            checkpoint_interval=total + 1,  # never: engine.py saves at the configured steps
            resume_checkpoint_path=resume,
            checkpoints_path_is_shared_file_system=True,
        ),
        logging=LoggingArgs(log_level="warning", log_level_replica="warning"),
        tokens=TokensArgs(
            sequence_length=job.training.sequence_length,
            train_steps=job.end_step,
            micro_batch_size=cut.micro_batch_size,
            batch_accumulation_per_replica=cut.micro_batches,
        ),
        optimizer=_optimizer(job),
    )


def _init_method(job: TrainJob, start: Start) -> Any:
    if start.checkpoint is not None and not start.load_optimizer:
        return ExistingCheckpointInit(path=start.checkpoint)
    return RandomInit(std=job.model.initializer_range)


def _optimizer(job: TrainJob) -> OptimizerArgs:
    training = job.training
    return OptimizerArgs(
        zero_stage=job.execution.zero_stage,
        weight_decay=training.weight_decay,
        clip_grad=training.clip_norm,
        accumulate_grad_in_fp32=training.accumulate_grad_in_fp32 and training.dtype != "float32",
        adam_eps=training.adam_eps,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        torch_adam_is_fused=True,  # on a CPU it takes a quarter of the time of the foreach and loop forms
        learning_rate_scheduler=LRSchedulerArgs(
            learning_rate=training.peak_lr,
            lr_warmup_style="linear",
            lr_decay_style="linear",
            lr_decay_steps=1,
            min_decay_lr=0.0,
        ),
    )
