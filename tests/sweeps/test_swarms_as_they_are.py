"""Tables of other programs: extra columns, spreadsheets' separators, empty columns, bad rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ablations.errors import ConfigError, DataError
from sweeps.commands.fit import main
from sweeps.swarm.fit_swarm import FitOptions, SwarmFit, fit_swarm
from sweeps.swarm.swarm_tables import is_bookkeeping, read_pair

CASES = Path(__file__).parents[3] / "shared" / "cases" / "swarms"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="needs the tables in ../shared")

FAST = FitOptions(families=("scheffe",), resamples=2)
BEST_WEB = 0.9

Edit = Callable[[list[list[str]]], list[list[str]]]


def table(header: list[str], rows: list[list[float]]) -> list[list[str]]:
    return [header, *([str(i), *map(repr, row)] for i, row in enumerate(rows))]


def ratios() -> list[list[str]]:
    drawn = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    return table(["index", "web", "code", "math"], drawn.tolist())


def metrics() -> list[list[str]]:
    """Two losses whose mean is least at 90% of web and 10% of code."""
    drawn = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    away = 1.0 + 2.0 * (drawn[:, 0] - BEST_WEB) ** 2 + 2.0 * drawn[:, 2]
    tilt = 0.5 * drawn[:, 1]
    return table(
        ["index", "web_loss", "code_loss"], np.stack([away + tilt, away - tilt], 1).tolist()
    )


def with_column(name: str, values: Callable[[int], str], at: int = 1) -> Edit:
    def edit(rows: list[list[str]]) -> list[list[str]]:
        cells = [name, *(values(i) for i in range(len(rows) - 1))]
        return [[*row[:at], cell, *row[at:]] for row, cell in zip(rows, cells, strict=True)]

    return edit


def write(path: Path, rows: list[list[str]], separator: str = ",") -> Path:
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    return path


def fitted(
    folder: Path, left: list[list[str]], right: list[list[str]], options: FitOptions = FAST
) -> SwarmFit:
    swarm = read_pair(write(folder / "r.csv", left), write(folder / "m.csv", right))
    return fit_swarm(swarm, options)


def test_the_plain_tables_have_their_optimum(tmp_path: Path) -> None:
    fit = fitted(tmp_path, ratios(), metrics())
    assert fit.optimum == pytest.approx({"web": 0.9, "code": 0.1, "math": 0.0}, abs=0.02)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("step", lambda i: "1000"),
        ("_timestamp", lambda i: str(1.7e9 + i)),
        ("seed", lambda i: str(i % 3)),
        ("trainer/global_step", lambda i: str(10 * i)),
        ("perplexity", lambda i: str(20.0 + 7.0 * (i % 5))),
        ("tag", lambda i: ""),
    ],
)
def test_further_numeric_columns_never_enter_the_score(
    tmp_path: Path, name: str, values: Callable[[int], str]
) -> None:
    fit = fitted(tmp_path, ratios(), with_column(name, values)(metrics()))
    assert fit.metrics == ("web_loss", "code_loss")
    assert fit.surface_optimum == pytest.approx({"web": 0.9, "code": 0.1, "math": 0.0}, abs=0.02)
    assert any("left out of the score" in note and name in note for note in fit.notes)


def test_a_column_named_in_full_is_taken(tmp_path: Path) -> None:
    rows = with_column("step", lambda i: str(i))(metrics())
    options = FitOptions(families=("scheffe",), resamples=0, target=("step",))
    assert fitted(tmp_path, ratios(), rows, options).metrics == ("step",)


def test_scales_of_which_none_is_the_rule_are_refused(tmp_path: Path) -> None:
    rows = with_column("perplexity", lambda i: str(200.0 + i))(metrics())
    options = FitOptions(families=("scheffe",), target=("web_loss*", "perp*"))
    with pytest.raises(ConfigError, match=r"different scales.*perplexity about 2"):
        fitted(tmp_path, ratios(), rows, options)


def test_an_empty_column_asked_for_by_name_is_refused_by_name(tmp_path: Path) -> None:
    rows = with_column("empty", lambda i: "")(metrics())
    options = FitOptions(families=("scheffe",), target=("empty", "web_loss"))
    with pytest.raises(ConfigError, match=r"no run has a value.*empty"):
        fitted(tmp_path, ratios(), rows, options)


def test_a_column_that_leaves_too_few_whole_runs_is_named(tmp_path: Path) -> None:
    rows = with_column("late", lambda i: "1.5" if i < 3 else "")(metrics())
    with pytest.raises(ConfigError, match="'late' is missing in 37 runs"):
        fitted(tmp_path, ratios(), rows)


def test_a_seed_is_no_source(tmp_path: Path) -> None:
    left = with_column("seed", lambda i: "0")(ratios())
    swarm = read_pair(write(tmp_path / "r.csv", left), write(tmp_path / "m.csv", metrics()))
    assert swarm.sources == ("web", "code", "math")
    assert "left out: seed" in swarm.notes[0]


@pytest.mark.parametrize("form", ["mark", "semicolon", "tab", "decimal comma"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, form: str) -> None:
    plain = read_pair(write(tmp_path / "r.csv", ratios()), write(tmp_path / "m.csv", metrics()))
    rows = ratios()
    if form == "mark":
        text = "".join(",".join(row) + "\r\n" for row in rows)
        path = tmp_path / "other.csv"
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    else:
        if form == "decimal comma":
            rows = [[cell.replace(".", ",") for cell in row] for row in rows]
        path = write(tmp_path / "other.csv", rows, "\t" if form == "tab" else ";")
    read = read_pair(path, tmp_path / "m.csv")
    assert (read.runs, read.sources) == (plain.runs, plain.sources)
    np.testing.assert_array_equal(read.weights, plain.weights)
    assert any("decimal commas" in note for note in read.notes) == (form == "decimal comma")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff\xfei\x00n\x00", "not text in UTF-8"),
        (b"index,a,a\n0,1,0\n", "same name over several columns"),
        (b"index,a,b\n0,1\n", "another number of cells"),
        (b"index;a;b\n0;0,5;0.5\n1;0,25;0,75\n", "decimal commas and points"),
        (b"index\n0\n", "no column of sources"),
        (b"", "an empty table"),
    ],
)
def test_what_cannot_be_read_is_refused_for_what_it_is(
    tmp_path: Path, text: bytes, message: str
) -> None:
    (tmp_path / "r.csv").write_bytes(text)
    with pytest.raises(DataError, match=message) as caught:
        read_pair(tmp_path / "r.csv", write(tmp_path / "m.csv", metrics()))
    assert "r.csv" in str(caught.value)


def test_the_table_without_names_of_rows_is_the_one_refused(tmp_path: Path) -> None:
    left = write(
        tmp_path / "r.csv", [["id", *row[1:]] if row[0] == "index" else row for row in ratios()]
    )
    with pytest.raises(DataError, match=r"r\.csv.*no column names the rows"):
        read_pair(left, write(tmp_path / "m.csv", metrics()))


def test_rows_that_are_no_mixture_are_left_out_only_when_asked(tmp_path: Path) -> None:
    rows = ratios()
    rows[3] = ["2", "0.52", "0.25", "0.25"]
    left, right = write(tmp_path / "r.csv", rows), write(tmp_path / "m.csv", metrics())
    with pytest.raises(DataError, match=r"1 of 40 rows are not mixtures.*2: sum 1\.02"):
        read_pair(left, right)
    read = read_pair(left, right, "leave_out")
    assert "2" not in read.runs
    assert read.weights.shape == (39, 3)
    assert read.values.shape == (39, 2)
    assert any("2: sum 1.02" in note for note in read.notes)
    out = tmp_path / "out"
    config = {"ratios": str(left), "metrics": str(right), "out": str(out),
              "bad_rows": "leave_out", "families": ["scheffe"], "resamples": 2}  # fmt: skip
    assert main(config) == 0
    assert json.loads((out / "fit.json").read_text())["leaderboard"]["runs"] == 39
    with pytest.raises(ConfigError, match="bad_rows"):
        main({**config, "bad_rows": "keep"})


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("_step", True),
        ("Seed", True),
        ("trainer/global_step", True),
        ("wall time", True),
        ("hellaswag/acc", False),
        ("time_travel/bpb", False),
        ("stepwise_loss", False),
    ],
)
def test_names_of_bookkeeping_are_known_whole(name: str, made: bool) -> None:
    assert is_bookkeeping(name) is made


@pytest.mark.shared
@needs_cases
@pytest.mark.parametrize(
    ("left", "right", "named"),
    [
        ("r_ok", "m_ok", ""),
        ("r_ok", "m_step", "step"),
        ("r_ok", "m_timestamp", "_timestamp"),
        ("r_ok", "m_allnan", "empty"),
        ("r_seed", "m_ok", "seed"),
        ("r_bom", "m_ok", ""),
        ("r_semicolon", "m_ok", ""),
    ],
)
def test_the_given_tables_all_have_the_optimum_of_the_plain_ones(
    left: str, right: str, named: str
) -> None:
    swarm = read_pair(CASES / f"{left}.csv", CASES / f"{right}.csv")
    fit = fit_swarm(swarm, FAST)
    assert fit.surface_optimum["web"] == pytest.approx(0.98, abs=0.02)
    assert fit.metrics == ("web_loss", "code_loss")
    assert any(named in note for note in fit.notes) or not named
