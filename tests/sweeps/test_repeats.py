"""The law of repeats: its values, its fit, its intervals on runs that it was not fitted on, and the gate."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.config.schema import validate
from ablations.errors import ConfigError
from ablations.files import read_json
from ablations.mixture.constraints import broken_caps
from ablations.mixture.mixture import Mixture
from ablations.mixture.repeats import PUBLISHED, RepeatLaw, effective_tokens, runs_out
from ablations.mixture.schedule import Schedule, Stage
from ablations.mixture.specs import MixtureSpec
from sweeps.commands.repeats import describe
from sweeps.repeats.law_fit import FittedRepeats, RepeatRun, fit_repeats
from sweeps.repeats.study_runs import LAW_FILE, read_law, with_law, write_law

LAW = RepeatLaw(constant=10.0, low=5.0, high=20.0, study="s")


def schedule(weights: dict[str, float] | None = None, steps: int = 100) -> Schedule:
    mixed = weights or {"a": 0.5, "b": 0.5}
    stages = (
        Stage(name="one", steps=steps, mixture=Mixture(mixed)),
        Stage(name="two", steps=steps, mixture=Mixture(mixed)),
    )
    return Schedule(stages=stages, sequence_length=10, batch_size=10)


def synthetic(
    constant: float, exponent: float, *, runs: int, noise: float, seed: int, most: float = 8.0
) -> list[RepeatRun]:
    """Runs of a true law at two budgets; the source is cut so that it is read in 1 to ``most`` epochs."""
    rng = np.random.default_rng(seed)
    found = []
    for number, epochs in enumerate(np.exp(np.linspace(0.0, math.log(most), runs)).tolist()):
        read = 1e6 if number % 2 else 3e6
        unique = read / epochs
        effective = unique * (1.0 + constant * -math.expm1(-(epochs - 1.0) / constant))
        loss = 2.0 + 1.5 * (effective / 1e6) ** -exponent + float(rng.normal(0.0, noise))
        found.append(RepeatRun(unique={"a": unique}, read={"a": read}, loss=loss))
    return found


@given(unique=st.floats(1.0, 1e13), epochs=st.floats(0.01, 100.0), constant=st.floats(0.5, 200.0))
def test_repeats_are_worth_less_than_fresh_tokens_and_more_than_nothing(
    unique: float, epochs: float, constant: float
) -> None:
    law = RepeatLaw(constant=constant, low=constant, high=constant, study="s")
    worth = law.effective(unique, epochs * unique)
    assert min(1.0, epochs) * unique * (1 - 1e-9) <= worth <= epochs * unique * (1 + 1e-9)
    assert worth <= unique * (1.0 + constant) * (1 + 1e-9)


def test_the_published_law_has_its_published_values() -> None:
    # Up to 4 epochs repeats are almost as good as fresh text; at 16 they are worth little (section 5).
    assert PUBLISHED.effective(1.0, 4.0) == pytest.approx(3.73, abs=0.01)
    assert PUBLISHED.value(1) == 1.0
    assert PUBLISHED.value(16.39) == pytest.approx(math.exp(-1))


def test_a_source_runs_out_in_the_stage_that_reads_its_last_token() -> None:
    # 50 tokens a step of each source: 100 steps of the first stage, then 20 of the second.
    assert runs_out(schedule(), {"a": 6_000.0, "b": 10_000.0}) == {"a": 120}
    worth = effective_tokens(LAW, schedule(), {"a": 5_000.0, "b": 20_000.0})
    assert worth["a"] == pytest.approx(5_000 * (1 + 10 * (1 - math.exp(-0.1))))
    assert worth["b"] == 10_000


def test_epochs_are_judged_by_the_value_of_the_last_one() -> None:
    most = LAW.most_epochs
    assert LAW.value(most, constant=LAW.low) == pytest.approx(0.5)
    available = {"a": 10_000 / (most * 1.01), "b": 10_000 / (most * 0.99)}
    (problem,) = broken_caps(schedule(), available, epoch_cap=most, law=LAW)
    assert problem.where == "source.a"
    assert "worth less than 0.5 of a fresh one by the law of repeats of 's'" in str(problem)
    assert broken_caps(schedule(), available, epoch_cap=most, exempt=("a",), law=LAW) == []


@pytest.mark.parametrize(
    "values",
    [
        {"low": 11.0},
        {"high": 9.0},
        {"low": 0.0},
        {"high": math.inf},
        {"least_value": 0.0},
        {"least_value": 1.1},
    ],
)
def test_laws_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"mixture\.repeats"):
        RepeatLaw(**{**asdict(LAW), **values})


@pytest.mark.parametrize("constant", [4.0, 12.0, 40.0])
def test_a_clear_law_is_found(constant: float) -> None:
    fitted = fit_repeats(synthetic(constant, 0.4, runs=24, noise=0.002, seed=0, most=30.0))
    low, middle, high = fitted.interval(0.99)
    assert low < constant < high
    assert middle == pytest.approx(constant, rel=0.35)
    assert fitted.determined


def test_noise_alone_determines_nothing(tmp_path: Path) -> None:
    fitted = fit_repeats(synthetic(12.0, 0.4, runs=8, noise=2.0, seed=1))
    assert not fitted.determined
    assert "keeps mixture.epoch_cap" in describe(fitted, "s")
    write_law(tmp_path, "s", fitted)
    assert read_law(tmp_path) is None


def test_a_law_is_kept_with_the_study(tmp_path: Path) -> None:
    fitted = fit_repeats(synthetic(8.0, 0.4, runs=24, noise=0.002, seed=0, most=30.0))
    write_law(tmp_path, "s", fitted)
    assert read_law(tmp_path) == fitted.law("s")
    assert read_json(tmp_path / LAW_FILE)["runs"] == 24
    assert f"'mixture.repeats={{constant:{fitted.law('s').constant:g}" in describe(fitted, "s")
    assert read_law(tmp_path / "nowhere") is None


def test_a_promotion_takes_the_law_of_its_study_unless_the_mixture_states_one(
    tmp_path: Path,
) -> None:
    fitted = fit_repeats(synthetic(8.0, 0.4, runs=24, noise=0.002, seed=0, most=30.0))
    write_law(tmp_path, "s", fitted)
    plain = {"weights": {"a": 1.0}, "epoch_cap": 4.0}
    law = asdict(fitted.law("s"))
    assert with_law(plain, tmp_path) == {**plain, "repeats": law}
    assert validate(MixtureSpec, with_law(plain, tmp_path)).most_epochs > 4.0
    stated = {**plain, "repeats": asdict(LAW)}
    assert with_law(stated, tmp_path) == stated
    assert with_law(plain, tmp_path / "nowhere") == plain


def held(fitted: FittedRepeats, runs: list[RepeatRun]) -> int:
    intervals = [fitted.predict(run) for run in runs]
    return sum(low <= run.loss <= high for (low, _, high), run in zip(intervals, runs, strict=True))


def test_intervals_hold_on_runs_that_were_not_fitted() -> None:
    rng = np.random.default_rng(0)
    hits = total = 0
    for seed in range(30):
        constant, exponent = math.exp(rng.normal(math.log(15), 0.7)), float(rng.uniform(0.2, 0.6))
        given = {"noise": 0.01, "seed": seed}
        fitted = fit_repeats(synthetic(constant, exponent, runs=12, **given))
        given["seed"] = 1000 + seed
        fresh = synthetic(constant, exponent, runs=8, most=16.0, **given)
        hits += held(fitted, fresh)
        total += len(fresh)
    assert 0.85 <= hits / total <= 0.96


def test_weights_that_differ_do_not_pass_for_repeats() -> None:
    rng = np.random.default_rng(3)
    runs = []
    for run in synthetic(8.0, 0.4, runs=30, noise=0.002, seed=3, most=30.0):
        share = float(rng.uniform(0.0, 0.5))
        other = 1e6 * share / (1 - share)
        runs.append(
            RepeatRun(
                unique={**run.unique, "b": 1e9},
                read={**run.read, "b": other},
                loss=run.loss + 0.5 * share,
            )
        )
    fitted = fit_repeats(runs)
    assert fitted.sources == ("b",)
    low, _, high = fitted.interval()
    assert low < high
    assert fitted.coefficients.shape[1] == 3


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (synthetic(8.0, 0.4, runs=5, noise=0.1, seed=0), "too few runs"),
        ([], "too few runs"),
        (synthetic(8.0, 0.4, runs=8, noise=0.1, seed=0, most=1.5), "too little repetition"),
        (synthetic(8.0, 0.4, runs=8, noise=0.1, seed=0, most=1.0), "too little repetition"),
    ],
)
def test_runs_that_cannot_show_repeats_are_refused(runs: list[RepeatRun], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_repeats(runs)
