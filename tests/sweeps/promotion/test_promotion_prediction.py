"""The sealed prediction: how a difference is carried to the target, and that its intervals hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ablations.config.schema import validate
from sweeps.promotion.prediction import _Curse, predict
from sweeps.promotion.promote import _full_values, promote
from sweeps.promotion.promotion_inputs import Evidence, choose, gather, picked_runs
from sweeps.promotion.scale_transfer import Factor, Gap, Measured, carry, transfer_factor
from sweeps.promotion.sealed_prediction import digest, read_prediction
from sweeps.promotion.slopes import checkpoint_slope, other_scales, slope_of
from sweeps.promotion.specs import PromotionSpec
from sweeps.verdict.verdict_record import TaskRow, read_verdict
from tests.pinned import require_pinned
from tests.sweeps.promotion.conftest import FULL, GOOD, PLAIN, TASKS, MadeStudy, composed

FAR = Gap(tokens=10.0, parameters=4.0)


def slope(value: float, error: float = 0.01, tokens: float = 4.0) -> Measured:
    return Measured(where="here", tokens=tokens, parameters=1.0, slope=value, error=error)


# ------------------------------------------------------------------------------------- the factor


def test_at_the_proxies_own_scale_the_factor_is_one() -> None:
    found = transfer_factor(Gap(tokens=1.0, parameters=1.0))
    assert found.mean == 1.0
    assert 0.05 < found.sd < 0.2


def test_differences_shrink_with_scale_and_are_less_sure_the_farther_it_is() -> None:
    near, far = (transfer_factor(Gap(tokens=t, parameters=2.0)) for t in (2.0, 30.0))
    assert far.mean < near.mean < 1.0
    assert far.sd / far.mean > near.sd / near.mean


def test_what_a_study_measured_corrects_the_prior() -> None:
    prior = transfer_factor(FAR)
    grows, falls = (transfer_factor(FAR, [slope(value)]) for value in (1.4, 0.4))
    assert falls.mean < prior.mean < grows.mean
    for found in (grows, falls):
        assert found.sd / found.mean < prior.sd / prior.mean
    assert (transfer_factor(FAR, [slope(1.4), slope(1.4)])).mean > grows.mean


def test_noisy_slopes_and_short_distances_teach_less() -> None:
    prior = transfer_factor(FAR).mean
    sure = transfer_factor(FAR, [slope(1.4)]).mean
    noisy = transfer_factor(FAR, [slope(1.4, error=3.0)]).mean
    near = transfer_factor(FAR, [slope(1.1, tokens=4.0**0.28)]).mean  # about the same exponent
    assert prior < noisy < sure
    assert prior < near < sure
    assert transfer_factor(FAR, [slope(1.4, error=math.inf)]).mean == pytest.approx(prior)


def test_a_slope_that_turns_over_leaves_next_to_nothing() -> None:
    prior, found = transfer_factor(FAR), transfer_factor(FAR, [slope(-0.5)])
    assert 0.0 < found.mean < 0.6 * prior.mean


# ------------------------------------------------------------------------------------ the interval


def carried(**changes: Any) -> Any:
    known = {
        "difference": 0.4,
        "error": 0.0,
        "df": math.inf,
        "spread": 0.0,
        "run_sd": 0.0,
        "run_df": math.inf,
        "factor": Factor(mean=0.5, sd=0.0),
        "gap": Gap(tokens=1.0, parameters=1.0),
    }
    known.update(changes)
    return carry(known.pop("difference"), **known)


def test_without_any_doubt_the_interval_is_a_point() -> None:
    found = carried()
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))


def test_the_share_of_the_searched_mixture_dilutes_a_difference() -> None:
    found = carried(gap=Gap(tokens=1.0, parameters=1.0, share=0.8, share_sd=0.1))
    assert found.mean == pytest.approx(0.16)
    assert found.sd == pytest.approx(0.4 * 0.5 * 0.1)  # nobody knows by how much exactly


@pytest.mark.parametrize(
    ("changes", "sd"),
    [
        ({"run_sd": 0.1}, 0.1 * math.sqrt(2.0)),  # two single full runs
        ({"error": 0.1}, 0.5 * 0.1),
        ({"factor": Factor(mean=0.5, sd=0.1)}, 0.1 * 0.4),
    ],
    ids=["noise of the full runs", "noise of the proxies", "the factor"],
)
def test_every_doubt_widens_the_interval(changes: dict[str, Any], sd: float) -> None:
    found = carried(**changes)
    assert found.sd == pytest.approx(sd)
    assert found.high - found.mean == pytest.approx(stats.norm.ppf(0.95) * sd)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_noise_known_from_few_runs_widens_the_interval() -> None:
    found = carried(run_sd=0.1, run_df=2.0)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.95, 2.0) * found.sd)


@pytest.mark.parametrize("runs", [3, 8], ids=["few seeds", "many seeds"])
def test_nine_of_ten_intervals_hold_where_the_world_is_as_assumed(runs: int) -> None:
    rng = np.random.default_rng(5)
    gap, spread, run_sd, truth = Gap(tokens=4.0, parameters=4.0), 0.3, 0.1, 0.5
    factor = transfer_factor(gap)
    own = 0.12 + 0.06 * math.log(4.0)  # docs/decisions/promotion.md
    held = 0
    for _ in range(3000):
        seen_sd = run_sd * math.sqrt(rng.chisquare(2 * runs - 2) / (2 * runs - 2))
        seen = truth + run_sd * math.sqrt(2.0 / runs) * rng.standard_normal()
        found = carry(
            seen,
            error=seen_sd * math.sqrt(2.0 / runs),
            df=2 * runs - 2,
            spread=spread,
            run_sd=seen_sd,
            run_df=2 * runs - 2,
            factor=factor,
            gap=gap,
        )
        scale = factor.mean + factor.sd * rng.standard_normal()
        real = scale * truth + factor.mean * own * spread * rng.standard_normal()
        real += run_sd * math.sqrt(2.0) * rng.standard_normal()
        held += found.low <= real <= found.high
    assert 0.87 <= held / 3000 <= 0.95


# ---------------------------------------------------------------------------------- from a study


def evidence_of(made: MadeStudy, *overrides: str) -> tuple[Evidence, PromotionSpec]:
    """The evidence for promoting a study's winner."""
    from ablations.config.schema import load

    plain = composed(*FULL, *overrides, config="promote")
    plain.pop("compare")
    spec = validate(PromotionSpec, plain["promotion"])
    verdict = read_verdict(made.runs_dir / made.study)
    candidate = choose(verdict, None)
    run = picked_runs(Path("runs"), made.study, candidate)[0]
    config = load(_full_values(plain, spec, run))
    return gather(spec, config, study=made.study, verdict=verdict, candidate=candidate), spec


