"""Small sources of pictures, conversations and text with one tokenizer, for tests of method=vlm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.data.bucket_stores import describe
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.manifest import HELDOUT, HELDOUT_PICTURES, TRAIN, HeldOut, RowCounts
from ablations.data.manifest import StoreManifest as Manifest
from ablations.data.prepare import prepare
from ablations.data.rows.chat_template import ChatSpec
from ablations.data.tokenizer import TokenizerSpec, open_tokenizer
from ablations.files import file_sha256
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from ablations.training.method import MethodSpec
from ablations.training.specs import ExecutionSpec, TrainingSpec
from ablations.training.train_job import TrainJob
from ablations.training.vision import VisionSpec
from tests.oracles.chats import (
    TINY_CHAT_MODEL,
    conversation,
    make_base_tokenizer,
    row_source,
    words,
    write_rows,
)

TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- message['role'] + ': ' -}}"
    "{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- message['content'] + '<end_of_utterance>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- message['content'] + '<end_of_utterance>' -}}{%- endif -%}"
    "{{- '\\n' -}}"
    "{%- endfor -%}"
)
VISION_TOKENIZER = TokenizerSpec(
    name="tiny_vision",
    kind="chat",
    base="tiny",
    chat=ChatSpec(
        template=TEMPLATE,
        markers=("<end_of_utterance>",),
        turn_end="<end_of_utterance>",
        picture="<image>",
    ),
)
SIDE = 16
TINY_EYE = VisionSpec(
    image_size=SIDE,
    patch_size=4,
    scale_factor=2,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
)
"""Four tokens a picture; a block of seven with its markers."""
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 30), "blue": (10, 30, 230)}


def square(colour: str, seed: int, side: int = SIDE) -> np.ndarray:
    """Return a picture [3, S, S] of a square of a colour on a dark ground."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 30, size=(3, side, side)).astype(np.uint8)
    left, top = random.integers(0, side // 2, size=2)
    value = np.array(COLOURS[colour], dtype=np.uint8)[:, None, None]
    picture[:, top : top + side // 2, left : left + side // 2] = value
    return picture


def write_pictures(
    folder: Path,
    tokenizer: Path,
    rows: int,
    counts: Sequence[int] = (0, 1, 2),
    *,
    side: int = SIDE,
    filler: int = 0,
) -> Path:
    """Write a store of rows about coloured squares.

    Args:
        counts: Pictures of the rows, in turns.
        side: Pixels of a side of each picture.
        filler: Words of each question beyond the first.
    """
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    end = fast.token_to_id("<end_of_utterance>")
    assert end is not None
    (folder / TRAIN).mkdir(parents=True)
    tokens: list[int] = []
    mask: list[bool] = []
    ends, shown, refs = [], [], []
    pictures: list[np.ndarray] = []
    for number in range(rows):
        count = counts[number % len(counts)]
        colours = [list(COLOURS)[(number + k) % 3] for k in range(max(1, count))]
        for k, colour in enumerate(colours[:count]):
            refs.append(len(pictures))
            pictures.append(square(colour, 10 * number + k, side))
        prompt = "user: " + "<image>" * count + f"{number}: which?"
        prompt += f" {words(number, filler)}<end_of_utterance>\nassistant: "
        asked = fast.encode(prompt, add_special_tokens=False).ids
        answer = [*fast.encode(" ".join(colours), add_special_tokens=False).ids, end]
        tokens += asked + answer
        mask += [False] * len(asked) + [True] * len(answer)
        ends.append(len(tokens))
        shown.append(len(refs))
    file = folder / TRAIN / "00000_rows.ds"
    beside = {
        "": np.array(tokens, dtype="<u2"),
        ".index": np.array(ends, dtype="<u8"),
        ".loss": np.array(mask, dtype=bool),
        ".pictures": np.stack(pictures),
        ".refs": np.array(refs, dtype="<u4"),
        ".refs.index": np.array(shown, dtype="<u8"),
    }
    for ending, values in beside.items():
        values.tofile(file.with_name(file.name + ending))
    for name in (HELDOUT, HELDOUT_PICTURES):
        (folder / name).touch()
    own = open_tokenizer(tokenizer)
    Manifest(
        source=folder.name,
        domain="english",
        tokenizer=tokenizer.name,
        tokenizer_hash=own.hash,
        vocab_size=own.vocab_size,
        eos_id=own.eos_id,
        token_bytes=2,
        tokens=len(tokens),
        documents=rows,
        bytes=len(tokens),
        files=(describe(file, file.name, own),),
        heldout=HeldOut(
            documents=0,
            bytes=0,
            sha256=file_sha256(folder / HELDOUT),
            pictures_sha256=file_sha256(folder / HELDOUT_PICTURES),
        ),
        rows=RowCounts(
            kind="pictures",
            rows=rows,
            supervised_tokens=sum(mask),
            longest=int(np.diff(ends, prepend=0).max()),
            cut_rows=0,
            cut_tokens=0,
            max_tokens=48,
            template_sha256="0",
            pictures=len(refs),
            most_pictures=max(counts),
            different_pictures=len(pictures),
            rows_with_pictures=sum(counts[n % len(counts)] > 0 for n in range(rows)),
            picture_size=side,
        ),
    ).write(folder)
    return folder


def prepare_three_kinds(data_dir: Path) -> dict[str, Path]:
    """Prepare pictures (``squares``), conversations (``short``) and plain text (``prose``)."""
    make_base_tokenizer(data_dir)
    raw = data_dir / "raw"
    short = [{"messages": conversation(f"s{n}", 1, 3)} for n in range(60)]
    prose = [{"text": words(n, 60)} for n in range(60)]
    sources = {
        "short": row_source(write_rows(raw / "short.jsonl", short)),
        "prose": SourceSpec(
            domain="english",
            tokens_available=10_000,
            origin=FilesOrigin(kind="files", paths=(str(write_rows(raw / "prose.jsonl", prose)),)),
            heldout_share=0.1,
            licence="none",
        ),
    }
    stores = {one.name: one.folder for one in prepare(sources, VISION_TOKENIZER, data_dir)}
    folder = stores["short"].with_name("squares")
    tokenizer = data_dir / "tokenizers" / VISION_TOKENIZER.name
    return {**stores, "squares": write_pictures(folder, tokenizer, 60)}


def make_vision_job(
    directory: Path,
    stores: dict[str, Path],
    model: Path | str,
    *,
    weights: dict[str, float] | None = None,
    steps: int = 8,
    method: MethodSpec | None = None,
    checkpoint_steps: tuple[int, ...] = (),
    seed: int = 1,
    execution: ExecutionSpec | None = None,
    stages: tuple[Stage, ...] = (),
    **training: Any,
) -> TrainJob:
    """Return a job over pictures, conversations and text."""
    given = weights or {"squares": 0.5, "short": 0.25, "prose": 0.25}
    spec = TrainingSpec(
        **{"sequence_length": 64, "batch_size": 4, "peak_lr": 1e-2, "weight_decay": 0.0, **training}
    )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = next(iter(stores.values())).parents[1] / "tokenizers" / VISION_TOKENIZER.name
    made = stages or (Stage(name="main", steps=steps, mixture=Mixture(given)),)
    schedule = Schedule(stages=made, sequence_length=1, batch_size=spec.batch_size)
    total = schedule.total_steps
    return TrainJob(
        directory=directory,
        model=replace(TINY_CHAT_MODEL, max_position_embeddings=128),
        training=spec,
        execution=execution or ExecutionSpec(device="cpu", threads=1),
        schedule=schedule,
        learning_rate=LearningRate(
            peak=spec.peak_lr, warmup_steps=2, decay_steps=total // 2, total_steps=total
        ),
        stores={name: stores[name] for name in schedule.sources},
        seed=seed,
        checkpoint_steps=checkpoint_steps or (total,),
        method=method or MethodSpec(kind="vlm", loss="answers", vision=TINY_EYE),
        start_model=str(model),
        tokenizer=tokenizer,
    )
