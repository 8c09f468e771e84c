"""Records are never overwritten, held by one process, and read without opening a checkpoint."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import RunConfig
from ablations.errors import ConfigError, DamagedError, HeldError
from ablations.files import append_json_line, read_json, write_json
from ablations.record.contents import read_contents
from ablations.record.identity import fingerprint
from ablations.record.run_record import RunRecord, Status, list_runs

CONFIG: dict[str, Any] = {"mixture": {"weights": {"web": 1.0}}, "seed": 0, "runs_dir": "runs"}


def make(root: Path, trial: str = "a", **changes: Any) -> RunRecord:
    config = {**CONFIG, **changes}
    return RunRecord.create(root, study="s", trial=trial, seed=0, config=config)


@pytest.mark.parametrize(
    "key", ["runs_dir", "data_dir", "study", "trial", "execution", "labels", "progress"]
)
def test_where_and_how_a_run_is_executed_is_not_its_identity(key: str) -> None:
    assert fingerprint({**CONFIG, key: "elsewhere"}) == fingerprint(CONFIG)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"mixture": {"weights": {"web": 0.9}}}])
def test_what_defines_the_result_is_its_identity(changed: dict[str, Any]) -> None:
    assert fingerprint({**CONFIG, **changed}) != fingerprint(CONFIG)


ELSEWHERE = {"study", "trial", "runs_dir", "data_dir", "execution", "labels"}
"""Sections of a run's config that say where and how it is run; every other one defines its result."""


@pytest.mark.parametrize("section", [field.name for field in fields(RunConfig)])
def test_each_section_of_the_config_is_its_identity_or_says_where_it_is_run(section: str) -> None:
    plain: dict[str, Any] = {field.name: {"some": "value"} for field in fields(RunConfig)}
    changed = {**plain, section: {"some": "other value"}}
    assert (fingerprint(changed) == fingerprint(plain)) is (section in ELSEWHERE)


@pytest.mark.parametrize("items", [{"quiz.jsonl": "b"}, {"quiz.jsonl": "a", "more.jsonl": "c"}])
def test_items_are_its_identity_and_none_leave_it_as_it_was(items: dict[str, str]) -> None:
    assert fingerprint(CONFIG, items) != fingerprint(CONFIG, {"quiz.jsonl": "a"})
    assert fingerprint(CONFIG, {}) == fingerprint(CONFIG)


def test_other_items_are_refused_by_their_file(tmp_path: Path) -> None:
    first = opened(tmp_path, {"quiz.jsonl": "a"})
    before = (first.path / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match=r"differs in items\.quiz\.jsonl"):
        opened(tmp_path, {"quiz.jsonl": "b"})
    assert (first.path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("status", ["pending", "training", "failed", "done"])
def test_a_record_of_an_older_version_is_the_run_of_its_config(tmp_path: Path, status: str) -> None:
    record = opened(tmp_path, None)
    path = record.path / "manifest.json"
    stored = {k: v for k, v in read_json(path).items() if k != "items"}
    write_json(path, {**stored, "status": status})  # as the version before wrote it
    before = path.read_bytes()
    opened(tmp_path, {"quiz.jsonl": "a"})
    if status == "done":
        assert path.read_bytes() == before
        opened(tmp_path, {"quiz.jsonl": "b"})  # it does not say what it was scored on
        return
    assert record.manifest.items == {"quiz.jsonl": "a"}
    assert record.manifest.fingerprint == fingerprint(CONFIG, {"quiz.jsonl": "a"})
    with pytest.raises(ConfigError, match=r"items\.quiz"):
        opened(tmp_path, {"quiz.jsonl": "b"})


def opened(root: Path, items: dict[str, str] | None) -> RunRecord:
    return RunRecord.create(root, study="s", trial="a", seed=0, config=CONFIG, items=items)


@pytest.mark.parametrize("name", ["manifest.json", "result.json", "audit.json"])
def test_a_record_whose_file_was_changed_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    record = make(tmp_path)
    record.write_result({"status": "done", "score": 0.25})
    record.write_audit({"ok": True, "tolerance": 0.25})
    path = record.path / name
    path.write_text(path.read_text().replace("0.25", "0.35").replace('"seed": 0', '"seed": 1'))
    with pytest.raises(DamagedError, match=rf"{name}: damaged"):
        _ = (record.manifest, record.result(), record.audit())


def test_a_changed_score_is_refused(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.add_scores({"step": 4, "score": 0.25})
    path = record.path / "scores.jsonl"
    path.write_text(path.read_text().replace("0.25", "0.35"))
    with pytest.raises(DamagedError, match=r"scores\.jsonl:1: damaged"):
        record.scores()


def test_scores_are_in_order_of_steps_and_of_a_step_the_last_counts(tmp_path: Path) -> None:
    record = make(tmp_path)
    for step, score in ((20, 0.1), (10, 0.2), (20, 0.3)):
        record.add_scores({"step": step, "score": score})
    assert record.scores() == [{"step": 10, "score": 0.2}, {"step": 20, "score": 0.3}]


@pytest.mark.parametrize(("status", "over"), [("failed", True), ("done", True), ("scoring", False)])
def test_a_run_that_is_over_has_an_end_time(tmp_path: Path, status: Status, over: bool) -> None:
    record = make(tmp_path)
    began = time.time()
    record.set_status(status, "why" if status == "failed" else None)
    finished = record.manifest.finished
    assert (finished is not None) is over
    assert finished is None or began <= finished <= time.time()


def test_the_order_of_keys_is_not() -> None:
    assert fingerprint(dict(reversed(CONFIG.items()))) == fingerprint(CONFIG)


def test_a_record_of_another_config_is_refused_with_what_differs(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / "s/a-0/manifest.json").read_bytes()
    with pytest.raises(ConfigError, match=r"mixture\.weights\.web"):
        make(tmp_path, mixture={"weights": {"web": 0.5}})
    assert (tmp_path / "s/a-0/manifest.json").read_bytes() == before


def test_the_same_config_opens_the_same_record(tmp_path: Path) -> None:
    assert make(tmp_path).path == make(tmp_path).path


def test_a_record_from_the_future_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path).path / "manifest.json"
    write_json(path, {**read_json(path), "format": 99})
    with pytest.raises(ConfigError, match="newer version"):
        _ = RunRecord(path.parent).status


def test_of_a_step_trained_twice_the_last_row_counts(tmp_path: Path) -> None:
    record = make(tmp_path)
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 4.5), (3, 3.5)):
        append_json_line(record.path / "metrics.jsonl", {"step": step, "loss": loss})
    assert [row["loss"] for row in record.metrics()] == [5.0, 4.5, 3.5]


