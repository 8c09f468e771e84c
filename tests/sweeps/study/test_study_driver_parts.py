"""Check the driver's decisions one by one, on runs and jobs that a test makes end as it likes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from ablations.errors import ConfigError, HeldError, HostLostError, Problem
from ablations.files import read_json
from sweeps.study.driver import Driver, StudyError, _described, _last_reason, _raised, _was_ended
from sweeps.study.executor import Executor
from sweeps.study.progress_table import SilentView
from sweeps.study.scheduler import SearchScheduler
from sweeps.study.specs import ConfirmSpec, SearchSpec
from sweeps.study.strategy import TrialRequest
from sweeps.study.study_state import Run, StudyState
from tests.sweeps.study.builders import finish, outcome, spec, strategy, study, trial
from tests.sweeps.study.test_study_driver import Returned, ScriptedLauncher, works

POINT: Any = {"mixture.weights": {"web": 0.5, "math": 0.25, "code": 0.25}}


def driver_of(state: StudyState, launcher: Any = None, **changes: Any) -> Driver:
    executor = Executor(
        launcher,
        changes.pop("mode", "inline"),
        changes.pop("width", 2),
        None,
        changes.pop("group", 1),
    )
    values: dict[str, Any] = {
        "overrides": lambda run: [f"trial=trial-{run.number:04d}", f"seed={run.seed}"],
        "check": lambda _: None,
        "view": SilentView(),
        **changes,
    }
    return Driver(state, SearchScheduler(strategy(state.spec), None), executor, **values)


def searched(**changes: Any) -> SearchSpec:
    return spec(**{"confirm": ConfirmSpec(finalists=0), **changes})


def drive(
    folder: Path, behaviour: Callable[..., Any], search: SearchSpec | None = None, **changes: Any
) -> tuple[ScriptedLauncher, str]:
    """Drive a study to its end; return its launcher and the message that it ends with."""
    state = study(folder, search or searched())
    launcher = ScriptedLauncher(state, behaviour)
    try:
        driver_of(state, launcher, **changes).run()
    except StudyError as error:
        return launcher, str(error)
    return launcher, ""


# ------------------------------------------------------------------------------------ whole studies


def test_the_first_job_alone_is_checked_and_the_last_ledger_is_whole(tmp_path: Path) -> None:
    checked: list[list[str]] = []
    launcher, said = drive(tmp_path, works, check=checked.append, mode="batch", width=3)
    assert said == ""
    assert checked == [["trial=trial-0000", "seed=0"]]
    stored = read_json(launcher.state.folder / "ledger.json")
    assert (stored["explored_trials"], stored["explore"]["runs"]) == (10, 10)


def test_runs_behind_one_that_took_its_job_down_use_up_no_attempt(tmp_path: Path) -> None:
    """Of three runs in a job the second dies each time; the third has its own attempts afterwards."""

    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number in (1, 2):
            raise RuntimeError("died")
        return works(state, run, launch)

    search = searched(attempts=2, max_failures=2)
    launcher, said = drive(tmp_path, behaviour, search, width=1, group=3)
    assert "2 of 10 runs failed" in said
    assert [launcher.launched.count(Run(n, 0)) for n in (0, 1, 2)] == [1, 2, 2]
    for number in (1, 2):
        reason = launcher.state.trial(number).reason
        assert reason == "ended 2 times without a result; last: RuntimeError: died"


def test_one_attempt_is_lost_by_the_run_that_died_alone(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 0:
            raise RuntimeError("died")
        return works(state, run, launch)

    launcher, said = drive(tmp_path, behaviour, searched(attempts=1), width=1, group=2)
    assert "1 of 10 runs failed: trial-0000-0" in said
    assert launcher.launched.count(Run(1, 0)) == 1


def test_each_run_of_a_job_that_tells_of_its_own_loss_uses_up_an_attempt(tmp_path: Path) -> None:
    """The job came to its end and says of both runs that a host was lost: none was left unreached."""

    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number < 2:
            return Returned(HostLostError("a host was lost", step=2))
        return works(state, run, launch)

    launcher, said = drive(tmp_path, behaviour, searched(attempts=1), width=1, group=2)
    assert "2 of 10 runs failed" in said
    assert [launcher.launched.count(Run(n, 0)) for n in (0, 1)] == [1, 1]
    assert launcher.state.trial(1).reason == "ended 1 times without a result"


def test_a_held_launch_is_given_back_once(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number != 2:
            return works(state, run, launch)
        if launch == 1:
            return Returned(HeldError(Problem("run", "held")))
        raise RuntimeError("died")

    launcher, said = drive(tmp_path, behaviour, searched(attempts=2))
    assert "ended 2 times without a result" in said
    assert launcher.launched.count(Run(2, 0)) == 3


def test_what_diverged_is_tried_again_only_if_asked(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 4 and not (tmp_path / "mended").exists():
            from ablations.record.run_record import RunRecord

            RunRecord(state.folder / "trial-0004-0").event("diverged", step=3, reason="NaN")
            return Returned(ValueError("NaN"))
        return works(state, run, launch)

    drive(tmp_path, behaviour)
    (tmp_path / "mended").touch()
    assert drive(tmp_path, behaviour)[0].launched == []
    assert drive(tmp_path, behaviour, retry_diverged=True)[0].launched == [Run(4, 0)]


def test_too_many_failures_launch_nothing_more(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number >= 2:
            return Returned(ValueError(f"no {run.number}"))
        return works(state, run, launch)

    launcher, said = drive(tmp_path, behaviour, searched(max_failures=0), width=1)
    assert said == (
        "study 's': 1 trial failed, more than search.max_failures=0; last: trial-0002: ValueError: no 2"
    )
    assert len(launcher.launched) == 3


def test_a_mistake_after_the_first_result_is_one_failed_run(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 1:
            return Returned(ConfigError(Problem("model", "wrong")))
        return works(state, run, launch)

    _, said = drive(tmp_path, behaviour, width=1)
    assert "1 of 10 runs failed: trial-0001-0: ConfigError: model: wrong" in said


# ------------------------------------------------------------------------------------- single steps


def open_study(folder: Path, trials: int = 3, **changes: Any) -> StudyState:
    state = study(folder, searched(**changes))
    for _ in range(trials):
        state.add_trial(TrialRequest(phase="design", point=POINT))
    return state


def test_of_runs_that_wait_for_the_same_one_is_in_flight(tmp_path: Path) -> None:
    groups = {0: "a", 1: "a", 2: "b", 3: None, 4: "b", 5: None, 6: "c"}
    driver = driver_of(open_study(tmp_path), waits=lambda run: groups[run.number])
    runs = [Run(number, 0) for number in groups]
    assert [run.number for run in driver._leaders(runs, set())] == [0, 2, 3, 5, 6]
    assert [run.number for run in driver._leaders(runs[1:], {runs[0]})] == [2, 3, 5, 6]
    assert [run.number for run in driver._leaders(runs[1:], {runs[3]})] == [1, 2, 3, 5, 6]
    plain = driver_of(open_study(tmp_path / "plain"))
    assert plain._leaders(runs, set()) == runs


def test_a_run_that_another_process_holds_is_watched(tmp_path: Path) -> None:
    state = open_study(tmp_path)
    driver = driver_of(state)
    assert not driver._hold_back(Run(0, 0))
    assert (driver._held, driver._since) == (set(), {})
    with FileLock(state.folder / "trial-0001-0/lock"):
        assert driver._hold_back(Run(1, 0))
        began = dict(driver._since)
        assert driver._hold_back(Run(1, 0))
    assert driver._held == {Run(1, 0)}
    assert driver._since == began
    assert list(began) == [Run(1, 0)]


def test_held_runs_that_ended_are_recorded_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = open_study(tmp_path, trials=9)
    driver = driver_of(state)
    recorded: list[Run] = []
    monkeypatch.setattr(state, "record", lambda run, outcome: recorded.append(run))
    runs = [Run(number, 0) for number in range(9)]
    for run in runs:
        driver._held.add(run)
        driver._since[run] = 1.0
        if run.number != 4:
            finish(state, run)
    with FileLock(state.folder / "trial-0006-0/lock"):
        driver._check_held()
    assert recorded == [run for run in runs if run.number not in (4, 6)]
    assert driver._held == {Run(6, 0)}
    assert driver._since == {Run(6, 0): 1.0}


def test_a_run_was_not_reached_if_one_before_it_has_no_result_and_is_not_held(
    tmp_path: Path,
) -> None:
    state = open_study(tmp_path)
    driver = driver_of(state)
    first, second, third = (Run(number, 0) for number in range(3))
    assert not driver._was_not_reached(third)
    driver._before[third] = (first, second)
    assert driver._was_not_reached(third)
    finish(state, first)
    assert driver._was_not_reached(third)
    driver._held = {second}
    assert not driver._was_not_reached(third)
    driver._held = {first}
    assert driver._was_not_reached(third)
    finish(state, second)
    assert not driver._was_not_reached(third)


@pytest.mark.parametrize(
    ("failed", "message"),
    [(0, None), (2, None), (3, "3 trials failed, more than search.max_failures=2")],
)
def test_more_failures_than_allowed_are_too_many(
    tmp_path: Path, failed: int, message: str | None
) -> None:
    state = open_study(tmp_path, trials=4, max_failures=2)
    for number in range(failed):
        state.record(Run(number, 0), outcome(None, status="failed", reason=f"why {number}"))
    said = driver_of(state)._too_many_failures()
    if message is None:
        assert said is None
    else:
        assert said == f"study 's': {message}; last: trial-0002: why 2"


def test_the_pruner_compares_runs_in_flight_with_those_done_and_ends_what_falls_behind(
    tmp_path: Path,
) -> None:
    state = open_study(tmp_path)
    state.record(Run(0, 0), outcome())
    state.record(Run(0, 7), outcome(seed=7))
    state.record(Run(1, 0), outcome(None, status="failed"))
    looked: list[Any] = []
    ended: list[str] = []

    def look(running: list[Path], done: list[Path]) -> list[Path]:
        looked.append([[path.name for path in paths] for paths in (running, done)])
        return running

    launcher: Any = SimpleNamespace(end=ended.append)
    pruner: Any = SimpleNamespace(look=look)
    driver = driver_of(state, launcher, pruner=pruner)
    driver._in_flight = {Future(): Run(2, 0)}
    driver._prune()
    assert looked == [[["trial-0002-0"], ["trial-0000-0", "trial-0000-7"]]]
    assert ended == ["trial-0002-0"]
    without = driver_of(state, launcher)
    without._in_flight = driver._in_flight
    without._prune()
    assert ended == ["trial-0002-0"]


def test_a_view_is_shown_all_runs_in_flight_and_held_and_the_total(tmp_path: Path) -> None:
    shown: list[Any] = []
    view: Any = SimpleNamespace(show=lambda *values: shown.append(values))
    state = open_study(tmp_path)
    driver = driver_of(state, view=view)
    driver._in_flight = {Future(): Run(2, 0)}
    driver._held = {Run(1, 0)}
    driver._since = {Run(0, 0): 1.0, Run(1, 0): 2.0, Run(2, 0): 3.0}
    driver._draw()
    assert shown == [(state, {Run(2, 0): 3.0, Run(1, 0): 2.0}, 10)]


def test_nothing_is_launched_of_no_runs(tmp_path: Path) -> None:
    checked: list[Any] = []
    driver = driver_of(open_study(tmp_path), check=checked.append)
    driver._launch([])
    assert (checked, driver._in_flight) == ([], {})


# ------------------------------------------------------------------------------------- exceptions


def test_an_exception_is_found_where_hydra_may_have_put_it() -> None:
    error = ValueError("x")
    assert _raised(error) is error
    assert _raised(Returned(error)) is error
    assert _raised(Returned(0)) is None
    assert _raised(None) is None


def test_jobs_are_ended_by_launchers_queues_and_lost_hosts() -> None:
    from submitit.core.utils import UncompletedJobError

    mistake, lost = ValueError("x"), HostLostError("a host was lost", step=2)
    assert _was_ended(mistake, mistake)
    assert not _was_ended(Returned(mistake), mistake)
    assert _was_ended(Returned(lost), lost)
    queue = UncompletedJobError("timed out")
    assert _was_ended(Returned(queue), queue)


def test_an_error_is_described_by_its_type_and_its_text() -> None:
    assert _described(ValueError("  too large \n")) == "ValueError: too large"
    assert _described(KeyboardInterrupt()) == "KeyboardInterrupt"
    failed = [trial(number) for number in range(3)]
    assert _last_reason(failed) == "last: trial-0002: None"
