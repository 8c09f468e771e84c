"""Check each step of a sealed prediction against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import stats

from ablations.errors import ConfigError
from sweeps.promotion.prediction import (
    _against,
    _Curse,
    _expected,
    _objective,
    _Scale,
    _share,
    _spreads,
    _tasks,
    _unseen,
)
from sweeps.promotion.scale_transfer import Factor, Gap, Measured, carry, transfer_factor
from sweeps.study.definition import Definition, settle_definition
from sweeps.verdict.contrasts import Estimate
from sweeps.verdict.verdict_record import CandidateRow, TaskRow
from tests.sweeps.promotion.conftest import MadeStudy, weights

SAME = Gap(tokens=1.0, parameters=1.0)
PLAIN_SCALE = _Scale(gap=SAME, factor=Factor(mean=0.5, sd=0.1))


def estimate(value: float = 0.3, error: float = 0.1, df: float = 4.0) -> Estimate:
    nothing = {"low": math.nan, "high": math.nan, "p": math.nan, "p_corrected": math.nan}
    return Estimate(value=value, standard_error=error, df=df, **nothing)


def task(**changes: Any) -> TaskRow:
    values: dict[str, Any] = {
        "task": "quiz",
        "metric": "acc",
        "reference": 0.25,
        "pick": 0.5,
        "advantage": estimate(),
        "effect": "gain",
        "in_score": True,
        "items": 8,
        "item_error": None,
    }
    return TaskRow(**{**values, **changes})


def row(study: MadeStudy, place: int = 0, **changes: Any) -> CandidateRow:
    """Return a row of the made study's verdict with changes."""
    from sweeps.verdict.verdict_record import read_verdict

    return replace(read_verdict(study.runs_dir / study.study).candidates[place], **changes)


# ----------------------------------------------------------------------------------- the whole scale


def test_the_prior_s_factor_is_a_power_of_both_ratios() -> None:
    gap = Gap(tokens=math.e**2, parameters=math.e**3)
    found = transfer_factor(gap)
    mean = math.exp(-0.22 * 2.0 - 0.05 * 3.0)
    assert found.mean == pytest.approx(mean)
    sd = mean * math.sqrt((0.2 * 2.0) ** 2 + (0.06 * 3.0) ** 2 + 0.1**2)
    assert found.sd == pytest.approx(sd)


@pytest.mark.parametrize(
    ("tokens", "slope", "error", "noise"),
    [
        (math.e, 0.5, 0.1, 0.2**2 + 0.45**2),
        (math.e, 0.02, 0.1, 1.0**2 + 0.45**2),
        (1.0 / math.e, 0.5, 0.0, 0.45**2),
        (math.exp(0.04), 0.5, 0.0, 0.1**2),
        (math.exp(-0.04), 0.5, 0.0, 0.1**2),
    ],
)
def test_a_measured_slope_corrects_the_exponents_by_its_noise(
    tokens: float, slope: float, error: float, noise: float
) -> None:
    """One observation of the exponent of the tokens alone; a slope below 0.1 counts as 0.1."""
    one = Measured(where="", tokens=tokens, parameters=1.0, slope=slope, error=error)
    way = math.log(tokens)
    gain = 0.2**2 * way / (0.2**2 * way**2 + noise)
    mean = -0.22 + gain * (math.log(max(slope, 0.1)) + 0.22 * way)
    left = 0.2**2 * (1.0 - gain * way)
    found = transfer_factor(Gap(tokens=math.e**2, parameters=math.e), [one])
    assert found.mean == pytest.approx(math.exp(2.0 * mean - 0.05))
    assert found.sd == pytest.approx(found.mean * math.sqrt(4.0 * left + 0.06**2 + 0.1**2))


