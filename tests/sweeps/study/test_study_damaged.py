"""A damaged file of a study is named, or its content is read from another file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import DamagedError
from ablations.record.run_record import RunRecord
from sweeps.study.config_snapshot import _is_intact, _mark, _named
from sweeps.study.definition import Definition, load_definition, settle_definition
from sweeps.study.run_results import read_trial_spec, trial_fields
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.study_state import Run
from sweeps.study.trial import Trial
from tests.sweeps.study.builders import all_runs, finish, spec, strategy, study


def ended_study(folder: Path) -> list[Trial]:
    search = spec()
    state = study(folder, search)
    all_runs(state, SearchScheduler(strategy(search), None).next_runs)
    return list(state.trials)


def defined(folder: Path) -> Definition:
    nothing: dict[str, Any] = {k: {} for k in ("strategy", "objectives", "constraints", "config")}
    asked = Definition(study="s", question="?", space=None, seeds=(0,), arguments=(), **nothing)
    return settle_definition(folder, asked)


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def unsealed(path: Path) -> None:
    """Remove the checksum of a file, as in an older version."""
    plain = json.loads(path.read_text())
    del plain["content_sha256"]
    path.write_text(json.dumps(plain))


READERS: dict[str, Callable[[Path], object]] = {
    "study.json": lambda path: load_definition(path.parent),
    "trial.json": read_trial_spec,
}


@pytest.mark.parametrize(
    ("name", "old", "new"), [("study.json", '"?"', '"!"'), ("trial.json", "0", "1")]
)
def test_a_changed_record_of_a_study_is_refused_and_an_older_one_is_read(
    tmp_path: Path, name: str, old: str, new: str
) -> None:
    ended_study(tmp_path)
    folder = tmp_path / "runs/s"
    defined(folder)
    path = folder / name if name == "study.json" else folder / "trial-0000-0" / name
    unsealed_text = json.loads(path.read_text())
    assert unsealed_text["content_sha256"]
    whole = path.read_text()
    changed(path, old, new)
    with pytest.raises(DamagedError, match=re.escape(str(path))):
        READERS[name](path)
    path.write_text(whole)
    before = READERS[name](path)
    unsealed(path)
    assert READERS[name](path) == before


@pytest.mark.parametrize("broken", ["loop", "folder"])
def test_a_study_file_that_is_no_file_is_not_taken_for_none(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "study.json"
    path.mkdir() if broken == "folder" else path.symlink_to(path.name)
    with pytest.raises(DamagedError, match=r"study\.json: cannot be read"):
        load_definition(tmp_path)


def test_a_lost_definition_is_an_error_to_readers_and_written_again_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended_study(tmp_path)
    folder = tmp_path / "runs/s"
    with pytest.raises(DamagedError, match=r"study\.json: missing.*run the study's command again"):
        load_definition(folder)
    defined(folder)
    assert "study.json: missing; written again" in capsys.readouterr().err
    assert load_definition(folder) is not None
    assert load_definition(tmp_path) is None  # a folder of plain runs


def test_a_changed_digit_of_the_journal_is_found_and_the_folders_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = ended_study(tmp_path)
    journal = tmp_path / "runs/s/journal.log"
    lines = journal.read_text().splitlines(keepends=True)
    row = next(n for n, line in enumerate(lines) if '"score":' in line)
    lines[row] = re.sub(
        r'("score":\s*)(\d)', lambda m: m[1] + str((int(m[2]) + 1) % 10), lines[row]
    )
    journal.write_text("".join(lines))
    assert list(study(tmp_path).trials) == trials
    assert "journal.log: damaged" in capsys.readouterr().err
    assert journal.with_name("journal.log.damaged-1").exists()


def test_a_journal_of_an_older_version_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = ended_study(tmp_path)
    journal = tmp_path / "runs/s/journal.log"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert all(row.pop("content_sha256") for row in rows)
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(study(tmp_path).trials) == trials
    assert capsys.readouterr().err == ""


def test_a_run_that_lost_its_result_is_launched_again(tmp_path: Path) -> None:
    trials = ended_study(tmp_path)
    folder = tmp_path / "runs/s"
    record = RunRecord.create(folder.parent, study="s", trial="trial-0001", seed=0, config={"a": 1})
    (record.path / "result.json").unlink()
    state = study(tmp_path)
    assert state.trial(1).state == "running"
    assert [trial.state for trial in state.trials if trial.number != 1] == [
        trial.state for trial in trials if trial.number != 1
    ]
    finish(state, Run(1, 0), score=1.0)
    assert study(tmp_path).trial(1).state == "done"


@pytest.mark.parametrize("name", ["trial.json", "ask.json"])
def test_a_lost_specification_is_read_from_another_replicate(tmp_path: Path, name: str) -> None:
    for seed in (0, 1):
        record = RunRecord.create(
            tmp_path,
            study="s",
            trial="trial-0000",
            seed=seed,
            config={"a": seed},
            labels={"phase": "design", "name": "half"},
        )
        spec = {"phase": "design", "name": "half", "seeds": [0]}
        (record.path / name).write_text(json.dumps(spec))
    whole = trial_fields(record)
    (record.path / name).unlink()
    assert trial_fields(record) == whole == spec
    (tmp_path / "s/trial-0000-0" / name).unlink()
    assert trial_fields(record) == {"phase": "design", "name": "half"}


def test_a_copy_of_config_files_is_compared_with_its_name(tmp_path: Path) -> None:
    content = b"lr: 0.01\n"
    copied = tmp_path / _mark({"0/app.yaml": content})
    (copied / "0").mkdir(parents=True)
    (copied / "0/app.yaml").write_bytes(content)
    assert _is_intact(copied)
    (copied / "0/app.yaml").write_bytes(b"lr: 0.11\n")
    assert not _is_intact(copied)
    latest = tmp_path / "latest"
    latest.write_text(copied.name)
    assert _named(latest) == copied.name
    for wrong in ("", "0" * 12, "../" + tmp_path.name, "\x00"):
        latest.write_text(wrong)
        with pytest.raises(DamagedError, match="not the config files of the study's last command"):
            _named(latest)
