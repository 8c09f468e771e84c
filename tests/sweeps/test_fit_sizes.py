"""``ablate fit`` over model sizes: tables, the size that is left out, and the prediction at the largest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ablations.errors import ConfigError, DataError
from sweeps.commands.fit import main
from sweeps.search.space import Floats
from sweeps.swarm.fit_sizes import fit_sizes
from sweeps.swarm.fit_swarm import FitOptions
from sweeps.swarm.sized_swarm import SizedSwarm, join_sizes, read_sizes
from sweeps.swarm.swarm_tables import Swarm, write_pair

SOURCES = ("web", "code", "math")
OPTIONS = FitOptions(resamples=2)


def losses(weights: Floats, shift: float, seed: int) -> Floats:
    best = np.array([0.5, 0.3, 0.2])
    gap = ((np.sqrt(weights) - np.sqrt(best)) ** 2) @ np.array([[1.0, 0.6], [0.7, 1.0], [1.2, 0.8]])
    return shift + gap + np.random.default_rng(seed).normal(scale=0.003, size=gap.shape)


def swarm(runs: int, shift: float, *, seed: int = 0, turned: bool = False) -> Swarm:
    weights = np.random.default_rng(seed).dirichlet(np.ones(3), runs)
    values = losses(weights, shift, seed)
    return Swarm(
        runs=tuple(f"run-{number}" for number in range(runs)),
        sources=SOURCES,
        weights=weights,
        metrics=("a_loss", "b_loss"),
        values=2.0 * shift - values if turned else values,
    )


def two_sizes(large: int, *, turned: bool = False) -> SizedSwarm:
    both = [swarm(30, 3.0, turned=turned), swarm(large, 2.5)]
    return join_sizes(both, [1e8, 1e9], [1.0, 1.0])


def write_table(path: Path, **changed: str) -> Path:
    rows = ["weight_web,weight_code,weight_math,model_size,n_tokens,step,a_loss,b_loss"]
    for size, shift in ((1e8, 3.0), (1e9, 2.5)):
        made = swarm(14, shift)
        for tokens in (1e9, 3e9, 6e9, 1e10):
            for weights, values in zip(made.weights, made.values, strict=True):
                cells = [*weights, size, tokens, 7, *(values + 1e9 / tokens)]
                rows.append(",".join(repr(float(cell)) for cell in cells))
    text = "\n".join(rows) + "\n"
    for old, new in changed.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path


def read(path: Path, **options: str) -> SizedSwarm:
    names = {"size": "model_size", "tokens": "n_tokens", **options}
    return read_sizes(path, size=names["size"], tokens=names["tokens"], weights=("weight_*",))


def test_one_table_keeps_two_horizons_of_each_size(tmp_path: Path) -> None:
    sized = read(write_table(tmp_path / "t.csv"))
    assert sized.swarm.sources == SOURCES
    assert sized.swarm.metrics == ("a_loss", "b_loss")
    assert sized.levels == (1e8, 1e9)
    assert set(sized.tokens) == {3e9, 1e10}
    assert "56 rows of other checkpoints are left out" in sized.swarm.notes[-1]
    rungs = sized.rungs(1e9)
    assert rungs[sized.ends(1e9)] == pytest.approx(0.0)
    assert rungs[0] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("options", "changed", "error", "message"),
    [
        pytest.param({"size": "params"}, {}, ConfigError, "no such column", id="no size column"),
        pytest.param({"tokens": "seen"}, {}, ConfigError, "no such column", id="no tokens column"),
        pytest.param({}, {"1000000000.0,7": "0.0,7"}, DataError, "above zero", id="no tokens"),
        pytest.param({}, {"weight_": "share_"}, DataError, "no column of sources", id="no sources"),
    ],
)
def test_a_table_without_what_is_named_is_refused(
    tmp_path: Path,
    options: dict[str, str],
    changed: dict[str, str],
    error: type[Exception],
    message: str,
) -> None:
    path = write_table(tmp_path / "t.csv", **changed)
    with pytest.raises(error, match=message):
        read(path, **options)


@pytest.mark.parametrize(
    ("sizes", "tokens", "message"),
    [
        ([1e8], [1.0], "not one size"),
        ([1e8, 1e8], [1.0, 1.0], "twice the same"),
        ([1e8, 0.0], [1.0, 1.0], "not above zero"),
    ],
)
def test_sizes_that_do_not_name_the_tables_are_refused(
    sizes: list[float], tokens: list[float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        join_sizes([swarm(12, 3.0), swarm(12, 2.5)], sizes, tokens)


def test_a_source_that_one_size_lacks_has_weight_zero_there() -> None:
    small = swarm(12, 3.0)
    two = Swarm(
        runs=small.runs,
        sources=SOURCES[:2],
        weights=small.weights[:, :2] / small.weights[:, :2].sum(axis=1, keepdims=True),
        metrics=small.metrics,
        values=small.values,
    )
    joined = join_sizes([two, swarm(12, 2.5)], [1e8, 1e9], [1.0, 1.0])
    assert (joined.swarm.weights[:12, 2] == 0.0).all()


def test_the_largest_size_is_predicted_from_few_of_its_runs() -> None:
    fit = fit_sizes(two_sizes(14), OPTIONS)
    kept = {(entry.size, entry.kept): entry for entry in fit.leaderboard}
    assert set(kept) == {(1e8, 0), (1e8, 4), (1e9, 0), (1e9, 4)}
    assert kept[1e9, 4].score_rank_correlation > 0.9
    assert kept[1e9, 0].coverage is None
    assert fit.optimum == pytest.approx({"web": 0.5, "code": 0.3, "math": 0.2}, abs=0.12)
    assert fit.low < fit.score < fit.high
    assert fit.score == pytest.approx(2.5, abs=0.05), "the level is that of the largest size"
    assert set(fit.ranges) == set(SOURCES)
    assert not any("shrunk" in note for note in fit.notes)


def test_too_few_large_runs_are_shrunk_and_it_is_stated() -> None:
    fit = fit_sizes(two_sizes(3), OPTIONS)
    assert any("only 3 runs at 1B parameters" in note and "shrunk" in note for note in fit.notes)
    assert fit.score == pytest.approx(2.5, abs=0.1)
    assert {entry.size for entry in fit.leaderboard} == {1e8}, "3 runs cannot be left out"


def test_sizes_that_rank_mixtures_otherwise_offer_no_optimum() -> None:
    fit = fit_sizes(two_sizes(14, turned=True), OPTIONS)
    assert fit.optimum is None
    assert any("do not rank mixtures like 1B" in reason for reason in fit.reasons)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"baseline": "run-1"}, "does not apply"), ({"surrogate": "linear"}, "does not apply")],
)
def test_options_of_a_fit_of_one_size_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit_sizes(two_sizes(8), FitOptions(**options))  # type: ignore[arg-type]


def test_one_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="one size only"):
        fit_sizes(join_sizes([swarm(14, 3.0)], [1e8], [1.0]), OPTIONS)


def test_the_command_fits_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = write_table(tmp_path / "t.csv"), tmp_path / "out"
    assert main({"table": str(table), "out": str(out), "resamples": 0}) == 0
    printed = capsys.readouterr().out
    assert "one size left out" in printed
    assert "optimum at 1B parameters" in printed
    assert json.loads((out / "fit.json").read_text())["sizes"] == [[1e8, 14], [1e9, 14]]
    assert (out / "leaderboard.csv").read_text().startswith("size,kept,runs")


def test_the_command_fits_a_pair_of_tables_for_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [write_pair(tmp_path / str(n), swarm(14, shift)) for n, shift in enumerate((3.0, 2.5))]
    config = {
        "ratios": [str(left) for left, _ in pairs],
        "metrics": [str(right) for _, right in pairs],
        "sizes": [1e8, 1e9],
        "out": str(tmp_path / "out"),
        "resamples": 0,
    }
    assert main(config) == 0
    assert "14 runs at 100M parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    "config",
    [
        {"table": "t.csv", "study": "s"},
        {"table": "t.csv", "sizes": [1.0]},
        {"sizes": [1.0], "ratios": "r", "metrics": "m"},
        {"sizes": [1.0, 2.0], "ratios": ["r"], "metrics": ["m", "n"]},
        {"ratios": ["r"], "metrics": ["m"]},
    ],
)
def test_contradicting_subjects_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"one table|not one for each|name a study"):
        main(config)