def test_a_carried_difference_has_the_sum_of_all_doubts() -> None:
    gap = Gap(tokens=math.e, parameters=1.0, share=0.5, share_sd=0.1)
    found = carry(
        0.4,
        error=0.2,
        df=3.0,
        spread=0.3,
        run_sd=0.05,
        run_df=5.0,
        factor=Factor(mean=0.8, sd=0.3),
        gap=gap,
    )
    scale, unsure = 0.4, math.hypot(0.15, 0.08)
    sampled, runs = (scale * 0.2) ** 2 + (unsure * 0.2) ** 2, 2.0 * 0.05**2
    own = 0.18 * 0.3 * scale
    variance = sampled + runs + (unsure * 0.4) ** 2 + own**2
    degrees = variance**2 / (sampled**2 / 3.0 + runs**2 / 5.0)
    assert found.mean == pytest.approx(0.16)
    assert found.sd == pytest.approx(math.sqrt(variance))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.95, degrees) * found.sd)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


@pytest.mark.parametrize(("df", "run_df"), [(0.2, 50.0), (1.0, 50.0), (50.0, 0.2), (50.0, 1.0)])
def test_less_than_one_degree_of_freedom_counts_as_one(df: float, run_df: float) -> None:
    given: dict[str, Any] = {"factor": Factor(mean=1.0, sd=0.0), "gap": SAME, "spread": 0.0}
    low = carry(0.4, error=0.2, run_sd=0.1, df=df, run_df=run_df, **given)
    one = carry(0.4, error=0.2, run_sd=0.1, df=max(df, 1.0), run_df=max(run_df, 1.0), **given)
    assert low == one
    sampled, runs = 0.04, 0.02
    known = sampled**2 / max(df, 1.0) + runs**2 / max(run_df, 1.0)
    half = stats.t.ppf(0.95, 0.06**2 / known) * math.sqrt(0.06)
    assert low.high - low.mean == pytest.approx(half)


def test_a_gap_dilutes_nothing_unless_told() -> None:
    assert (SAME.share, SAME.share_sd) == (1.0, 0.0)


# ---------------------------------------------------------------------------------- the winner's curse


def curse_of(pick: str, tasks: int, value: float = 0.5, shrunk: float = 0.3) -> _Curse:
    verdict = SimpleNamespace(
        pick="best",
        advantage=estimate(value, 0.125),
        regret=SimpleNamespace(shrunk_advantage=shrunk),
    )
    near: Any = SimpleNamespace(verdict=verdict, candidate=SimpleNamespace(name=pick))
    return _Curse.of(near, tasks)


def test_only_the_verdict_s_pick_is_flattered() -> None:
    found = curse_of("best", 4)
    assert (found.flattery, found.error, found.tasks) == pytest.approx((0.2, 0.125, 4))
    assert curse_of("best", 0).tasks == 1
    assert curse_of("best", 4, shrunk=0.6).flattery == 0.0
    other = curse_of("another", 4)
    assert (other.flattery, other.error, other.tasks) == (0.0, math.inf, 4)
    assert curse_of("another", 0).tasks == 1


def test_a_task_is_flattered_by_its_noise_over_the_root_of_the_tasks() -> None:
    curse = _Curse(flattery=0.2, error=0.1, tasks=4)
    assert curse.of_task(task(), 0.3) == pytest.approx(0.2 * 0.3 / (0.1 * 2.0))
    assert curse.of_task(task(in_score=False), 0.3) == 0.0
    assert curse.of_task(task(), math.inf) == 0.0
    for error in (0.0, math.inf, math.nan):
        assert replace(curse, error=error).of_task(task(), 0.3) == 0.0


# ------------------------------------------------------------------------------------ two candidates


def test_two_candidates_differ_by_the_verdict_s_own_number_or_by_their_means(
    study: MadeStudy,
) -> None:
    first, second = estimate(0.5, 0.3, 4.0), estimate(0.25, 0.4, 3.0)
    pick = row(study, mean=2.0, advantage=first)
    plain = row(study, mean=2.5, advantage=None)
    assert _against(pick, plain, "minimize") is first
    both = _against(pick, replace(plain, advantage=second), "minimize")
    assert (both.value, both.standard_error, both.df) == pytest.approx((0.5, 0.5, 3.0))
    assert _against(pick, replace(plain, advantage=second), "maximize").value == -0.5
    lone = _against(replace(pick, advantage=None), replace(plain, advantage=second), "minimize")
    assert (lone.value, lone.standard_error, lone.df) == pytest.approx((0.5, 0.4, 3.0))
    none = _against(replace(pick, advantage=None), plain, "minimize")
    assert (none.value, none.df) == (0.5, 1.0)
    assert math.isnan(none.standard_error)


