"""Score answers about pictures: in bits per byte with and without the picture, and by exact match.

    heldout.jsonl, heldout.pictures ─▶ prompts ─▶ chunks of pictures ─▶ requests    made once
    PictureLM ─▶ features of a chunk's pictures ─▶ log-probabilities, texts ─▶ ItemScore

    gain           bpb_without - bpb: bits per byte that the picture saves
    shuffled_gain  bits per byte with another item's picture - bpb

An item that does not fit the window with its pictures has no score: a cut would take part of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablations.data.manifest import HELDOUT_PICTURES, StoreManifest
from ablations.data.rows.chat_template import PictureTokens
from ablations.data.rows.row_store import Pictures, heldout_pictures
from ablations.data.verified import unlike
from ablations.errors import DataError, Problem
from ablations.evaluation.encoding import Encoder
from ablations.evaluation.generation import generate
from ablations.evaluation.items import Pool
from ablations.evaluation.logprob_scorer import prepare, score
from ablations.evaluation.picture_model import PictureLM, features_of
from ablations.evaluation.picture_prompts import PicturePrompt, expanded, picture_prompts
from ablations.evaluation.prefix_packing import Request
from ablations.evaluation.results import ItemScore
from ablations.evaluation.specs import TaskSpec

if TYPE_CHECKING:
    from ablations.evaluation.logprob_scorer import Prepared

__all__ = ["PictureTask", "build_picture_task", "score_pictures"]

_MOST_PICTURES = 512
"""Most pictures whose features are in memory at once: 64 tokens of 2,048 numbers each are 268 MB."""

_MORE_TOKENS = 4
"""Tokens generated beyond the longest reference, so that an answer that goes on is not cut to a right one."""


@dataclass(frozen=True)
class _Reading:
    """Limits of a model's prompts, and its way to write pictures."""

    tokens: PictureTokens
    words: int
    per_picture: int
    window: int
    batch_tokens: int
    pack: bool


@dataclass(frozen=True)
class _Chunk:
    """Prompts whose pictures are shown together."""

    prompts: tuple[PicturePrompt, ...]
    reading: _Reading

    @cached_property
    def pictures(self) -> tuple[int, ...]:
        """Return the numbers of the pictures that its prompts need, each once."""
        needed = (number for prompt in self.prompts for number in _numbers(prompt))
        return tuple(sorted(set(needed)))

    @cached_property
    def contexts(self) -> tuple[tuple[list[int], list[int], list[int]], ...]:
        """Return each prompt's tokens with its own pictures, without any, with others (empty = none)."""
        place = {number: place for place, number in enumerate(self.pictures)}
        found = []
        for prompt in self.prompts:
            own, other = (
                self._expanded(prompt, [place[number] for number in numbers or ()])
                for numbers in (prompt.pictures, prompt.others)
            )
            found.append((own, list(prompt.blind), other if prompt.others else []))
        return tuple(found)

    def _expanded(self, prompt: PicturePrompt, places: Sequence[int]) -> list[int]:
        if not places:
            return []
        features = features_of(places, self.reading.words, self.reading.per_picture)
        return expanded(prompt.context, self.reading.tokens, features)

    @cached_property
    def prepared(self) -> Prepared:
        """Return the requests of all prompts as batches: own, without, shuffled, prompt by prompt."""
        requests = [
            Request(context, [prompt.answer] if context else [])
            for prompt, contexts in zip(self.prompts, self.contexts, strict=True)
            for context in contexts
        ]
        return prepare(
            requests,
            window=self.reading.window,
            batch_tokens=self.reading.batch_tokens,
            pack=self.reading.pack,
        )


@dataclass(frozen=True)
class PictureTask:
    """Task about pictures, ready for every checkpoint of one tokenizer and one vision part."""

    spec: TaskSpec
    encoder: Encoder
    pictures: Pictures
    chunks: tuple[_Chunk, ...]
    too_long: tuple[PicturePrompt, ...]
    """Items that do not fit the window with their pictures."""


def build_picture_task(
    spec: TaskSpec,
    pools: Sequence[Pool],
    store: Path,
    network: PictureLM,
    encoder: Encoder,
    *,
    tokens: PictureTokens,
    window: int,
    batch_tokens: int,
) -> PictureTask:
    """Return the task of the held-out rows of a store.

    Args:
        spec: The task.
        pools: Its items.
        store: Store of the items, which holds their pictures.
        network: A model of the vocabulary and the vision part that will be scored.
        encoder: Its tokenizer.
        tokens: Its tokens of pictures.
        window: Positions of the model.
        batch_tokens: Tokens of a batch, padding included.

    Raises:
        DataError: the pictures are missing or damaged, or no item shows one.
    """
    items = [item for pool in pools for item in pool.items]
    prompts = picture_prompts(items, encoder, tokens, str(store), spec.prompt)
    reading = _Reading(
        tokens, network.words, network.per_picture, window, batch_tokens, network.packs
    )
    fits = [_length(prompt, reading) <= window for prompt in prompts]
    kept = [prompt for prompt, fit in zip(prompts, fits, strict=True) if fit]
    return PictureTask(
        spec=spec,
        encoder=encoder,
        pictures=_pictures(store),
        chunks=tuple(_chunks(kept, reading)),
        too_long=tuple(prompt for prompt, fit in zip(prompts, fits, strict=True) if not fit),
    )