def predicted(made: MadeStudy, *overrides: str, **changes: Any) -> Any:
    evidence, spec = evidence_of(made, *overrides)
    evidence = replace(evidence, **changes)
    row = next(r for r in evidence.verdict.candidates if r.name == evidence.verdict.baseline)
    return predict(evidence, spec.full, row, picked_runs(Path("runs"), made.study, row))


def test_the_prediction_stands_in_the_record_before_anything_is_trained(study: MadeStudy) -> None:
    values = composed(*FULL, config="promote")
    values.pop("compare")
    folder = promote(values).folder
    stored = json.loads((folder / "promotion.json").read_text())["prediction"]
    found = read_prediction(stored)
    assert found.plain() == read_prediction(found.plain()).plain()
    assert {row.task for row in found.tasks} == set(TASKS)
    verdict = read_verdict(study.runs_dir / study.study)
    assert found.score is not None
    assert found.score.proxies == pytest.approx(verdict.advantage.value)
    assert found.score.mean == pytest.approx(found.factor.mean * found.score.proxies)
    assert found.score.low is not None
    assert found.score.low < found.score.mean < (found.score.high or 0.0)
    for experiment in ("promoted", "baseline"):
        text = (folder / "conf" / "experiment" / f"{experiment}.yaml").read_text()
        assert f"prediction: {digest(stored)}" in text
    card = (folder / "card.md").read_text()
    assert "## Prediction (sealed before the full run)" in card
    assert f"{found.score.low:+.3g} to {found.score.high:+.3g}" in card


def test_the_scale_is_read_from_proxy_and_target(study: MadeStudy) -> None:
    found = predicted(study)
    tokens = study.config("trial-0000", 0, PLAIN).build_schedule().total_tokens
    assert found.gap.tokens == pytest.approx(8192 / tokens)
    assert found.gap.share == 1.0
    assert found.added == {}
    half = "promotion.full.stages={a: {share: 0.5}, b: {share: 0.5, add: {synthetic_facts: 0.4}}}"
    gap = predicted(study, half).gap
    # Facts 0.2 and 0.6, junk 0.5 and 0.1: 0.8 of each, and 0.2 of facts added to both; power 0.35.
    before = 0.6**0.35 - 0.2**0.35 + 0.5**0.35 - 0.1**0.35
    after = 0.68**0.35 - 0.36**0.35 + 0.4**0.35 - 0.08**0.35
    assert gap.share == pytest.approx(after / before)
    assert gap.share_sd == pytest.approx((1.0 - 0.8) / 2.0)  # the linear share, 0.8, is the lower


