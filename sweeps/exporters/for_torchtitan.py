"""Register the token files beside this module with torchtitan 0.3.

An export of the format torchtitan holds a copy of this module as ``stored_tokens.py``; it imports
nothing of the platform.

    import stored_tokens
    loader = stored_tokens.dataloader("1_main")       # config of torchtitan's interleaving loader
    tokenizer = stored_tokens.tokenizer()             # config of the tokenizer that goes with it

A sample is a document as token ids. The tokenizer puts the end-of-document token before it, so that
the labels of a source are its token files, whole and in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import IterableDataset  # type: ignore[import-untyped,unused-ignore]
from torchtitan.components.tokenizer import (  # type: ignore[import-not-found,unused-ignore]
    BaseTokenizer,
)
from torchtitan.hf_datasets import (  # type: ignore[import-not-found,unused-ignore]
    DatasetConfig,
)
from torchtitan.hf_datasets.text_datasets import (  # type: ignore[import-not-found,unused-ignore]
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)

__all__ = ["StoredTokens", "dataloader", "documents", "register", "tokenizer"]

HERE = Path(__file__).resolve().parent


def documents(files: list[str], token_bytes: int) -> Iterator[dict[str, Any]]:
    """Yield the documents of ``files`` in order, each with its end-of-document token."""
    for file in files:
        tokens = np.memmap(file, dtype="<u2" if token_bytes == 2 else "<u4", mode="r")
        ends = np.memmap(f"{file}.index", dtype="<u8", mode="r")
        start = 0
        for end in ends:
            yield {"tokens": tokens[start : int(end)].tolist()}
            start = int(end)


def register() -> dict[str, str]:
    """Add every source to torchtitan's datasets; source → name there."""
    described = json.loads((HERE / "sources.json").read_text())
    names = {}
    for source, folder in described["sources"].items():
        # torchtitan looks names up in lower case.
        names[source] = f"stored_{Path(folder).name}".lower()
        width = described["token_bytes"]
        DATASETS[names[source]] = DatasetConfig(
            path=folder,
            loader=lambda path, width=width: IterableDataset.from_generator(
                documents,
                gen_kwargs={
                    "files": [str(file) for file in sorted(Path(path).glob("*.ds"))],
                    "token_bytes": width,
                },
            ),
            sample_processor=lambda sample: sample["tokens"],
        )
    return names


def dataloader(stage: str) -> Any:
    """Return the config of the loader of a stage; ``stage`` is a file name in ``stages/``."""
    plan = json.loads((HERE / "stages" / f"{stage}.json").read_text())
    names = register()
    return InterleavedHuggingFaceTextDataLoader.Config(
        sources=[
            HFDataSource(dataset=names[source], weight=weight, infinite=True)
            for source, weight in plan["weights"].items()
        ],
        seed=plan["seed"],
    )


def tokenizer() -> Any:
    """Return the config of :class:`StoredTokens` for these sources."""
    described = json.loads((HERE / "sources.json").read_text())
    return StoredTokens.Config(eos_id=described["eos_id"], vocab_size=described["vocab_size"])


class StoredTokens(BaseTokenizer):  # type: ignore[misc,unused-ignore]
    """Pass tokens on in place of torchtitan's tokenizer."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):  # type: ignore[misc,unused-ignore]
        """Hold the token after each document and the size of the vocabulary."""

        eos_id: int
        vocab_size: int

    def __init__(self, config: Any, *, tokenizer_path: str = "") -> None:
        super().__init__()
        del tokenizer_path  # torchtitan hands it to every tokenizer
        self.eos_id = config.eos_id
        self.bos_id = config.eos_id
        self._vocab_size = config.vocab_size

    def encode(self, sample: list[int], add_bos: bool = True, add_eos: bool = True) -> list[int]:
        """Return the document's tokens behind the token that ends the document before."""
        del add_eos  # it is there already
        return [self.bos_id, *sample] if add_bos else list(sample)

    def decode(self, *_args: Any, **_options: Any) -> str:
        """Refuse: there is no vocabulary here."""
        raise NotImplementedError("stored tokens have no text; use the model's own tokenizer")

    def get_vocab_size(self) -> int:
        """Return the model's vocabulary size."""
        return int(self._vocab_size)