# -------------------------------------------------------------------------------------- one interval


def test_an_expected_difference_is_carried_without_its_flattery() -> None:
    found = _expected(
        "quiz", "acc", estimate(), 0.1, spread=0.5, run=(0.04, 6.0), scale=PLAIN_SCALE
    )
    whole = carry(
        0.3 - 0.1,
        error=0.1,
        df=4.0,
        spread=0.5,
        run_sd=0.04,
        run_df=6.0,
        factor=PLAIN_SCALE.factor,
        gap=SAME,
    )
    assert (found.task, found.metric, found.error) == ("quiz", "acc", 0.1)
    assert found.proxies == pytest.approx(0.2)
    assert (found.mean, found.low, found.high) == (whole.mean, whole.low, whole.high)
    assert found.signal


@pytest.mark.parametrize(
    ("value", "error", "run_sd", "known", "signal"),
    [
        (0.25, 0.25, 0.1, True, False),
        (-0.5, 0.25, 0.1, True, True),
        (0.125, 0.25, 0.1, True, False),
        (0.5, 0.25, None, False, False),
        (0.5, math.inf, 0.1, False, False),
        (0.5, math.nan, 0.1, False, False),
    ],
)
def test_a_difference_within_its_noise_or_of_unknown_noise_is_no_signal(
    value: float, error: float, run_sd: float | None, known: bool, signal: bool
) -> None:
    found = _expected(
        "quiz", "", estimate(value, error), 0.0, spread=0.5, run=(run_sd, 6.0), scale=PLAIN_SCALE
    )
    assert found.signal is signal
    assert found.mean == pytest.approx(0.5 * value)
    assert (found.low is not None, found.high is not None, found.error is not None) == (known,) * 3


def near_of(study: MadeStudy, **changes: Any) -> Any:
    """Return what is known of a pick and its reference, of two and three seeds."""
    pick, plain = row(study, seeds=(0, 1)), row(study, seeds=(0, 1, 2))
    verdict = SimpleNamespace(pick=pick.name, reference=plain.name, candidates=(), runs=())
    values = {"study": study.study, "verdict": verdict, "candidate": pick, "baseline": plain}
    return SimpleNamespace(**{**values, **changes})


def test_the_noise_of_a_run_is_that_of_the_difference_without_its_items(study: MadeStudy) -> None:
    """Error 0.5, of which the items are 0.3: 0.4 is from training, by two and by three runs."""
    near, curse = near_of(study), _Curse(flattery=0.0, error=math.inf, tasks=1)
    rows = [
        task(advantage=estimate(1.0, 0.5), item_error=0.3),
        task(advantage=estimate(-1.0, 0.5)),
        task(advantage=estimate(1.0, 0.5), item_error=0.7),
        task(advantage=estimate(1.0, math.inf), item_error=0.3),
    ]
    found = _tasks(near, study.runs_dir, rows, curse, PLAIN_SCALE)
    for one, source, training in zip(found, rows, (0.4, 0.5, 0.0, None), strict=True):
        assert source.advantage is not None
        run_sd = None if training is None else training / math.sqrt(1.0 / 2.0 + 1.0 / 3.0)
        expected = _expected(
            "quiz",
            "acc",
            source.advantage,
            0.0,
            spread=1.0 / math.sqrt(2.0),
            run=(run_sd, 4.0),
            scale=PLAIN_SCALE,
        )
        values = (one.mean, one.low, one.high, one.signal)
        assert values == pytest.approx(
            (expected.mean, expected.low, expected.high, expected.signal)
        )


