"""Swarms: published tables, refusals, written and read back the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ablations.errors import ConfigError, DataError
from sweeps.commands.fit import main
from sweeps.swarm.fit_swarm import FitOptions, fit_swarm
from sweeps.swarm.swarm_tables import Swarm, read_pair, write_pair

SHARED = Path(__file__).parents[3] / "shared" / "data" / "swarms"
needs_swarms = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the swarms in ../shared")


def tables(folder: Path, ratios: str, metrics: str) -> tuple[Path, Path]:
    left, right = folder / "a.csv", folder / "b.csv"
    left.write_text(ratios)
    right.write_text(metrics)
    return left, right


def swarm(n: int = 40) -> Swarm:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), n)
    values = np.stack([np.exp(-2.0 * weights[:, 1]), np.exp(-2.0 * weights[:, 2])], axis=1)
    values += np.random.default_rng(1).normal(0.0, 0.005, values.shape)
    return Swarm(
        runs=tuple(f"r{i}" for i in range(n)),
        sources=("web", "code", "math"),
        weights=weights,
        metrics=("code/bpb", "math/bpb"),
        values=values,
    )


def test_tables_are_matched_by_run_and_rounding_is_noted(tmp_path: Path) -> None:
    pair = tables(
        tmp_path,
        ",run,name,index,web,code\n0,x,n,0,0.502,0.5\n1,y,n,1,1.0,0\n2,only,n,2,1,0\n",
        ",run,name,index,bpb\n0,y,n,0,2.5\n1,x,n,1,\n",
    )
    read = read_pair(*pair)
    assert read.runs == ("x", "y")
    np.testing.assert_allclose(read.weights.sum(axis=1), 1.0)
    assert np.isnan(read.values[0, 0])
    assert read.values[1, 0] == 2.5
    assert "renormalised" in read.notes[0]
    assert "1 rows are in one of the two" in read.notes[1]


def test_regmix_names_lose_their_prefixes(tmp_path: Path) -> None:
    pair = tables(tmp_path, "index,train_web,train_code\n1,0.5,0.5\n", "index,metric/x\n1,3.0\n")
    read = read_pair(*pair)
    assert (read.sources, read.metrics) == (("web", "code"), ("x",))


@pytest.mark.parametrize(
    ("ratios", "metrics", "message"),
    [
        ("run,a\nx,0.9\n", "run,m\nx,1\n", "not mixtures"),
        ("run,a,b\nx,1.5,-0.5\n", "run,m\nx,1\n", "not mixtures"),
        ("run,a\nx,one\n", "run,m\nx,1\n", "not a number"),
        ("run,a\nx,1\n", "id,m\nx,1\n", "no column names the rows"),
        ("run,a\nx,1\n", "run,m\ny,1\n", "shares no 'run'"),
        ("run,a\nx,1\nx,1\n", "run,m\nx,1\n", "in several rows"),
    ],
)
def test_tables_that_are_no_swarm_are_refused(
    tmp_path: Path, ratios: str, metrics: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_pair(*tables(tmp_path, ratios, metrics))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such table"):
        read_pair(tmp_path / "none.csv", tmp_path / "none.csv")


def test_a_swarm_written_is_read_back_exactly(tmp_path: Path) -> None:
    before = swarm(5)
    before.values[2, 1] = np.nan
    after = read_pair(*write_pair(tmp_path / "out", before))
    assert (after.runs, after.sources, after.metrics) == (
        before.runs,
        before.sources,
        before.metrics,
    )
    np.testing.assert_allclose(after.weights, before.weights, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(after.values, before.values)


def test_a_fit_finds_the_optimum_inside_its_bounds_with_its_uncertainty() -> None:
    options = FitOptions(
        families=("log-linear", "linear"), high={"code": 0.3}, fixed={"web": 0.2}, resamples=3
    )
    fit = fit_swarm(swarm(), options)
    assert fit.surrogate == fit.leaderboard.best == "log-linear"
    assert fit.optimum == pytest.approx({"web": 0.2, "code": 0.3, "math": 0.5}, abs=1e-6)
    assert fit.low < fit.score < fit.high
    assert len(fit.alike) == 3
    assert fit.ranges["web"] == pytest.approx((0.2, 0.2))


def test_epoch_caps_bound_the_optimum() -> None:
    from sweeps.swarm.fit_swarm import CapSpec

    caps = CapSpec(tokens={"math": 5e9}, full_tokens=1e11)
    options = FitOptions(families=("log-linear",), caps=caps, resamples=0)
    assert fit_swarm(swarm(), options).optimum["math"] == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": ("speed",)}, "matches no metric"),
        ({"low": {"wiki": 0.1}}, "unknown source 'wiki'"),
        ({"families": ("gpp",)}, "did you mean 'gp'"),
    ],
)
def test_wrong_options_of_a_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_swarm(swarm(), FitOptions(**settings))  # type: ignore[arg-type]


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="folds") as caught:
        FitOptions(folds=1, resamples=-1, pull=-1.0)
    assert len(caught.value.problems) == 3


def test_the_command_writes_what_the_next_one_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios, metrics = write_pair(tmp_path / "in", swarm())
    out = tmp_path / "out"
    config = {"ratios": str(ratios), "metrics": str(metrics), "out": str(out),
              "families": ["log-linear", "linear"], "resamples": 2}  # fmt: skip
    assert main(config) == 0
    assert "optimum of log-linear" in capsys.readouterr().out
    record = json.loads((out / "fit.json").read_text())
    assert record["surrogate"] == "log-linear"
    assert (out / "leaderboard.csv").read_text().startswith("name,rank_correlation")
    assert read_pair(out / "ratios.csv", out / "metrics.csv").runs == swarm().runs


@pytest.mark.parametrize("config", [{}, {"study": "s", "ratios": "r"}, {"ratios": "r"}])
def test_the_command_needs_a_study_or_two_tables(config: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="name a study, or a pair of tables"):
        main(config)


@pytest.mark.shared
@needs_swarms
def test_the_published_swarms_are_read_whole() -> None:
    regmix = read_pair(
        SHARED / "regmix" / "train_mixture_1m.csv", SHARED / "regmix" / "train_pile_loss_1m.csv"
    )
    assert (regmix.weights.shape, regmix.values.shape) == ((512, 17), (512, 13))
    assert any("renormalised" in note for note in regmix.notes)
    olmix = read_pair(SHARED / "olmix_dclm" / "ratios.csv", SHARED / "olmix_dclm" / "metrics.csv")
    assert (olmix.weights.shape, olmix.values.shape) == ((127, 24), (127, 110))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"families": []}, "families: names nothing"),
        ({"target": []}, "target: names nothing"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"resamples": 10**9}, "resamples: Input should be less than or equal to 100000"),
    ],
)
def test_options_out_of_range_are_refused(words: dict[str, object], message: str) -> None:
    from ablations.config.schema import validate

    with pytest.raises(ConfigError, match=re.escape(message)):
        validate(FitOptions, words)
