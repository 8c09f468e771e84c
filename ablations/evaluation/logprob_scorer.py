"""Score continuations by their log-probabilities under a model in memory.

    requests ──prepare──▶ Prepared (tokens, masks, targets; made once)
                              │ × any number of checkpoints
    Network(model) ───────────┴─score──▶ one BranchScore for each continuation

Four things make it cheaper than scoring each (context, continuation) pair on its own: branches of an
item share one copy of their context (``prefix_packing``), items share the keys and values of the
few-shot examples before them (``shared_prefix``), batches are filled by tokens and sorted by length, and
the last layer (``llama_body``) and the output matrix are computed only at the positions that are read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from ablations.evaluation.llama_body import LlamaBody
from ablations.evaluation.prefix_cache import read_only
from ablations.evaluation.prefix_packing import Batch, Ints, Request, lay_out, plan_batches

__all__ = ["CPU_BATCH_TOKENS", "BranchScore", "CausalLM", "Prepared", "prepare", "score"]

CPU_BATCH_TOKENS = 1024
"""Most tokens of a batch on a CPU, whose caches hold the activations of so many: at 1M parameters 0.86
CPU-seconds, with 4,096 tokens 0.96, with 8,192 tokens 1.13; at 25M parameters 2.26, 2.39, 2.45."""

_LOGIT_ELEMENTS = 1 << 23
"""Logits in memory at once (32 MB in float32): larger slices leave the cache, smaller ones add calls."""

_WORTHWHILE = 0.8
"""Largest part of a batch's columns at which the last layer is computed for chosen columns alone."""

_PACKABLE = ("LlamaForCausalLM",)
"""Architectures whose body accepts a mask of four dimensions and whose head is a plain projection."""


@dataclass(frozen=True, slots=True)
class BranchScore:
    """Score of one continuation."""

    logprob: float
    """Natural logarithm of its probability; NaN if it does not fit the window."""
    greedy: bool
    """True if greedy decoding produces it."""
    cut_tokens: int
    """Tokens of its context that did not fit the window."""