def _pictures(store: Path) -> Pictures:
    """Return the pictures of a store's held-out items after comparing them with their checksum."""
    pictures = heldout_pictures(store)
    if unlike(store, StoreManifest.read(store).checksums(), only=(HELDOUT_PICTURES,)):
        raise DataError(
            Problem(
                str(store / HELDOUT_PICTURES),
                "not the pictures that were held out: their checksum differs from the manifest's",
                do="prepare the source again with prepare.force=true",
            )
        )
    return pictures


def _length(prompt: PicturePrompt, reading: _Reading) -> int:
    """Return the tokens of a prompt with its pictures and its answer."""
    a_picture = reading.per_picture + 2  # its token stands in the context already
    return len(prompt.context) + a_picture * len(prompt.pictures) + len(prompt.answer)


def _numbers(prompt: PicturePrompt) -> tuple[int, ...]:
    return (*prompt.pictures, *(prompt.others or ()))


def _chunks(prompts: Sequence[PicturePrompt], reading: _Reading) -> Iterator[_Chunk]:
    """Yield the prompts in chunks of at most :data:`_MOST_PICTURES` pictures, but of one prompt or more."""
    chunk: list[PicturePrompt] = []
    needed: set[int] = set()
    for prompt in sorted(prompts, key=lambda one: (one.pictures, one.item_id)):
        both = needed | set(_numbers(prompt))
        if chunk and len(both) > _MOST_PICTURES:
            yield _Chunk(tuple(chunk), reading)
            chunk, both = [], set(_numbers(prompt))
        chunk.append(prompt)
        needed = both
    if chunk:
        yield _Chunk(tuple(chunk), reading)


def score_pictures(task: PictureTask, network: PictureLM) -> list[ItemScore]:
    """Score each item of ``task`` with the weights of ``network``."""
    found = [_item_score(task, prompt, {}, math.nan, None) for prompt in task.too_long]
    for chunk in task.chunks:
        network.show(np.ascontiguousarray(task.pictures[list(chunk.pictures)]))
        answered = score(network, chunk.prepared)
        logprobs = [branches[0].logprob if branches else math.nan for branches in answered]
        texts = _texts(task, chunk, network) if "exact_match" in task.spec.metrics else None
        for place, prompt in enumerate(chunk.prompts):
            own, without, shuffled = logprobs[3 * place : 3 * place + 3]
            text = texts[place] if texts else None
            values = _bits(prompt, own, without, shuffled)
            found.append(_item_score(task, prompt, values, own, text))
    return found


def _bits(
    prompt: PicturePrompt, own: float, without: float, shuffled: float
) -> Mapping[str, float]:
    """Return the metrics in bits per byte from log-probabilities of the answer in nats."""
    size = len(prompt.references[0].encode())
    with_own, blind, other = (-nats / math.log(2) / size for nats in (own, without, shuffled))
    return {
        "bpb": with_own,
        "bpb_without": blind,
        "gain": blind - with_own,
        "shuffled_gain": other - with_own,
    }


def _texts(task: PictureTask, chunk: _Chunk, network: PictureLM) -> list[str]:
    """Return the greedy text after each prompt with its own pictures."""
    reading, spec = chunk.reading, task.spec
    most = spec.max_new_tokens
    if most is None:
        every = (len(one.answer) for part in task.chunks for one in part.prompts)
        most = max(every) + _MORE_TOKENS
    rooms: dict[int, list[int]] = {}  # a prompt near the window's end writes less, and is not cut
    for place, (own, _, _) in enumerate(chunk.contexts):
        rooms.setdefault(min(most, reading.window - len(own)), []).append(place)
    texts = [""] * len(chunk.prompts)
    for room, places in rooms.items():
        written = generate(
            network,
            task.encoder.tokenizer,
            [chunk.contexts[place][0] for place in places],
            max_new_tokens=room,
            stop=tuple(spec.stop),
            window=reading.window,
            batch_tokens=reading.batch_tokens,
            ends=task.encoder.ends,
        )
        for place, one in zip(places, written, strict=True):
            texts[place] = one.text
    return texts


def _item_score(
    task: PictureTask,
    prompt: PicturePrompt,
    values: Mapping[str, float],
    own: float,
    text: str | None,
) -> ItemScore:
    match = math.nan if text is None else _match(task.spec, text, prompt.references)
    every = {**values, "exact_match": match}
    return ItemScore(
        item_id=prompt.item_id,
        metrics={name: every.get(name, math.nan) for name in task.spec.metrics},
        gold=-1,
        choice_logprobs=() if math.isnan(own) else (own,),
        length_baseline=math.nan,
        num_choices=len(prompt.references),
        num_bytes=len(prompt.references[0].encode()),
        cut_tokens=0,
        text=text,
        group=prompt.group,
        answer=prompt.references[0],
    )


def _match(spec: TaskSpec, text: str, references: Sequence[str]) -> float:
    # Imported here: it takes seconds, and a task without exact match needs none of it.
    from ablations.evaluation.lighteval.answer_matching import text_match

    return text_match(spec.match)(text, references)