def test_a_source_that_no_proxy_read_is_named_and_its_own_text_not_predicted(
    study: MadeStudy,
) -> None:
    made = MadeStudy(study.runs_dir, study="two", run_sd=0.01)
    first, second = ({"synthetic_facts": a, "synthetic_arithmetic": 1.0 - a} for a in (0.3, 0.7))
    for seed in (0, 1, 2):
        made.run("trial-0000", seed, first)
        made.run("trial-0001", seed, second, effect=0.4)
    made.judge()
    add = "promotion.full.stages={a: {share: 1.0, add: {synthetic_junk: 0.25}}}"
    evidence, _ = evidence_of(made, add)
    rows = (replace(evidence.verdict.tasks[0], task="heldout_synthetic_junk"),)
    verdict = replace(evidence.verdict, tasks=rows + evidence.verdict.tasks[1:])
    found = predicted(made, add, verdict=verdict)
    assert found.added == {"synthetic_junk": pytest.approx(0.25, abs=0.01)}
    assert found.gap.share == pytest.approx(0.75**0.35)
    assert found.gap.share_sd == pytest.approx(0.25 / 2.0)
    assert "heldout_synthetic_junk" not in {row.task for row in found.tasks}
    assert "no proxy read" in found.not_comparable["heldout_synthetic_junk/bpb"]


def test_another_score_at_full_size_is_not_predicted(study: MadeStudy) -> None:
    found = predicted(study, "++evaluation.score.terms.more={metrics: synthetic_facts/bpb}")
    assert found.score is None
    assert "another score" in found.not_comparable["score"]
    assert found.tasks


def test_a_pick_that_was_flattered_is_predicted_lower(study: MadeStudy) -> None:
    verdict = read_verdict(study.runs_dir / study.study)
    value = verdict.advantage.value
    rows = tuple(replace(row, in_score=row.task != "arc") for row in verdict.tasks)
    shrunk = replace(
        verdict, tasks=rows, regret=replace(verdict.regret, shrunk_advantage=value / 2.0)
    )
    plain, less = predicted(study), predicted(study, verdict=shrunk)
    assert less.score.proxies == pytest.approx(value / 2.0)
    for before, after in zip(plain.tasks, less.tasks, strict=True):
        if before.task == "arc":  # not in the score, so not what the pick was chosen by
            assert after.proxies == before.proxies
            continue
        # As much of its own noise as the score's flattery is of the score's noise, over sqrt(tasks).
        assert before.error is not None
        share = (value / 2.0) / verdict.advantage.standard_error / math.sqrt(len(rows) - 1)
        assert before.proxies - after.proxies == pytest.approx(share * before.error)


def test_noise_larger_than_the_difference_is_no_signal(study: MadeStudy) -> None:
    verdict = read_verdict(study.runs_dir / study.study)
    row = verdict.tasks[0]
    assert row.advantage is not None
    for factor, signal in ((0.9, True), (1.1, False)):
        loud = replace(row.advantage, standard_error=factor * abs(row.advantage.value))
        rows = (replace(row, advantage=loud, item_error=None), *verdict.tasks[1:])
        found = predicted(study, verdict=replace(verdict, tasks=rows))
        assert found.tasks[0].signal is signal


def test_a_study_without_noise_seals_no_interval(study: MadeStudy) -> None:
    verdict = read_verdict(study.runs_dir / study.study)
    noise = replace(verdict.noise, run_sd=None)
    found = predicted(study, verdict=replace(verdict, noise=noise))
    assert (found.score.low, found.score.high) == (None, None)
    assert found.score.signal is False


# ------------------------------------------------------------------------- what the study measured


def test_checkpoints_tell_how_the_difference_grew(study: MadeStudy) -> None:
    runs = [
        picked_runs(Path("runs"), "proxies", row)
        for row in sorted(
            read_verdict(study.runs_dir / "proxies").candidates, key=lambda r: r.trial
        )
    ]
    (found,) = checkpoint_slope(runs[1], runs[0])
    # The made scores are at a third of the effect at the first of three checkpoints: slope 3.
    assert found.slope == pytest.approx(3.0, rel=0.1)
    assert found.tokens == pytest.approx(8 / 3)
    assert 0.0 < found.error < 0.5


