"""Token stores of synthetic skills, prepared in two seconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ablations.data.catalogue import SourceSpec, SyntheticOrigin
from ablations.data.prepare import Prepared, prepare
from ablations.data.synthetic import Skill
from ablations.data.tokenizer import TokenizerSpec


def prepare_skills(
    data_dir: Path,
    *,
    skills: Sequence[Skill] = ("facts", "arithmetic"),
    documents: int = 600,
    vocab_size: int = 384,
) -> dict[str, Prepared]:
    """Token stores ``synthetic_<skill>`` of a few documents, for tests: under two seconds.

    The tokenizer is ``data_dir/tokenizers/tiny_bpe``; the task items are in ``data_dir/benchmarks``.
    """
    sources = {
        f"synthetic_{skill}": SourceSpec(
            domain="synthetic",
            tokens_available=60 * documents,
            origin=SyntheticOrigin(kind="synthetic", skill=skill, documents=documents),
            licence="CC0-1.0",
        )
        for skill in skills
    }
    tokenizer = TokenizerSpec(name="tiny_bpe", vocab_size=vocab_size, sample_bytes=20_000)
    return {made.name: made for made in prepare(sources, tokenizer, data_dir)}