def test_status_keeps_the_first_start(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.set_status("training")
    started = record.manifest.started
    record.set_status("failed", "out of memory")
    record.set_status("training")
    assert record.manifest.started == started
    assert record.manifest.finished is None
    assert record.manifest.reason is None


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    record = make(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from ablations.record.run_record import RunRecord\n"
        f"with RunRecord(Path({str(record.path)!r})).hold():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match=f"process {process.pid} on"), record.hold():
            pass
        process.kill()
        process.wait()
    with record.hold():  # the kernel freed the lock of the killed process
        assert read_json(record.path / "holder.json")["pid"] == os.getpid()


def test_holding_mends_torn_lines(tmp_path: Path) -> None:
    record = make(tmp_path)
    append_json_line(record.path / "metrics.jsonl", {"step": 1})
    with (record.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2')
    with record.hold():
        assert (record.path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_runs_are_listed_by_study_and_name(tmp_path: Path) -> None:
    make(tmp_path, "b")
    make(tmp_path, "a")
    RunRecord.create(tmp_path, study="t", trial="c", seed=3, config=CONFIG)
    assert [record.name for record in list_runs(tmp_path)] == ["s/a-0", "s/b-0", "t/c-3"]
    assert [record.name for record in list_runs(tmp_path, "t")] == ["t/c-3"]


def test_an_unfinished_record_has_no_result(tmp_path: Path) -> None:
    record = make(tmp_path)
    assert record.result() is None
    assert record.audit() is None
    assert record.scores() == []
    record.write_result({"status": "done"})
    assert record.result() == {"status": "done"}


def whole(root: Path) -> RunRecord:
    record = make(root)
    for step in (4, 8):
        record.add_scores({"step": step, "score": 0.25})
    record.write_audit({"ok": True})
    record.write_result({"status": "done", "score": 0.25, "scored": 2, "audit_ok": True})
    record.set_status("done")
    return record


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("manifest.json", "missing", "manifest.json"),
        ("result.json", "empty", "result.json: damaged"),
        ("result.json", "missing", "result.json: missing"),
        ("result.json", "other", "result.json: damaged: not the result of a run"),
        ("audit.json", "missing", "audit.json: missing"),
        ("config.yaml", "folder", "config.yaml: missing"),
        ("scores.jsonl", "missing", "holds 0 of 2 rows"),
        ("scores.jsonl", "cut", "holds 1 of 2 rows"),
        ("scores.jsonl", "folder", "scores.jsonl: cannot be read"),
    ],
)
def test_what_ails_a_record_is_named_by_its_file(
    tmp_path: Path, name: str, how: str, words: str
) -> None:
    record = whole(tmp_path)
    assert read_contents(record).ailments == ()
    path = record.path / name
    content = path.read_text()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        other = {"empty": "", "other": '{"some": "other"}'}
        path.write_text(other.get(how, content[: content.index("\n") + 1]))
    (found,) = read_contents(record).ailments
    assert words in found
    unjudged = name in ("audit.json", "config.yaml") or (name, how) == ("result.json", "missing")
    assert (read_contents(record, judged=True).ailments == ()) is unjudged
    assert [listed.name for listed in list_runs(tmp_path)] == [record.name]


@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_a_run_killed_after_its_result_is_closed(tmp_path: Path, outcome: str) -> None:
    record = make(tmp_path)
    record.set_status("scoring")
    record.write_result({"status": outcome, "reason": None, "score": 1.0})
    write_json(record.path / "holder.json", {"host": socket.gethostname(), "pid": 1, "token": "x"})
    record.close()
    assert record.status == outcome
    assert not (record.path / "holder.json").exists()


def test_a_run_without_a_result_is_not_closed(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.set_status("scoring")
    record.close()
    assert record.status == "scoring"


def test_a_run_that_a_process_holds_is_not_closed(tmp_path: Path) -> None:
    record = make(tmp_path)
    record.set_status("scoring")
    with record.hold():
        record.write_result({"status": "done", "reason": None, "score": 1.0})
        record.close()
        assert record.status == "scoring"
        assert (record.path / "holder.json").exists()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("metrics.jsonl", RunRecord.metrics),
        ("events.jsonl", RunRecord.events),
        ("scores.jsonl", RunRecord.scores),
    ],
)
def test_a_row_that_lacks_its_key_is_named(
    tmp_path: Path, name: str, read: Callable[[RunRecord], object]
) -> None:
    record = make(tmp_path)
    (record.path / name).write_text('{"loss": 1.0}\n')
    with pytest.raises(DamagedError, match=rf"{name}:1"):
        read(record)
