"""Specifications of a training: network, training and execution, as frozen values without I/O and torch.

ModelSpec       the network, in LlamaConfig's names     ┐ part of the run's fingerprint
TrainingSpec    batch, optimiser, checkpoints, rules    ┘
ExecutionSpec   device, ranks, micro-batch              not part of it: the losses are the same

>>> smollm2 = ModelSpec(vocab_size=49152, hidden_size=576, intermediate_size=1536,
...                     num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3)
>>> smollm2.parameters
134515008
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ablations.errors import ConfigError, Problem
from ablations.ranges import Ranks, Threads

__all__ = [
    "PLACE_FIELDS",
    "AskedDType",
    "DType",
    "Device",
    "ExecutionSpec",
    "KeepCheckpoints",
    "ModelSpec",
    "TrainingSpec",
    "split_endpoint",
]

Device = Literal["auto", "cpu", "cuda"]
DType = Literal["float32", "bfloat16"]
AskedDType = Literal["auto", "float32", "bfloat16"]
KeepCheckpoints = Literal["all", "last", "none"]


def _positive(group: str, values: dict[str, float | None]) -> list[Problem]:
    """Return a problem for each value that is not above 0; None is allowed."""
    return [
        Problem(f"{group}.{name}", "must be positive", found=value, allowed="> 0")
        for name, value in values.items()
        if value is not None and not value > 0
    ]


def _raise(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Llama-family decoder, with the field names of ``transformers.LlamaConfig``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    vocab_size: int
    """Rows of the embedding; at least the tokenizer's vocabulary."""
    hidden_size: int
    """Width of the residual stream."""
    intermediate_size: int
    """Width of the gated feed-forward layer."""
    num_hidden_layers: int
    """Decoder layers."""
    num_attention_heads: int
    """Query heads; they divide hidden_size."""
    num_key_value_heads: int
    """Key and value heads (grouped-query attention); they divide num_attention_heads."""
    max_position_embeddings: int = 2048
    """Longest sequence in tokens, as the exported config gives it; at least training.sequence_length."""
    rope_theta: float = 10_000.0
    """Base of the rotary embedding's wavelengths."""
    rms_norm_eps: float = 1e-5
    """Constant added to the mean square before the root is taken."""
    tie_word_embeddings: bool = True
    """True if the output head is the embedding matrix."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights; for output projections divided by sqrt(2 · layers)."""
    bos_token_id: int = 0
    """First token of a text, for the exported config only; training does not use it."""
    eos_token_id: int = 0
    """Last token of a text, for the exported config only; document masking uses the token stores' own."""

    def __post_init__(self) -> None:
        names = (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
            *("rope_theta", "rms_norm_eps", "initializer_range"),
        )
        problems = _positive("model", {name: getattr(self, name) for name in names})
        _raise(problems or self._shape_problems())

    def _shape_problems(self) -> list[Problem]:
        problems = []
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            problems.append(
                Problem(
                    "model.num_attention_heads",
                    "heads need an even width",
                    found=f"{self.hidden_size} / {self.num_attention_heads}",
                    allowed="hidden_size / num_attention_heads even and whole",
                )
            )
        if self.num_attention_heads % self.num_key_value_heads:
            problems.append(
                Problem(
                    "model.num_key_value_heads",
                    "query heads cannot share key heads evenly",
                    found=f"{self.num_attention_heads} over {self.num_key_value_heads}",
                    allowed=f"a divisor of {self.num_attention_heads}",
                )
            )
        for name in ("bos_token_id", "eos_token_id"):
            if not 0 <= (token := getattr(self, name)) < self.vocab_size:
                problems.append(
                    Problem(
                        f"model.{name}",
                        "outside the vocabulary",
                        found=token,
                        allowed=f"0 to {self.vocab_size - 1}",
                    )
                )
        return problems

    @property
    def head_dim(self) -> int:
        """Return the width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def embedding_parameters(self) -> int:
        """Return the parameters of the embedding, and of the output head if it is another matrix."""
        return self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)

    @property
    def layer_parameters(self) -> int:
        """Return the matrix parameters of one decoder layer (norms not counted)."""
        heads = self.num_attention_heads + self.num_key_value_heads
        attention = 2 * heads * self.head_dim * self.hidden_size
        return attention + 3 * self.intermediate_size * self.hidden_size

    @property
    def parameters(self) -> int:
        """Return the number of trained parameters, the embedding included."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        return self.embedding_parameters + norms + self.num_hidden_layers * self.layer_parameters

    def flops_per_token(self, sequence_length: int) -> int:
        """Return the training FLOPs of one token, as PaLM counts them (arXiv 2204.02311, appendix B).

        They are 6 for each matrix parameter, and 12 · layers · width · length for attention: forward and
        backward, attention as a full square, the output head counted, the embedding look-up not. MFU uses
        this count.
        """
        matrices = (
            self.num_hidden_layers * self.layer_parameters + self.vocab_size * self.hidden_size
        )
        attention = 12 * self.num_hidden_layers * self.hidden_size * sequence_length
        return 6 * matrices + attention


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """Settings of a training: batch and optimiser, and the rules for checkpoints and divergence."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    sequence_length: int
    """Trained tokens of each sample; sft, dpo, vlm: most tokens of a row, those of its pictures included."""
    batch_size: int
    """Samples of each optimiser step, over all ranks and micro-batches."""
    peak_lr: float
    """Learning rate of the plateau."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay, on every parameter."""
    adam_beta1: float = 0.9
    """Decay of the first moment, per step."""
    adam_beta2: float = 0.95
    """Decay of the second moment, per step."""
    adam_eps: float = 1e-8
    """Constant added to the root of the second moment."""
    clip_norm: float | None = 1.0
    """Largest L2 norm of the whole gradient; null = no clipping."""
    dtype: AskedDType = "float32"
    """Type of weights and activations; auto = bfloat16 on CUDA and on a CPU with bfloat16 units, else
    float32. The chosen type is recorded as if it had been named, and holds for all runs of a study."""
    accumulate_grad_in_fp32: bool = True
    """With bfloat16: keep a float32 copy of the weights and sum gradients in float32."""
    float8: bool = False
    """Multiply the layers' matrices in float8, by torchao's dynamic scaling of whole tensors; pretrain, with
    dtype bfloat16 and tp = 1. It pays from about 1B parameters on (docs/gpu.md)."""
    intra_document_masking: bool = False
    """Let a token attend only to its own document; positions then restart with each document."""
    checkpoints: int | tuple[int, ...] = 1
    """Checkpoints to score: a number of evenly spaced ones, or token counts (sft, dpo, vlm: samples).
    The last step always has one."""
    keep_checkpoints: KeepCheckpoints = "all"
    """Scored checkpoints to keep: all, last (the newest), none (after the end of the run). A checkpoint that
    is not scored, or that another run began from, is always kept."""
    recovery_interval_steps: int | None = None
    """Steps between checkpoints that only serve a restart; each replaces the one before. null = none."""
    diverged_ratio: float = 1.25
    """Multiple of ln(vocabulary), the loss of a uniform guess, above which a loss counts as diverged."""
    diverged_patience_steps: int = 20
    """Number of diverged steps in a row that end the run; NaN and infinity end it at once."""
    spike_sigmas: float = 6.0
    """Deviations above the window's mean at which a loss is recorded as a spike."""
    spike_window_steps: int = 128
    """Steps of the window that a spike is measured against (no spike is recorded in its first 16 steps)."""

    def __post_init__(self) -> None:
        names = (
            *("sequence_length", "batch_size", "peak_lr", "adam_eps", "clip_norm"),
            *("recovery_interval_steps", "diverged_ratio", "diverged_patience_steps"),
            *("spike_sigmas", "spike_window_steps"),
        )
        problems = _positive("training", {name: getattr(self, name) for name in names})
        problems += self._range_problems()
        _raise(problems)

    def _range_problems(self) -> list[Problem]:
        problems = [
            Problem(f"training.{name}", "outside its range", found=value, allowed="0 <= value < 1")
            for name in ("adam_beta1", "adam_beta2")
            if not 0 <= (value := getattr(self, name)) < 1
        ]
        if not self.weight_decay >= 0:
            problems.append(
                Problem(
                    "training.weight_decay", "negative", found=self.weight_decay, allowed=">= 0"
                )
            )
        asked = self.checkpoints
        wrong = asked < 1 if isinstance(asked, int) else any(tokens < 1 for tokens in asked)
        if wrong:
            problems.append(
                Problem(
                    "training.checkpoints",
                    "not a number of checkpoints, nor token counts",
                    found=asked,
                    allowed="a number >= 1, or a list of token counts >= 1",
                )
            )
        return problems

    @property
    def tokens_per_step(self) -> int:
        """Return the trained tokens of one optimiser step."""
        return self.batch_size * self.sequence_length

    def checkpoint_steps(
        self, total_steps: int, first_step: int = 0, *, in_samples: bool = False
    ) -> tuple[int, ...]:
        """Return the steps after which a checkpoint is saved, ascending; the last one is ``total_steps``.

        With ``in_samples``, a list of ``checkpoints`` counts samples instead of tokens.

        >>> TrainingSpec(sequence_length=8, batch_size=4, peak_lr=1e-3, checkpoints=3).checkpoint_steps(10)
        (3, 7, 10)
        """
        if isinstance(self.checkpoints, int):
            spread = total_steps - first_step
            count = self.checkpoints
            asked = [first_step + round(spread * (i + 1) / count) for i in range(count)]
        else:
            size = self.batch_size if in_samples else self.tokens_per_step
            asked = [round(tokens / size) for tokens in self.checkpoints]
        inside = {step for step in asked if first_step < step < total_steps}
        return (*sorted(inside), total_steps)


