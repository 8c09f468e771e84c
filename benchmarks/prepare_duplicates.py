"""Preparation that seeks duplicates against one that does not: CPU seconds, same text and tokenizer.

The text is the standard library's code; every tenth file is there twice, and the one after it once more
with a word added::

    python benchmarks/prepare_duplicates.py --megabytes 4
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from prepare import write_text
from prepare_contamination import clock

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.duplicates_spec import DuplicatesSpec
from ablations.data.manifest import StoreManifest
from ablations.data.prepare import prepare
from ablations.data.tokenizer import TokenizerSpec

SIDES = {
    "none": None,
    "exact": DuplicatesSpec(),
    "near": DuplicatesSpec(kind="near"),
}


def plant(path: Path) -> tuple[int, int]:
    """Add a copy of every tenth text, and an edited copy of the one after it; return how many of each."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    copies = rows[::10]
    edited = [{**row, "text": f"{row['text']} otherwise"} for row in rows[1::10]]
    with path.open("a") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in [*copies, *edited])
    return len(copies), len(edited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = write_text(root / "texts", given.megabytes)
        copies, edited = plant(root / "texts/text.jsonl")
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        found: dict[str, StoreManifest] = {}
        spec = TokenizerSpec(name="t", vocab_size=8192, sample_bytes=4_000_000)
        for _ in range(given.repeats + 1):
            for side, duplicates in SIDES.items():
                source = SourceSpec(
                    domain="code",
                    tokens_available=10**7,
                    origin=FilesOrigin(kind="files", paths=(str(root / "texts"),)),
                    licence="PSF-2.0",
                    shards=given.shards,
                    duplicates=duplicates,
                )
                shutil.rmtree(root / "data/t/text", ignore_errors=True)
                seconds[side].append(
                    clock(lambda s=source: prepare({"text": s}, spec, root / "data"))
                )
                found[side] = StoreManifest.read(root / "data/t/text")
    print(f"{size / 1e6:.1f} MB and {copies} copies, {edited} edited copies; {given.shards} ranks")
    base = min(seconds["none"][1:])
    for side, times in seconds.items():
        took = min(times[1:])
        dropped = ", ".join(f"{n} {why}" for why, n in found[side].dropped.items()) or "nothing"
        print(f"{side}: {took:.2f} CPU-s, {took / base:.2f}x of none; dropped {dropped}")


if __name__ == "__main__":
    main()
