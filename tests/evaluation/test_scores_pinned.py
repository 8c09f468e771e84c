"""Layouts, batches and summaries of fixed items are those before."""

from __future__ import annotations

import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ablations.evaluation.items import Pool
from ablations.evaluation.prefix_packing import Layout, Request, lay_out, plan_batches
from ablations.evaluation.results import (
    CheckpointScores,
    ItemScore,
    MetricScore,
    TaskScores,
    missing,
    read_details,
    read_groups,
    summarise,
    write_details,
)
from ablations.evaluation.scoring import _limited, without_scores
from ablations.evaluation.specs import EvaluationSpec, TaskSpec
from tests.pinned import require_pinned

QUIZ = TaskSpec(form="cloze", domain="english", items="quiz", metrics=("acc", "acc_char", "bpb"))
TEXT = TaskSpec(form="rolling", domain="english", items="text", metrics=("bpb",))


def requests() -> list[Request]:
    """Return requests that share a prefix, fit the window or not, and have one branch or many."""
    draw = random.Random(1)
    shared = [draw.randrange(50) for _ in range(9)]

    def some(low: int, high: int) -> list[int]:
        return [draw.randrange(50) for _ in range(draw.randint(low, high))]

    made = [Request(shared + some(1, 6), [some(1, 4) for _ in range(3)]) for _ in range(4)]
    made += [Request(some(14, 22), [some(1, 5), [7], some(17, 24), []]) for _ in range(3)]
    return [*made, Request(some(1, 3), [[3], [4]]), Request(some(2, 2), [some(3, 3)])]


def plain(layout: Layout) -> dict[str, Any]:
    """Return a layout in plain values."""
    arrays = {k: v.tolist() for k, v in vars(layout).items() if isinstance(v, np.ndarray)}
    branches = [[one.request, one.index, one.cut_tokens] for one in layout.branches]
    return {
        **arrays,
        "branches": branches,
        "packed": layout.packed,
        "context": layout.context.tolist(),
    }


def test_layouts_and_batches_are_those_before() -> None:
    packed, alone = lay_out(requests(), 20), lay_out(requests(), 20, pack=False)
    batches = {
        f"{share} {size}": [
            [one.length, one.packed, one.prefix.tolist(), [len(row.tokens) for row in one.layouts]]
            for one in plan_batches(packed, size, share=share)
        ]
        for share in (True, False)
        for size in (1, 40, 200)
    }
    found = {
        "packed": [plain(one) for one in packed],
        "alone": [plain(one) for one in alone],
        "batches": batches,
    }
    require_pinned("layouts", found)


def items() -> list[ItemScore]:
    """Return items of two, three and four choices, some without a number."""
    rng = np.random.default_rng(2)
    found = []
    for number in range(9):
        correct = float(rng.random() < 0.5)
        nothing = number == 4
        found.append(
            ItemScore(
                item_id=f"i{number}",
                metrics={
                    "acc": math.nan if nothing else correct,
                    "acc_char": 1.0 - correct,
                    "bpb": float(rng.random() + 0.5),
                },
                gold=number % 2,
                choice_logprobs=(-1.0, -2.0),
                length_baseline=math.nan if number == 5 else float(number % 3 == 0),
                num_choices=2 + number % 3,
                num_bytes=10 * (number + 1),
                cut_tokens=3 * (number == 2),
                group=f"g{number // 2}" if number < 6 else None,
            )
        )
    return found


def test_summaries_of_items_are_those_before(tmp_path: Path) -> None:
    made = items()
    stated = TaskSpec(**{**vars(QUIZ), "chance": 0.4})
    tasks = {
        "quiz": summarise(QUIZ, made),
        "stated": summarise(stated, made),
        "text": summarise(TEXT, made),
        "two": summarise(TEXT, made[:2]),
        "one": summarise(TEXT, made[:1]),
        "none": summarise(TEXT, []),
        "missing": missing(QUIZ, "no items"),
    }
    scores = CheckpointScores(step=3, tasks=tasks, score=0.5, direction="maximize")
    suite = EvaluationSpec(tasks={"quiz": QUIZ})
    lost = without_scores(4, suite, ("web",), "no checkpoint")
    path = tmp_path / "quiz.parquet"
    write_details(path, made, QUIZ.metrics)
    found = {
        "row": scores.row(100),
        "plain": {name: asdict(one) for name, one in tasks.items()},
        "lost": lost.row(),
        "defaults": [MetricScore(value=None).row(), TaskScores(metrics={}).note()],
        "columns": read_details(path).column_names,
        "chosen": read_details(path, ["bpb"]).column_names,
        "groups": read_groups(path),
    }
    require_pinned("score_rows", found)


def test_a_limit_takes_a_fixed_part_of_the_items() -> None:
    pools = [Pool(name, [{"id": f"{name}{n}"} for n in range(6)]) for name in ("a", "b")]
    kept = {
        limit: [item["id"] for pool in _limited(pools, limit) for item in pool.items]
        for limit in (None, 12, 13, 11, 5, 1)
    }
    assert len(kept[None]) == len(kept[12]) == len(kept[13]) == 12
    assert [len(kept[limit]) for limit in (11, 5, 1)] == [11, 5, 1]
    assert set(kept[1]) < set(kept[5]) < set(kept[11])
