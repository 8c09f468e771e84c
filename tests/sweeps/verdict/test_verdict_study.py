"""Verdicts on study folders: the runs that count, refusals, messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError, UserError
from ablations.files import write_json
from ablations.record.run_record import list_runs
from analysis.frames import Frames
from sweeps.commands.ls import main as list_main
from sweeps.commands.verdict import main
from sweeps.study.definition import record_decision
from sweeps.study.specs import TaskQualitySpec
from sweeps.swarm.swarm_tables import read_study
from sweeps.verdict.contrasts import Selection
from sweeps.verdict.decide import VerdictOptions, decide, selection
from sweeps.verdict.study_observations import gather
from sweeps.verdict.task_quality import decide_task_quality
from sweeps.verdict.verdict_record import Verdict, read_verdict

NATURAL = {"edu": 0.7, "dclm": 0.3}
MIXED = {"edu": 0.6, "dclm": 0.4}


def judged(study: Any, **options: Any) -> Verdict:
    return decide(gather(study.runs_dir, study.study), VerdictOptions(**options))


def two_arms(study: Any, effect: Mapping[str, float] | float, seeds: int = 3) -> Any:
    for seed in range(seeds):
        asked = range(seeds)
        study.run(
            "trial-0000", seed, weights=NATURAL, phase="baseline", name="natural", asked_seeds=asked
        )
        study.run(
            "trial-0001", seed, weights=MIXED, phase="design", asked_seeds=asked, effect=effect
        )
    return study


def test_a_clear_gain_is_a_winner(make_study: Callable[..., Any]) -> None:
    verdict = judged(two_arms(make_study(), 0.2))
    assert (verdict.outcome, verdict.pick, verdict.baseline) == ("winner", "trial-0001", "natural")
    assert verdict.advantage.value == pytest.approx(0.2, abs=0.03)
    assert verdict.noise.source == "seeds"
    assert verdict.noise.item_error is not None
    assert verdict.noise.bootstrap is not None
    low, high = verdict.noise.bootstrap
    assert low < verdict.advantage.value < high
    assert verdict.noise.permutation_p == pytest.approx(0.1)
    assert verdict.candidates[0].weights == MIXED
    assert len(verdict.runs) == 6


def test_equal_candidates_are_a_tie_with_the_seeds_that_would_settle_it(
    make_study: Callable[..., Any],
) -> None:
    verdict = judged(two_arms(make_study(), 0.0), effect=0.02)
    assert verdict.outcome == "tie"
    assert set(verdict.finalists) == {"natural", "trial-0001"}
    assert [one.effect for one in verdict.settle][1] == 0.02
    assert "fresh seeds each" in verdict.settle_text


def test_a_worse_candidate_keeps_the_baseline(make_study: Callable[..., Any]) -> None:
    verdict = judged(two_arms(make_study(), -0.2))
    assert verdict.outcome == "keep-baseline"
    assert verdict.sentence.startswith("Keep edu 70%, dclm 30% (natural)")
    assert verdict.answer.startswith("Keep edu 70%, dclm 30%: no other mixture")


def test_tasks_on_which_the_pick_is_better_or_worse_are_named(
    make_study: Callable[..., Any],
) -> None:
    verdict = judged(two_arms(make_study(), {"arc": 0.2, "wiki": -0.2}))
    assert {row.task: row.effect for row in verdict.tasks} == {"arc": "gains", "wiki": "pays"}
    assert verdict.outcome == "tie"
    assert "better on arc, worse on wiki" in verdict.sentence
    assert all(row.items == 200 for row in verdict.tasks)


def test_lower_is_better_turns_the_advantage(make_study: Callable[..., Any]) -> None:
    study = make_study(tasks={"wiki": "bpb"})
    score = {"direction": "minimize", "terms": {"bpb": {"metrics": "*/bpb"}}}
    config = {"evaluation": {"tasks": {"wiki": {}}, "score": score}}
    for seed in range(3):
        for trial, weights, effect in (("base", NATURAL, 0.0), ("mix", MIXED, 0.3)):
            bpb = 2.0 - effect + 0.001 * seed
            study.run(
                trial,
                seed,
                weights=weights,
                effect=effect,
                config=config,
                result={"score": bpb, "direction": "minimize"},
            )
    verdict = judged(study, baseline="base")
    assert verdict.outcome == "winner"
    assert verdict.advantage.value == pytest.approx(0.3, abs=0.03)
    assert verdict.difference == pytest.approx(-0.3, abs=0.03)
    assert {row.name: round(row.mean, 1) for row in verdict.candidates} == {"base": 2.0, "mix": 1.7}


def test_one_seed_names_no_winner_on_item_noise_alone(make_study: Callable[..., Any]) -> None:
    study = make_study()
    study.run("base", 0, weights=NATURAL, steps=(500,))
    study.run("mix", 0, weights=MIXED, effect=0.5, steps=(500,))
    verdict = judged(study, baseline="base")
    assert verdict.outcome == "tie"
    assert verdict.noise.source == "none"
    assert verdict.noise.item_error is not None
    assert any("item noise alone names no winner" in caveat for caveat in verdict.caveats)
    assert judged(study, baseline="base", run_sd=0.01).outcome == "winner"


def test_one_seed_rests_on_checkpoints_with_a_caveat(make_study: Callable[..., Any]) -> None:
    study = make_study()
    study.run("base", 0, weights=NATURAL)
    study.run("mix", 0, weights=MIXED, effect=0.3)
    verdict = judged(study, baseline="base")
    assert (verdict.outcome, verdict.noise.source) == ("winner", "checkpoints")
    assert any("late checkpoints" in caveat for caveat in verdict.caveats)


def test_fresh_seeds_replace_the_scores_a_pick_was_chosen_by(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    study.run("trial-0000", 0, weights=NATURAL, phase="baseline", name="natural")
    for k in range(1, 5):
        lucky = 0.3 if k == 2 else 0.0
        weights = {"edu": 0.1 * k, "dclm": 1 - 0.1 * k}
        study.run(f"trial-{k:04d}", 0, weights=weights, phase="search", effect=lucky)
    for seed in (1, 2, 3):
        study.run("trial-0000", seed, weights=NATURAL, phase="baseline", name="natural")
        study.run("trial-0002", seed, weights={"edu": 0.2, "dclm": 0.8}, phase="search", effect=0.0)
    verdict = judged(study)
    assert verdict.confirmed
    assert {row.name: row.seeds for row in verdict.candidates} == {
        "natural": (0, 1, 2, 3),
        "trial-0002": (1, 2, 3),
    }
    assert verdict.outcome == "tie"
    assert abs(verdict.advantage.value) < 0.05


def test_without_fresh_seeds_the_selection_of_the_pick_is_a_caveat(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    for k in range(5):
        study.run(
            f"trial-{k:04d}", 0, weights={"edu": 0.1 * k, "dclm": 1 - 0.1 * k}, phase="design"
        )
    verdict = judged(study)
    assert not verdict.confirmed
    assert verdict.baseline is None
    assert any("too large by selection" in caveat for caveat in verdict.caveats)


def test_a_metric_of_low_quality_is_reported_and_stays_in_the_declared_score(
    make_study: Callable[..., Any],
) -> None:
    """The search optimised a score with ``flat`` in it, so the verdict judges that score."""
    study = make_study(tasks={"arc": "acc", "flat": "acc", "wiki": "bpb"})
    for seed in range(3):
        study.run("base", seed, weights=NATURAL, flat=("flat",))
        study.run("mix", seed, weights=MIXED, flat=("flat",), effect={"flat": 0.4, "wiki": -0.01})
    verdict = judged(study, baseline="base")
    assert all(row.in_score for row in verdict.tasks)
    assert (verdict.outcome, verdict.pick) == ("winner", "mix")
    warnings = {quality.task: quality.warnings for quality in verdict.signal}
    assert warnings["flat/acc"] == ("not monotone in tokens",)
    assert warnings["arc/acc"] == ("mixtures differ by less than the noise of a run",)


@pytest.mark.parametrize("effect", [0.08, 0.0, -0.08])
@pytest.mark.parametrize("flat", [(), ("wiki",), ("arc", "wiki")])
def test_the_verdict_and_the_scores_of_its_runs_have_one_sign(
    make_study: Callable[..., Any], effect: float, flat: tuple[str, ...]
) -> None:
    study = make_study(tasks={"arc": "acc", "wiki": "bpb"})
    scores: dict[str, list[float]] = {"base": [], "mix": []}
    for seed in range(3):
        for trial, weights, own in (("base", NATURAL, 0.0), ("mix", MIXED, effect)):
            record = study.run(trial, seed, weights=weights, flat=flat, effect=own)
            scores[trial].append(record.result()["score"])
    verdict = judged(study, baseline="base")
    expected = sum(scores["mix"]) / 3 - sum(scores["base"]) / 3
    assert verdict.advantage.value == pytest.approx(expected, abs=1e-12)
    assert verdict.disagreements == ()


def test_a_view_with_another_sign_is_named_in_the_first_line(
    make_study: Callable[..., Any],
) -> None:
    """Exploring was lucky: over all its runs the pick leads, over the fresh ones it does not."""
    study = make_study()
    study.run("trial-0000", 0, weights=NATURAL, phase="baseline", name="natural")
    study.run("trial-0001", 0, weights=MIXED, phase="search", effect=0.6)
    for seed in (1, 2, 3):
        study.run("trial-0000", seed, weights=NATURAL, phase="baseline", name="natural")
        study.run("trial-0001", seed, weights=MIXED, phase="search", effect=-0.05)
    verdict = judged(study)
    assert verdict.confirmed
    assert verdict.advantage.value < 0.0
    (note,) = verdict.disagreements
    assert "the mean of all its runs, search included, puts trial-0001" in note
    assert "ahead of natural instead" in note
    assert note in verdict.sentence


@pytest.mark.parametrize(
    ("effect", "starts"),
    [
        (0.2, "Use edu 60%, dclm 40%: no other mixture that was tested may be best."),
        (0.0, "Any dclm share between 30% and 40% may be best; keep edu 70%, dclm 30%."),
    ],
)
def test_the_answer_is_in_weights(
    make_study: Callable[..., Any], effect: float, starts: str
) -> None:
    verdict = judged(two_arms(make_study(), effect))
    assert verdict.answer == starts
    ruled_out = [trial for trial, may in verdict.may_be_best.items() if not may]
    assert ruled_out == (["trial-0000"] if effect else [])


def test_the_answer_names_the_ranges_of_the_largest_sources_of_many(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    few, many = {f"s{n}": 8.0 - n for n in range(7)}, {f"s{n}": 1.0 + n for n in range(7)}
    for trial, weights in (("trial-0000", few), ("trial-0001", many)):
        total = sum(weights.values())
        shares = {name: weight / total for name, weight in weights.items()}
        for seed in range(3):
            study.run(trial, seed, weights=shares, effect=0.0)
    answer = judged(study, baseline="trial-0000").answer
    assert "s0 4% to 23%, s1 " in answer
    assert ", s4 11% to 18% and the ranges of 2 more sources; keep s0 23%" in answer


def test_a_missing_score_leaves_its_run_out_by_name(make_study: Callable[..., Any]) -> None:
    study = two_arms(make_study(), 0.2)
    study.run("trial-0002", 0, weights={"edu": 0.5, "dclm": 0.5}, missing=("arc",))
    verdict = judged(study)
    assert verdict.left_out == {"trial-0002-0": "its score is missing"}
    assert "trial-0002" not in {row.name for row in verdict.candidates}


def test_failed_unfinished_and_unaudited_runs_are_left_out_with_the_reason(
    make_study: Callable[..., Any],
) -> None:
    study = two_arms(make_study(), 0.2)
    other = {"edu": 0.5, "dclm": 0.5}
    study.run("a", 0, weights=other, result={"status": "failed", "reason": "step 3: NaN"})
    study.run("b", 0, weights=other, result={"audit_ok": False})
    (study.run("c", 0, weights=other).path / "result.json").unlink()
    verdict = judged(study)
    assert verdict.left_out["a-0"] == "failed: step 3: NaN"
    assert "audit" in verdict.left_out["b-0"]
    assert verdict.left_out["c-0"].startswith("not finished")
    assert any("not finished" in caveat for caveat in verdict.caveats)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": {"name": "other"}}, "another tokenizer"),
        ({"evaluation": {"tasks": {"arc": {}}, "score": {"terms": {}}}}, "another evaluation"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_by_name(
    make_study: Callable[..., Any], change: dict[str, Any], message: str
) -> None:
    study = two_arms(make_study(), 0.0)
    study.run("odd", 0, weights=MIXED, config=change)
    with pytest.raises(UserError, match=message) as caught:
        judged(study)
    assert str(caught.value).startswith("trial-0") or "odd-0" in str(caught.value)


def test_replicates_of_another_fingerprint_are_refused(make_study: Callable[..., Any]) -> None:
    study = two_arms(make_study(), 0.0)
    study.run("trial-0001", 9, weights={"edu": 0.9, "dclm": 0.1})
    with pytest.raises(UserError, match="differ in more than the seed") as caught:
        judged(study)
    assert "mixture.weights.dclm" in str(caught.value)


def test_other_items_are_refused_by_name(make_study: Callable[..., Any]) -> None:
    study = two_arms(make_study(), 0.0)
    ids = [f"x-{i}" for i in range(study.items)]
    study.run("odd", 0, weights={"edu": 0.5, "dclm": 0.5}, item_ids=ids)
    with pytest.raises(UserError, match=r"odd-0: did not answer the same items of arc"):
        judged(study)


def test_an_item_answered_twice_is_refused(make_study: Callable[..., Any]) -> None:
    study = make_study()
    ids = ["same", "same", *(f"x-{i}" for i in range(study.items - 2))]
    study.run("base", 0, weights=NATURAL, item_ids=ids)
    study.run("mix", 0, weights=MIXED, item_ids=ids)
    with pytest.raises(UserError, match="twice"):
        judged(study)


def test_without_details_item_noise_is_not_counted_with_a_caveat(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    for seed in range(3):
        study.run("base", seed, weights=NATURAL, details=False)
        study.run("mix", seed, weights=MIXED, details=False)
    verdict = judged(study, baseline="base")
    assert verdict.noise.item_error is None
    assert any("item noise is not counted" in caveat for caveat in verdict.caveats)


def test_replicates_are_found_though_their_trials_are_named_apart(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    for seed in range(2):
        study.run(f"a{seed}", seed, weights=NATURAL)
        study.run(f"b{seed}", seed, weights=MIXED)
    assert [row.seeds for row in judged(study).candidates] == [(0, 1), (0, 1)]


def test_identical_replicates_are_no_measure_of_noise(make_study: Callable[..., Any]) -> None:
    study = make_study()
    for seed in range(2):
        study.run("base", seed, weights=NATURAL, steps=(500,), result={"score": 1.0})
        study.run("mix", seed, weights=MIXED, steps=(500,), result={"score": 2.0})
    verdict = judged(study, baseline="base")
    assert verdict.outcome == "tie"
    assert any("identical to the last bit" in caveat for caveat in verdict.caveats)


def test_a_second_proxy_size_shows_transfer_and_stays_out_of_the_means(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    large = {"model": {"hidden_size": 128, "num_hidden_layers": 4}}
    for k in range(5):
        weights = {"edu": 0.1 * k, "dclm": 1 - 0.1 * k}
        study.run(f"s{k}", 0, weights=weights, effect=0.1 * k)
        study.run(f"l{k}", 0, weights=weights, effect=0.1 * k + 0.3, config=large)
    verdict = judged(study)
    assert {row.name for row in verdict.candidates} == {f"l{k}" for k in range(5)}
    (found,) = verdict.transfer
    assert (found.mixtures, found.rank_correlation, found.decision_accuracy) == (5, 1.0, 1.0)
    assert "width 64" in found.small
    assert "another proxy" in verdict.left_out["s0-0"]


def test_models_alone_under_test_are_compared_with_each_other(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    for seed in range(2):
        study.run("small", seed, weights=MIXED)
        model = {"model": {"hidden_size": 128, "num_hidden_layers": 4}}
        study.run("large", seed, weights=MIXED, effect=0.3, config=model)
    verdict = judged(study, baseline="small")
    assert (verdict.pick, verdict.transfer) == ("large", ())


def define(study: Any, **keys: Any) -> None:
    """Write the study.json that a search would have left."""
    definition = {
        "study": study.study,
        "question": "",
        "space": None,
        "strategy": {"baseline": "natural"},
        "objectives": {"score": {"metrics": ["score"], "direction": "maximize"}},
        "constraints": {},
        "seeds": [],
        "config": {},
        "arguments": [],
        **keys,
    }
    write_json(study.runs_dir / study.study / "study.json", definition)


def test_the_study_names_its_baseline(make_study: Callable[..., Any]) -> None:
    study = make_study()
    for seed in (0, 1):
        for k, name in enumerate(("uniform", "natural")):
            weights = {"edu": 0.5 + 0.2 * k, "dclm": 0.5 - 0.2 * k}
            study.run(
                f"trial-000{k}",
                seed,
                weights=weights,
                phase="baseline",
                name=name,
                asked_seeds=(0, 1),
            )
    assert judged(study).baseline == "uniform"
    define(study)
    assert judged(study).baseline == "natural"


def test_an_objective_of_the_study_is_judged_in_its_own_direction(
    make_study: Callable[..., Any],
) -> None:
    study = two_arms(make_study(), {"arc": -0.2, "wiki": 0.2})
    define(
        study,
        objectives={
            "english": {"metrics": ["wiki/bpb"], "direction": "minimize"},
            "questions": {"metrics": ["arc/acc"], "direction": "maximize"},
        },
    )
    first = judged(study)
    assert (first.outcome, first.direction, first.score) == ("winner", "minimize", "wiki/bpb")
    assert [row.task for row in first.tasks if row.in_score] == ["wiki"]
    assert first.objective == "english"
    second = decide(gather(study.runs_dir, study.study, "questions"))
    assert second.outcome == "keep-baseline"
    with pytest.raises(ConfigError, match="did you mean 'english'"):
        gather(study.runs_dir, study.study, "englsh")


@pytest.mark.parametrize(
    "constraint",
    [
        {"metrics": ["wiki/bpb"], "direction": "minimize", "margin": 0.1},
        {"metrics": ["wiki/bpb"], "direction": "minimize", "bound": 2.1},
    ],
    ids=["margin", "bound"],
)
def test_what_breaks_a_constraint_cannot_win(
    make_study: Callable[..., Any], constraint: dict[str, Any]
) -> None:
    study = two_arms(make_study(), {"arc": 0.9, "wiki": -0.3})
    for seed in range(3):
        study.run("trial-0002", seed, weights={"edu": 0.5, "dclm": 0.5}, effect=0.1)
    define(study, constraints={"english": constraint})
    verdict = judged(study)
    assert verdict.pick == "trial-0002"
    assert "breaks english" in verdict.left_out["trial-0001-0"]
    with pytest.raises(ConfigError, match="breaks english"):
        judged(study, pick="trial-0001")


def test_a_score_made_of_other_metrics_is_refused(make_study: Callable[..., Any]) -> None:
    study = two_arms(make_study(), 0.0)
    odd = {"wiki/bpb": 2.0, "arc/acc": 0.6, "code/bpb": 1.0}
    study.run("odd", 0, weights={"edu": 0.5, "dclm": 0.5}, result={"metrics": odd})
    with pytest.raises(UserError, match=r"odd-0: its score is made of other metrics.*code/bpb"):
        judged(study)


def test_the_command_writes_prints_and_a_tie_is_no_failure(
    make_study: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    study = two_arms(make_study(), 0.0)
    config = {"study": study.study, "runs_dir": str(study.runs_dir), "baseline": "natural"}
    assert main(config) == 0
    assert capsys.readouterr().out.startswith("Tie:")
    folder = study.runs_dir / study.study
    stored = json.loads((folder / "verdict.json").read_text())
    assert stored["outcome"] == "tie"
    assert read_verdict(folder).sentence == stored["sentence"]
    assert [f.name for f in folder.iterdir() if f.name.endswith(".tmp")] == []


def test_the_command_does_not_write_with_write_false(make_study: Callable[..., Any]) -> None:
    study = two_arms(make_study(), 0.0)
    main({"study": study.study, "runs_dir": str(study.runs_dir), "write": False})
    assert not (study.runs_dir / study.study / "verdict.json").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "name a study, or a published table"),
        ({"study": "a", "table": "b"}, "name a study, or a published table"),
        ({"study": "weeb"}, "did you mean 'web'"),
        ({"study": "web", "alpha": 3.0}, "alpha: out of range"),
        ({"study": "web", "aplha": 0.1}, "did you mean 'alpha'"),
    ],
)
def test_wrong_options_are_refused_with_the_reason(
    make_study: Callable[..., Any], config: dict[str, Any], message: str
) -> None:
    study = make_study()
    study.run("base", 0)
    with pytest.raises(ConfigError, match=message):
        main({"runs_dir": str(study.runs_dir), **config})


def test_one_candidate_is_not_a_study(make_study: Callable[..., Any], tmp_path: Path) -> None:
    study = make_study()
    study.run("base", 0)
    with pytest.raises(UserError, match="at least two candidates"):
        judged(study)


def test_task_quality_decides_from_the_planned_runs_what_leaves_the_score(
    make_study: Callable[..., Any],
) -> None:
    study = make_study(tasks={"easy": "acc", "dice": "acc", "heldout_web": "bpb"})
    config = {
        "evaluation": {
            "tasks": {},
            "score": {
                "direction": "maximize",
                "terms": {
                    "text": {"metrics": "heldout_*/bpb"},
                    "questions": {"metrics": "*/acc", "weight": 2.0},
                },
            },
        }
    }
    for k in range(6):
        effect = {"easy": 0.1 * k, "dice": 0.0, "heldout_web": 0.0}
        study.run(
            f"trial-{k:04d}",
            0,
            weights={"edu": 0.1 * k, "dclm": 1.0 - 0.1 * k},
            phase="baseline" if k == 0 else "design",
            name="natural" if k == 0 else "",
            effect=effect,
            config=config,
            flat=("dice",),
        )
    # Only planned trials decide, not the proposed one.
    study.run("trial-0006", 0, weights=MIXED, phase="search", effect={"dice": 3.0}, config=config)
    decision = decide_task_quality(study.runs_dir, study.study, TaskQualitySpec(apply=True))
    assert set(decision["left_out"]) == {"dice/acc"}
    assert "not monotone" in decision["left_out"]["dice/acc"]
    assert decision["weights"] == {
        "heldout_web/bpb": pytest.approx(-1 / 3),
        "easy/acc": pytest.approx(2 / 3),
    }
    assert decision["runs"] == [f"trial-{k:04d}-0" for k in range(6)]


@pytest.mark.parametrize(
    ("pattern", "left_out"), [("*/acc", ["dice/acc", "easy/acc"]), ("dice/acc", [])]
)
def test_a_metric_that_the_user_named_stays_in_the_score(
    make_study: Callable[..., Any], pattern: str, left_out: list[str]
) -> None:
    """With the pattern both leave; held-out text stays, because a score needs a metric."""
    study = make_study(tasks={"easy": "acc", "dice": "acc", "heldout_web": "bpb"})
    terms = {"text": {"metrics": "heldout_*/bpb"}, "own": {"metrics": pattern}}
    config = {"evaluation": {"tasks": {}, "score": {"direction": "maximize", "terms": terms}}}
    for k in range(4):
        study.run(
            f"trial-{k:04d}",
            0,
            weights={"edu": 0.1 * k, "dclm": 1.0 - 0.1 * k},
            phase="design",
            config=config,
            flat=("dice", "easy"),
        )
    decision = decide_task_quality(study.runs_dir, study.study, TaskQualitySpec(apply=True))
    assert sorted(decision["left_out"]) == left_out


SHARED = Path(__file__).resolve().parents[4] / "shared" / "cases" / "studies"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the development data is not here")
def test_the_recorded_study_is_judged_by_the_score_that_it_searched() -> None:
    verdict = decide(gather(SHARED, "mine"))
    assert (verdict.outcome, verdict.pick, verdict.baseline) == ("winner", "trial-0010", "natural")
    assert verdict.advantage.value == pytest.approx(0.39, abs=0.01)
    assert verdict.advantage.p_corrected == pytest.approx(0.020, abs=0.004)
    assert verdict.disagreements == ()


@pytest.mark.parametrize("baseline", ["natural", "trial-0001"])
def test_a_baseline_beyond_a_bound_is_still_the_reference(
    make_study: Callable[..., Any], baseline: str
) -> None:
    """The one that the study names, and one that breaks the bound and is asked for by hand."""
    study = two_arms(make_study(), {"arc": 0.1, "wiki": 0.0})
    for seed in range(3):
        study.run("trial-0002", seed, weights={"edu": 0.5, "dclm": 0.5}, effect=0.5)
    bound = {"metrics": ["wiki/bpb"], "direction": "minimize", "bound": 1.8}
    define(study, constraints={"english": bound})
    verdict = judged(study, baseline=baseline)
    assert (verdict.baseline, verdict.reference, verdict.pick) == (baseline, baseline, "trial-0002")
    assert verdict.outcome == "winner"
    assert not any(run.startswith(baseline) for run in verdict.left_out)


def test_one_confirmed_candidate_without_a_baseline_confirms_nothing(
    make_study: Callable[..., Any],
) -> None:
    study = make_study()
    study.run("a", 0, weights=NATURAL, phase="search")
    study.run("b", 0, weights=MIXED, phase="search")
    for seed in (1, 2):
        study.run("b", seed, weights=MIXED, phase="search")
    verdict = judged(study)
    assert not verdict.confirmed
    assert {row.name: row.seeds for row in verdict.candidates} == {"a": (0,), "b": (0, 1, 2)}


@pytest.mark.parametrize(("seeds", "p"), [(2, None), (3, 0.1)])
def test_a_permutation_test_that_cannot_show_anything_is_not_given(
    make_study: Callable[..., Any], seeds: int, p: float | None
) -> None:
    found = judged(two_arms(make_study(), 0.2, seeds)).noise.permutation_p
    assert found == (None if p is None else pytest.approx(p))


def test_items_of_one_passage_widen_the_verdict_and_older_details_stand_alone(
    make_study: Callable[..., Any],
) -> None:
    def errors(groups: Sequence[str] | None, study: str) -> list[float]:
        made = make_study(study=study)
        made.groups = groups
        verdict = judged(two_arms(made, 0.2))
        assert verdict.noise.item_error is not None
        found = [row.item_error for row in verdict.tasks if row.item_error is not None]
        return [verdict.noise.item_error, *found]

    alone = errors(None, "alone")
    own = errors([str(n) for n in range(200)], "own")
    halves = errors([str(n // 100) for n in range(200)], "halves")
    assert own == pytest.approx(alone)
    assert halves != pytest.approx(alone, rel=0.05)


def test_a_confirmed_pick_counts_the_searched_candidates(make_study: Callable[..., Any]) -> None:
    study = make_study()
    study.run("trial-0000", 0, weights=NATURAL, phase="baseline", name="natural")
    for k in range(1, 9):
        study.run(
            f"trial-{k:04d}", 0, weights={"edu": 0.1 * k, "dclm": 1 - 0.1 * k}, phase="search"
        )
    for seed in (1, 2, 3):
        study.run("trial-0000", seed, weights=NATURAL, phase="baseline", name="natural")
        study.run("trial-0002", seed, weights={"edu": 0.2, "dclm": 0.8}, phase="search")
    observed = gather(study.runs_dir, study.study)
    counted = observed.keep([run.confirms or run.candidate == 0 for run in observed.runs])
    chosen = selection(observed, counted, "natural")
    assert chosen == Selection(searched=8, seeds=1.0, unchosen=("natural",))
    everyone = observed.keep([run.candidate in (0, 2) for run in observed.runs])
    assert selection(everyone, counted, "natural") is None


def test_each_reader_of_the_records_computes_the_decided_score(
    make_study: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The verdict, ``fit``, ``ls`` and the report's frames, on a study that left a metric out."""
    study = two_arms(make_study(), {"arc": 0.2, "wiki": -0.5})
    folder = study.runs_dir / study.study
    define(study, objectives={"score": {"metrics": ["score"], "direction": "maximize"}})
    assert judged(study).advantage.value < 0.0
    record_decision(
        folder,
        {"left_out": {"wiki/bpb": "noise"}, "weights": {"arc/acc": 1.0}, "constant": 0.0},
    )
    verdict = judged(study)
    assert verdict.advantage.value == pytest.approx(0.2, abs=0.03)
    assert verdict.score == "(*/acc + */bpb) / 2, without wiki/bpb"
    assert {row.task: row.in_score for row in verdict.tasks} == {"arc": True, "wiki": False}
    assert any("search.task_quality" in caveat for caveat in verdict.caveats)

    arc = {
        record.path.name: record.result()["metrics"]["arc/acc"]
        for record in list_runs(study.runs_dir, study.study)
    }
    swarm = read_study(study.runs_dir, study.study)
    column = swarm.metrics.index("score")
    assert dict(zip(swarm.runs, swarm.values[:, column], strict=True)) == pytest.approx(arc)
    frames = Frames.read(study.runs_dir, study.study)
    assert dict(zip(frames.runs["run"], frames.runs["score"], strict=True)) == pytest.approx(arc)
    last = frames.checkpoints[frames.checkpoints["step"] == 500]
    assert dict(zip(last["run"], last["score"], strict=True)) == pytest.approx(arc)
    assert list_main({"runs_dir": str(study.runs_dir), "study": study.study}) == 0
    shown = capsys.readouterr().out
    assert all(f"{value:.4f}" in shown for value in arc.values())


def test_mixtures_without_fresh_seeds_are_ruled_out_by_their_own_runs_alone(
    make_study: Callable[..., Any],
) -> None:
    """Two finalists are confirmed; of the rest, the far-off mixture is out and the near one is not."""
    study = make_study()
    effects = {0: 0.0, 1: -0.6, 2: 0.28, 3: 0.3, 4: 0.3}
    for k, effect in effects.items():
        named = {"phase": "baseline", "name": "today"} if k == 0 else {"phase": "design"}
        for seed in (0, 1, 2) if k in (0, 3, 4) else (0,):
            weights = {"edu": 0.1 + 0.2 * k, "dclm": 0.9 - 0.2 * k}
            study.run(f"trial-{k:04d}", seed, weights=weights, effect=effect, **named)
    verdict = judged(study)
    assert verdict.confirmed
    assert verdict.outcome == "winner"
    assert verdict.answer.startswith("Any dclm share between 10% and 50% may be best; use edu ")
