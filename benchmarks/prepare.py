"""Preparation against datatrove's bare pipeline: MB of text per CPU-second, same text, same tokenizer.

The yardstick is datatrove's own JsonlReader and DocumentTokenizer, which write tokens and nothing else.
Ours reads the same files, holds documents out, checks ends and sizes, writes checksums and a manifest::

    python benchmarks/prepare.py --megabytes 8 --repeats 3
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.demo.demo_sources import _standard_library
from ablations.data.prepare import prepare
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


def ours(texts: Path, spec: TokenizerSpec, data: Path) -> None:
    origin = FilesOrigin(kind="files", paths=(str(texts),))
    source = SourceSpec(domain="code", tokens_available=10**7, origin=origin, licence="PSF-2.0")
    prepare({"text": source}, spec, data)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabytes", type=float, default=8.0)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--vocab-size", type=int, default=1024)
    given = arguments.parse_args()
    from datatrove.utils.logging import logger

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = write_text(root / "texts", given.megabytes)
        spec = TokenizerSpec(name="t", vocab_size=given.vocab_size)
        ours(root / "texts", spec, root / "data")  # trains the tokenizer, warms the caches
        tokenizer = open_tokenizer(root / "data" / "tokenizers" / "t").file
        logger.disable("datatrove")
        seconds: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(given.repeats):
            shutil.rmtree(root / "data" / "t")
            start = time.process_time()
            ours(root / "texts", spec, root / "data")
            seconds["ours"].append(time.process_time() - start)
            logger.disable("datatrove")
            start = time.process_time()
            bare(root / "texts", tokenizer, root / "bare")
            seconds["bare"].append(time.process_time() - start)
            shutil.rmtree(root / "bare")
        best = {name: min(times) for name, times in seconds.items()}
        ratios = [b / o for b, o in zip(seconds["bare"], seconds["ours"], strict=True)]
        for name, took in best.items():
            print(f"{name}: {size / took / 1e6:.2f} MB per CPU-second ({took:.2f} s)")
        print(
            f"ours / bare datatrove: {statistics.median(ratios):.2f}x (median of {given.repeats})"
        )


if __name__ == "__main__":
    main()
