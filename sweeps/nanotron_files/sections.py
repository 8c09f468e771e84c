"""Typed sections of a file for nanotron's branches.

The layout comes from the public repository huggingface/nanotron (``src/nanotron/config/`` of main
after SmolLM3, ``run_train.py``, ``tokenized_bytes.py``); the descriptions are ours. Nothing imports
nanotron, because the registry's release (0.4) has no ``data_stages`` and a promotion must be checkable
on a laptop.

    general  checkpoints  parallelism  logging  metrics_logging  profiler  lighteval  s3_upload
    model ── model_config (llama | qwen2 | starcoder2)     init_method     dtype
    data_stages ── [name, start_training_step, data ── dataset (folders + weights), seed]
    tokens ── sequence_length, train_steps, micro_batch_size × accumulation × dp = batch
    optimizer ── learning_rate_scheduler, optimizer_factory

Main's loader is strict: it refuses a key that is not named here, and a number written as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Tag

from sweeps.nanotron_files.model_sections import Model
from sweeps.nanotron_files.run_sections import (
    Checkpoints,
    General,
    Logging,
    Metrics,
    Parallelism,
    Profiler,
    Upload,
)

__all__ = [
    "AdamW",
    "ChatDataset",
    "Data",
    "HubDataset",
    "LearningRateScheduler",
    "NanotronFile",
    "Optimizer",
    "Sgd",
    "StageSection",
    "TokenFolders",
    "Tokenizer",
    "Tokens",
]

_FORBID = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class TokenFolders:
    """Weighted list of token stores in datatrove's format."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    dataset_folder: str | tuple[str, ...]
    """Folders; the mapping form of an old example is refused by main's loader."""
    dataset_weights: tuple[float, ...] | None = None
    """One weight per folder, normalised silently; null = equal weights."""
    dataset_read_path: str | tuple[str, ...] | None = None
    """Local copies that are read instead of the folders; tokens are counted by the folders' names."""
    tokenizer_name: str | None = None
    """Must equal ``tokenizer.tokenizer_name_or_path``; read from the folder's metadata if null."""
    vocab_size: int | None = None
    """Must equal the model's; read from the folder's metadata if null."""
    token_size_in_bytes: int | None = None
    """2 for vocabularies up to 65,536, else 4."""
    return_positions: bool | None = True
    """Restart positions at each document."""
    skip_in_stream: bool | None = False
    """Read a resumed stream up to its place instead of seeking it."""
    pad_samples_to_global_batch_size: bool | None = False
    """Fill up the last batch."""
    dataset_max_tokens: tuple[int, ...] | None = None
    """Tokens of each folder to use; null = all."""
    shuffle_files: bool | None = False
    """Shuffle the files of a folder."""
    use_old_brrr_dataloader: bool | None = False
    """Use an older loader, kept for old runs."""


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """Text that main tokenises on the fly with the ``datasets`` library."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    hf_dataset_or_datasets: str | tuple[str, ...] | Mapping[str, float]
    """Hub id, or several, or id → weight."""
    hf_dataset_splits: str | tuple[str, ...] | None = None
    """Splits; null = train."""
    hf_dataset_config_name: str | None = None
    """Subset."""
    dataset_processing_num_proc_per_process: int | None = 1
    """Tokenising processes."""
    dataset_overwrite_cache: bool | None = False
    """Tokenise again."""
    text_column_name: str | None = None
    """Column of the text; null = text."""


@dataclass(frozen=True, kw_only=True)
class ChatDataset:
    """Conversations that main tokenises on the fly; ``sft_dataloader`` distinguishes them from text."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    hf_dataset_or_datasets: str | tuple[str, ...] | Mapping[str, float]
    """Hub id, or several, or id → weight."""
    hf_dataset_splits: str | tuple[str, ...] | None = None
    """Splits; null = train."""
    hf_dataset_config_name: str | None = None
    """Subset."""
    dataset_processing_num_proc_per_process: int | None = 1
    """Tokenising processes."""
    dataset_overwrite_cache: bool | None = False
    """Tokenise again."""
    sft_dataloader: bool | None = True
    """Read with the loader of instruction data."""
    debug_max_samples: int | None = None
    """Rows to keep; null = all."""


def _kind(dataset: Any) -> str:
    """Return the tag of a dataset: folders, as in all published runs, or hub or chat."""
    if isinstance(dataset, Mapping):
        if "hf_dataset_or_datasets" not in dataset:
            return "folders"
        return "chat" if {"sft_dataloader", "debug_max_samples"} & set(dataset) else "hub"
    return {HubDataset: "hub", ChatDataset: "chat"}.get(type(dataset), "folders")


Dataset = Annotated[
    Annotated[TokenFolders, Tag("folders")]
    | Annotated[HubDataset, Tag("hub")]
    | Annotated[ChatDataset, Tag("chat")],
    Discriminator(_kind),
]


