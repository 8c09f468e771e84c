"""Answers about pictures: no candidate that does not look at them is named better."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ablations.record.run_record import RunRecord
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.render import show
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import VERDICT_FILE, Verdict, read_verdict, write_verdict

TASK = "heldout_digits"
TEXT = {"text": 0.5, "digits": 0.5}
MORE = {"text": 0.2, "digits": 0.8}
ERROR = 0.02
"""Standard error of each gain over its items."""


class PictureStudy:
    """Writes runs scored on text and on pictures; less bits per byte are better."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.rng = np.random.default_rng(5)

    def run(
        self,
        trial: str,
        seed: int,
        *,
        bpb: float,
        gain: float | None,
        shuffled: float | None,
        weights: Mapping[str, float] = TEXT,
        phase: str = "design",
        error: float | None = ERROR,
        groups: int | None = 100,
        text: float = 2.0,
        metrics: str = f"{TASK}/bpb",
        luck: float = 0.01,
        seeds: int = 3,
        shown: bool = True,
        kind: str = "pictures",
    ) -> RunRecord:
        """Write a finished run; gains have the noise of a seed, ``luck``."""
        rule = {"direction": "minimize", "terms": {"one": {"metrics": metrics}}}
        config = {
            "study": "look",
            "seed": seed,
            "tokenizer": {"name": "t"},
            "mixture": {"weights": dict(weights)},
            "source": {"digits": {"rows": {"kind": kind}}, "text": {"rows": None}},
            "evaluation": {"tasks": {}, "score": rule},
        }
        record = RunRecord.create(
            self.runs_dir, study="look", trial=trial, seed=seed, config=config
        )
        name = "natural" if phase == "baseline" else trial
        about = {"phase": phase, "name": name, "seeds": list(range(seeds)), "number": 0}
        (record.path / "trial.json").write_text(json.dumps(about))
        noise = luck * self.rng.standard_normal(4)

        def entry(value: float | None, higher: bool, own: float | None) -> dict[str, Any]:
            row = {"value": value, "stderr": own, "n": 400, "higher_is_better": higher}
            return {**row, "chance": None, **({"groups": groups} if groups else {})}

        values: dict[str, dict[str, Any]] = {"heldout_text": {}, TASK: {}}
        values["heldout_text"]["bpb"] = entry(text + noise[0], False, 0.01)
        if shown:
            known = [
                None if g is None else g + n
                for g, n in zip((gain, shuffled), noise[2:], strict=True)
            ]
            values[TASK]["gain"] = entry(known[0], True, error)
        values[TASK]["bpb"] = entry(bpb + noise[1], False, ERROR)
        if shown:
            values[TASK]["shuffled_gain"] = entry(known[1], True, error)
        flat = {f"{t}/{m}": one["value"] for t, of in values.items() for m, one in of.items()}
        matched = [value for key, value in flat.items() if _matches(key, metrics)]
        score = float(np.mean([value for value in matched if value is not None]))
        record.add_scores(
            {
                "step": 10,
                "tokens": 1000,
                "score": score,
                "direction": "minimize",
                "metrics": values,
            }
        )
        record.set_status("done")
        record.write_result(
            {
                "status": "done",
                "reason": None,
                "score": score,
                "direction": "minimize",
                "metrics": flat,
                "step": 10,
                "tokens": 1000,
                "cost": {},
                "audit_ok": True,
            }
        )
        return record

    def verdict(self, **options: Any) -> Verdict:
        return decide(gather(self.runs_dir, "look"), VerdictOptions(**options))


def _matches(key: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(key, pattern)


@pytest.fixture
def study(tmp_path: Path) -> PictureStudy:
    return PictureStudy(tmp_path / "runs")


def two_arms(
    study: PictureStudy,
    base: tuple[float | None, float | None],
    mix: tuple[float | None, float | None],
    *,
    lead: float = 0.5,
    seeds: int = 3,
    **values: Any,
) -> PictureStudy:
    """Write a baseline and a mixture that leads it, each with its gain and its gain over another picture."""
    for seed in range(seeds):
        study.run(
            *("trial-0000", seed),
            bpb=2.0,
            gain=base[0],
            shuffled=base[1],
            phase="baseline",
            seeds=seeds,
            **values,
        )
        study.run(
            *("trial-0001", seed),
            bpb=2.0 - lead,
            gain=mix[0],
            shuffled=mix[1],
            weights=MORE,
            seeds=seeds,
            **values,
        )
    return study


SEES = (0.4, 0.5)
BLIND = (0.01, 0.0)


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
    assert "no winner is named" in verdict.sentence
    assert verdict.sentence.startswith("Keep text 50%, digits 50% (natural): ") or (
        verdict.sentence.startswith("Keep digits 50%, text 50% (natural): ")
    )
    assert f"do not move the answers of trial-0001 on {TASK}/bpb (gain " in verdict.sentence
    assert "Train the vision part longer" in verdict.settle_text
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
    assert verdict.sentence.startswith("No winner: no winner is named") or (
        verdict.sentence.startswith("No winner: ")
    )
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
    assert any("add gain and shuffled_gain to the metrics" in one for one in verdict.caveats)


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
    """What the rule needs stands in the rows of the scores; these records never had details."""
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
    assert f"Pictures of {TASK} in trial-0001: not used, gain 0.0" in text
    assert f"Pictures of {TASK} in natural: used, gain 0.3" in text or (
        f"Pictures of {TASK} in natural: used, gain 0.4" in text
    )
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
