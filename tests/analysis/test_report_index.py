"""The index of a runs folder."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest

from ablations.cli import main
from ablations.errors import DataError
from ablations.files import read_json, write_sealed
from analysis.report.index import IndexRow, gather_index, index_html

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def runs(runs_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a stored verdict, one without, a full run of a promotion, and a folder without runs."""
    folder = tmp_path_factory.mktemp("index") / "runs"
    shutil.copytree(FIXTURES / "runs" / "demo_ratio", folder / "quick")
    shutil.copytree(runs_dir / "three", folder / "three")
    shutil.copytree(runs_dir / "ratio" / "trial-0000-0", folder / "quick-demo_full-001" / "full-0")
    (folder / "empty").mkdir()
    (folder / "index.html").write_text("an older index")
    return folder


@pytest.fixture(scope="module")
def rows(runs: Path) -> dict[str, IndexRow]:
    return {row.study: row for row in gather_index(runs, FIXTURES / "promotions")}


def test_each_study_has_its_question_verdict_cost_date_and_promotions(
    rows: dict[str, IndexRow],
) -> None:
    assert set(rows) == {"quick", "three", "quick-demo_full-001"}
    quick = rows["quick"]
    assert quick.question == "Which ratio of encyclopedic text to conversations scores best?"
    assert (quick.outcome, quick.label) == ("tie", "tie")
    assert quick.answer.startswith("Tie: trial-0003 is 0.0165 behind natural")
    assert quick.runs == "15 done"
    assert quick.cost.endswith("of one CPU core")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", quick.day)
    assert quick.promoted == ["demo_full, 2026-11-22"]


def test_a_study_without_a_verdict_has_none_made(runs: Path, rows: dict[str, IndexRow]) -> None:
    assert (rows["three"].outcome, rows["three"].label) == ("none", "no verdict")
    assert rows["three"].answer.startswith("Best score of one run so far: ")
    assert not (runs / "three" / "verdict.json").exists()


def test_a_full_run_is_named_as_one(rows: dict[str, IndexRow]) -> None:
    question = rows["quick-demo_full-001"].question
    assert question == "Full run of the promotion quick-demo_full-001 of study quick"


def test_an_outdated_verdict_is_marked(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "quick", tmp_path / "quick")
    stored = tmp_path / "quick" / "verdict.json"
    write_sealed(stored, read_json(stored) | {"created": 1.0})
    (row,) = gather_index(tmp_path)
    assert "15 runs ended after this verdict was made" in row.note
    assert row.promoted == []


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs" / "study").mkdir(parents=True)
    for folder in (tmp_path / "runs", tmp_path / "absent"):
        with pytest.raises(DataError, match="no study is recorded there"):
            gather_index(folder)


def test_the_command_without_a_study_writes_the_index(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"runs_dir={runs}", f"promotions={FIXTURES / 'promotions'}"]
    assert main(["report", "study=three", *given, "surrogates=none", "verdict=none"]) == 0
    assert main(["report", *given, "markdown=-"]) == 0
    out = capsys.readouterr().out
    assert f"{runs / 'index.html'}" in out
    assert "| quick | Which ratio of encyclopedic text" in out
    page = (runs / "index.html").read_text()
    assert '<a href="three/report.html">three</a>' in page
    assert "ablate report study=quick" in page
    assert "3 studies, 1 tie, 1 promoted." in page
    assert '<a href="../index.html">All studies</a>' in (runs / "three" / "report.html").read_text()
    assert html.unescape(re.findall(r"<pre>(.*?)</pre>", page)[-1]).startswith(
        "ablate report runs_dir="
    )


@pytest.mark.parametrize("argument", ["frames=out", "card=promotions/x"])
def test_what_needs_a_study_is_refused_for_the_index(
    runs: Path, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", f"runs_dir={runs}", argument]) == 2
    assert "needs a study" in capsys.readouterr().err


def test_names_of_users_cannot_break_the_index(runs: Path, tmp_path: Path) -> None:
    evil = tmp_path / "<b>x"
    shutil.copytree(runs / "quick" / "trial-0000-0", evil / "trial-0000-0")
    page = index_html(gather_index(tmp_path), tmp_path, tmp_path / "index.html")
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page
