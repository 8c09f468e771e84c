"""The sections of a file for nanotron's main branch, as typed values.

The layout is a fact of the format; it was read from the public repository huggingface/nanotron
(``src/nanotron/config/`` of main after SmolLM3, and ``run_train.py``, ``tokenized_bytes.py`` beside
it) and is told here in our own words. Nothing imports nanotron: the registry's release is 0.4,
which has no ``data_stages``, and a promotion must be checkable on a laptop.

    general  checkpoints  parallelism  logging  metrics_logging  profiler  lighteval  s3_upload
    model ── model_config (llama | qwen2 | starcoder2)     init_method     dtype
    data_stages ── [name, start_training_step, data ── dataset (folders + weights), seed]
    tokens ── sequence_length, train_steps, micro_batch_size × accumulation × dp = batch
    optimizer ── learning_rate_scheduler, optimizer_factory

Main's loader is strict: a key that is not named here is refused, a number written as text too.
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
    """A weighted list of token stores in datatrove's format."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    dataset_folder: str | tuple[str, ...]
    """Folders; the mapping form of an old example is refused by main's loader."""
    dataset_weights: tuple[float, ...] | None = None
    """One weight a folder, normalised silently; null = every folder alike."""
    dataset_read_path: str | tuple[str, ...] | None = None
    """Local copies that are read in place of the folders; the names of the folders still count."""
    tokenizer_name: str | None = None
    """Must equal ``tokenizer.tokenizer_name_or_path``; read from the folder's metadata if null."""
    vocab_size: int | None = None
    """Must equal the model's; read from the folder's metadata if null."""
    token_size_in_bytes: int | None = None
    """2 for vocabularies up to 65,536, else 4."""
    return_positions: bool | None = True
    """Whether positions restart at each document."""
    skip_in_stream: bool | None = False
    """Whether a resumed stream is read up to its place instead of sought."""
    pad_samples_to_global_batch_size: bool | None = False
    """Whether the last batch is filled up."""
    dataset_max_tokens: tuple[int, ...] | None = None
    """Tokens of every folder to use; null = all."""
    shuffle_files: bool | None = False
    """Whether the files of a folder are shuffled."""
    use_old_brrr_dataloader: bool | None = False
    """An older loader, kept for old runs."""


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
    """Whether to tokenise again."""
    text_column_name: str | None = None
    """Column of the text; null = text."""


@dataclass(frozen=True, kw_only=True)
class ChatDataset:
    """Conversations that main tokenises on the fly; told from text by ``sft_dataloader``."""

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
    """Whether to tokenise again."""
    sft_dataloader: bool | None = True
    """Whether the loader of instruction data reads it."""
    debug_max_samples: int | None = None
    """Rows to keep; null = all."""


def _kind(dataset: Any) -> str:
    """Tell token folders, as in all published runs, from text and conversations on the hub."""
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
    """What one stage reads."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    dataset: Dataset | None
    """Null = random tokens, for benchmarks."""
    seed: int | None
    """Seed of the order; null = 42."""
    num_loading_workers: int | None = 1
    """Processes that read ahead."""


@dataclass(frozen=True, kw_only=True)
class StageSection:
    """A stretch of training with one list of folders; main trains only the last one of a file."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    name: str
    """Unique within the file."""
    start_training_step: int
    """First step of the stage, counted from 1; the checkpoint before must be of this less one."""
    data: Data
    """Folders, weights and order."""
    sequence_length: int | None = None
    """Null = that of ``tokens``; main refuses a change between stages."""


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The tokenizer of the folders."""

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
    """Trained tokens of a sample."""
    train_steps: int
    """Last step of the run, counted over all stages."""
    micro_batch_size: int
    """Samples of a forward pass on one rank."""
    batch_accumulation_per_replica: int
    """Forward passes of a step."""
    val_check_interval: int | None = -1
    """Main has no validation loop; kept as written."""
    limit_val_batches: int | None = 0
    """Kept as written."""
    limit_test_batches: int | None = 0
    """Kept as written."""


@dataclass(frozen=True, kw_only=True)
class LearningRateScheduler:
    """Warm-up, plateau and decay."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    learning_rate: float
    """Plateau."""
    lr_warmup_steps: int = 0
    """Steps of the warm-up."""
    lr_warmup_style: Literal["linear", "constant"]
    """Main refuses a file without it."""
    lr_decay_style: Literal["linear", "cosine", "1-sqrt"] | None = None
    """Null = linear."""
    lr_decay_steps: int | None = None
    """Null = all steps less the warm-up and less the starting step (:func:`.rates.decay_window`)."""
    lr_decay_starting_step: int | None = None
    """Null = right after the warm-up."""
    min_decay_lr: float | None = None
    """Learning rate at the end; null = the plateau itself, that is, no decay."""


@dataclass(frozen=True, kw_only=True)
class Sgd:
    """Plain gradient descent."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    name: Literal["sgd"] = "sgd"
    """Tells the optimisers apart."""


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
    """Tells the optimisers apart."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Optimiser, clipping and the learning rate."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    optimizer_factory: AdamW | Sgd
    """The optimiser."""
    zero_stage: int
    """0 = states on every rank, 1 = spread over data-parallel ranks."""
    weight_decay: float
    """Decoupled decay."""
    clip_grad: float | None
    """Largest gradient norm; null = no clipping."""
    accumulate_grad_in_fp32: bool
    """Whether gradients are summed in fp32."""
    learning_rate_scheduler: LearningRateScheduler
    """The learning rate."""
    weight_decay_exclude_named_params: tuple[str, ...] | None = None
    """Patterns of parameters without decay."""


@dataclass(frozen=True, kw_only=True)
class NanotronFile:
    """One file for nanotron's main branch."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    general: General
    """Names and the seed."""
    parallelism: Parallelism
    """Ranks."""
    model: Model
    """The network."""
    tokenizer: Tokenizer | None = None
    """Null = that of the folders."""
    checkpoints: Checkpoints
    """State on disk; main's trainer needs it."""
    logging: Logging | None = None
    """What is printed."""
    metrics_logging: Metrics | None = None
    """Detail of metrics."""
    tokens: Tokens
    """Batch, sequence and steps; main's trainer needs it."""
    optimizer: Optimizer
    """Optimiser and learning rate; main's trainer needs it."""
    data_stages: tuple[StageSection, ...]
    """The stages, first to last; main's trainer needs them."""
    profiler: Profiler | None = None
    """Traces."""
    lighteval: Mapping[str, Any] | None = None
    """Main's own evaluation jobs; not interpreted."""
    s3_upload: Upload | None = None
    """Copies of checkpoints."""

    @property
    def batch_size(self) -> int:
        """Samples of a step."""
        tokens = self.tokens
        return tokens.micro_batch_size * tokens.batch_accumulation_per_replica * self.parallelism.dp

    @property
    def tokens_per_step(self) -> int:
        """Trained tokens of a step."""
        return self.batch_size * self.tokens.sequence_length

    def stage_steps(self) -> tuple[int, ...]:
        """Steps of every stage; the last one ends with the run."""
        starts = [stage.start_training_step for stage in self.data_stages]
        ends = [*starts[1:], self.tokens.train_steps + 1]
        return tuple(end - start for start, end in zip(starts, ends, strict=True))
