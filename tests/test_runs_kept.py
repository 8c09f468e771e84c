"""Check what a record keeps of a run: its items, times, rows, events, details and place in the list."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError, DamagedError
from ablations.files import append_json_line, read_json, write_json
from ablations.record import run_record as module
from ablations.record.checksums import write_checksums
from ablations.record.identity import fingerprint
from ablations.record.run_record import RunRecord, list_runs

CONFIG: dict[str, Any] = {"seed": 0, "schedule": {"steps": 4}}


def make(root: Path, **changes: Any) -> RunRecord:
    values: dict[str, Any] = {"study": "s", "trial": "a", "seed": 0, "config": CONFIG, **changes}
    return RunRecord.create(root, **values)


def test_a_new_record_says_what_it_is_and_who_made_it(tmp_path: Path) -> None:
    began = time.time()
    record = make(
        tmp_path,
        seed=3,
        items={"quiz.jsonl": "a"},
        labels={"arm": "x"},
        config_yaml="seed: 0\n",
    )
    made = record.manifest
    assert (made.study, made.trial, made.seed, made.status) == ("s", "a", 3, "pending")
    assert (made.items, made.labels, made.config) == ({"quiz.jsonl": "a"}, {"arm": "x"}, CONFIG)
    assert made.fingerprint == fingerprint(CONFIG, {"quiz.jsonl": "a"})
    assert (made.host, made.pid) == (socket.gethostname(), os.getpid())
    assert tuple(made.command) == tuple(sys.argv)
    assert began <= made.created <= time.time()
    assert (made.started, made.finished) == (None, None)
    assert (record.path / "config.yaml").read_text() == "seed: 0\n"
    plain = make(tmp_path).manifest
    assert (plain.items, plain.labels) == ({}, {})


def test_a_record_without_a_process_or_a_format_is_read(tmp_path: Path) -> None:
    path = make(tmp_path).path / "manifest.json"
    stored = read_json(path)
    old = {name: value for name, value in stored.items() if name not in ("pid", "format")}
    write_json(path, old)
    assert RunRecord(path.parent).manifest.pid == 0


@pytest.mark.parametrize(("newer", "refused"), [(0, False), (1, True)])
def test_a_record_is_read_up_to_the_own_format(tmp_path: Path, newer: int, refused: bool) -> None:
    path = make(tmp_path).path / "manifest.json"
    write_json(path, {**read_json(path), "format": module.FORMAT + newer})
    if not refused:
        assert RunRecord(path.parent).status == "pending"
        return
    with pytest.raises(ConfigError, match=f"found: record format {module.FORMAT + 1}; allowed"):
        _ = RunRecord(path.parent).status


def test_items_that_are_known_must_all_agree_and_new_ones_are_taken_up(tmp_path: Path) -> None:
    record = make(tmp_path, items={"a": "1", "b": "2"})
    with pytest.raises(ConfigError, match=r"differs in items\.b, items\.c;"):
        make(tmp_path, items={"a": "1", "b": "3", "c": "4"})
    assert record.manifest.items == {"a": "1", "b": "2"}
    make(tmp_path, items={"a": "1", "c": "4"})
    both = {"a": "1", "b": "2", "c": "4"}
    assert record.manifest.items == both
    assert record.manifest.fingerprint == fingerprint(CONFIG, both)
    before = (record.path / "manifest.json").read_bytes()
    make(tmp_path, items=both)
    assert (record.path / "manifest.json").read_bytes() == before


def test_a_run_starts_when_it_first_leaves_its_queue(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.set_status("pending", "queued")
    assert (record.manifest.started, record.manifest.reason) == (None, "queued")
    began = time.time()
    record.set_status("training")
    started = record.manifest.started
    assert started is not None
    assert began <= started <= time.time()
    record.set_status("pending")
    assert record.manifest.started == started
    record.set_status("done")
    assert record.manifest.started == started
    assert record.manifest.finished is not None


def test_rows_are_in_order_of_their_steps(tmp_path: Path) -> None:
    record = make(tmp_path)
    for step in (30, 10, 20, 10):
        append_json_line(record.path / "metrics.jsonl", {"step": step, "loss": step / 10})
        record.add_scores({"step": step, "score": step})
    assert [row["step"] for row in record.metrics()] == [10, 20, 30]
    assert [row["step"] for row in record.scores()] == [10, 20, 30]


def test_events_are_sealed_and_in_order(tmp_path: Path) -> None:
    record = make(tmp_path)
    began = time.time()
    record.event("resume", step=4, why="killed")
    record.event("end")
    first, last = record.events()
    assert began <= first.pop("time") <= last.pop("time") <= time.time()
    assert first == {"step": 4, "kind": "resume", "why": "killed"}
    assert last == {"step": None, "kind": "end"}
    path = record.path / "events.jsonl"
    path.write_text(path.read_text().replace("killed", "filled"))
    with pytest.raises(DamagedError, match=r"events\.jsonl:1: damaged"):
        record.events()


@pytest.mark.parametrize("name", ["metrics.jsonl", "events.jsonl", "scores.jsonl"])
def test_holding_mends_each_file_of_rows(tmp_path: Path, name: str) -> None:
    record = make(tmp_path)
    (record.path / name).write_text('{"step": 1, "kind": "x"}\n{"step"')
    with record.hold():
        assert (record.path / name).read_text() == '{"step": 1, "kind": "x"}\n'


def test_a_job_of_a_queue_is_an_event_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = make(tmp_path)
    with record.hold():
        assert record.events() == []
    monkeypatch.setattr(module, "queue_job", lambda: {"queue": "slurm", "job": "17"})
    with record.hold():
        (event,) = record.events()
    assert (event["kind"], event["step"], event["job"]) == ("job", None, "17")


def test_a_run_that_is_over_is_closed_without_another_word(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.write_result({"status": "failed", "reason": "first"})
    record.set_status("done")
    before = (record.path / "manifest.json").read_bytes()
    write_json(record.path / "holder.json", {"host": socket.gethostname(), "pid": 1, "token": "x"})
    record.close()
    assert (record.path / "manifest.json").read_bytes() == before
    assert not (record.path / "holder.json").exists()


def test_a_killed_run_is_closed_with_the_reason_of_its_result(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.write_result({"status": "failed", "reason": "diverged"})
    record.close()
    assert (record.status, record.manifest.reason) == ("failed", "diverged")


def test_a_result_without_a_record_is_left_as_it_is(tmp_path: Path) -> None:
    record = RunRecord(tmp_path / "s/a-0")
    record.path.mkdir(parents=True)
    record.write_result({"status": "done"})
    record.close()
    assert [path.name for path in record.path.iterdir()] == ["result.json"]


def test_a_result_that_is_a_link_to_nowhere_is_not_a_run_that_goes_on(tmp_path: Path) -> None:
    record = make(tmp_path)
    (record.path / "result.json").symlink_to(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        record.result()


def test_details_are_those_that_are_there_and_those_that_were_written(tmp_path: Path) -> None:
    record = make(tmp_path)
    assert record.details(4) == {}
    folder = record.path / "details/4"
    folder.mkdir(parents=True)
    assert record.details(4) == {}
    for name in ("d", "b", "a", "c"):
        (folder / f"{name}.parquet").write_text(name)
    (folder / "notes.txt").write_text("")
    everything = {name: folder / f"{name}.parquet" for name in "abcd"}
    assert list(record.details(4).items()) == list(everything.items())
    (folder / "notes.txt").unlink()
    write_checksums(folder)
    (folder / "b.parquet").unlink()
    (folder / "e.parquet").write_text("later")
    found = record.details(4)
    assert list(found) == ["a", "b", "c", "d", "e"]
    assert record.details(8) == {}


def test_folders_that_hold_a_record_are_listed_in_order(tmp_path: Path) -> None:
    for study in ("t", "s", "u"):
        for trial in ("c", "a", "b"):
            make(tmp_path, study=study, trial=trial)
    (tmp_path / "s/empty-0").mkdir()
    (tmp_path / "s/a-0/manifest.json").unlink()
    (tmp_path / "s/b-0/manifest.json").rename(tmp_path / "s/b-0/result.json")
    (tmp_path / "file").write_text("")
    assert [one.name for one in list_runs(tmp_path, "s")] == ["s/b-0", "s/c-0"]
    assert [one.name for one in list_runs(tmp_path)] == [
        *("s/b-0", "s/c-0"),
        *(f"{study}/{trial}-0" for study in "tu" for trial in "abc"),
    ]


@pytest.mark.parametrize("study", ["", ".", "..", "x/s", "s/", "a\0b", "none"])
def test_a_study_that_is_no_folder_of_the_runs_has_none(tmp_path: Path, study: str) -> None:
    make(tmp_path / "x")
    make(tmp_path / "x", study=".", trial="odd")
    runs = tmp_path / "x" if study != "x/s" else tmp_path
    assert list_runs(runs, study) == []
    assert [one.path.name for one in list_runs(tmp_path / "x", "s")] == ["a-0"]
