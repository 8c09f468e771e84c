"""An optimum is recommended only if there is evidence for it; otherwise the reason is given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ablations.record.run_record import RunRecord
from sweeps.commands.fit import declared, main
from sweeps.search.designs import design
from sweeps.search.proposals import Difference, Evidence, pick, trust_pick
from sweeps.search.proposals.optimum_tests import Refit, Skill, difference, inside, judge, skill
from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.search.surrogates import log_linear
from sweeps.study.definition import Definition, settle_definition
from sweeps.swarm.fit_swarm import FitOptions, fit_swarm
from sweeps.swarm.swarm_tables import Swarm, write_pair

Floats = NDArray[np.float64]
SKILL = Skill(correlation=0.9, shuffled=0.2, chance=0.001, needed=0.4)
OPTIONS = FitOptions(families=("log-linear", "linear"), resamples=6)


def losses(weights: Floats) -> Floats:
    return np.stack([np.exp(-2.0 * weights[:, 1]), np.exp(-2.0 * weights[:, 2])], axis=1)


def swarm(shuffled: bool = False, n: int = 40, seed: int = 0) -> Swarm:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), n)
    values = losses(weights) + rng.normal(0.0, 0.01, (n, 2))
    return Swarm(
        runs=tuple(f"r{i}" for i in range(n)),
        sources=("web", "code", "math"),
        weights=weights,
        metrics=("code/bpb", "math/bpb"),
        values=rng.permutation(values, axis=0) if shuffled else values,
    )


def gap(value: float, low: float, high: float, to: str = "the baseline") -> Difference:
    return Difference(to=to, value=value, low=low, high=high)


def test_a_swarm_with_a_signal_recommends_its_optimum() -> None:
    fit = fit_swarm(swarm(), OPTIONS)
    assert fit.optimum == fit.surface_optimum
    assert fit.optimum == pytest.approx({"web": 0.0, "code": 0.5, "math": 0.5}, abs=0.05)
    assert fit.evidence.enough
    assert fit.evidence.more_runs is None
    assert fit.evidence.baseline is not None
    assert fit.evidence.baseline.high < 0.0
    best, mean = np.array([[0.0, 0.5, 0.5]]), swarm().weights.mean(axis=0)[None]
    truth = losses(best).mean() - losses(mean).mean()
    assert fit.evidence.baseline.value == pytest.approx(truth, abs=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_a_shuffled_swarm_recommends_none(seed: int) -> None:
    fit = fit_swarm(swarm(shuffled=True, seed=seed), OPTIONS)
    assert fit.optimum is None
    assert "no better than shuffled scores allow" in fit.evidence.reasons[0]
    assert fit.evidence.more_runs is not None
    assert fit.evidence.more_runs >= 10


def test_the_command_prints_the_reason_and_records_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios, metrics = write_pair(tmp_path / "in", swarm(shuffled=True))
    config = {"ratios": str(ratios), "metrics": str(metrics), "out": str(tmp_path / "out"),
              "families": ["log-linear", "linear"], "resamples": 2}  # fmt: skip
    assert main(config) == 0
    printed = capsys.readouterr()
    assert "not enough evidence for an optimum" in printed.out
    assert "runs more may settle it" in printed.out
    assert "optimum of" not in printed.out
    assert [line.partition(":")[0] for line in printed.err.splitlines()] == ["log-linear", "linear"]
    record = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert record["optimum"] is None
    assert record["evidence"]["enough"] is False
    assert record["evidence"]["reasons"]
    assert record["evidence"]["more_runs"] > 0


def test_a_baseline_that_is_the_best_already_is_not_beaten() -> None:
    known = swarm()
    weights, values = known.weights.copy(), known.values.copy()
    weights[0] = (0.0, 0.5, 0.5)
    values[0] = losses(weights[:1])[0]
    best = Swarm(**{**vars(known), "weights": weights, "values": values})
    fit = fit_swarm(best, FitOptions(families=("log-linear",), resamples=6, baseline="r0"))
    assert fit.optimum is None
    assert "not clearly better than the baseline (r0)" in fit.evidence.reasons[0]


def test_skill_is_measured_against_shuffled_losses() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    truth = losses(weights).mean(axis=1)
    known = skill(log_linear(), weights, truth)
    assert known.correlation > 0.8
    assert known.correlation > known.needed
    assert known.chance < 0.01
    noise = np.random.default_rng(1).normal(size=30)
    chances = [skill(log_linear(), weights, noise[np.roll(np.arange(30), k)]).chance
               for k in range(8)]  # fmt: skip
    assert np.median(chances) > 0.15
    assert skill(log_linear(), weights, truth, compared=9).needed > known.needed


def test_a_difference_takes_off_what_choosing_gains() -> None:
    def bowl(centre: float) -> Refit:
        return Refit(lambda x: np.asarray(((x - centre) ** 2)[:, 0]), np.array([centre]))

    whole, other = bowl(0.0), np.array([1.0])
    same = difference("o", whole, [bowl(0.0), bowl(0.0)], other)
    assert (same.value, same.low, same.high) == pytest.approx((-1.0, -1.0, -1.0))
    moved = difference("o", whole, [bowl(c) for c in (-0.2, -0.1, 0.1, 0.2)], other)
    # A refit's optimum is better than the other mixture by (1 - c)**2 there and by 1 - c**2 here.
    assert moved.value > -1.0 - 1e-9
    assert moved.low < moved.value < moved.high


def test_an_optimum_far_from_those_of_resampled_runs_is_outside() -> None:
    cloud = [np.array([w, 1.0 - w]) for w in (0.4, 0.45, 0.5, 0.55)]
    assert inside(np.array([0.5, 0.5]), cloud)
    assert not inside(np.array([0.9, 0.1]), cloud)


@pytest.mark.parametrize(
    ("best_run", "baseline", "within", "reason", "more"),
    [
        (gap(-0.1, -0.2, 0.1, "r1"), gap(-0.2, -0.3, -0.1), True, None, None),
        (gap(-0.1, -0.2, 0.0, "r1"), gap(-0.1, -0.3, 0.1), True, "not clearly better", 60),
        (gap(0.1, 0.0, 0.2, "r1"), gap(-0.2, -0.3, -0.1), True, "worse than r1", 180),
        (gap(-0.1, -0.2, 0.0, "r1"), gap(-0.2, -0.3, -0.1), False, "outside", 20),
    ],
)
def test_each_figure_has_to_speak_for_the_optimum(
    best_run: Difference, baseline: Difference, within: bool, reason: str | None, more: int | None
) -> None:
    trust = judge(20, SKILL, best_run, baseline, within)
    assert trust.enough is (reason is None)
    assert trust.more_runs == more
    assert len(trust.reasons) == (reason is not None)
    assert reason is None or reason in trust.reasons[0]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_studys_pick_is_accepted_only_if_runs_are_not_shuffled(shuffled: bool) -> None:
    spec = SimplexSpec(sources=("web", "code", "math"))
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))
    points = design(space, "sobol", 16, seed=0)
    rng = np.random.default_rng(3)
    values = losses(space.coordinates(points)) + rng.normal(0.0, 0.01, (16, 2))
    known = Evidence.of(space, points, rng.permutation(values, axis=0) if shuffled else values)
    baseline = {"m": {"web": 1 / 3, "code": 1 / 3, "math": 1 / 3}}
    trust = trust_pick(space, known, pick(space, known, seed=0), seed=0, baseline=baseline)
    assert trust.enough is not shuffled
    assert json.loads(json.dumps(trust.plain()))["enough"] is not shuffled


def test_a_pick_of_very_few_runs_has_no_evidence() -> None:
    spec = SimplexSpec(sources=("web", "code"))
    space = SearchSpace.build(SearchSpaceSpec(mixtures={"m": spec}))
    points = design(space, "sobol", 6, seed=0)
    known = Evidence.of(space, points, space.coordinates(points)[:, 0])
    trust = trust_pick(space, known, pick(space, known, seed=0), seed=0)
    assert not trust.enough
    assert trust.skill.chance == 1.0


@pytest.mark.parametrize(
    ("given", "target", "direction"),
    [
        ({}, ["score"], "maximize"),
        ({"target": ["*"]}, ["score"], "maximize"),
        ({"target": ["math/*"]}, None, None),
    ],
)
def test_a_study_is_fitted_to_its_objective_against_its_baseline(
    tmp_path: Path, given: dict[str, object], target: list[str] | None, direction: str | None
) -> None:
    folder = tmp_path / "s"
    for seed, phase in enumerate(("design", "baseline")):
        labels = {"phase": phase, "name": "natural"}
        RunRecord.create(tmp_path, study="s", trial="t", seed=seed, config={}, labels=labels)
    asked = Definition(
        study="s", question="", space=None, strategy={"baseline": "natural"},
        objectives={"score": {"metrics": ["score"], "direction": None}}, constraints={},
        seeds=[0], config={"evaluation": {"score": {"direction": "maximize"}}}, arguments=[],
    )  # fmt: skip
    settle_definition(folder, asked)
    known = replace(swarm(n=2), runs=("t-0", "t-1"))
    found = declared({"study": "s", "runs_dir": str(tmp_path), **given}, known)
    assert found.get("target") == target
    assert found.get("direction") == direction
    assert found["baseline"] == "t-1"
    assert "baseline" not in declared(
        {"study": "s", "runs_dir": str(tmp_path), "baseline": "t-0"}, known
    )
    assert declared({"ratios": "r"}, known) == {}
