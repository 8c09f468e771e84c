"""Preparation against two yardsticks: MB of text per CPU-second, same text, same tokenizer.

The first is the bare call: ``encode_batch_fast`` of Hugging Face's tokenizers over texts in memory, which
reads and writes nothing. The second is datatrove's own JsonlReader and DocumentTokenizer, which write
tokens and nothing else. Ours reads the same files, holds documents out, checks ends and sizes, writes
checksums and a manifest. Its tokens are compared with those of the bare call, document by document::

    python benchmarks/prepare.py --megabytes 8 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.demo.demo_sources import _standard_library
from ablations.data.prepare import prepare
from ablations.data.store import TokenStore
from ablations.data.tokenizer import TokenizerSpec, open_tokenizer


def write_text(folder: Path, megabytes: float) -> int:
    """Standard-library modules as JSON lines, over and over up to the size."""
    folder.mkdir()
    texts = [text.text for text in _standard_library()]
    size, written = 0, 0
    with (folder / "text.jsonl").open("w") as stream:
        while size < megabytes * 1e6:
            text = texts[written % len(texts)]
            stream.write(json.dumps({"id": str(written), "text": f"{text}\n# {written}"}) + "\n")
            size += len(text.encode())
            written += 1
    return size


def bare(texts: Path, tokenizer: Path, out: Path) -> None:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    LocalPipelineExecutor(
        pipeline=[
            JsonlReader(str(texts)),
            DocumentTokenizer(
                str(out / "tokens"),
                tokenizer_name_or_path=str(tokenizer),
                eos_token="<|endoftext|>",
                batch_size=512,
                seed=0,
            ),
        ],
        tasks=1,
        logging_dir=str(out / "logs"),
    ).run()


def raw(texts: Path, tokenizer: Path) -> tuple[list[list[int]], float]:
    """Return the ids of each document, and the CPU seconds of the calls alone."""
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(tokenizer))
    with (texts / "text.jsonl").open() as stream:
        documents = [json.loads(line)["text"] for line in stream]
    encoded: list[list[int]] = []
    start = time.process_time()
    for first in range(0, len(documents), 512):
        batch = fast.encode_batch_fast(documents[first : first + 512], add_special_tokens=False)
        encoded += [one.ids for one in batch]
    return encoded, time.process_time() - start


def unlike(store: Path, expected: list[list[int]]) -> int:
    """Return how many documents of the store have other tokens than any of ``expected``."""
    left = Counter(tuple(ids) for ids in expected)
    wrong = 0
    for tokens in TokenStore.open(store).documents():
        ids = tuple(tokens.tolist())
        wrong += left[ids] == 0
        left[ids] -= 1
    return wrong


def ours(texts: Path, spec: TokenizerSpec, data: Path) -> None:
    origin = FilesOrigin(kind="files", paths=(str(texts),))
    source = SourceSpec(domain="code", tokens_available=10**7, origin=origin, licence="PSF-2.0")
    prepare({"text": source}, spec, data)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=float, default=8.0)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--vocab-size", type=int, default=49_152)
    given = arguments.parse_args()
    from datatrove.utils.logging import logger

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = write_text(root / "texts", given.megabytes)
        spec = TokenizerSpec(name="t", vocab_size=given.vocab_size, sample_bytes=20_000_000)
        ours(root / "texts", spec, root / "data")  # trains the tokenizer, warms the caches
        made = open_tokenizer(root / "data" / "tokenizers" / "t")
        seconds: dict[str, list[float]] = {"raw": [], "bare": [], "ours": []}
        wrong = 0
        for _ in range(given.repeats):
            shutil.rmtree(root / "data" / "t")
            start = time.process_time()
            ours(root / "texts", spec, root / "data")
            seconds["ours"].append(time.process_time() - start)
            encoded, took = raw(root / "texts", made.file)
            seconds["raw"].append(took)
            wrong += unlike(root / "data" / "t" / "text", encoded)
            logger.disable("datatrove")
            start = time.process_time()
            bare(root / "texts", made.file, root / "bare")
            seconds["bare"].append(time.process_time() - start)
            shutil.rmtree(root / "bare")
    print(f"vocabulary of {made.vocab_size:,}, {size / 1e6:.1f} MB; documents that differ: {wrong}")
    for name, times in seconds.items():
        best = min(times)
        ratio = statistics.median(a / b for a, b in zip(times, seconds["ours"], strict=True))
        print(
            f"{name}: {size / best / 1e6:.2f} MB per CPU-second ({best:.2f} s); "
            f"ours is {ratio:.2f}x as fast (median of {given.repeats})"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
