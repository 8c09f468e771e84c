"""Training and scoring of a quality classifier against fastText alone, in documents per CPU-second.

    python benchmarks/classifiers.py [--documents 4000] [--rounds 3]

The documents are modules of the standard library, whole and with their words in random order. Ours trains
from annotations, saves and opens the model, and scores through the step of a preparation; fastText alone
trains from its text file with the same settings and predicts each document in a loop. The best round of
each counts. Prints both rates and their ratios.
"""

from __future__ import annotations

import argparse
import os
import random
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fasttext
from datatrove.data import Document

from ablations.data.quality.annotations import Annotation
from ablations.data.quality.artifact import write_artifact
from ablations.data.quality.classifiers import train_classifier
from ablations.data.quality.fasttext_training import training_options
from ablations.data.quality.score_step import ScoreDocuments
from ablations.data.quality.skill import evaluate

CHARACTERS = 3000


def annotated_modules(count: int) -> list[Annotation]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text(errors="replace") for path in files]
    pieces = [t[i : i + CHARACTERS] for t in texts for i in range(0, len(t), CHARACTERS)]
    rng, found = random.Random(0), []
    for number in range(count):
        words = pieces[number % len(pieces)].split()
        if number % 2:
            rng.shuffle(words)
        found.append(Annotation(text=" ".join(words), score=0.0 if number % 2 else 5.0))
    return found


def seconds(work: Callable[[], Any], rounds: int) -> float:
    """CPU-seconds of the best of several rounds, with those of the processes it started."""
    found = []
    for _ in range(rounds):
        began = used()
        work()
        found.append(used() - began)
    return min(found)


def used() -> float:
    """CPU-seconds of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    every = annotated_modules(given.documents)
    texts = [a.text for a in every]
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "train.txt"
        lines.write_text("".join(f"__label__{a.score:g} {a.text}\n" for a in every))
        options = training_options(len(every), seed=0)
        alone = seconds(lambda: fasttext.train_supervised(str(lines), **options), given.rounds)
        ours = seconds(lambda: train_classifier("fasttext", every, seed=0), given.rounds)
        show("training", len(texts), alone, ours)
        classifier = train_classifier("fasttext", every, seed=0)
        folder = Path(scratch) / "classifier"
        write_artifact(
            folder,
            classifier,
            kind="fasttext",
            model=None,
            annotations=lines,
            trained_on=len(every),
            evaluation=evaluate(every, classifier.scores(texts), threshold=3.0, seed=0).plain(),
        )
        model = fasttext.FastText._FastText(str(folder / "model.bin"))
        step = ScoreDocuments(folder, None)
        documents = [Document(text=text, id=str(n)) for n, text in enumerate(texts)]
        list(step.run(documents))
        alone = seconds(lambda: [model.predict(t.replace("\n", " "), k=-1) for t in texts], 5)
        ours = seconds(lambda: list(step.run(documents)), 5)
        show("scoring", len(texts), alone, ours)


def show(what: str, count: int, alone: float, ours: float) -> None:
    print(
        f"{what}: ours {count / ours:,.0f}, fastText alone {count / alone:,.0f} documents per "
        f"CPU-second; ratio {alone / ours:.2f} (at least 0.8 is asked)"
    )


if __name__ == "__main__":
    main()
