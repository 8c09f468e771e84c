"""Answers about pictures: no candidate that does not look at them is named better."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.render import show
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import VERDICT_FILE, read_verdict, write_verdict
from tests.oracles.picture_studies import (
    BLIND,
    ERROR,
    MORE,
    SEES,
    TASK,
    TEXT,
    PictureStudy,
    two_arms,
)


@pytest.fixture
def study(tmp_path: Path) -> PictureStudy:
    return PictureStudy(tmp_path / "runs")


def test_a_candidate_that_looks_wins(study: PictureStudy) -> None:
    verdict = two_arms(study, BLIND, SEES).verdict()
    assert (verdict.outcome, verdict.pick) == ("winner", "trial-0001")
    assert verdict.blind == ()
    rows = {row.candidate: row for row in verdict.pictures}
    own = rows["trial-0001"]
    assert own.gain == pytest.approx(0.4, abs=0.02)
    assert own.gain_low is not None
    assert 0.3 < own.gain_low < (own.gain or 0.0)
    assert (own.used, own.in_score, own.noise, own.runs) == (True, True, "seeds and items", 3)
    assert not rows["natural"].used
    assert {row.effect for row in verdict.tasks if row.task == TASK} == {"gains"}


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        (BLIND, "the lead is one of language"),
        (
            (0.4, 0.0),
            "a prompt without a picture has another form, and another picture moves nothing",
        ),
        ((0.0, 0.4), "the picture adds nothing"),
        ((-0.3, -0.2), "pictures make answers worse"),
        ((None, None), "nothing was measured"),
        ((0.4, None), "the control was not measured"),
    ],
)
def test_no_winner_is_named_on_a_metric_that_the_picture_does_not_move(
    study: PictureStudy, mix: tuple[float | None, float | None], reason: str
) -> None:
    verdict = two_arms(study, SEES, mix).verdict()
    assert verdict.advantage.value == pytest.approx(0.5, abs=0.03)
    assert verdict.advantage.p_corrected < 0.05
    assert verdict.outcome == "keep-baseline", reason
    assert [row.task for row in verdict.blind] == [TASK]
    assert verdict.sentence.startswith(
        "Keep text 50%, digits 50% (natural): no winner is named, because pictures do not move the answers "
        f"of trial-0001 beyond their noise on {TASK}/bpb (gain in bits per byte "
    )
    advice = "Add gain and shuffled_gain" if None in mix else "Train the vision part longer"
    assert verdict.settle_text.startswith(advice)
    assert "better on" not in verdict.sentence
    assert {row.effect for row in verdict.tasks if row.task == TASK} == {"blind"}
    # Nothing is ruled out by it either.
    assert set(verdict.finalists) == {"natural", "trial-0001"}
    assert all(verdict.may_be_best.values())
    assert "may be best; keep" in verdict.answer


def test_without_a_baseline_a_blind_lead_is_a_tie(study: PictureStudy) -> None:
    for seed in range(3):
        for trial, bpb, weights in (("a", 2.0, TEXT), ("b", 1.5, MORE)):
            study.run(trial, seed, bpb=bpb, gain=0.0, shuffled=0.0, weights=weights)
    verdict = study.verdict()
    assert (verdict.outcome, verdict.tie_kind, verdict.baseline) == ("tie", "undecided", None)
    assert verdict.sentence.startswith("No winner is named, because pictures do not move")
    assert len(verdict.finalists) == 2


def test_a_seeing_baseline_is_kept_and_named_better(study: PictureStudy) -> None:
    verdict = two_arms(study, SEES, BLIND, lead=-0.5).verdict()
    assert verdict.outcome == "keep-baseline"
    assert {row.effect for row in verdict.tasks if row.task == TASK} == {"pays"}


def test_a_blind_baseline_is_not_named_better_than_a_blind_pick(study: PictureStudy) -> None:
    verdict = two_arms(study, BLIND, BLIND, lead=-0.5).verdict()
    assert verdict.outcome == "keep-baseline"
    assert {row.effect for row in verdict.tasks if row.task == TASK} == {"blind"}
    assert "worse on" not in verdict.sentence


def test_a_gain_within_the_noise_of_its_items_is_none(study: PictureStudy) -> None:
    assert two_arms(study, SEES, (0.1, 0.1), error=0.2).verdict().blind


def test_a_gain_within_the_noise_of_its_seeds_is_none(study: PictureStudy) -> None:
    verdict = two_arms(study, SEES, (0.2, 0.2), error=0.001, luck=0.3, lead=4.0).verdict()
    (row,) = verdict.blind
    assert row.noise == "seeds and items"
    assert verdict.outcome == "keep-baseline"


def test_questions_of_few_pictures_show_less_than_of_many(study: PictureStudy) -> None:
    """Two pictures give one degree of freedom, whatever the number of questions about them."""
    few = two_arms(study, SEES, (0.2, 0.2), groups=2, luck=0.0001).verdict()
    many = two_arms(
        PictureStudy(study.runs_dir.parent / "many"), SEES, (0.2, 0.2), luck=0.0001
    ).verdict()
    assert few.blind
    assert not many.blind


@pytest.mark.parametrize("error", [None, 0.02])
def test_without_replicates_the_items_decide(study: PictureStudy, error: float | None) -> None:
    verdict = two_arms(study, SEES, SEES, seeds=1, error=error).verdict(run_sd=0.01)
    row = next(row for row in verdict.pictures if row.candidate == "trial-0001")
    if error is None:
        assert (row.noise, row.gain_low, row.used) == ("unknown", None, False)
        assert verdict.outcome == "keep-baseline"
    else:
        assert (row.noise, row.used) == ("items", True)
        assert verdict.outcome == "winner"
        assert any("noise of the items alone" in caveat for caveat in verdict.caveats)


def test_the_bound_is_corrected_for_the_candidates_that_the_pick_was_chosen_from(
    study: PictureStudy,
) -> None:
    def low_of(candidates: int) -> float:
        one = PictureStudy(study.runs_dir.parent / str(candidates))
        one.run("trial-0000", 0, bpb=2.0, gain=0.4, shuffled=0.4, phase="baseline", luck=0.0)
        for number in range(1, candidates + 1):
            weights = {"text": 0.05 * number, "digits": 1 - 0.05 * number}
            trial = f"trial-{number:04d}"
            one.run(trial, 0, bpb=1.0, gain=0.4, shuffled=0.4, weights=weights, luck=0.0)
        row = next(row for row in one.verdict(run_sd=0.01).pictures if row.candidate != "natural")
        assert row.gain_low is not None
        return row.gain_low

    from scipy import stats

    for candidates in (1, 5):
        expected = 0.4 - float(stats.t.isf(0.025 / candidates, 99)) * ERROR
        assert low_of(candidates) == pytest.approx(expected, abs=1e-9)


def test_only_tasks_of_the_score_keep_a_winner_from_being_named(study: PictureStudy) -> None:
    """Held-out text decides here, and pictures that are not used are reported."""
    for seed in range(3):
        for trial, text, weights, phase in (
            ("trial-0000", 2.0, TEXT, "baseline"),
            ("trial-0001", 1.5, MORE, "design"),
        ):
            study.run(
                trial,
                seed,
                bpb=2.0,
                gain=0.0,
                shuffled=0.0,
                text=text,
                weights=weights,
                phase=phase,
                metrics="heldout_text/bpb",
            )
    verdict = study.verdict()
    assert verdict.outcome == "winner"
    assert verdict.blind == ()
    assert [(row.used, row.in_score) for row in verdict.pictures] == [(False, False)] * 2


def test_a_score_of_text_and_pictures_needs_the_pictures_too(study: PictureStudy) -> None:
    verdict = two_arms(study, SEES, BLIND, metrics="heldout_*/bpb").verdict()
    assert verdict.outcome == "keep-baseline"
    assert [row.task for row in verdict.blind] == [TASK]


def test_a_task_about_pictures_is_known_by_its_source_where_no_gain_was_scored(
    study: PictureStudy,
) -> None:
    verdict = two_arms(study, SEES, SEES, shown=False).verdict()
    assert verdict.outcome == "keep-baseline"
    (row,) = verdict.blind
    assert (row.gain, row.noise) == (None, "unknown")
    assert verdict.settle_text.startswith(f"Add gain and shuffled_gain to the metrics of {TASK}")


def test_rows_of_text_have_no_pictures_to_use(study: PictureStudy) -> None:
    verdict = two_arms(study, SEES, SEES, shown=False, kind="conversations").verdict()
    assert verdict.outcome == "winner"
    assert verdict.pictures == ()


def test_confirmed_candidates_are_judged_by_their_fresh_seeds(study: PictureStudy) -> None:
    """Exploring was lucky: the pick looked on its first seed, and not on the fresh ones."""
    study.run("trial-0000", 0, bpb=2.0, gain=0.0, shuffled=0.0, phase="baseline", seeds=1)
    for number in range(1, 4):
        weights = {"text": 0.1 * number, "digits": 1 - 0.1 * number}
        trial = f"trial-{number:04d}"
        study.run(trial, 0, bpb=1.0, gain=0.9, shuffled=0.9, weights=weights, seeds=1)
    for seed in (1, 2, 3):
        study.run("trial-0000", seed, bpb=2.0, gain=0.0, shuffled=0.0, phase="baseline", seeds=1)
        weights = {"text": 0.1 * 2, "digits": 1 - 0.1 * 2}
        study.run("trial-0002", seed, bpb=1.0, gain=0.0, shuffled=0.0, weights=weights, seeds=1)
    verdict = study.verdict()
    assert verdict.confirmed
    assert verdict.outcome == "keep-baseline"
    assert [row.runs for row in verdict.blind] == [3]


def test_deleted_details_change_nothing(study: PictureStudy) -> None:
    """Judge by the rows of the scores alone: these records never had details."""
    records = two_arms(study, BLIND, SEES)
    for run in (study.runs_dir / "look").iterdir():
        shutil.rmtree(run / "details", ignore_errors=True)
    assert records.verdict().outcome == "winner"


def test_the_record_holds_the_pictures_and_reads_them_again(study: PictureStudy) -> None:
    verdict = two_arms(study, SEES, BLIND).verdict()
    folder = study.runs_dir / "look"
    write_verdict(folder, verdict)
    again = read_verdict(folder)
    assert again.pictures == verdict.pictures
    assert [row.task for row in again.blind] == [TASK]
    assert again.outcome == "keep-baseline"


def test_a_study_without_pictures_has_the_record_of_before(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    for seed in range(2):
        for trial in ("base", "mix"):
            study.run(trial, seed, weights={"edu": 0.5 if trial == "base" else 0.6, "dclm": 0.4})
    verdict = decide(gather(study.runs_dir, study.study), VerdictOptions(baseline="base"))
    assert verdict.pictures == ()
    assert "picture" not in verdict.rule
    folder = study.runs_dir / study.study
    write_verdict(folder, verdict)
    assert "pictures" not in json.loads((folder / VERDICT_FILE).read_text())
    assert read_verdict(folder).pictures == ()


def test_the_terminal_shows_the_gains(study: PictureStudy) -> None:
    verdict = two_arms(study, SEES, BLIND).verdict()
    console = Console(width=400, file=io.StringIO(), color_system=None)
    show(verdict, console, verbose=True)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"Pictures of {TASK} in trial-0001: not used, gain in bits per byte 0.0" in text
    assert f"Pictures of {TASK} in natural: used, gain in bits per byte 0." in text
    assert f"A lead without use of the picture on: {TASK}" in text
    assert "picture not used" in text
    assert "On answers about pictures no winner is named unless" in text


def test_false_winners_are_rare_where_no_candidate_looks(tmp_path: Path) -> None:
    """200 studies of blind candidates with a real lead in language; alpha / 2 is 2.5%."""
    from sweeps.verdict.pictures import picture_use

    study = two_arms(PictureStudy(tmp_path), (0.0, 0.0), (0.0, 0.0))
    observed = gather(study.runs_dir, "look")
    rng, named = np.random.default_rng(1), 0
    for _ in range(200):
        items = ERROR * rng.standard_normal(2)
        pictures = tuple(
            replace(
                one,
                data=replace(
                    one.data,
                    values=common + 0.02 * rng.standard_normal(len(observed.runs)),
                    trajectories=(),
                ),
            )
            for one, common in zip(observed.pictures, items, strict=True)
        )
        use = picture_use(
            replace(observed, pictures=pictures),
            {f"{TASK}/bpb": 1.0},
            baseline="natural",
            alpha=0.05,
            last=5,
        )
        named += not use.blind("trial-0001")
    assert named <= 10  # gain alone: 5 expected; with its control fewer
