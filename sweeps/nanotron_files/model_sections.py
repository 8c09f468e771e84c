"""Typed model section of a file for nanotron's branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Tag

__all__ = [
    "ExistingInit",
    "LlamaModel",
    "Model",
    "ModelConfig",
    "MupInit",
    "Qwen2Model",
    "RandomInit",
    "Starcoder2Model",
]

_FORBID = {"extra": "forbid"}
_ALLOW = {"extra": "allow"}


@dataclass(frozen=True, kw_only=True)
class RandomInit:
    """Normal initialisation."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    std: float
    """Standard deviation."""
    scaling_method: str = "NUM_LAYERS"
    """Scaling of the residual layers."""


@dataclass(frozen=True, kw_only=True)
class MupInit:
    """Spectral µP (arXiv 2310.17813)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    use_mup: Literal[True]
    """Present and true, or absent."""


@dataclass(frozen=True, kw_only=True)
class ExistingInit:
    """Weights of a checkpoint without its optimiser."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    path: str
    """Folder of the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class _Decoder:
    """Fields of both Llama-like models, with the names of transformers' LlamaConfig."""

    bos_token_id: int = 1
    """First token of a document."""
    eos_token_id: int = 2
    """Last token of a document."""
    hidden_act: str = "silu"
    """Activation of the feed-forward layer."""
    hidden_size: int = 4096
    """Width."""
    initializer_range: float = 0.02
    """Not used by main; ``init_method.std`` is."""
    intermediate_size: int = 11008
    """Width of the feed-forward layer."""
    max_position_embeddings: int = 2048
    """Longest context."""
    num_attention_heads: int = 32
    """Query heads."""
    num_hidden_layers: int = 32
    """Depth."""
    attention_bias: bool = False
    """Add biases to the attention projections."""
    num_key_value_heads: int | None = None
    """Key and value heads; null = as many as query heads."""
    pad_token_id: int | None = None
    """Not used in pretraining."""
    pretraining_tp: int = 1
    """Kept for transformers."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square."""
    rope_scaling: Mapping[str, Any] | None = None
    """transformers' rope_scaling."""
    rope_theta: float = 10000.0
    """Base of the rotary embedding."""
    rope_interleaved: bool = False
    """Rotary pairs are neighbours (true) or halves (false, as in transformers)."""
    tie_word_embeddings: bool = False
    """Use one matrix for input and output embeddings."""
    use_cache: bool = True
    """Kept for transformers."""
    vocab_size: int = 32000
    """Rows of the embedding; -1 = as in the folders' metadata."""
    _attn_implementation: str | None = "flash_attention_2"
    """Attention kernel."""
    z_loss_enabled: bool = False
    """Add the z-loss (PaLM)."""
    z_loss_coefficient: float = 1e-4
    """Weight of the z-loss."""


@dataclass(frozen=True, kw_only=True)
class LlamaModel(_Decoder):
    """Llama."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    is_llama_config: Literal[True] = True
    """Tag of the model's kind."""


@dataclass(frozen=True, kw_only=True)
class Qwen2Model(_Decoder):
    """Qwen2, the class that SmolLM3 was trained with."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    is_qwen2_config: Literal[True] = True
    """Tag of the model's kind."""
    flex_attention_mask: str | None = None
    """Mask of the flex_attention kernel."""
    sliding_window_size: int | None = None
    """Width of a sliding window."""
    no_rope_layer: int | None = None
    """Each n-th layer has no rotary embedding (arXiv 2501.18795)."""
    rope_seq_len_interpolation_factor: float | None = None
    """Factor by which positions are interpolated (arXiv 2306.15595); null = no interpolation."""
    _fused_rotary_emb: bool | None = None
    """Kernel choice; None = the branch's default, true in main and false in smollm3."""
    _fused_rms_norm: bool | None = None
    """Kernel choice; None = the branch's default, true in main and false in smollm3."""
    _use_qkv_packed: bool | None = None
    """Kernel choice; None = the branch's default, true in main and false in smollm3."""
    _use_doc_masking: bool = False
    """Stop attention at document boundaries."""
    log_attn_probs: bool = True
    """Log attention probabilities."""
    ring_attn_heads_k_stride: int | None = None
    """Key heads per step of ring attention; set if and only if llama3_ring_attention is used."""
    moe_config: Mapping[str, Any] | None = None
    """Mixture-of-experts layers."""


@dataclass(frozen=True, kw_only=True)
class Starcoder2Model:
    """StarCoder2: read for completeness, not interpreted."""

    __pydantic_config__: ClassVar[dict[str, str]] = _ALLOW
    is_starcoder2_config: Literal[True]
    """Tag of the model's kind."""
    hidden_size: int = 2048
    """Width."""
    num_attention_heads: int = 16
    """Query heads."""
    num_hidden_layers: int = 24
    """Depth."""
    vocab_size: int = 49280
    """Rows of the embedding."""


def _kind(config: Any) -> str:
    """Return the tag of the model that a file names; Llama, main's default, if it names none."""
    for kind in ("qwen2", "starcoder2"):
        if isinstance(config, Mapping) and f"is_{kind}_config" in config:
            return kind
    return {Qwen2Model: "qwen2", Starcoder2Model: "starcoder2"}.get(type(config), "llama")


ModelConfig = Annotated[
    Annotated[LlamaModel, Tag("llama")]
    | Annotated[Qwen2Model, Tag("qwen2")]
    | Annotated[Starcoder2Model, Tag("starcoder2")],
    Discriminator(_kind),
]


@dataclass(frozen=True, kw_only=True)
class Model:
    """Network and its initialisation."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    model_config: ModelConfig
    """Shape of the network."""
    init_method: RandomInit | MupInit | ExistingInit
    """Initial weights."""
    dtype: Literal["float32", "float64", "float16", "bfloat16"] | None = None
    """Type of the weights; null = bfloat16."""
    make_vocab_size_divisible_by: int = 1
    """Number whose multiple the rows of the embedding are padded to."""
    ddp_bucket_cap_mb: int = 25
    """Bucket of the gradient all-reduce, in MB."""
