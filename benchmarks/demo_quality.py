"""The quality demo from end to end: rate, classify, prepare, search the threshold, verdict, promotion.

    python benchmarks/demo_quality.py [--folder demo-quality] [--seeds 0] [--downloads data/downloads]

Each seed has a folder of its own, and runs the commands that a user types. A rater is played: it knows which
documents were spoiled, and errs by a level or two in a fifth of its ratings. For each seed it prints the
share of spoiled tokens in the crawl and in what the verdict's pick reads, and the time of each step. The
aim: the spoiled half ends with less than a quarter of its natural share, in under 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ablations.data.catalogue import load_source
from ablations.data.contamination import store_texts
from ablations.data.demo.demo_web import planted_score
from ablations.data.readers import Place, read_source
from ablations.files import read_json

STUDY = "demo_quality"
TOKENIZER = "demo_bpe"
BUCKETS = 3
SEEDS = 3
"""Seeds of the finalists."""


def ablate(folder: Path, *words: str) -> float:
    """Run a command in ``folder`` and return its wall-clock seconds; its output stays in ``log.txt``."""
    began = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        print(f"$ ablate {' '.join(words)}", file=log, flush=True)
        command = [sys.executable, "-m", "ablations.cli", *words]
        subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=log)
    return time.monotonic() - began


def rate(path: Path, seed: int) -> None:
    """Write a score into each row, as a rater who errs."""
    rng = random.Random(seed)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        score = planted_score(row["id"])
        if rng.random() < 0.2:
            score += rng.choice((1, 2)) * (-1 if score else 1)
        row["score"], row["language"] = score, "en"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def spoiled_shares(folder: Path) -> list[float]:
    """Share of spoiled tokens in each bucket of the crawl, about: by the bytes of its documents."""
    place = Place(downloads=folder / "data/downloads")
    spoiled = {
        text.text: planted_score(text.id) == 0
        for text in read_source(load_source("demo_web"), place)
    }
    found = []
    for bucket in range(BUCKETS):
        store = folder / "data" / TOKENIZER / "demo_web" / f"b{bucket}"
        sizes = {True: 0, False: 0}
        for _, text in store_texts(store, folder / "data/tokenizers"):
            sizes[spoiled[text.removesuffix("<|endoftext|>")]] += len(text.encode())
        found.append(sizes[True] / sum(sizes.values()))
    return found


def read_weights(folder: Path) -> tuple[str, list[float]]:
    """Outcome of the verdict, and the weight of each bucket in what it recommends."""
    verdict: dict[str, Any] = read_json(folder / "runs" / STUDY / "verdict.json")
    name = verdict["baseline"] if verdict["outcome"] == "keep-baseline" else verdict["pick"]
    trial = next(row["trial"] for row in verdict["candidates"] if row["name"] == name)
    run = next((folder / "runs" / STUDY).glob(f"{trial}-*"))
    shares = read_json(run / "audit.json")["stages"]
    weights = {row["source"]: row["realised"] for row in shares}
    return verdict["sentence"], [weights[f"demo_web-b{bucket}"] for bucket in range(BUCKETS)]


def one_seed(folder: Path, seed: int, downloads: Path, more: Sequence[str]) -> bool:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / "data/downloads").symlink_to(downloads.resolve())
    ratings, times = "ratings.jsonl", {}
    draw = ("sources=[demo_web]", "documents=600", f"out={ratings}", f"seed={seed}")
    times["annotate"] = ablate(folder, "annotate", *draw)
    rate(folder / ratings, seed)
    kept = f"out=classifiers/{STUDY}"
    times["classify"] = ablate(folder, "classify", f"annotations={ratings}", kept)
    experiment = (f"experiment={STUDY}", "progress=false")
    times["prepare"] = ablate(folder, "prepare", *experiment)
    seeds = f"search.confirm.seeds=[{','.join(str(SEEDS * seed + n) for n in range(SEEDS))}]"
    study = (*experiment, f"seed={SEEDS * seed}", f"search.strategy.seed={seed}", seeds, *more)
    times["study"] = ablate(folder, "run", "-m", *study)
    times["verdict"] = ablate(folder, "verdict", f"study={STUDY}")
    if read_json(folder / "runs" / STUDY / "verdict.json")["outcome"] == "winner":
        times["promote"] = ablate(folder, "promote", f"study={STUDY}", f"full={STUDY}_full")
    spoiled = spoiled_shares(folder)
    sentence, weights = read_weights(folder)
    tokens = read_json(folder / "data" / TOKENIZER / "demo_web/manifest.json")["buckets"]["tokens"]
    natural = sum(s * t for s, t in zip(spoiled, tokens, strict=True)) / sum(tokens)
    read = sum(s * w for s, w in zip(spoiled, weights, strict=True))
    print(f"seed {seed}: spoiled {natural:.1%} of the crawl, {read:.1%} of what is read")
    print(f"  of each bucket: {', '.join(f'{share:.1%}' for share in spoiled)}")
    print(f"  verdict: {sentence}")
    shown = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"  {shown}; {sum(times.values()) / 60:.1f} minutes", end="")
    print(f", {used.ru_utime + used.ru_stime:.0f} CPU-seconds so far", flush=True)
    return read < natural / 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path("demo-quality"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--downloads", type=Path, default=Path("data/downloads"))
    parser.add_argument("--study", nargs="*", default=[], help="further overrides of the study")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    good = [
        one_seed(given.folder / str(seed), seed, given.downloads, given.study)
        for seed in given.seeds
    ]
    print(f"under a quarter of the natural share: {sum(good)} of {len(good)} seeds")


if __name__ == "__main__":
    main()