@dataclass(frozen=True, kw_only=True)
class Data:
    """Dataset of one stage."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    dataset: Dataset | None
    """Tokens to read; null = random tokens, for benchmarks."""
    seed: int | None
    """Seed of the order; null = 42."""
    num_loading_workers: int | None = 1
    """Processes that read ahead."""


@dataclass(frozen=True, kw_only=True)
class StageSection:
    """Stage: steps that read one list of folders. Main trains only the last one of a file."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    name: str
    """Name, unique within the file."""
    start_training_step: int
    """First step of the stage, counted from 1; the run resumes from the checkpoint of the step before."""
    data: Data
    """Folders, weights and order."""
    sequence_length: int | None = None
    """Length of a sample; null = that of ``tokens``. Main refuses a change between stages."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Tokenizer of the folders."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    tokenizer_name_or_path: str | None = None
    """Hub id or folder."""
    tokenizer_revision: str | None = None
    """Revision on the hub."""
    tokenizer_max_length: int | None = None
    """Longest input."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Batch, sequence and steps."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    sequence_length: int
    """Trained tokens per sample."""
    train_steps: int
    """Last step of the run, counted over all stages."""
    micro_batch_size: int
    """Samples of a forward pass on one rank."""
    batch_accumulation_per_replica: int
    """Forward passes per step."""
    val_check_interval: int | None = -1
    """Kept as written; main has no validation loop."""
    limit_val_batches: int | None = 0
    """Kept as written."""
    limit_test_batches: int | None = 0
    """Kept as written."""


@dataclass(frozen=True, kw_only=True)
class LearningRateScheduler:
    """Warm-up, plateau and decay."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    learning_rate: float
    """Learning rate of the plateau."""
    lr_warmup_steps: int = 0
    """Steps of the warm-up."""
    lr_warmup_style: Literal["linear", "constant"]
    """Shape of the warm-up; main refuses a file without it."""
    lr_decay_style: Literal["linear", "cosine", "1-sqrt"] | None = None
    """Shape of the decay; null = linear."""
    lr_decay_steps: int | None = None
    """Steps of the decay; null: see :func:`.learning_rates.decay_window`."""
    lr_decay_starting_step: int | None = None
    """First step of the decay; null = right after the warm-up."""
    min_decay_lr: float | None = None
    """Learning rate at the end; null = that of the plateau (no decay)."""


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Plain gradient descent."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    name: Literal["sgd"] = "sgd"
    """Tag of the optimiser's kind."""


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    adam_eps: float
    """Added to the root of the second moment."""
    adam_beta1: float
    """Decay of the first moment."""
    adam_beta2: float
    """Decay of the second moment."""
    torch_adam_is_fused: bool
    """Kernel choice."""
    name: Literal["adamW"] = "adamW"
    """Tag of the optimiser's kind."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimiser, clipping and the learning rate."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    optimizer_factory: AdamW | Sgd
    """Kind and settings of the optimiser."""
    zero_stage: int
    """0 = states on each rank, 1 = divided among data-parallel ranks."""
    weight_decay: float
    """Decoupled decay."""
    clip_grad: float | None
    """Largest gradient norm; null = no clipping."""
    accumulate_grad_in_fp32: bool
    """Sum gradients in fp32."""
    learning_rate_scheduler: LearningRateScheduler
    """Learning rate over the steps."""
    weight_decay_exclude_named_params: tuple[str, ...] | None = None
    """Patterns of parameters without decay."""


@dataclass(frozen=True, kw_only=True)
class NanotronFile:
    """One file for a branch of nanotron."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    general: General
    """Names and the seed."""
    parallelism: Parallelism
    """Numbers of ranks."""
    model: Model
    """Network and its initialisation."""
    tokenizer: Tokenizer | None = None
    """Tokenizer; null = that of the folders."""
    checkpoints: Checkpoints
    """State on disk; main's trainer needs it."""
    logging: Logging | None = None
    """Detail of the log."""
    metrics_logging: Metrics | None = None
    """Detail of metrics."""
    tokens: Tokens
    """Batch, sequence and steps; main's trainer needs it."""
    optimizer: Optimizer
    """Optimiser and learning rate; main's trainer needs it."""
    data_stages: tuple[StageSection, ...]
    """Stages in order; main's trainer needs them."""
    profiler: Profiler | None = None
    """Traces."""
    lighteval: Mapping[str, Any] | None = None
    """Evaluation jobs of main; not interpreted."""
    s3_upload: Upload | None = None
    """Copies of checkpoints."""

    @property
    def tokenizer_name(self) -> str | None:
        """Return the tokenizer's hub id or folder, if the file names one."""
        return self.tokenizer.tokenizer_name_or_path if self.tokenizer else None

    @property
    def batch_size(self) -> int:
        """Return the samples per step."""
        tokens = self.tokens
        return tokens.micro_batch_size * tokens.batch_accumulation_per_replica * self.parallelism.dp

    @property
    def tokens_per_step(self) -> int:
        """Return the trained tokens per step."""
        return self.batch_size * self.tokens.sequence_length

    def stage_steps(self) -> tuple[int, ...]:
        """Return the steps of each stage; the last one ends with the run."""
        starts = [stage.start_training_step for stage in self.data_stages]
        ends = [*starts[1:], self.tokens.train_steps + 1]
        return tuple(end - start for start, end in zip(starts, ends, strict=True))
