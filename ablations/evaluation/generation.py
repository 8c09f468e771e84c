"""Generate greedy text for many prompts at once: batched, cached, and stopped row by row.

Prompts are padded on the left and sorted by length. A row that has generated its stop text leaves the
batch, so that one long answer does not delay the others. A prefix that many prompts share, such as the
few-shot examples of a task, is read once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache

from ablations.evaluation.logprob_scorer import CausalLM
from ablations.evaluation.prefix_cache import growing
from ablations.evaluation.shared_prefix import group_by_prefix

__all__ = ["Generated", "generate"]


@dataclass(frozen=True, slots=True)
class Generated:
    """Text that the model generated after one prompt."""

    text: str
    """Generated text up to the stop text, which is not part of it."""
    tokens: tuple[int, ...]
    """Generated tokens, the end token included."""
    cut_tokens: int
    """Tokens cut off the beginning of the prompt because they did not fit the window."""


def generate(
    network: CausalLM,
    tokenizer: Any,
    contexts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop: tuple[str, ...],
    window: int,
    batch_tokens: int,
    ends: Collection[int] | None = None,
    share: bool = True,
) -> list[Generated]:
    """Return the greedy continuations of ``contexts``, in their order.

    If prompt and text do not both fit, the text gets at most half of the window, the prompt loses its
    beginning, and the text ends with the window. This depends on the prompt alone, never on its batch.

    Args:
        network: The model.
        tokenizer: Decodes the generated tokens.
        contexts: Token ids of the prompts.
        max_new_tokens: Most tokens to generate for each prompt.
        stop: Texts that end a generation.
        window: Positions of the model.
        batch_tokens: Tokens of a batch, padding and generated text included.
        ends: Ids of the tokens that end a text; None = the tokenizer's own end token.
        share: Read a prefix that many prompts share once.
    """
    own = tokenizer.eos_token_id
    last = frozenset([] if own is None else [own]) if ends is None else frozenset(ends)
    prompt_limit = max(1, window - min(max_new_tokens, window // 2))
    rows = [list(context[-prompt_limit:]) for context in contexts]
    limits = [min(max_new_tokens, window - len(row)) for row in rows]
    written: dict[int, list[int]] = {}
    sharing = share and network.packs
    known = [np.asarray(row if sharing else row[:1], np.int64) for row in rows]
    for group in group_by_prefix(known, least_saved=batch_tokens):
        prefix = None
        if group.prefix:
            first = rows[group.members[0]][: group.prefix]
            prefix = network.read_prefix(torch.tensor(first, device=network.device))
        for chosen in _batches(group.members, rows, max_new_tokens, batch_tokens):
            rest = [rows[index][group.prefix :] for index in chosen]
            most = [limits[index] for index in chosen]
            made = _greedy(network, tokenizer, rest, most, stop, last, prefix)
            written.update(zip(chosen, made, strict=True))
    return [
        Generated(
            _text(tokenizer, written[index], stop, last),
            tuple(written[index]),
            max(0, len(context) - prompt_limit),
        )
        for index, context in enumerate(contexts)
    ]


def _batches(
    members: Sequence[int], rows: Sequence[Sequence[int]], new_tokens: int, batch_tokens: int
) -> Iterator[list[int]]:
    """Yield the members, longest first, in batches of at most ``batch_tokens``, but of one or more."""
    order = sorted(members, key=lambda index: -len(rows[index]))
    start = 0
    while start < len(order):
        longest = len(rows[order[start]]) + new_tokens
        chosen = order[start : start + max(1, batch_tokens // longest)]
        yield chosen
        start += len(chosen)


@torch.inference_mode()
def _greedy(
    network: CausalLM,
    tokenizer: Any,
    rows: list[list[int]],
    limits: list[int],
    stop: tuple[str, ...],
    ends: frozenset[int],
    prefix: Cache | None,
) -> list[list[int]]:
    tokens, mask = _left_padded(rows, network.device)
    written: list[list[int]] = [[] for _ in rows]
    active = list(range(len(rows)))
    cache = None
    if prefix is not None:
        cache = growing(prefix, len(rows))
        mask = F.pad(mask, (cache.get_seq_length(), 0), value=1)
    for count in range(1, max(limits) + 1):
        positions = (mask.cumsum(-1) - 1).clamp_(min=0)[:, -tokens.shape[1] :]
        out = network.model(
            **network.inputs(tokens),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        chosen = out.logits[:, -1].argmax(-1)
        for row, token in zip(active, chosen.tolist(), strict=True):
            written[row].append(token)
        kept = [
            i
            for i, row in enumerate(active)
            if count < limits[row] and not _finished(tokenizer, written[row], stop, ends)
        ]
        if not kept:
            break
        if len(kept) < len(active):
            keep = torch.tensor(kept, device=network.device)
            active = [active[i] for i in kept]
            cache.batch_select_indices(keep)
            chosen, mask = chosen[keep], mask[keep]
        tokens = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    return written


def _left_padded(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    tokens = [[0] * (length - len(row)) + row for row in rows]
    mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)


def _finished(
    tokenizer: Any, tokens: list[int], stop: tuple[str, ...], ends: frozenset[int]
) -> bool:
    """Check if a row ends with an end token or has a stop text among its last characters."""
    if tokens[-1] in ends:
        return True
    if not stop:
        return False
    # A token adds at least one byte, so a stop text that ends here began within this many tokens.
    longest = max(len(text.encode()) for text in stop)
    tail = tokenizer.decode(tokens[-(longest + 1) :], skip_special_tokens=True)
    return any(text in tail for text in stop)


def _text(tokenizer: Any, tokens: list[int], stop: tuple[str, ...], ends: frozenset[int]) -> str:
    # A tokenizer that does not treat the end token as special would decode it as text.
    kept = tokens[:-1] if tokens and tokens[-1] in ends else tokens
    text: str = tokenizer.decode(kept, skip_special_tokens=True)
    for stopped in stop:
        text = text.split(stopped)[0]
    return text
