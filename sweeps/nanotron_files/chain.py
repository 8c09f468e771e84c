"""A schedule as a chain of files for nanotron's main branch.

Main trains only the last stage of a file and requires the checkpoint of exactly the step before it
(``run_train.py`` of huggingface/nanotron, main). A schedule of n stages is therefore n files::

    file 1   stages 1        from scratch            trains steps          1 … end 1
    file 2   stages 1 2      from …/1_stable/end 1   trains steps  end 1 + 1 … end 2
    file 3   stages 1 2 3    from …/2_…/end 2        trains steps  end 2 + 1 … end 3

Each file contains the learning rate of the whole schedule and loads scheduler and optimiser, so the
decay continues across a boundary. ``save_final_state`` saves a stage's last step even if the interval
does not divide it. A folder has the same name in each stage, because main counts the tokens read by
folder name.

A change of the context length is a new run: :func:`continuation` writes its single file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ablations.errors import ConfigError, Problem
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.specs import ModelSpec, TrainingSpec
from sweeps.nanotron_files.document import check, to_document
from sweeps.nanotron_files.model_sections import LlamaModel, Model, RandomInit
from sweeps.nanotron_files.recorded_schema import Branch
from sweeps.nanotron_files.run_sections import Checkpoints, General, Logging, Parallelism
from sweeps.nanotron_files.sections import (
    AdamW,
    Data,
    LearningRateScheduler,
    NanotronFile,
    Optimizer,
    StageSection,
    TokenFolders,
    Tokenizer,
    Tokens,
)

__all__ = ["ChainRun", "chain", "checkpoint_folder", "continuation", "handover_problems", "slug"]


@dataclass(frozen=True, kw_only=True)
class ChainRun:
    """Settings of the files of one run."""

    project: str
    """Project that groups runs."""
    name: str
    """Name of the run."""
    seed: int
    """Seed of the initialisation and of the order of the data."""
    model: ModelSpec
    """Shape of the network."""
    training: TrainingSpec
    """Batch and optimiser."""
    schedule: Schedule
    """Stages in whole steps."""
    learning_rate: LearningRate
    """Learning rate over the whole schedule."""
    tokenizer: str
    """Hub id or folder, as the stores' metadata names it."""
    folders: Mapping[str, str]
    """Source → folder of its token files, the same in each stage."""
    parallelism: Parallelism
    """Number of ranks of each kind."""
    micro_batch_size: int
    """Samples of a forward pass on one rank."""
    zero_stage: int = 0
    """0 or 1."""
    checkpoints_path: str = "checkpoints"
    """Parent of the stages' checkpoint folders."""
    checkpoint_interval_steps: int = 2000
    """Steps between two checkpoints."""
    resume_from: str | None = None
    """Checkpoint that the first file starts from; None = from scratch."""
    load_optimizer: bool = True
    """Load Adam's moments from ``resume_from`` too."""
    nanotron: Branch = "main"
    """Branch of nanotron that trains the files."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"folders.{name}", "a source of the schedule has no folder")
            for name in self.schedule.sources
            if name not in self.folders
        ]
        samples = self.micro_batch_size * self.parallelism.dp
        if self.schedule.batch_size % samples:
            problems.append(
                Problem(
                    "parallelism.dp",
                    "the batch does not divide over replicas and micro-batches",
                    found=f"{self.schedule.batch_size} samples / ({self.parallelism.dp} replicas x "
                    f"{self.micro_batch_size})",
                    allowed="a whole number of micro-batches per step",
                )
            )
        if problems:
            raise ConfigError(problems)


def slug(name: str) -> str:
    """Return ``name`` as a file or folder name."""
    return "".join(c if c.isalnum() else "_" for c in name.lower()).strip("_") or "stage"


def checkpoint_folder(run: ChainRun, stage: int) -> str:
    """Return the folder of the checkpoints of stage number ``stage`` (from 0)."""
    return f"{run.checkpoints_path}/{stage + 1}_{slug(run.schedule.stages[stage].name)}"


def chain(run: ChainRun) -> tuple[NanotronFile, ...]:
    """Return the files of ``run``, one for each stage, all of them checked.

    Raises:
        ConfigError: the settings of the run make a file that main would refuse.
    """
    files = tuple(_file(run, stage) for stage in range(len(run.schedule.stages)))
    problems = [
        problem
        for file in files
        for problem in check(to_document(file, branch=run.nanotron), run.nanotron)
    ]
    problems += handover_problems(files)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return files


def continuation(run: ChainRun) -> NanotronFile:
    """Return the single file of a new run that starts at step 1 from ``run.resume_from``.

    The step counter and the scheduler start again; Adam's moments are loaded if
    ``run.load_optimizer`` is true. Use it to extend the context, or to fork an annealing run with
    another schedule.

    Raises:
        ConfigError: no checkpoint to start from, or more than one stage.
    """
    if run.resume_from is None or len(run.schedule.stages) != 1:
        raise ConfigError(
            Problem("continuation", "needs a checkpoint to start from and exactly one stage")
        )
    file = _file(run, 0)
    return replace(file, checkpoints=replace(file.checkpoints, load_lr_scheduler=False))


def _file(run: ChainRun, last: int) -> NanotronFile:
    end = run.schedule.first_step(last + 1)
    return NanotronFile(
        general=General(
            project=run.project,
            run=f"{run.name}-{last + 1}_{slug(run.schedule.stages[last].name)}",
            seed=run.seed,
        ),
        checkpoints=_checkpoints(run, last),
        data_stages=tuple(_stage(run, index) for index in range(last + 1)),
        logging=Logging(log_level="info", log_level_replica="info"),
        model=_model(run),
        optimizer=_optimizer(run),
        parallelism=run.parallelism,
        tokenizer=Tokenizer(tokenizer_name_or_path=run.tokenizer),
        tokens=Tokens(
            sequence_length=run.schedule.sequence_length,
            train_steps=end,
            micro_batch_size=run.micro_batch_size,
            batch_accumulation_per_replica=run.schedule.batch_size
            // (run.micro_batch_size * run.parallelism.dp),
        ),
    )


def _checkpoints(run: ChainRun, last: int) -> Checkpoints:
    first = last == 0
    before = (
        None if first else f"{checkpoint_folder(run, last - 1)}/{run.schedule.first_step(last)}"
    )
    return Checkpoints(
        checkpoints_path=checkpoint_folder(run, last),
        checkpoint_interval=run.checkpoint_interval_steps,
        save_final_state=True,
        resume_checkpoint_path=run.resume_from if first else before,
        load_lr_scheduler=True,
        load_optimizer=run.load_optimizer if first else True,
        checkpoints_path_is_shared_file_system=True,
    )


def _stage(run: ChainRun, index: int) -> StageSection:
    stage = run.schedule.stages[index]
    read = [name for name in stage.mixture if stage.mixture[name] > 0.0]
    return StageSection(
        name=stage.name,
        start_training_step=run.schedule.first_step(index) + 1,
        data=Data(
            dataset=TokenFolders(
                dataset_folder=tuple(run.folders[name] for name in read),
                dataset_weights=tuple(_round(stage, name) for name in read),
                tokenizer_name=run.tokenizer,
                vocab_size=run.model.vocab_size,
                token_size_in_bytes=4 if run.model.vocab_size > 2**16 else 2,
            ),
            seed=run.seed,
            num_loading_workers=1,
        ),
    )


def _round(stage: Stage, name: str) -> float:
    # Twelve digits, so that the file contains 0.54 and not 0.5400000000000001.
    return float(f"{stage.mixture[name]:.12g}")


def _model(run: ChainRun) -> Model:
    spec = run.model
    return Model(
        model_config=LlamaModel(
            bos_token_id=spec.bos_token_id,
            eos_token_id=spec.eos_token_id,
            hidden_size=spec.hidden_size,
            initializer_range=spec.initializer_range,
            intermediate_size=spec.intermediate_size,
            max_position_embeddings=spec.max_position_embeddings,
            num_attention_heads=spec.num_attention_heads,
            num_hidden_layers=spec.num_hidden_layers,
            num_key_value_heads=spec.num_key_value_heads,
            rms_norm_eps=spec.rms_norm_eps,
            rope_theta=spec.rope_theta,
            tie_word_embeddings=spec.tie_word_embeddings,
            vocab_size=spec.vocab_size,
            # The flash kernels take only half precision; nanotron would stop in its first step.
            _attn_implementation="sdpa" if run.training.dtype == "float32" else "flash_attention_2",
        ),
        init_method=RandomInit(std=spec.initializer_range),
        # auto is bfloat16 on a GPU.
        dtype="float32" if run.training.dtype == "float32" else "bfloat16",
    )


def _optimizer(run: ChainRun) -> Optimizer:
    training, rate = run.training, run.learning_rate
    return Optimizer(
        optimizer_factory=AdamW(
            adam_eps=training.adam_eps,
            adam_beta1=training.adam_beta1,
            adam_beta2=training.adam_beta2,
            torch_adam_is_fused=True,
        ),
        zero_stage=run.zero_stage,
        weight_decay=training.weight_decay,
        clip_grad=training.clip_norm,
        accumulate_grad_in_fp32=training.accumulate_grad_in_fp32,
        learning_rate_scheduler=LearningRateScheduler(
            learning_rate=rate.peak,
            lr_warmup_steps=rate.warmup_steps,
            lr_warmup_style="linear",
            lr_decay_style=rate.shape,
            # Main's default for the steps is all steps after the warm-up, so both are written.
            lr_decay_steps=rate.decay_steps,
            lr_decay_starting_step=rate.decay_start,
            min_decay_lr=rate.peak * (rate.min_ratio if rate.decay_steps else 1.0),
        ),
    )


def handover_problems(files: Sequence[NanotronFile]) -> list[Problem]:
    """Return the problems that keep file k + 1 from continuing file k; empty for a sound chain."""
    problems = []
    for number, (before, after) in enumerate(pairwise(files), start=1):
        where, end = f"file {number + 1}", before.tokens.train_steps
        saved, last = before.checkpoints, after.data_stages[-1]
        if last.start_training_step != end + 1:
            problems.append(
                Problem(where, "starts elsewhere", found=last.start_training_step, allowed=end + 1)
            )
        if after.checkpoints.resume_checkpoint_path != f"{saved.checkpoints_path}/{end}":
            problems.append(
                Problem(
                    where,
                    "does not resume from the last checkpoint of the file before",
                    found=after.checkpoints.resume_checkpoint_path,
                    allowed=f"{saved.checkpoints_path}/{end}",
                )
            )
        if not saved.save_final_state and end % saved.checkpoint_interval:
            problems.append(Problem(where, f"the checkpoint of step {end} is never saved"))
        if after.checkpoints.load_lr_scheduler is False:
            problems.append(
                Problem(where, "would count steps from 1 again", do="load_lr_scheduler")
            )
        if after.data_stages[:-1] != before.data_stages:
            problems.append(Problem(where, "does not list the stages before as they were trained"))
        if after.tokens.sequence_length != before.tokens.sequence_length:
            problems.append(Problem(where, "changes the sequence length within a run"))
        if after.optimizer != before.optimizer or after.model != before.model:
            problems.append(Problem(where, "changes the model or the optimiser within a run"))
    return problems