class CausalLM:
    """A causal language model, split into the body and the projection onto the vocabulary.

    Args:
        model: Network of transformers, on its device and in its type: a Llama's matrices are joined at once.
        body: Its body, if another object made it; None = make it.
    """

    def __init__(self, model: Any, body: LlamaBody | None = None) -> None:
        self.model = model.eval()
        self.packs = type(model).__name__ in _PACKABLE
        self._body = (body or LlamaBody(model)) if self.packs else None
        self.device = next(model.parameters()).device

    def inputs(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return tokens (rows, columns) as arguments of the network."""
        return {"input_ids": tokens}

    @torch.inference_mode()
    def read_prefix(self, tokens: Tensor) -> Cache:
        """Return the keys and values of tokens (1-D) that rows of later batches begin with."""
        cache = DynamicCache(config=self.model.config)
        self.model.model(**self.inputs(tokens[None]), past_key_values=cache, use_cache=True)
        return read_only(cache)

    def body(
        self,
        tokens: Tensor,
        positions: Tensor | None,
        mask: Tensor | None,
        prefix: Cache | None = None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """Return hidden states, or the logits of an architecture that cannot be split: (rows, columns, …).

        With a ``prefix``, the mask's columns are those of the prefix, then those of the tokens.
        With ``columns`` (rows, chosen), an architecture that can be split returns these alone.
        """
        inputs = self.inputs(tokens)
        if self._body is None:
            logits: Tensor = self.model(**inputs, use_cache=False).logits
            return logits
        embedded = inputs.get("inputs_embeds")
        if embedded is None:
            embedded = self.model.model.embed_tokens(tokens)
        return self._body(embedded, positions=positions, mask=mask, prefix=prefix, columns=columns)

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits of chosen positions in float32: (positions, vocabulary)."""
        logits: Tensor = self.model.lm_head(hidden) if self.packs else hidden
        return logits.float()


@dataclass(frozen=True)
class _Tensors:
    """One batch as tensors; tokens and positions are (rows, columns)."""

    prefix: Tensor | None
    """Tokens that every row begins with (1-D); the same object in all batches that share them."""
    tokens: Tensor
    positions: Tensor | None
    segments: Tensor | None
    """(rows, columns), or (1, columns) if the rows are masked alike; None = a plain causal mask."""
    columns: Tensor | None
    """Columns that are read, (rows, chosen); None = the body returns all of them."""
    reads: Tensor
    """Flat positions of what the body returns whose next-token distribution is needed, each once."""
    read_of: Tensor
    """Index into ``reads`` for each target, ascending."""
    targets: Tensor
    owners: Tensor
    """Index into all branches of the plan for each target."""


@dataclass(frozen=True)
class Prepared:
    """Requests as batches of tensors, independent of the weights."""

    batches: tuple[_Tensors, ...]
    branches: tuple[tuple[int, int, int], ...]
    """(request, branch, tokens cut) of each branch that is scored."""
    sizes: tuple[int, ...]
    """Number of branches of each request."""


def prepare(
    requests: Sequence[Request],
    *,
    window: int,
    batch_tokens: int,
    pack: bool = True,
    share: bool = True,
) -> Prepared:
    """Lay the requests out, batch them and make tensors of them.

    Args:
        requests: What to score.
        window: Positions of the model.
        batch_tokens: Tokens of a batch with padding.
        pack: The network accepts masks and prefixes (``CausalLM.packs``).
        share: Compute a prefix that many requests share once.
    """
    layouts = lay_out(requests, window, pack=pack)
    branches: list[tuple[int, int, int]] = []
    tensors: list[_Tensors] = []
    prefixes: dict[int, Tensor] = {}
    for batch in plan_batches(layouts, batch_tokens, share=pack and share):
        prefix = None
        if len(batch.prefix):
            prefix = prefixes.setdefault(id(batch.prefix), torch.from_numpy(batch.prefix))
        tensors.append(_tensors(batch, len(branches), prefix, choose=pack))
        branches += [
            (branch.request, branch.index, branch.cut_tokens)
            for layout in batch.layouts
            for branch in layout.branches
        ]
    sizes = tuple(len(request.branches) for request in requests)
    return Prepared(tuple(tensors), tuple(branches), sizes)


def _tensors(batch: Batch, first_branch: int, prefix: Tensor | None, *, choose: bool) -> _Tensors:
    shape = (len(batch.layouts), batch.length)
    tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    segments = np.full(shape, -1, np.int64)
    columns = _columns(batch) if choose else None
    returned = batch.length if columns is None else columns.shape[1]
    reads, targets, owners = [], [], []
    for row, layout in enumerate(batch.layouts):
        size = len(layout.tokens)
        tokens[row, :size], positions[row, :size] = layout.tokens, layout.positions
        segments[row, :size] = layout.segments
        first = 0 if columns is None else columns[row, 0]
        reads.append(layout.reads - first + row * returned)
        targets.append(layout.targets)
        owners.append(layout.owners + first_branch)
        first_branch += len(layout.branches)
    flat = np.concatenate(reads)
    order = np.argsort(flat, kind="stable")
    unique, read_of = np.unique(flat[order], return_inverse=True)
    masked = batch.packed or prefix is not None
    if not batch.packed:
        segments = np.zeros((1, batch.length), np.int64)
    return _Tensors(
        prefix,
        torch.from_numpy(tokens),
        torch.from_numpy(positions) if masked else None,
        torch.from_numpy(segments) if masked else None,
        None if columns is None else torch.from_numpy(columns),
        torch.from_numpy(unique),
        torch.from_numpy(read_of),
        torch.from_numpy(np.concatenate(targets)[order]),
        torch.from_numpy(np.concatenate(owners)[order]),
    )


def _columns(batch: Batch) -> Ints | None:
    """Return the columns that are read in each row, the last one repeated; None if nearly all are read.

    A row is read from the last token of its context to its end.
    """
    ends = np.array([len(layout.tokens) for layout in batch.layouts])
    firsts = np.array([layout.reads[0] for layout in batch.layouts])
    most = int((ends - firsts).max())
    if most > _WORTHWHILE * batch.length:
        return None
    columns: Ints = np.minimum(firsts[:, None] + np.arange(most), ends[:, None] - 1)
    return columns


@torch.inference_mode()
def score(network: CausalLM, prepared: Prepared) -> list[list[BranchScore]]:
    """Return the score of each branch, in the order of the requests."""
    total = len(prepared.branches)
    sums = torch.zeros(total, dtype=torch.float64, device=network.device)
    misses = torch.zeros(total, dtype=torch.int64, device=network.device)
    tokens: Tensor | None = None
    prefix: Cache | None = None
    for batch in prepared.batches:
        if batch.prefix is not tokens:
            tokens, prefix = batch.prefix, None
            if tokens is not None:
                prefix = network.read_prefix(tokens.to(network.device))
        _score_batch(network, batch, prefix, sums, misses)
    unscored = BranchScore(math.nan, False, 0)
    scores = [[unscored] * size for size in prepared.sizes]
    values = zip(prepared.branches, sums.tolist(), misses.tolist(), strict=True)
    for (request, index, cut), logprob, missed in values:
        scores[request][index] = BranchScore(logprob, missed == 0, cut)
    return scores


def _score_batch(
    network: CausalLM, batch: _Tensors, prefix: Cache | None, sums: Tensor, misses: Tensor
) -> None:
    device = network.device
    tokens = batch.tokens.to(device)
    positions = None if batch.positions is None else batch.positions.to(device)
    mask = None
    if batch.segments is not None:
        before = 0 if batch.prefix is None else len(batch.prefix)
        mask = _branch_mask(batch.segments.to(device), before)
        if device.type == "cpu":  # torch's attention would make numbers of it in every layer
            zero = torch.zeros((), dtype=network.model.dtype)
            mask = torch.where(mask, zero, -math.inf)
    columns = None if batch.columns is None else batch.columns.to(device)
    hidden = network.body(tokens, positions, mask, prefix, columns).flatten(0, 1)
    reads, read_of = batch.reads.to(device), batch.read_of.to(device)
    targets, owners = batch.targets.to(device), batch.owners.to(device)
    vocabulary = int(network.model.config.vocab_size)
    rows = max(1, _LOGIT_ELEMENTS // vocabulary)
    for start in range(0, len(reads), rows):
        logits = network.head(hidden[reads[start : start + rows]])
        first, last = torch.searchsorted(
            read_of, torch.tensor([start, start + rows], device=device)
        ).tolist()
        row, target = read_of[first:last] - start, targets[first:last]
        chosen = logits[row, target]
        peak = logits.amax(-1)
        normaliser = (logits.sub_(peak[:, None]).exp_().sum(-1).log_() + peak)[row]
        sums.index_add_(0, owners[first:last], (chosen - normaliser).double())
        misses.index_add_(0, owners[first:last], (chosen < peak[row]).long())


def _branch_mask(segments: Tensor, before: int) -> Tensor:
    """Return (rows, 1, length, before + length): true where a token attends to another.

    It attends to the ``before`` tokens of the prefix, and to context and its own branch so far.
    """
    length = segments.shape[1]
    rows, columns = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril_()
    own = ((columns == 0) | (columns == rows)) & causal
    return F.pad(own, (before, 0), value=True)[:, None]
