from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ablations.cli import main
from ablations.errors import ConfigError
from ablations.quantities import clock
from analysis.commands.watch import WatchOptions
from analysis.trackers import TRACKERS, Mirror, open_mirror
from analysis.watch.live_table import snapshot_table
from analysis.watch.snapshot import look


class Notebook:
    """A tracker that keeps what it is given in a list: the suite's own, beside the three shipped."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, dict[str, float]]] = []
        self.run = ""

    def begin(self, run: str, config: Mapping[str, Any]) -> None:
        assert config["mixture"]
        self.run = run

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((self.run, step, dict(values)))

    def end(self) -> None:
        self.run = ""


@pytest.fixture
def study(tmp_path: Path, runs_dir: Path) -> Path:
    shutil.copytree(runs_dir / "ratio", tmp_path / "ratio")
    return tmp_path


def test_a_look_says_where_every_run_stands(study: Path) -> None:
    snapshot = look(study, "ratio")
    assert snapshot.counts == {"done": 18, "failed": 1, "training": 1}
    assert snapshot.direction == "minimize"
    (working,) = [run for run in snapshot.runs if run.working]
    assert working.share == 0.5
    assert working.loss is not None
    assert working.score is None
    assert snapshot.seconds_left == pytest.approx(30.0 * 0.5)


def test_the_time_left_is_unknown_before_a_run_has_ended(study: Path) -> None:
    for run in (study / "ratio").iterdir():
        (run / "result.json").unlink(missing_ok=True)
        values = json.loads((run / "manifest.json").read_text())
        values |= {"status": "training", "finished": None}
        (run / "manifest.json").write_text(json.dumps(values))
    assert look(study, "ratio").seconds_left is None


def test_the_budget_of_the_study_is_read_where_it_is_kept(study: Path) -> None:
    assert look(study, "ratio").planned_trials is None
    (study / "ratio" / "ledger.json").write_text(json.dumps({"budget": {"trials": 40}}))
    assert look(study, "ratio").planned_trials == 40


def test_planned_trials_that_have_not_begun_count_in_the_time_left(study: Path) -> None:
    before = look(study, "ratio")
    begun = len({run.trial for run in before.runs})
    (study / "ratio" / "ledger.json").write_text(json.dumps({"budget": {"trials": begun + 4}}))
    after = look(study, "ratio")
    assert after.unbegun == 4
    assert before.seconds_left is not None
    assert after.seconds_left == pytest.approx(before.seconds_left + 4 * 30.0)


def test_a_row_that_is_being_written_is_not_read(study: Path) -> None:
    metrics = study / "ratio" / "trial-0011-0" / "metrics.jsonl"
    with metrics.open("a") as stream:
        stream.write('{"step": 21, "tok')
    (working,) = [run for run in look(study, "ratio").runs if run.working]
    assert working.share == 0.5


def text_of(study: Path, rows: int = 24, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(snapshot_table(look(study, "ratio"), rows))
    console.file.close()
    return console.export_text()


def test_runs_at_work_come_first_then_the_best(study: Path) -> None:
    lines = [line for line in text_of(study).splitlines() if line.strip().startswith("trial-")]
    assert lines[0].split()[0] == "trial-0011-0"
    scores = [float(s) for line in lines[1:-1] for s in line.split() if s.startswith(("1.", "2."))]
    assert scores == sorted(scores)
    assert "failed" in lines[-1]


def test_the_table_fits_eighty_columns(study: Path) -> None:
    text = text_of(study)
    assert max(map(len, text.splitlines())) <= 80
    assert "trial-0011-0" in text
    assert "training" in text


def test_what_is_not_shown_is_counted(study: Path) -> None:
    assert "15 runs not shown" in text_of(study, rows=5)


def test_a_run_without_news_is_said_to_be_silent(study: Path) -> None:
    metrics = study / "ratio" / "trial-0011-0" / "metrics.jsonl"
    old = metrics.stat().st_mtime - 600
    os.utime(metrics, (old, old))
    assert re.search(r"silent 1\d:\d\d", text_of(study))  # ten minutes, and what the test took


@pytest.mark.parametrize(("seconds", "said"), [(5.4, "0:05"), (125, "2:05"), (3725, "1:02:05")])
def test_times_are_read_as_on_a_clock(seconds: float, said: str) -> None:
    assert clock(seconds) == said


def test_the_command_prints_one_frame(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "study=ratio", f"runs_dir={study}", "once=true", "rows=3"]) == 0
    out = capsys.readouterr().out
    assert "18 done, 1 failed, 1 training" in out
    assert not (study / "ratio" / "tracker").exists()


@pytest.mark.parametrize(
    ("values", "key"), [({"refresh_seconds": 0.0}, "refresh_seconds"), ({"rows": 0}, "rows")]
)
def test_options_out_of_range_are_refused(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        WatchOptions(study="ratio", **values)


def test_no_tracker_is_opened_unless_one_is_named(study: Path) -> None:
    assert open_mirror("none", study, "ratio", study / "tracker") is None


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_told(
    name: str, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigError, match=f"pip install {name}"):
        open_mirror(name, study, "ratio", study / "tracker")


def test_every_row_is_copied_once(study: Path) -> None:
    tracker = Notebook()
    mirror = Mirror(tracker, study, "ratio", study / "tracker")
    assert mirror.sync() == 18 * (40 + 4) + 2 * (20 + 2)
    assert mirror.sync() == 0
    steps = [(run, step) for run, step, _ in tracker.rows]
    assert len(steps) == len(set(steps)) == 18 * 40 + 2 * 20
    last = next(v for r, s, v in tracker.rows if (r, s) == ("trial-0000-0", 40))
    assert {"train/loss", "score", "task_00/bpb"} <= set(last)


def test_only_new_rows_are_copied_by_the_next_process(study: Path) -> None:
    Mirror(Notebook(), study, "ratio", study / "tracker").sync()
    run = study / "ratio" / "trial-0011-0"
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 21, "tokens": 1, "loss": None}) + "\n")
    tracker = Notebook()
    assert Mirror(tracker, study, "ratio", study / "tracker").sync() == 1
    assert tracker.rows == [("trial-0011-0", 21, {"train/tokens": 1.0})]


def test_a_death_between_the_copy_and_its_note_loses_nothing(study: Path) -> None:
    class Dies(Notebook):
        def end(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Mirror(Dies(), study, "ratio", study / "tracker").sync()
    tracker = Notebook()
    Mirror(tracker, study, "ratio", study / "tracker").sync()
    assert {run for run, _, _ in tracker.rows} == {p.name for p in (study / "ratio").glob("*-*")}


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_installed_takes_the_records(name: str, study: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    for run in list((study / "ratio").iterdir())[2:]:
        shutil.rmtree(run)
    mirror = open_mirror(name, study, "ratio", study / "tracker")
    assert mirror is not None
    assert mirror.sync() > 40
    assert mirror.sync() == 0