def test_a_metric_of_noise_does_not_hide_a_slope() -> None:
    rng = np.random.default_rng(0)
    small = np.array([[0.10, 0.20, 0.001]])
    large = np.array([[0.30, 0.60, -0.002]])
    found = slope_of(small, large, np.array([[0.002, 0.002, 0.002]]))
    assert found is not None
    assert found[0] == pytest.approx(3.0, rel=0.1)
    assert slope_of(0.0 * small, 0.0 * large, np.ones((1, 3))) is None
    assert slope_of(small, large, np.full((1, 3), math.inf)) is None
    noisy = slope_of(small, large, np.full((1, 3), 0.1))
    assert noisy is not None
    assert noisy[1] > 3.0 * found[1]
    many = rng.normal(size=(8, 4))
    held = slope_of(many, 0.5 * many, np.full((8, 4), 0.01))
    assert held is not None
    assert held[0] == pytest.approx(0.5, abs=0.01)


def test_one_checkpoint_or_one_seed_tells_nothing(study: MadeStudy) -> None:
    runs = [
        picked_runs(Path("runs"), "proxies", row)
        for row in sorted(
            read_verdict(study.runs_dir / "proxies").candidates, key=lambda r: r.trial
        )
    ]
    assert checkpoint_slope(runs[1][:1], runs[0][:1]) == ()
    for record in (*runs[0], *runs[1]):
        lines = (record.path / "scores.jsonl").read_text().splitlines(keepends=True)
        (record.path / "scores.jsonl").write_text(lines[-1])
    assert checkpoint_slope(runs[1], runs[0]) == ()


def test_a_second_size_enters_the_prediction(study: MadeStudy) -> None:
    larger = MadeStudy(study.runs_dir, study="larger", overrides=("schedule.total_tokens=16384",))
    for seed in (0, 1, 2):
        larger.run("trial-0000", seed, PLAIN)
        larger.run("trial-0001", seed, GOOD, effect=0.1)
    second = larger.judge()
    row = read_verdict(study.runs_dir / "proxies").candidates[0]
    own = picked_runs(Path("runs"), "proxies", row)[0]
    (found,) = other_scales(study.runs_dir, "proxies", second, own)
    assert found.slope == pytest.approx(0.25, rel=0.1)  # 0.1 where the small proxies gain 0.4
    tokens = study.config("trial-0000", 0, PLAIN).build_schedule().total_tokens
    assert found.tokens == pytest.approx(16384 / tokens)
    assert other_scales(study.runs_dir, "proxies", None, own) == ()

    alone, both = predicted(study), predicted(study, second=second)
    assert len(both.measured) == len(alone.measured) + 1
    # It judged the same pair nearer the target: its own difference is what is carried.
    assert (alone.study, both.study) == ("proxies", "larger")
    assert both.gap.tokens == pytest.approx(8192 / 16384)
    assert both.score.proxies == pytest.approx(second.advantage.value)
    # One that judged another pair, or another score, lends its slope alone.
    for other in (replace(second, reference="somebody"), replace(second, score="another")):
        found_alone = predicted(study, second=other)
        assert found_alone.study == "proxies"
        assert len(found_alone.measured) == len(both.measured)
        assert found_alone.score.mean < alone.score.mean


@pytest.mark.parametrize("error", [math.inf, math.nan])
@pytest.mark.parametrize("flattery", [0.0, 0.1])
def test_a_task_whose_noise_is_unknown_has_no_flattery_and_no_nan(
    error: float, flattery: float
) -> None:
    # Two tasks of accuracies that are equal in every run: their difference has no known error.
    row = TaskRow(
        task="quiz",
        metric="acc",
        reference=0.25,
        pick=0.25,
        advantage=None,
        effect="unknown",
        in_score=True,
        items=8,
        item_error=0.0,
    )
    curse = _Curse(flattery=flattery, error=0.1, tasks=2)
    assert curse.of_task(row, error) == 0.0
    assert curse.of_task(row, 0.1) == pytest.approx(flattery / math.sqrt(2.0))


def test_the_numbers_of_a_promotion_are_those_before(study: MadeStudy) -> None:
    values = composed(*FULL, config="promote")
    values.pop("compare")
    folder = promote(values).folder
    stored = json.loads((folder / "promotion.json").read_text())
    require_pinned("promotion", {key: stored[key] for key in ("gates", "prediction")})
