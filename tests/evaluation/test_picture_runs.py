"""Runs with pictures: checkpoints of vision-language models in a run, and suites that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ablations.errors import CheckpointError, ConfigError
from ablations.evaluation.metric_matching import score_problems, unseen
from ablations.evaluation.scoring_process import ScoringJob, score_here
from ablations.evaluation.specs import METRICS, EvaluationSpec, ScoreRule, ScoreTerm, TaskSpec
from ablations.record.checksums import write_checksums
from ablations.record.run_record import RunRecord
from ablations.training.vlm.text_part import is_vlm
from sweeps.launchers.local.suite_modules import preload_of
from tests.conftest import Ablate
from tests.oracles.picture_items import (
    make_picture_tokenizer,
    random_pictures,
    some_questions,
    write_picture_store,
    write_seeing_model,
)

SOURCES = {"wiki": None, "shapes": "pictures", "chat": "conversations"}


def scoring_job(folder: Path, **changes: Any) -> ScoringJob:
    """Return the scoring of a run with the checkpoints of two steps."""
    tokenizer = make_picture_tokenizer(folder / "data")
    store = write_picture_store(folder / "shapes", some_questions(6, 4), random_pictures(4))
    run = folder / "run"
    for step in (1, 2):
        checkpoint = write_seeing_model(run / "checkpoints" / str(step), tokenizer, seed=step)
        write_checksums(checkpoint)
    values: dict[str, Any] = {
        "directory": run,
        "steps": (1, 2),
        "last_step": 2,
        "tokens_per_step": 128,
        "evaluation": EvaluationSpec(),
        "tokenizer": tokenizer,
        "data_dir": folder / "data",
        "stores": {"shapes": store},
        "keep": "last",
        "device": "cpu",
    }
    return ScoringJob(**(values | changes))


@pytest.mark.parametrize(("keep", "exported"), [("last", [2]), ("all", [1, 2])])
def test_checkpoints_are_scored_as_they_are_and_their_text_part_is_exported(
    tmp_path: Path, keep: Any, exported: list[int]
) -> None:
    job = scoring_job(tmp_path, keep=keep)
    score_here(job, lambda _: None)
    record = RunRecord(job.directory)
    first, last = record.scores()
    for row in (first, last):
        metrics = row["metrics"]["heldout_shapes"]
        assert metrics["gain"]["value"] is not None
        assert {"stderr", "n", "groups"} <= set(metrics["gain"])
    assert first["metrics"] != last["metrics"]
    assert [step for step in (1, 2) if record.export(step).exists()] == exported
    assert not is_vlm(record.export(2))


def test_a_damaged_checkpoint_has_no_scores_of_any_held_out_task(tmp_path: Path) -> None:
    job = scoring_job(tmp_path, keep="all")
    weights = job.directory / "checkpoints/1/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    score_here(job, lambda _: None)
    lost, scored = RunRecord(job.directory).scores()
    assert lost["metrics"]["heldout_shapes"]["gain"]["value"] is None
    assert "damaged" in lost["notes"]["heldout_shapes"]["missing"]
    assert scored["metrics"]["heldout_shapes"]["gain"]["value"] is not None


def test_a_damaged_last_checkpoint_is_refused(tmp_path: Path) -> None:
    job = scoring_job(tmp_path)
    weights = job.directory / "checkpoints/2/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        score_here(job, lambda _: None)


def suite(pattern: str, *metrics: str, **term: Any) -> EvaluationSpec:
    """Return a suite that scores a pattern, with a task about pictures of its own metrics if any."""
    rule = ScoreRule(
        direction="minimize",
        terms={"one": ScoreTerm(metrics=pattern, direction="minimize", **term)},
    )
    tasks = {}
    if metrics:
        tasks["heldout_shapes"] = TaskSpec(
            form="picture", domain="shapes", source="shapes", metrics=metrics
        )
    return EvaluationSpec(tasks=tasks, score=rule)


@pytest.mark.parametrize(
    ("pattern", "metrics"),
    [
        ("heldout_*/bpb", ()),
        ("heldout_shapes/gain", ()),
        ("heldout_shapes/exact_match", ()),
        ("heldout_wiki/bpb", ("bpb",)),  # no term of the score is about pictures
        ("heldout_chat/bpb", ("bpb",)),
        ("heldout_shapes/bpb", ("bpb", "gain", "shuffled_gain")),
    ],
)
def test_a_score_that_shows_the_gains_of_its_pictures_is_taken(
    pattern: str, metrics: tuple[str, ...]
) -> None:
    assert score_problems(suite(pattern, *metrics), SOURCES) == []


@pytest.mark.parametrize(
    ("metrics", "absent"),
    [
        (("bpb",), "gain and shuffled_gain"),
        (("bpb", "gain"), "shuffled_gain"),
        (("bpb", "shuffled_gain"), "gain"),
    ],
)
def test_a_score_of_answers_about_pictures_needs_their_gains(
    metrics: tuple[str, ...], absent: str
) -> None:
    (problem,) = score_problems(suite("heldout_*/bpb", *metrics), SOURCES)
    assert problem.where == "evaluation.score.terms.one.metrics"
    assert f"pictures of heldout_shapes without {absent}, which" in problem.what
    assert problem.do == f"add {absent} to evaluation.tasks.heldout_shapes.metrics"


def test_answers_without_their_pictures_are_no_score() -> None:
    (problem,) = score_problems(suite("heldout_shapes/bpb*"), SOURCES)
    assert "which no picture moves" in problem.what
    assert problem.found == "heldout_shapes/bpb_without"


def test_an_objective_is_checked_as_a_term_of_the_score() -> None:
    (problem,) = unseen("search.objectives.x.metrics", "*/bpb", suite("*/bpb", "bpb"), SOURCES)
    assert problem.where == "search.objectives.x.metrics"


@pytest.mark.parametrize("metric", ["gain", "shuffled_gain", "bpb"])
def test_a_gain_has_no_chance_level_to_rescale_by(metric: str) -> None:
    problems = score_problems(suite(f"heldout_shapes/{metric}", rescale=True), SOURCES)
    assert [problem.where for problem in problems] == ["evaluation.score.terms.one.rescale"]


def test_exact_match_is_rescaled_by_the_most_frequent_answer() -> None:
    assert score_problems(suite("heldout_shapes/exact_match", rescale=True), SOURCES) == []
    with pytest.raises(ConfigError, match="not a chance level"):
        TaskSpec(form="picture", domain="d", source="s", metrics=("exact_match",), chance=1.0)


def test_a_vision_language_folder_is_scored_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = make_picture_tokenizer(tmp_path / "data")
    write_seeing_model(tmp_path / "model", tokenizer)
    store = tmp_path / "data/demo_vision/digits"
    write_picture_store(store, some_questions(6, 4), random_pictures(4))
    others = [f"~mixture.weights.{name}" for name in ("chat", "code", "math", "wiki")]
    words = ("method=vlm", "tokenizer=demo_vision", "+mixture.weights.digits=1.0", *others)
    plan = ("schedule.total_tokens=null", "schedule.total_samples=100", "data_dir=data")
    scored = ("evaluation=none", "evaluation.heldout=true", "warm_start.checkpoint=model")
    answer = ablate("score", "checkpoint=model", *words, *plan, *scored)
    assert answer.code == 0, answer.err
    lines = dict(line.split() for line in answer.out.splitlines() if line.startswith("heldout_"))
    assert set(lines) == {f"heldout_digits/{metric}" for metric in METRICS["picture"]}
    gain, bpb, without = (
        float(lines[f"heldout_digits/{m}"]) for m in ("gain", "bpb", "bpb_without")
    )
    assert gain == pytest.approx(without - bpb, abs=2e-4)
    assert (tmp_path / "model/scores/details/0/heldout_digits.parquet").is_file()


@pytest.mark.parametrize(
    ("kind", "heldout", "matched"),
    [("vlm", True, True), ("vlm", False, False), ("pretrain", True, False)],
)
def test_a_warm_server_imports_the_matching_of_answers_about_pictures(
    kind: str, heldout: bool, matched: bool
) -> None:
    config = {"method": {"kind": kind}, "evaluation": {"tasks": {}, "heldout": heldout}}
    names = preload_of({"model": {}, **config})
    assert ("ablations.evaluation.lighteval.answer_matching" in names) == matched