PLACE_FIELDS = ("stop_tokens", "trunk_tokens", "rendezvous", "node_rank", "background_checkpoints")
"""Fields of an execution that state where and when it stops, begins, meets or saves, and change no step."""


@dataclass(frozen=True, kw_only=True)
class ExecutionSpec:
    """Device, processes and memory options of a training.

    They change losses by rounding only, so they are not part of the run's identity.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    device: Device = "auto"
    """Device to train on; auto = a CUDA device if there is one, else the CPU."""
    threads: Threads | None = None
    """torch threads of a CPU rank; null = ``OMP_NUM_THREADS`` if it is exported, else this process's cores
    shared over the ranks. Another number changes the last bits of a loss, so a resumed run uses the number
    that its checkpoint was written with."""
    dp: Ranks = 1
    """Data-parallel ranks."""
    tp: Ranks = 1
    """Tensor-parallel ranks, over which matrices are divided."""
    pp: Ranks = 1
    """Pipeline ranks, over which layers are divided."""
    pp_engine: Literal["1f1b", "afab"] = "1f1b"
    """Order of forward and backward passes in the pipeline (arXiv 2104.04473)."""
    zero_stage: Literal[0, 1] = 0
    """ZeRO stage; 1 shares the optimiser's state over the dp ranks (arXiv 1910.02054)."""
    micro_batch_size: int | None = None
    """Samples of one forward pass on one rank; null = the largest that memory allows."""
    recompute: bool = False
    """Recompute each layer in the backward pass instead of keeping its activations."""
    compile: bool = False
    """Compile the decoder layer, and the softmax of a loss in chunks, with torch.compile."""
    loss_chunk_tokens: int | None = None
    """Tokens whose logits exist at once; null = all of a micro-batch on CPU; on CUDA 16,384, or fewer on a
    small device."""
    background_checkpoints: bool | None = None
    """method=pretrain: write checkpoints behind the steps, from a copy in host memory; null = on CUDA."""
    nodes: Ranks = 1
    """Hosts that share the ranks evenly; the same command starts on each of them (docs/slurm.md)."""
    rendezvous: str | None = None
    """HOST:PORT at which the first host waits for the others; null = as the Slurm step gives it."""
    node_rank: int | None = None
    """Number of this host, from 0 on; null = as the Slurm step gives it. Host 0 writes the record."""
    stop_tokens: float | None = None
    """Trained tokens at which the run pauses, at one of its checkpoints on the plateau of the learning rate;
    the same command without it goes on, with the same losses. null = the run goes to its end."""
    trunk_tokens: float | None = None
    """Trained tokens (vlm: samples) that the run shares with the runs of its study that are equal so far: the
    first one trains them, the others start from its checkpoint, with the same losses. The learning rate must
    be on its plateau there. null = the run trains alone; a study sets it (search.trunks)."""

    def __post_init__(self) -> None:
        names = (
            *("threads", "dp", "tp", "pp", "nodes", "micro_batch_size", "loss_chunk_tokens"),
            *("stop_tokens", "trunk_tokens"),
        )
        problems = _positive("execution", {name: getattr(self, name) for name in names})
        problems += _host_problems(self)
        if self.zero_stage and self.dp == 1:
            problems.append(
                Problem(
                    "execution.zero_stage",
                    "nothing to share the optimiser's state with",
                    found="dp = 1",
                    allowed="0 with dp = 1",
                    do="raise execution.dp or leave zero_stage at 0",
                )
            )
        _raise(problems)

    @property
    def ranks(self) -> int:
        """Return the number of processes of a training, on all its hosts together."""
        return self.dp * self.tp * self.pp


