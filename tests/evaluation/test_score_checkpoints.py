"""Checkpoints to scores: several in one process, each task on its own, every failure reported."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ablations.errors import CheckpointError, EvaluationError
from ablations.evaluation.items import ItemSources, item_digests
from ablations.evaluation.results import CheckpointScores
from ablations.evaluation.scoring import (
    ScoringPlace,
    score_checkpoints,
    score_folder,
    without_scores,
)
from ablations.evaluation.specs import EvaluationSpec, HubData, ScoreRule, ScoreTerm, TaskSpec
from ablations.record.checksums import write_checksums

TASKS = {
    "quiz": TaskSpec(
        form="cloze", domain="d", items="quiz", metrics=("acc", "acc_char", "bpb"), max_items=12
    ),
    "quiz_letters": TaskSpec(
        form="letters",
        domain="d",
        items="quiz",
        prompt="{question}\n{options}Answer:",
        metrics=("acc",),
    ),
    "blank": TaskSpec(form="cloze", domain="d", items="blank", metrics=("acc", "bpb")),
    "sums": TaskSpec(
        form="generative",
        domain="math",
        items="sums",
        match="number",
        metrics=("exact_match", "bpb"),
        shots=1,
        max_new_tokens=4,
        stop=("\n",),
    ),
    "programs": TaskSpec(
        form="code",
        domain="code",
        items="programs",
        metrics=("pass_at_1", "bpb"),
        max_new_tokens=4,
    ),
}
RULE = ScoreRule(
    direction="minimize",
    terms={"text": ScoreTerm(metrics="heldout_*/bpb"), "quiz": ScoreTerm(metrics="quiz/bpb")},
)


@pytest.fixture
def place(data_dir: Path) -> ScoringPlace:
    return ScoringPlace(data_dir=data_dir, stores={"wiki": data_dir / "store" / "wiki"})


def scored(
    exports: Mapping[int, Path], place: ScoringPlace, out: Path, **changes: Any
) -> list[CheckpointScores]:
    spec = EvaluationSpec(**{"tasks": TASKS, "score": RULE, "max_items": 20, **changes})
    return list(score_checkpoints(exports, spec, details=out, place=place))


def values(scores: CheckpointScores) -> dict[str, Any]:
    return {name: scores.flat()[name] for name in sorted(scores.flat())}


def test_every_task_of_every_checkpoint_is_scored(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    first, second = scored(exports, place, tmp_path)
    assert [first.step, second.step] == [10, 20]
    assert list(first.tasks) == [*TASKS, "heldout_wiki"]
    assert None not in first.flat().values()
    assert values(first) != values(second)
    json.dumps(first.row(tokens=100), allow_nan=False)
    bpb = {name: first.flat()[f"{name}/bpb"] for name in ("heldout_wiki", "quiz")}
    assert first.score == pytest.approx(sum(bpb.values()) / 2)  # type: ignore[arg-type]
    for step in (10, 20):
        written = {path.stem for path in (tmp_path / str(step)).glob("*.parquet")}
        assert written == set(first.tasks)


def test_values_are_those_of_their_details(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    scores = scored({10: exports[10]}, place, tmp_path)[0]
    for name, task in scores.tasks.items():
        table = pq.read_table(tmp_path / "10" / f"{name}.parquet").to_pydict()
        weights = table["num_bytes"] if name == "heldout_wiki" else None
        for metric, one in task.metrics.items():
            assert one.value == pytest.approx(np.average(table[metric], weights=weights))
            assert one.n == len(table["item_id"])
    quiz = pq.read_table(tmp_path / "10" / "quiz.parquet").to_pylist()
    assert len(quiz) == 12
    for row in quiz:
        assert row["acc"] == float(np.argmax(row["choice_logprobs"]) == row["gold"])


def test_a_checkpoint_scores_the_same_alone_and_after_another(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    together = scored(exports, place, tmp_path / "a")[1]
    alone = scored({20: exports[20]}, place, tmp_path / "b", batch_tokens=200)[0]
    for name, value in values(together).items():
        assert value == pytest.approx(values(alone)[name], abs=1e-5), name


def test_fewer_items_are_a_subset_of_more(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    def ids(limit: int) -> set[str]:
        task = {"quiz": replace(TASKS["quiz"], max_items=limit)}
        scored({10: exports[10]}, place, tmp_path, tasks=task, heldout=False, score=None)
        return set(pq.read_table(tmp_path / "10" / "quiz.parquet")["item_id"].to_pylist())

    assert len(ids(5)) == 5
    assert ids(5) < ids(11)


def test_held_out_bits_per_byte_count_every_token_of_a_text_once(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path, tokenizer: Any
) -> None:
    from transformers import AutoModelForCausalLM

    scored({10: exports[10]}, place, tmp_path, tasks={}, score=None)
    rows = pq.read_table(tmp_path / "10" / "heldout_wiki.parquet").to_pylist()
    model = AutoModelForCausalLM.from_pretrained(exports[10]).eval()
    texts = {
        row["id"]: row["text"]
        for row in map(
            json.loads, (place.stores["wiki"] / "heldout.jsonl").read_text().splitlines()
        )
    }
    for row in rows:
        ids = [tokenizer.eos_token_id, *tokenizer.encode(texts[row["item_id"]])]
        bits = 0.0
        for start in range(0, len(ids) - 1, 64):
            window = torch.tensor(ids[start : start + 65])
            with torch.no_grad():
                logits = model(input_ids=window[None, :-1]).logits[0].double()
            picked = torch.log_softmax(logits, -1).gather(1, window[1:, None])
            bits -= float(picked.sum()) / math.log(2)
        assert row["num_bytes"] == len(texts[row["item_id"]].encode())
        assert row["bpb"] == pytest.approx(bits / row["num_bytes"], abs=1e-5)


def test_a_broken_task_is_missing_with_its_reason_and_the_others_go_on(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    tasks = {
        **TASKS,
        "absent": TaskSpec(form="cloze", domain="d", items="quizz", metrics=("acc",)),
        "bare": TaskSpec(
            form="cloze", domain="d", items="quiz", prompt="{passage}", metrics=("acc",)
        ),
    }
    rule = ScoreRule(direction="maximize", terms={"all": ScoreTerm(metrics="*/acc")})
    scores = scored({10: exports[10]}, place, tmp_path, tasks=tasks, score=rule)[0]
    assert scores.flat()["absent/acc"] is None
    assert "did you mean 'quiz'" in str(scores.tasks["absent"].reason)
    assert "passage" in str(scores.tasks["bare"].reason)
    assert scores.flat()["quiz/acc"] is not None
    assert scores.score is None
    assert "absent/acc, bare/acc is missing" in str(scores.reason)
    assert not (tmp_path / "10" / "absent.parquet").exists()


def test_a_run_whose_every_task_is_broken_fails(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    tasks = {"absent": TaskSpec(form="cloze", domain="d", items="none", metrics=("acc",))}
    with pytest.raises(EvaluationError, match="no task could be scored"):
        scored({10: exports[10]}, place, tmp_path, tasks=tasks, heldout=False)


def test_answers_that_no_window_holds_are_counted(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    task = {"quiz": TASKS["quiz"]}
    scores = scored({10: exports[10]}, place, tmp_path, tasks=task, window_tokens=4)[0]
    quiz = scores.tasks["quiz"]
    assert 0 < quiz.too_long < 12
    assert quiz.metrics["acc"].n == 12 - quiz.too_long
    assert quiz.cut > 0
    assert scores.row()["notes"]["quiz"] == {"too_long": quiz.too_long, "cut": quiz.cut}


def test_each_export_is_scored_with_its_own_tokenizer(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    mixed = dict(exports)
    mixed[20] = tmp_path / "20"
    shutil.copytree(exports[20], mixed[20])
    stored = json.loads((mixed[20] / "tokenizer.json").read_text())
    stored["model"]["merges"] = stored["model"]["merges"][:20]  # others, and more of them
    (mixed[20] / "tokenizer.json").write_text(json.dumps(stored))
    tasks = {"quiz": TASKS["quiz"]}
    together = scored(mixed, place, tmp_path / "a", tasks=tasks, score=None)
    for one in together:
        alone = scored({one.step: mixed[one.step]}, place, tmp_path / "b", tasks=tasks, score=None)
        assert values(one) == values(alone[0])
    plain = scored({20: exports[20]}, place, tmp_path / "c", tasks=tasks, score=None)[0]
    assert values(together[1]) != values(plain)


@pytest.mark.parametrize(("origin", "from_hub"), [("hub", True), ("items", False)])
def test_a_task_with_both_reads_what_the_origin_names(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path, origin: str, from_hub: bool
) -> None:
    (tmp_path / "mirror").mkdir()
    task = replace(TASKS["quiz"], hub=HubData(repo="a/b", columns="arc"))
    scores = scored(
        {10: exports[10]},
        place,
        tmp_path / "out",
        tasks={"quiz": task, "blank": TASKS["blank"]},
        score=None,
        origin=origin,
        mirror=str(tmp_path / "mirror"),
    )[0]
    assert ("unknown data set 'a/b'" in str(scores.tasks["quiz"].reason)) is from_hub
    assert (scores.flat()["quiz/acc"] is None) is from_hub


# ------------------------------------------------------------ changed items and damaged exports


def test_items_that_changed_since_the_run_began_are_missing_with_the_reason(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(place.data_dir, data)
    spec = EvaluationSpec(tasks={name: TASKS[name] for name in ("quiz", "blank")}, heldout=False)
    sources = ItemSources(benchmarks=data / "benchmarks")
    began = replace(place, data_dir=data, items=item_digests(spec.tasks.values(), sources))
    whole = next(score_checkpoints({10: exports[10]}, spec, details=tmp_path / "a", place=began))
    rows = (data / "benchmarks" / "quiz.jsonl").read_text().splitlines()
    (data / "benchmarks" / "quiz.jsonl").write_text("\n".join(rows[:5]) + "\n")
    cut = next(score_checkpoints({10: exports[10]}, spec, details=tmp_path / "b", place=began))
    assert whole.flat()["quiz/acc"] is not None
    assert cut.flat()["quiz/acc"] is None
    assert "items changed since the run began" in str(cut.tasks["quiz"].reason)
    assert cut.flat()["blank/acc"] == whole.flat()["blank/acc"]


def test_a_damaged_export_is_not_scored(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    folder = tmp_path / "10"
    shutil.copytree(exports[10], folder)
    write_checksums(folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-100] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match=r"damaged; found: model\.safetensors"):
        scored({10: folder}, place, tmp_path / "out")


def test_the_scores_of_a_lost_checkpoint_are_missing_with_the_reason() -> None:
    spec = EvaluationSpec(tasks={"quiz": TASKS["quiz"]}, score=RULE)
    row = without_scores(4, spec, ("wiki",), "damaged").row(100)
    assert row["score"] is None
    assert row["reason"] == "damaged"
    assert {name: note["missing"] for name, note in row["notes"].items()} == {
        "quiz": "damaged",
        "heldout_wiki": "damaged",
    }
    assert row["metrics"]["quiz"]["acc"]["value"] is None


@pytest.mark.parametrize("fault", ["empty", "no weights", "no tokenizer", "garbage"])
def test_a_folder_that_is_no_model_is_refused(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(exports[10], folder)
    gone = {"empty": "config.json", "no weights": "model.safetensors", "no tokenizer": "tokenizer*"}
    for path in folder.glob(gone.get(fault, "nothing")):
        path.unlink()
    if fault == "garbage":
        (folder / "config.json").write_text("{")
    spec = EvaluationSpec(tasks=TASKS)
    with pytest.raises(CheckpointError, match="model"):
        score_folder(folder, spec, tmp_path / "out", place=place)


def test_scoring_leaves_gradients_and_random_states_alone(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    scored({10: exports[10]}, place, tmp_path)
    assert torch.is_grad_enabled()
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_progress_is_reported_before_each_task(
    exports: dict[int, Path], place: ScoringPlace, tmp_path: Path
) -> None:
    calls: list[tuple[int, str, int, int]] = []
    spec = EvaluationSpec(tasks={"quiz": TASKS["quiz"]})
    list(
        score_checkpoints(
            exports,
            spec,
            details=tmp_path,
            place=place,
            watch=lambda *call: calls.append(call),
        )
    )
    assert calls == [
        (10, "quiz", 0, 2),
        (10, "heldout_wiki", 1, 2),
        (20, "quiz", 0, 2),
        (20, "heldout_wiki", 1, 2),
    ]