def test_tasks_of_another_pair_are_not_predicted(study: MadeStudy) -> None:
    near, curse = near_of(study), _Curse(flattery=0.0, error=math.inf, tasks=1)
    for side in ("candidate", "baseline"):
        other = replace(row(study), name="another")
        changed = near_of(study, **{side: other})
        assert _tasks(changed, study.runs_dir, [task()], curse, PLAIN_SCALE) == ()
    assert len(_tasks(near, study.runs_dir, [task()], curse, PLAIN_SCALE)) == 1


def test_the_spread_of_a_metric_is_between_the_means_of_the_candidates(tmp_path: Path) -> None:
    made = MadeStudy(tmp_path / "runs")
    values = {("trial-0000", 0): 1.0, ("trial-0000", 1): 3.0, ("trial-0001", 0): 5.0}
    for (trial, seed), value in {**values, ("trial-0002", 0): 99.0}.items():
        record = made.run(trial, seed, weights(0.2, 0.3, 0.5))
        stored = record.result() or {}
        metrics = {"a/x": value, "a/none": None, "only/one": 1.0 if trial[-1] == "0" else None}
        record.write_result({**stored, "metrics": metrics})
    names = [f"{trial}-{seed}" for trial, seed in values]
    trials = [SimpleNamespace(trial=name) for name in ("trial-0000", "trial-0001")]
    verdict: Any = SimpleNamespace(candidates=trials, runs=[*names, "trial-0002-0", "trial-0009-0"])
    # Means 2 and 5: their standard deviation is 3/√2.
    found = _spreads(made.runs_dir / made.study, verdict)
    assert found == {"a/x": pytest.approx(3.0 / math.sqrt(2.0))}


# --------------------------------------------------------------------------------- mixtures and scores


def test_a_share_is_the_ratio_of_two_distances() -> None:
    near = ({"a": 0.25, "b": 0.75}, {"a": 0.75, "c": 0.25})
    far = ({"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25})
    assert _share(near, far, 1.0) == pytest.approx(0.5 / 1.5)
    roots = 0.75**0.5 - 0.5, 0.75**0.5, 0.5
    assert _share(near, far, 0.5) == pytest.approx(
        ((0.75**0.5 - 0.5**0.5) + (0.5**0.5 - 0.5)) / math.fsum(roots)
    )
    assert _share((near[0], near[0]), far, 1.0) == 1.0
    assert _share(near, (far[0], far[0]), 1.0) == 0.0


def test_a_source_is_unseen_that_no_proxy_was_asked_to_read_in_any_stage() -> None:
    def proxy(mixture: dict[str, float], *stages: dict[str, float] | None) -> dict[str, Any]:
        named = {str(place): {"weights": stage} for place, stage in enumerate(stages)}
        return {"mixture": {"weights": mixture}, "schedule": {"stages": named}}

    read = {"a": 10.0, "b": 20.0, "c": 30.0, "d": 40.0, "e": 0.0}
    config: Any = SimpleNamespace(build_schedule=lambda: SimpleNamespace(tokens=lambda: read))
    pair = (proxy({"a": 1.0, "d": 0.0}, None), proxy({"a": 1.0}, None, {"b": 0.5, "c": 0.0}))
    assert _unseen(*pair, config) == {"c": pytest.approx(0.3), "d": pytest.approx(0.4)}
    assert _unseen(pair[1], pair[0], config) == {"c": pytest.approx(0.3), "d": pytest.approx(0.4)}


def test_the_objective_is_the_verdict_s(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {k: {} for k in ("strategy", "constraints", "config")}
    objectives = {"first": {"metrics": ["a/b"]}, "second": {"metrics": ["c/d"]}}
    asked = Definition(
        study="s",
        question="",
        space=None,
        seeds=(0,),
        arguments=(),
        objectives=objectives,
        **nothing,
    )
    settle_definition(tmp_path, asked)

    def named(name: str) -> str:
        verdict: Any = SimpleNamespace(objective=name)
        return _objective(tmp_path, verdict).name

    assert (named("score"), named("second")) == ("first", "second")
    with pytest.raises(ConfigError, match="third"):
        named("third")
