"""Published tables: the shipped one is a tie, broken ones are refused."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from ablations.errors import ConfigError, DataError, UserError
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.published import published_noise, published_table
from sweeps.verdict.verdict_record import read_verdict, write_verdict

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "noise" / "variance.csv"


def test_the_published_web_table_is_a_tie() -> None:
    verdict = decide(published_table("smollm2_web_ratio"))
    assert (verdict.outcome, verdict.tie_kind) == ("tie", "undecided")
    assert (verdict.pick, verdict.baseline) == ("60/40", "fineweb_edu")
    assert verdict.advantage.value == pytest.approx(0.433, abs=0.001)
    # recipe: the difference of two such means has SD about 0.26 points, z about 1.7
    assert verdict.advantage.standard_error == pytest.approx(0.26, abs=0.005)
    assert verdict.advantage.t == pytest.approx(1.7, abs=0.05)
    assert verdict.sentence.startswith("Tie: fineweb_edu 60%, dclm 40% (60/40) is 0.433 ahead of")
    assert verdict.answer == (
        "Any dclm share between 0% and 100% (not 60%) may be best; keep fineweb_edu 100%."
    )
    assert "5 fresh seeds each of 60/40 and fineweb_edu" in verdict.settle_text


def test_tasks_on_which_the_pick_is_better_or_worse() -> None:
    effects = {row.task: row.effect for row in decide(published_table("smollm2_web_ratio")).tasks}
    assert {task for task, effect in effects.items() if effect == "gains"} == {
        "hellaswag",
        "commonsense_qa",
    }
    assert {task for task, effect in effects.items() if effect == "pays"} == {"mmlu", "arc"}


@pytest.mark.parametrize("baseline", ["dclm", "fineweb_edu"])
def test_neither_source_alone_is_beaten(baseline: str) -> None:
    options = VerdictOptions(baseline=baseline)
    assert decide(published_table("smollm2_web_ratio"), options).outcome == "tie"


def test_a_verdict_reads_back_as_written(tmp_path: Path) -> None:
    verdict = decide(published_table("smollm2_web_ratio"))
    write_verdict(tmp_path, verdict)
    assert read_verdict(tmp_path) == verdict
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match="no verdict yet"):
        read_verdict(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="did you mean 'elsewhere'"):
        read_verdict(tmp_path / "elswhere")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="the development data is not here")
def test_the_shipped_noise_is_the_published_noise() -> None:
    with SHARED.open() as stream:
        theirs = {
            row["Task"].lower().replace(" ", "_").replace("-", "_"): float(row["Accuracy SD"])
            for row in csv.DictReader(stream)
        }
    theirs["commonsense_qa"] = theirs.pop("commonsenseqa")
    assert dict(published_noise("olmo_ladder_1b").sds) == pytest.approx(theirs, rel=1e-5)


def test_a_table_from_a_file_is_compared(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(
        "# noise: olmo_ladder_1b\n# scale: 100\n"
        "task,noise_tasks,old,new\nmmlu,mmlu,40,45\npiqa,piqa,70,75\n"
    )
    verdict = decide(published_table(str(table)), VerdictOptions(baseline="old"))
    assert (verdict.outcome, verdict.pick) == ("winner", "new")


def test_a_table_without_noise_names_no_winner(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("task,old,new\nmmlu,40,95\n")
    verdict = decide(published_table(str(table)), VerdictOptions(baseline="old"))
    assert verdict.outcome == "tie"
    assert "the study does not show how large the training noise is" in verdict.sentence
    assert (
        decide(published_table(str(table)), VerdictOptions(baseline="old", run_sd=0.2)).outcome
        == "winner"
    )


def test_a_missing_value_stays_missing(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(
        "# noise: olmo_ladder_1b\n# scale: 100\n"
        "task,noise_tasks,old,new,other\nmmlu,mmlu,40,41,\npiqa,piqa,70,71,72\n"
    )
    verdict = decide(published_table(str(table)), VerdictOptions(baseline="old"))
    assert {row.name for row in verdict.candidates} == {"old", "new"}
    assert any("lack a metric" in caveat for caveat in verdict.caveats)


def test_a_baseline_without_a_score_is_refused_by_name(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("task,old,new,other\nmmlu,,41,42\n")
    with pytest.raises(ConfigError, match="baseline: old cannot be judged"):
        decide(published_table(str(table)), VerdictOptions(baseline="old"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("task,a\nmmlu,1\n", DataError, "two candidates"),
        ("task,a,b\nmmlu,1,two\n", DataError, "not a number"),
    ],
)
def test_a_broken_table_is_refused(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=message):
        published_table(str(tmp_path / "t.csv"))


def test_an_unknown_table_and_an_unknown_baseline_suggest_the_nearest() -> None:
    with pytest.raises(UserError, match="smollm2_web_ratio"):
        published_table("smollm2_web")
    with pytest.raises(ConfigError, match="did you mean 'dclm'"):
        decide(published_table("smollm2_web_ratio"), VerdictOptions(baseline="dclmm"))
    with pytest.raises(ConfigError, match="baseline itself"):
        decide(published_table("smollm2_web_ratio"), VerdictOptions(pick="fineweb_edu"))


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        VerdictOptions(alpha=2.0, margin=-1.0, effect=0.0, last_checkpoints=1, run_sd=0.0)
    assert len(caught.value.problems) == 5


def test_a_task_without_noise_is_named(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text(
        "# noise: olmo_ladder_1b\n# scale: 100\n"
        "task,noise_tasks,old,new\nmmlu,mmlu,40,45\nodd,nowhere,70,75\n"
    )
    verdict = decide(published_table(str(table)), VerdictOptions(baseline="old"))
    assert verdict.outcome == "tie"
    (caveat,) = [c for c in verdict.caveats if "No noise is declared" in c]
    assert "odd/score" in caveat
    assert "mmlu" not in caveat
    declared = decide(published_table(str(table)), VerdictOptions(baseline="old", run_sd=0.2))
    assert not any("No noise is declared" in c for c in declared.caveats)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"task,a,b\nx,1,caf\xe9\n", "not text in UTF-8"),
        ("task,a,b\nx,1,2\n".encode("utf-16"), "not text in UTF-8"),
        (b"name,a,b\nx,1,2\n", "has no column 'task'"),
        (b"", "has no column 'task'"),
        (b"task,a,b\nx,1\n", "another number of cells; found: row 1"),
        (b"task,a,b\nx,1,2,3\n", "another number of cells; found: row 1"),
        (b"# scale: big\ntask,a,b\nx,1,2\n", "scale: not a number above zero; found: big"),
        (b"# scale: nan\ntask,a,b\nx,1,2\n", "scale: not a number above zero; found: nan"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)):
        published_table(str(path))


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(DataError, match="no such table"):
        published_table(str(tmp_path / "x.csv"))
