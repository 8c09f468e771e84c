"""Files of a study: journal, definition, lock, ledger."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError, HeldError
from ablations.files import read_json, write_json
from sweeps.study.budget import affordable_trials, ledger_of
from sweeps.study.definition import Definition, load_definition, settle_definition
from sweeps.study.driver_lock import drive
from sweeps.study.run_results import read_trial_spec
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import BudgetSpec
from sweeps.study.strategy import TrialRequest
from sweeps.study.study_state import Run
from sweeps.study.trial import Trial, TrialSpec
from tests.sweeps.study.builders import all_runs, finish, outcome, spec, strategy, study

DRAFT = TrialRequest(
    phase="design", point={"mixture.weights": {"web": 0.5, "math": 0.25, "code": 0.25}}
)


# ------------------------------------------------------------------------------------- journal


def ended_study(folder: Path) -> list[Trial]:
    search = spec()
    state = study(folder, search)
    all_runs(state, SearchScheduler(strategy(search), None).next_runs)
    return list(state.trials)


def test_a_study_reads_back_as_it_was(tmp_path: Path) -> None:
    trials = ended_study(tmp_path)
    assert list(study(tmp_path).trials) == trials


def test_a_study_is_rebuilt_from_its_run_folders_alone(tmp_path: Path) -> None:
    trials = ended_study(tmp_path)
    for name in ("journal.log", "ledger.json", "finalists.json"):
        (tmp_path / "runs/s" / name).unlink()
    assert list(study(tmp_path).trials) == trials


def test_each_folder_of_a_trial_s_runs_describes_the_trial(tmp_path: Path) -> None:
    state = study(tmp_path)
    number = state.add_trial(DRAFT).number
    state.prepare(Run(number, 2))
    asked = state.trial(number).spec
    assert read_trial_spec(tmp_path / f"runs/s/trial-{number:04d}-2/trial.json") == asked
    shutil.rmtree(tmp_path / f"runs/s/trial-{number:04d}-0")
    (tmp_path / "runs/s/journal.log").unlink()
    assert [trial.spec for trial in study(tmp_path).trials] == [asked]


def test_a_study_of_the_older_file_name_is_read_and_resumed(tmp_path: Path) -> None:
    trials = ended_study(tmp_path)
    folder = tmp_path / "runs/s"
    for path in list(folder.glob("trial-*/trial.json")):
        path.rename(path.with_name("ask.json"))
    (folder / "journal.log").unlink()
    state = study(tmp_path)
    assert list(state.trials) == trials
    state.prepare(Run(0, 0))
    assert sorted(path.name for path in (folder / "trial-0000-0").iterdir()) == [
        "ask.json",
        "result.json",
    ]
    number = state.add_trial(DRAFT).number
    assert (folder / f"trial-{number:04d}-0/trial.json").exists()
    assert len(study(tmp_path).trials) == len(trials) + 1


def test_a_number_whose_specification_was_never_written_is_given_again(tmp_path: Path) -> None:
    trials = ended_study(tmp_path)
    begun = tmp_path / "runs/s" / f"trial-{len(trials):04d}-0"
    begun.mkdir()
    for name in ("trial", "ask"):
        (begun / f".{name}.json.77.tmp").write_text('{"number"')
    asked = study(tmp_path).add_trial(DRAFT)
    assert asked.number == len(trials)
    assert [path.name for path in begun.iterdir()] == ["trial.json"]


def test_a_folder_with_a_record_and_no_specification_keeps_its_number(tmp_path: Path) -> None:
    trials = ended_study(tmp_path)
    strange = tmp_path / "runs/s" / f"trial-{len(trials):04d}-0"
    strange.mkdir()
    (strange / "manifest.json").write_text("{}")
    assert study(tmp_path).add_trial(DRAFT).number == len(trials) + 1


@pytest.mark.parametrize("torn", [b'{"op_code":4,"trial_id"', b"\0\0\0\0\n", b'{"op_code":\n{"x'])
def test_a_torn_journal_is_cut_back_to_whole_lines(tmp_path: Path, torn: bytes) -> None:
    trials = ended_study(tmp_path)
    with (tmp_path / "runs/s/journal.log").open("ab") as journal:
        journal.write(torn)
    state = study(tmp_path)
    assert list(state.trials) == trials
    state.add_trial(DRAFT)
    assert len(study(tmp_path).trials) == len(trials) + 1


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
def test_a_journal_cut_anywhere_loses_nothing(tmp_path: Path, share: float) -> None:
    trials = ended_study(tmp_path)
    journal = tmp_path / "runs/s/journal.log"
    content = journal.read_bytes()
    journal.write_bytes(content[: int(share * len(content))])
    assert list(study(tmp_path).trials) == trials


@pytest.mark.parametrize("wrong", [b"{not json}\n", b"[1]\n", b'{"op_code": 99}\n', b"\xff\xfe\n"])
def test_a_journal_damaged_in_the_middle_is_moved_aside_and_rebuilt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: bytes
) -> None:
    trials = ended_study(tmp_path)
    journal = tmp_path / "runs/s/journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    content = b"".join([*lines[:4], wrong, *lines[4:]])
    journal.write_bytes(content)
    assert list(study(tmp_path).trials) == trials
    assert journal.with_name("journal.log.damaged-1").read_bytes() == content
    assert "journal.log: damaged" in capsys.readouterr().err
    assert list(study(tmp_path).trials) == trials
    assert capsys.readouterr().err == ""


def test_a_lock_that_a_killed_driver_left_costs_no_time(tmp_path: Path) -> None:
    ended_study(tmp_path)
    (tmp_path / "runs/s/journal.log.lock").touch()
    began = time.monotonic()
    study(tmp_path).add_trial(DRAFT)
    assert time.monotonic() - began < 10


def test_a_trial_without_a_journal_line_is_found(tmp_path: Path) -> None:
    state = study(tmp_path)
    spec = TrialSpec(number=4, phase="design", point=DRAFT.point)
    write_json(_folder(tmp_path, "trial-0004-0") / "trial.json", spec.plain())
    state = study(tmp_path)
    assert [trial.spec for trial in state.trials] == [spec]
    assert state.add_trial(DRAFT).number == 5


def test_a_result_without_a_driver_is_collected(tmp_path: Path) -> None:
    state = study(tmp_path)
    number = state.add_trial(DRAFT).number
    finish(state, Run(number, 0), score=1.25)
    assert study(tmp_path).trial(number).outcomes[0].score == 1.25


def test_a_failed_trial_keeps_its_reason(tmp_path: Path) -> None:
    state = study(tmp_path)
    number = state.add_trial(DRAFT).number
    finish(state, Run(number, 0), status="failed", reason="NaN at step 3", score=None)
    trial = study(tmp_path).trial(number)
    assert (trial.state, trial.reason) == ("failed", "NaN at step 3")


def test_optuna_reads_the_journal(tmp_path: Path) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    trials = ended_study(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "runs/s/journal.log")))
    loaded = optuna.load_study(study_name="s", storage=storage)
    assert len(loaded.trials) == len(trials)
    best = min(trials, key=lambda trial: trial.outcomes[0].score or 9.0)
    assert loaded.best_trial.user_attrs["trial"] == best.spec.trial
    assert loaded.best_trial.params["mixture.weights.web"] == pytest.approx(
        best.spec.point["mixture.weights"]["web"]  # type: ignore[index, call-overload]
    )


def test_a_score_of_the_wrong_direction_stops_the_study(tmp_path: Path) -> None:
    state = study(tmp_path)
    number = state.add_trial(DRAFT).number
    with pytest.raises(ConfigError, match="not the way in which"):
        state.record(Run(number, 0), outcome(direction="maximize"))


def _folder(tmp_path: Path, run: str) -> Path:
    folder = tmp_path / "runs/s" / run
    folder.mkdir(parents=True)
    return folder


# ---------------------------------------------------------------------------------- definition


def definition(**changes: Any) -> Definition:
    values: dict[str, Any] = {
        "study": "s",
        "question": "?",
        "space": {"mixtures": {"mixture.weights": {"sources": ["a", "b"]}}},
        "strategy": {"seed": 0},
        "objectives": {"score": {"direction": "minimize"}},
        "constraints": {},
        "seeds": [0],
        "config": {"peak_lr": 0.01},
        "arguments": ["experiment=x"],
    }
    return Definition(**{**values, **changes})


def test_the_first_definition_stays(tmp_path: Path) -> None:
    settle_definition(tmp_path, definition())
    settle_definition(tmp_path, definition(arguments=["search.budget.trials=99"], question="!"))
    kept = load_definition(tmp_path)
    assert kept is not None
    assert (kept.arguments, kept.question) == (["experiment=x"], "?")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": {"peak_lr": 0.02}}, ("config.peak_lr", "0.02", "0.01")),
        ({"strategy": {"seed": 1}}, ("strategy.seed", "1", "0")),
        ({"seeds": [0, 1]}, ("seeds", "[0, 1]", "[0]")),
        ({"objectives": {"score": {"direction": "maximize"}}}, ("direction", "max", "min")),
    ],
)
def test_another_definition_is_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], named: tuple[str, ...]
) -> None:
    settle_definition(tmp_path, definition())
    with pytest.raises(ConfigError) as raised:
        settle_definition(tmp_path, definition(**change))
    assert all(word in str(raised.value) for word in named)


def test_a_plain_sweep_joins_a_study_that_scores_alike(tmp_path: Path) -> None:
    kept = settle_definition(tmp_path, definition())
    assert (
        settle_definition(tmp_path, definition(space=None, config={"other": 1})).space == kept.space
    )
    other = definition(space=None, objectives={"score": {"direction": "maximize"}})
    with pytest.raises(ConfigError, match="direction"):
        settle_definition(tmp_path, other)


def test_a_search_takes_over_a_study_of_plain_sweeps(tmp_path: Path) -> None:
    settle_definition(tmp_path, definition(space=None, config={"other": 1}))
    assert settle_definition(tmp_path, definition()).space == definition().space
    assert settle_definition(tmp_path, definition()).config == {"peak_lr": 0.01}


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {**vars(definition()), "format": 99})
    with pytest.raises(ConfigError, match="newer version"):
        load_definition(tmp_path)


# --------------------------------------------------------------------------------------- lease

_HOLD = """
import sys, time
from pathlib import Path
from sweeps.study.driver_lock import drive
with drive(Path(sys.argv[1]), "s"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_driver_is_refused_by_name_until_the_first_is_dead(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(HeldError, match=f"process {first.pid} on"), drive(tmp_path, "s"):
            pass
        first.kill()
        first.wait()
    with drive(tmp_path, "s"):
        assert read_json(tmp_path / "driver.json")["host"] == socket.gethostname()
    assert not (tmp_path / "driver.json").exists()


# -------------------------------------------------------------------------------------- budget


def test_the_ledger_separates_exploring_from_confirming() -> None:
    spec = TrialSpec(number=0, phase="design", seeds=(0,))
    trials = [
        Trial(spec=spec, outcomes={0: outcome(tokens=5.0), 1: outcome(seed=1, tokens=7.0)}),
        Trial(
            spec=replace(spec, number=1, phase="confirm"),
            outcomes={0: outcome(None, status="failed", tokens=3.0)},
        ),
    ]
    ledger = ledger_of(BudgetSpec(trials=4), trials)
    assert (ledger.explore.runs, ledger.explore.tokens) == (1, 5.0)
    assert (ledger.confirm.runs, ledger.confirm.tokens, ledger.confirm.failed) == (2, 10.0, 1)
    assert ledger.explored_trials == 1
    assert json.loads(json.dumps(ledger.plain()))["total"]["runs"] == 3


@pytest.mark.parametrize(
    ("budget", "trials"),
    [
        (BudgetSpec(), None),
        (BudgetSpec(trials=9), 9),
        (BudgetSpec(tokens=1000.0, confirm_share=0.2), 4),
        (BudgetSpec(trials=3, tokens=1000.0), 3),
        (BudgetSpec(gpu_hours=1.0), None),
    ],
)
def test_a_budget_buys_as_many_trials_as_its_tightest_limit(
    budget: BudgetSpec, trials: int | None
) -> None:
    assert affordable_trials(budget, {"tokens": 100.0}, runs_per_trial=2) == trials
