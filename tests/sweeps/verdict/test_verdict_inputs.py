"""Check what a verdict is computed from: the runs that count, their noise, their items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ablations.errors import ConfigError, UserError
from ablations.evaluation.score_rule import LinearForm
from sweeps.verdict.analysis_inputs import VerdictOptions, prepare_inputs, too_few
from sweeps.verdict.observations import Observations, PictureGain
from tests.sweeps.verdict.in_memory import observations, task

NAN = math.nan
PLAIN = VerdictOptions()


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("alpha", 0.5, True),
        ("alpha", 0.7, True),
        ("alpha", -0.1, False),
        ("alpha", 1.5, False),
        ("margin", -1.0, False),
        ("margin", 2.0, True),
        ("effect", None, True),
        ("effect", -0.5, False),
        ("effect", 2.0, True),
        ("alpha", 0.0, False),
        ("alpha", 1.0, False),
        ("margin", 0.0, True),
        ("effect", 0.0, False),
        ("run_sd", 0.0, False),
        ("last_checkpoints", 2, False),
        ("last_checkpoints", 3, True),
        ("last_checkpoints", 4, True),
        ("last_checkpoints", 5, True),
        ("run_sd", None, True),
        ("run_sd", -0.5, False),
        ("run_sd", 2.0, True),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(name: str, value: Any, good: bool) -> None:
    if good:
        assert getattr(VerdictOptions(**{name: value}), name) == value
        return
    with pytest.raises(ConfigError) as caught:
        VerdictOptions(**{name: value})
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{name}: out of range; found: {value}")


def trajectories(*rows: Sequence[float]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return tuple((np.arange(1.0, len(row) + 1.0), np.array(row)) for row in rows)


def test_runs_without_a_score_are_left_out_with_a_caveat() -> None:
    made = observations({"a": [1.0, NAN], "b": [3.0, 5.0], "c": [NAN]})
    found = prepare_inputs(made, PLAIN)
    assert [run.name for run in found.observed.runs] == ["a-0", "b-0", "b-1"]
    assert found.evidence.names == ("a", "b")
    assert found.scores.tolist() == [1.0, 3.0, 5.0]
    assert found.caveats[0] == "2 run(s) lack a metric of the score and were left out."
    whole = prepare_inputs(observations({"a": [1.0, 2.0], "b": [3.0, 5.0]}), PLAIN)
    assert not any("lack a metric" in caveat for caveat in whole.caveats)
    with pytest.raises(UserError, match="at least two candidates with scores; found: 1"):
        prepare_inputs(observations({"a": [1.0, 2.0], "b": [NAN]}), PLAIN)


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1.0), ("minimize", -1.0)])
def test_scores_means_and_weights_are_turned_so_that_higher_is_better(
    direction: str, sign: float
) -> None:
    made = observations(
        {"a": [1.0, 2.0], "b": [3.0, 5.0]},
        direction=direction,
        rule={"all": {"metrics": "*", "weight": 1.0, "direction": direction}},
    )
    assert made.sign == sign
    found = prepare_inputs(made, PLAIN)
    assert found.scores.tolist() == [sign * score for score in (1.0, 2.0, 3.0, 5.0)]
    assert found.evidence.means == pytest.approx([sign * 1.5, sign * 4.0])
    assert dict(found.weights) == {"quiz/acc": sign}
    halved = observations(
        {"a": [1.0, 2.0], "b": [3.0, 5.0]},
        direction=direction,
        form=LinearForm(weights={"other/acc": 0.25}),
        left_out_metrics={"quiz/acc": "noise"},
    )
    found = prepare_inputs(halved, PLAIN)
    assert dict(found.weights) == {"other/acc": sign * 0.25}
    assert found.evidence.item_covariance is None
    assert any("quiz/acc (noise)" in caveat for caveat in found.caveats)


def test_a_candidate_s_own_noise_counts_only_if_seeds_are_the_noise() -> None:
    several = {"a": [1.0, 2.0, 6.0], "b": [3.0, 5.0], "c": [4.0]}
    found = prepare_inputs(observations(several), PLAIN)
    assert found.evidence.noise.source == "seeds"
    # 14 about a's mean and 2 about b's, three degrees of freedom.
    assert found.evidence.noise.variance == pytest.approx(16.0 / 3.0)
    assert found.evidence.own is found.fit.own
    assert found.evidence.own is not None
    same = {"a": [1.0, 1.0, 1.0], "b": [3.0, 3.0], "c": [4.0]}
    declared = prepare_inputs(observations(same), VerdictOptions(run_sd=0.2))
    assert declared.evidence.noise.source == "published"
    assert declared.evidence.own is None


def test_replicates_that_are_identical_do_not_show_the_noise() -> None:
    note = "Replicates are identical to the last bit, so they do not show the noise."
    same = prepare_inputs(observations({"a": [1.0, 1.0], "b": [3.0, 3.0]}), PLAIN)
    assert same.caveats[0] == note
    assert len(same.caveats) == 2
    assert not same.evidence.noise.known
    other = prepare_inputs(observations({"a": [1.0, 2.0], "b": [3.0, 3.0]}), PLAIN)
    assert note not in other.caveats
    assert other.evidence.noise.variance == pytest.approx(0.25)
    alone = prepare_inputs(observations({"a": [1.0], "b": [3.0]}), PLAIN)
    assert note not in alone.caveats


def test_a_declared_sd_stands_for_a_study_without_seeds() -> None:
    late = trajectories([0.0, 0.2, 0.1, 0.4], [1.0, 1.3, 1.1, 1.6])
    one = observations({"a": [1.0], "b": [3.0]}, score_trajectories=late, published_df=7.0)
    found = prepare_inputs(one, VerdictOptions(run_sd=3.0)).evidence.noise
    assert (found.source, found.variance, found.df) == ("published", 9.0, 7.0)
    by_checkpoints = prepare_inputs(one, PLAIN).evidence.noise
    assert by_checkpoints.source == "checkpoints"
    few = prepare_inputs(one, VerdictOptions(last_checkpoints=3)).evidence.noise
    assert few.df == 2.0
    assert by_checkpoints.df == 4.0
    two = observations({"a": [1.0, 2.0], "b": [3.0, 4.0]}, published_df=7.0)
    tempered = prepare_inputs(two, VerdictOptions(run_sd=3.0)).evidence.noise
    # Two degrees of freedom of 0.5 and a prior of 9 that counts for two.
    assert tempered.source == "seeds"
    assert tempered.variance == pytest.approx(4.75)


def test_checkpoints_raise_the_noise_of_few_seeds_before_a_declared_sd() -> None:
    late = trajectories(*[[0.0, 9.0, 1.0, 11.0, 2.0]] * 4)
    scores = {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    made = observations(scores, score_trajectories=late)
    plain, declared = (
        prepare_inputs(made, options).evidence.noise.variance
        for options in (PLAIN, VerdictOptions(run_sd=0.9))
    )
    assert plain == declared > 1.0
    straight = observations(scores, score_trajectories=trajectories(*[[1.0, 2.0, 3.0, 4.0]] * 4))
    assert prepare_inputs(straight, PLAIN).evidence.noise.variance == pytest.approx(0.5)
    # Checkpoints exactly on a line show no noise: the declared one is used.
    flat = observations(
        {"a": [1.0], "b": [3.0]}, score_trajectories=trajectories([0.0] * 4, [0.0] * 4)
    )
    assert not prepare_inputs(flat, PLAIN).evidence.noise.known
    assert prepare_inputs(flat, VerdictOptions(run_sd=0.9)).evidence.noise.source == "published"


def declared(sds: tuple[float | None, float | None], runs: int, **given: Any) -> Observations:
    scores = {"a": [1.0, 2.0][:runs], "b": [3.0, 5.0][:runs]}
    values = [score for own in scores.values() for score in own]
    tasks = tuple(
        task(values, name, published_sd=sd) for name, sd in zip(("x", "y"), sds, strict=True)
    )
    return observations(scores, tasks=tasks, published_df=8.0, **given)


def test_declared_sds_of_the_tasks_make_the_noise_of_the_score() -> None:
    found = prepare_inputs(declared((0.2, 0.4), 1), PLAIN)
    noise = found.evidence.noise
    # Halves of 0.2 and 0.4, squared: 0.01 and 0.04.
    assert noise.source == "published"
    assert noise.variance == pytest.approx(0.05)
    assert noise.df == pytest.approx(8.0 * 0.05**2 / (0.01**2 + 0.04**2))
    assert not any("No noise is declared" in caveat for caveat in found.caveats)


@pytest.mark.parametrize(
    ("sds", "runs", "checkpoints", "told"),
    [
        ((0.2, None), 1, False, True),
        ((0.2, 0.4), 1, False, False),
        ((None, None), 1, False, False),
        ((0.2, None), 2, False, False),
        ((0.2, None), 1, True, False),
        ((None, None), 2, False, False),
    ],
)
def test_a_task_without_declared_noise_is_named_if_nothing_else_shows_it(
    sds: tuple[float | None, float | None], runs: int, checkpoints: bool, told: bool
) -> None:
    late = trajectories(*[[0.0, 9.0, 1.0, 11.0, 2.0]] * 2 * runs) if checkpoints else ()
    found = prepare_inputs(declared(sds, runs, score_trajectories=late), PLAIN)
    named = [caveat for caveat in found.caveats if caveat.startswith("No noise is declared for")]
    assert len(named) == told
    assert all("for y/acc, so" in caveat for caveat in named)
    assert found.evidence.noise.known == (runs == 2 or checkpoints or None not in sds)


def items(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((2, count))


def test_items_count_only_if_every_task_of_the_score_kept_them() -> None:
    def found(*tasks: Any) -> Any:
        made = observations(
            {"a": [1.0], "b": [2.0]},
            tasks=tasks,
            rule={"all": {"metrics": "[xy]/*", "weight": 1.0}},
        )
        evidence = prepare_inputs(made, VerdictOptions(run_sd=1.0)).evidence
        return evidence.item_covariance, evidence.item_df

    x, y = task([1.0, 2.0], "x", items=items(1)), task([1.0, 2.0], "y", items=items(2, 3))
    bare, apart = task([1.0, 2.0], "y"), task([1.0, 2.0], "z")
    both, df = found(x, y)
    assert df == 2.0
    expected = sum(0.25 * np.cov(items(seed, n)) / n for seed, n in ((1, 4), (2, 3)))
    assert both == pytest.approx(expected)
    assert found(x, bare) == (None, math.inf)
    assert found(bare) == (None, math.inf)
    alone, df = found(x, apart)
    assert alone == pytest.approx(np.cov(items(1)) / 4.0)
    assert df == 3.0
    grouped, df = found(task([1.0, 2.0], "x", items=items(1), groups=np.array([0, 0, 1, 1])))
    assert df == 1.0
    assert grouped != pytest.approx(alone)


def test_a_study_of_too_few_candidates_names_the_first_five_that_are_out() -> None:
    out = {f"run-{n}": f"why {n}" for n in range(8)}
    text = str(too_few(observations({"a": [1.0]}, left_out=out)))
    assert "found: 1 (run-0: why 0; " in text
    assert "run-4: why 4)" in text
    assert "run-5" not in text
    assert "found: 1;" in str(too_few(observations({"a": [1.0]})))


def whole() -> Observations:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    table = np.arange(10.0).reshape(5, 2)
    late = trajectories(*[[value, value + 0.5] for value in values])
    data = task(values, "pictures", "gain", items=table, trajectories=late)
    gain = PictureGain(data=data, errors=np.array(values) / 10.0, draws=np.array(values) * 10.0)
    return observations(
        {"a": [1.0, 2.0], "b": [3.0], "c": [4.0, 5.0]},
        tasks=(task(values, trajectories=late), task(values, "own", items=table)),
        score_trajectories=late,
        pictures=(gain,),
    )


def test_kept_runs_keep_their_candidates_tasks_and_pictures() -> None:
    made = whole()
    kept = made.keep([False, True, False, True, True])
    assert [candidate.name for candidate in kept.candidates] == ["a", "c"]
    assert [(run.name, run.candidate) for run in kept.runs] == [("a-1", 0), ("c-0", 1), ("c-1", 1)]
    first, own = kept.tasks
    assert first.values.tolist() == own.values.tolist() == [2.0, 4.0, 5.0]
    assert first.items is None
    assert own.items is not None
    assert own.items.tolist() == [[2.0, 3.0], [6.0, 7.0], [8.0, 9.0]]
    assert own.trajectories == ()
    assert [scores.tolist() for _, scores in first.trajectories] == [[2, 2.5], [4, 4.5], [5, 5.5]]
    assert [scores[0] for _, scores in kept.score_trajectories] == [2.0, 4.0, 5.0]
    (gain,) = kept.pictures
    assert gain.data.values.tolist() == [2.0, 4.0, 5.0]
    assert gain.errors.tolist() == [0.2, 0.4, 0.5]
    assert gain.draws.tolist() == [20.0, 40.0, 50.0]


def test_all_runs_are_kept_as_they_are_unless_a_candidate_has_none() -> None:
    made = whole()
    assert made.keep([True] * 5) is made
    fewer = made.keep([True, False, True, True, True])
    assert [candidate.name for candidate in fewer.candidates] == ["a", "b", "c"]
    assert [run.name for run in fewer.runs] == ["a-0", "b-0", "c-0", "c-1"]
    empty = observations({"a": [1.0], "none": [], "b": [2.0]})
    kept = empty.keep([True, True])
    assert [candidate.name for candidate in kept.candidates] == ["a", "b"]
    assert [run.candidate for run in kept.runs] == [0, 1]


def test_candidates_stay_in_order_whatever_the_order_of_their_runs() -> None:
    scores = {f"c{n}": [float(n)] for n in range(12)}
    made = observations(scores)
    turned = Observations(
        **{
            **{name: getattr(made, name) for name in ("study", "direction", "score", "rule")},
            "candidates": made.candidates,
            "runs": made.runs[::-1],
            "tasks": made.tasks,
        }
    )
    kept = turned.keep([run.name != "c5-0" for run in turned.runs])
    assert [candidate.name for candidate in kept.candidates] == [n for n in scores if n != "c5"]
    assert [kept.candidates[run.candidate].name for run in kept.runs] == [
        run.name[:-2] for run in kept.runs
    ]
    two = turned.keep([run.name in ("c1-0", "c8-0") for run in turned.runs])
    assert [candidate.name for candidate in two.candidates] == ["c1", "c8"]
    assert [(run.name, run.candidate) for run in two.runs] == [("c8-0", 1), ("c1-0", 0)]


def test_a_metric_and_a_score_have_signs() -> None:
    assert (task([1.0]).sign, task([1.0], metric="bpb").sign) == (1.0, -1.0)
    assert task([1.0]).key == "quiz/acc"
    made = observations({"a": [1.0, 2.0], "b": [3.0]})
    assert not any(run.confirms for run in made.runs)
    assert made.run_scores(np.arange(3.0)).seeds(0) == [0, 1]