def _host_problems(execution: ExecutionSpec) -> list[Problem]:
    nodes, problems = execution.nodes, []
    if execution.ranks % nodes:
        problems.append(
            Problem(
                "execution.nodes",
                "the ranks cannot be shared evenly over the hosts",
                found=f"{execution.ranks} ranks (dp · tp · pp) on {nodes} hosts",
                allowed="a divisor of the number of ranks",
                do="raise execution.dp",
            )
        )
    if execution.rendezvous is not None:
        try:
            split_endpoint(execution.rendezvous)
        except ValueError:
            problems.append(
                Problem(
                    "execution.rendezvous",
                    "not the address of a port",
                    found=repr(execution.rendezvous),
                    allowed="HOST:PORT, with a port from 1 to 65535",
                )
            )
    if execution.node_rank is not None and not 0 <= execution.node_rank < nodes:
        problems.append(
            Problem(
                "execution.node_rank",
                "no number of a host",
                found=execution.node_rank,
                allowed=f"0 to {nodes - 1} with execution.nodes={nodes}",
            )
        )
    return problems


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``; an IPv6 address may have brackets.

    Raises:
        ValueError: it is not of this form.
    """
    host, _, port = endpoint.rpartition(":")
    if not host.isprintable() or not host.strip("[]") or " " in host or not port.isdecimal():
        raise ValueError(endpoint)
    if not 1 <= int(port) <= 65_535:
        raise ValueError(endpoint)
    return host.strip("[]"), int(port)
