"""Loop of the driver, over runs that end in every possible way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from ablations.errors import ConfigError, HeldError, HostLostError, Problem, TrainingError
from ablations.record.run_record import RunRecord, list_runs
from sweeps.study.definition import Definition, settle_definition
from sweeps.study.driver import Driver, StudyError
from sweeps.study.executor import Executor, launching_of
from sweeps.study.progress_table import PlainView, SilentView, study_table
from sweeps.study.scheduler import SearchScheduler, SweepScheduler
from sweeps.study.specs import ConfirmSpec, SearchSpec
from sweeps.study.study_state import Run, StudyState
from tests.conftest import Ablate
from tests.sweeps.study.builders import finish, finish_as, spec, strategy, study

Behaviour = Callable[[StudyState, Run, int], Any]
"""Behaviour of one launch of a run: returns what Hydra would, or raises."""


class Returned:
    """Part of Hydra's JobReturn that the driver reads."""

    def __init__(self, value: Any = None) -> None:
        self._return_value = value


class ScriptedLauncher:
    """Launcher whose runs end as a test specifies."""

    def __init__(self, state: StudyState, behaviour: Behaviour) -> None:
        self.state, self.behaviour = state, behaviour
        self.launched: list[Run] = []
        self.width = 2

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        returned = []
        for job in jobs:
            named = dict(override.split("=", 1) for override in job)
            run = Run(int(named["trial"].removeprefix("trial-")), int(named["seed"]))
            self.launched.append(run)
            returned.append(self.behaviour(self.state, run, self.launched.count(run)))
        return returned


def works(state: StudyState, run: Run, launch: int) -> Returned:
    finish_as(state, run)
    return Returned(0)


def drive(
    folder: Path,
    behaviour: Behaviour,
    search: SearchSpec | None = None,
    mode: Any = "inline",
    falls_short: str | None = None,
    retry_diverged: bool = False,
) -> ScriptedLauncher:
    """Drive a study to its end; ``falls_short`` = message of the expected error."""
    search = search or spec(confirm=ConfirmSpec(finalists=0))
    state = study(folder, search)
    launcher = ScriptedLauncher(state, behaviour)
    driver = Driver(
        state,
        SearchScheduler(strategy(search), None),
        Executor(launcher, mode, 2),
        overrides=lambda run: [f"trial=trial-{run.number:04d}", f"seed={run.seed}"],
        check=lambda _: None,
        view=SilentView(),
        retry_diverged=retry_diverged,
    )
    if falls_short is None:
        driver.run()
    else:
        with pytest.raises(StudyError, match=falls_short):
            driver.run()
    return launcher


@pytest.mark.parametrize("mode", ["inline", "thread", "batch"])
def test_runs_everything_once(tmp_path: Path, mode: str) -> None:
    launcher = drive(tmp_path, works, mode=mode)
    assert sorted(run.number for run in launcher.launched) == list(range(10))
    again = drive(tmp_path, works, mode=mode)
    assert again.launched == []


def test_a_larger_budget_goes_on_with_the_same_study(tmp_path: Path) -> None:
    drive(tmp_path, works)
    more = spec(budget=type(spec().budget)(trials=12), confirm=ConfirmSpec(finalists=0))
    assert sorted(run.number for run in drive(tmp_path, works, more).launched) == [10, 11]


def test_a_run_that_was_killed_is_launched_again(tmp_path: Path) -> None:
    def killed_once(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 3 and launch == 1:
            raise RuntimeError("worker died")
        return works(state, run, launch)

    launcher = drive(tmp_path, killed_once)
    assert launcher.launched.count(Run(3, 0)) == 2
    assert launcher.state.trial(3).state == "done"


def test_a_run_killed_after_its_result_is_closed_by_the_driver(tmp_path: Path) -> None:
    def killed_at_its_end(state: StudyState, run: Run, launch: int) -> Any:
        trial, config = f"trial-{run.number:04d}", {"seed": run.seed}
        record = RunRecord.create(
            tmp_path / "runs", study="s", trial=trial, seed=run.seed, config=config
        )
        assert record.path.parent == state.folder
        record.set_status("scoring")
        return works(state, run, launch)

    launcher = drive(tmp_path, killed_at_its_end)
    statuses = [record.status for record in list_runs(tmp_path / "runs", "s")]
    assert statuses == ["done"] * len(launcher.launched)


def test_a_run_that_keeps_dying_fails_with_its_reason(tmp_path: Path) -> None:
    def dies(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 3:
            raise RuntimeError("out of memory")
        return works(state, run, launch)

    reason = "ended 3 times without a result; last: RuntimeError: out of memory"
    launcher = drive(tmp_path, dies, falls_short=f"1 of 10 runs failed: trial-0003-0: {reason}")
    assert launcher.launched.count(Run(3, 0)) == 3
    trial = launcher.state.trial(3)
    assert trial.state == "failed"
    assert trial.reason == reason
    result = RunRecord(launcher.state.folder / "trial-0003-0").result()
    assert result is not None
    assert (result["status"], result["reason"]) == ("failed", reason)
    assert len(launcher.state.trials) == 10


def test_the_same_command_tries_failed_runs_again_and_no_others(tmp_path: Path) -> None:
    def broken(state: StudyState, run: Run, launch: int) -> Any:
        if run.number in (0, 3):
            return Returned(ImportError("no such package"))
        return works(state, run, launch)

    launcher = drive(tmp_path, broken, falls_short="2 of 10 runs failed: trial-0000-0: ImportError")
    assert launcher.state.ledger().explore.failed == 2
    repaired = drive(tmp_path, works)
    assert repaired.launched == [Run(0, 0), Run(3, 0)]
    assert all(trial.state == "done" for trial in repaired.state.trials)
    assert drive(tmp_path, works).launched == []


def test_a_driver_killed_while_it_tries_again_loses_neither_result_nor_reason(
    tmp_path: Path,
) -> None:
    def broken(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 3:
            return Returned(ImportError("no such package"))
        return works(state, run, launch)

    def dies(state: StudyState, run: Run, launch: int) -> Any:
        raise KeyboardInterrupt

    drive(tmp_path, broken, falls_short="ImportError")
    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, dies)
    record = RunRecord(tmp_path / "runs/s/trial-0003-0")
    assert record.result() is None
    assert [event["reason"] for event in record.events()] == ["ImportError: no such package"]
    assert drive(tmp_path, works).launched == [Run(3, 0)]


def test_a_diverged_run_is_not_tried_again_and_is_still_missed(tmp_path: Path) -> None:
    def diverges(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 4:
            RunRecord(state.folder / "trial-0004-0").event("diverged", step=3, reason="NaN")
            return Returned(TrainingError("NaN", step=3))
        return works(state, run, launch)

    drive(tmp_path, diverges, falls_short="1 of 10 runs failed: trial-0004-0: .*NaN; they diverged")
    assert drive(tmp_path, works, falls_short="retry=true tries them again").launched == []
    again = drive(tmp_path, works, retry_diverged=True)
    assert again.launched == [Run(4, 0)]


def test_a_study_whose_runs_have_no_score_does_not_end_as_done(tmp_path: Path) -> None:
    def unscored(state: StudyState, run: Run, launch: int) -> Any:
        finish(state, run, score=None)
        RunRecord(state.folder / f"trial-{run.number:04d}-{run.seed}").add_scores(
            {"step": 4, "score": None, "reason": "main: heldout_web/bpb is missing"}
        )
        return Returned(0)

    drive(
        tmp_path,
        unscored,
        falls_short=r"10 of 10 runs ended without a score: trial-0000-0: main: heldout_web/bpb is",
    )
    assert len(drive(tmp_path, works).launched) == 10
    assert drive(tmp_path, works).launched == []


def test_a_run_refused_before_it_had_a_record_is_listed_and_missed(
    tmp_path: Path, ablate: Ablate
) -> None:
    def refused(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 3:
            return Returned(ConfigError(Problem("source.web", "not prepared")))
        return works(state, run, launch)

    drive(tmp_path, refused, falls_short="1 of 10 runs failed: trial-0003-0: ConfigError: source")
    reason = "ConfigError: source.web: not prepared"
    nothing: dict[str, Any] = {k: {} for k in ("strategy", "objectives", "constraints", "config")}
    asked = Definition(study="s", question="", space=None, seeds=(0,), arguments=(), **nothing)
    settle_definition(tmp_path / "runs/s", asked)
    listed = ablate("ls", f"runs_dir={tmp_path / 'runs'}", "study=s")
    assert "s/trial-0003-0  failed" in listed.out
    assert reason in listed.out
    judged = ablate("verdict", f"runs_dir={tmp_path / 'runs'}", "study=s")
    assert judged.code == 2
    assert f"trial-0003-0: failed: {reason}" in judged.err


def test_a_failed_run_that_is_done_now_may_be_a_finalist(tmp_path: Path) -> None:
    def broken(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 3:
            return Returned(ImportError("no such package"))
        finish(state, run, score=2.0 + run.number)
        return Returned(0)

    def better(state: StudyState, run: Run, launch: int) -> Any:
        finish(state, run, score=1.0)
        return Returned(0)

    search = spec(confirm=ConfirmSpec(finalists=1, pick=False, seeds=(0, 1)))
    drive(tmp_path, broken, search, falls_short="ImportError")
    repaired = drive(tmp_path, better, search)
    assert repaired.launched == [Run(3, 0), Run(3, 1)]


def test_a_held_run_uses_up_no_attempt(tmp_path: Path) -> None:
    def held_then_killed(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 2 and launch == 1:
            return Returned(HeldError(Problem("run", "held")))
        if run.number == 2 and launch == 2:
            raise RuntimeError("worker died")
        return works(state, run, launch)

    search = spec(confirm=ConfirmSpec(finalists=0), attempts=2)
    launcher = drive(tmp_path, held_then_killed, search)
    assert launcher.launched.count(Run(2, 0)) == 3
    assert launcher.state.trial(2).state == "done"


def test_a_run_that_raised_is_not_launched_again_by_the_same_command(tmp_path: Path) -> None:
    def diverges(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 4:
            return Returned(TrainingError("NaN", step=3))
        return works(state, run, launch)

    launcher = drive(tmp_path, diverges, falls_short="trial-0004-0: TrainingError: step 3: NaN")
    assert launcher.launched.count(Run(4, 0)) == 1
    assert launcher.state.trial(4).reason == "TrainingError: step 3: NaN"


def test_too_many_failures_end_the_study(tmp_path: Path) -> None:
    def diverges(state: StudyState, run: Run, launch: int) -> Any:
        if run.number >= 2:
            return Returned(TrainingError("NaN", step=3))
        return works(state, run, launch)

    with pytest.raises(StudyError, match=r"4 trials failed, more than search\.max_failures=3"):
        drive(tmp_path, diverges)
    with pytest.raises(StudyError, match="trial-0005: TrainingError"):
        drive(tmp_path, diverges)


def test_a_mistake_in_the_first_run_is_raised_and_leaves_no_failed_trial(tmp_path: Path) -> None:
    def mistaken(state: StudyState, run: Run, launch: int) -> Any:
        return Returned(ConfigError(Problem("model.hidden_size", "not even")))

    with pytest.raises(ConfigError, match="hidden_size"):
        drive(tmp_path, mistaken)
    launcher = drive(tmp_path, works)
    assert all(trial.state == "done" for trial in launcher.state.trials)
    assert len(launcher.state.trials) == 10


def test_a_run_that_an_orphan_works_on_is_waited_for(tmp_path: Path) -> None:
    orphan = FileLock(tmp_path / "runs/s/trial-0000-0/lock", thread_local=False)

    def refused(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 0:
            orphan.acquire()
            return Returned(HeldError(Problem("run", "held")))
        if run.number == 1:  # meanwhile the orphan ends, with a result
            finish_as(state, Run(0, 0))
            orphan.release()
        return works(state, run, launch)

    launcher = drive(tmp_path, refused)
    assert launcher.launched.count(Run(0, 0)) == 1
    assert launcher.state.trial(0).state == "done"


def test_a_run_that_is_held_when_a_driver_begins_is_not_launched(tmp_path: Path) -> None:
    def dies(state: StudyState, run: Run, launch: int) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drive(tmp_path, dies)
    orphan = FileLock(tmp_path / "runs/s/trial-0000-0/lock", thread_local=False)
    orphan.acquire()

    def ends_it(state: StudyState, run: Run, launch: int) -> Any:
        if orphan.is_locked:
            finish_as(state, Run(0, 0))
            orphan.release()
        return works(state, run, launch)

    launcher = drive(tmp_path, ends_it, mode="thread")
    assert Run(0, 0) not in launcher.launched
    assert launcher.state.trial(0).state == "done"


def test_what_submitit_ended_is_launched_again(tmp_path: Path) -> None:
    from submitit.core.utils import UncompletedJobError

    def timed_out(state: StudyState, run: Run, launch: int) -> Any:
        if run.number == 1 and launch == 1:
            return Returned(UncompletedJobError("timed-out too many times"))
        return works(state, run, launch)

    assert drive(tmp_path, timed_out).state.trial(1).state == "done"


def test_a_sweep_adds_only_what_is_missing(tmp_path: Path) -> None:
    def sweep(combinations: list[tuple[str, ...]], seeds: tuple[int, ...]) -> ScriptedLauncher:
        state = study(tmp_path, SearchSpec(objectives=spec().objectives))
        launcher = ScriptedLauncher(state, works)
        Driver(
            state,
            SweepScheduler(combinations, seeds),
            Executor(launcher, "inline", 1),
            overrides=lambda run: [f"trial=trial-{run.number:04d}", f"seed={run.seed}"],
            check=lambda _: None,
            view=SilentView(),
        ).run()
        return launcher

    assert len(sweep([("model=a",), ("model=b",)], (0,)).launched) == 2
    assert sweep([("model=a",), ("model=b",)], (0,)).launched == []
    assert sweep([("model=b",), ("model=c",)], (0, 1)).launched == [Run(1, 1), Run(2, 0), Run(2, 1)]


@pytest.mark.parametrize(
    ("name", "attributes", "workers", "expected"),
    [
        ("SlotsLauncher", {"width": 3}, None, ("thread", 3)),
        ("LocalLauncher", {}, 5, ("thread", 5)),
        ("JoblibLauncher", {"joblib": {"n_jobs": 4}}, None, ("batch", 4)),
        ("BasicLauncher", {}, 9, ("inline", 1)),
    ],
)
def test_launchers_are_called_as_they_may_be(
    name: str, attributes: dict[str, Any], workers: int | None, expected: tuple[str, int]
) -> None:
    launching = launching_of(type(name, (), attributes)(), workers)
    assert (launching.mode, launching.width) == expected


def test_views_name_the_runs_that_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launcher = drive(tmp_path, works)
    view = PlainView()
    view.show(launcher.state, {}, 10)
    assert "10 runs have ended already" in capsys.readouterr().out
    from rich.console import Console

    Console(width=200).print(study_table(launcher.state, {Run(0, 1): 0.0}, 10))
    shown = capsys.readouterr().out
    assert "trial-0000" in shown
    assert "10 of 10 trials, 1 runs in flight" in shown


def test_a_log_begins_at_once_and_never_falls_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sweeps.study.progress_table.time.monotonic", lambda: now[0])
    view = PlainView()
    empty = study(tmp_path, spec())
    view.show(empty, {Run(0, 0): 0.0}, 12)
    first = capsys.readouterr().out
    assert first.endswith(
        "12 trials planned, none has ended, 1 runs in flight; the time left is known "
        "when the first run has ended\n"
    )
    now[0] += 59.0
    view.show(empty, {Run(0, 0): 0.0}, 12)
    assert capsys.readouterr().out == ""
    now[0] += 1.0
    view.show(empty, {Run(0, 0): 0.0}, 12)
    assert capsys.readouterr().out == f"study {empty.study}, 0 of 12 trials, 1 runs in flight\n"


def test_a_line_of_a_log_has_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = drive(tmp_path, works).state
    view = PlainView()
    view._printed = set()
    view.show(done, {Run(0, 1): 0.0}, 20)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.endswith("left to explore") for line in lines)


def test_a_run_that_lost_a_host_is_launched_again(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Returned:
        if launch == 1:
            return Returned(HostLostError("a host was lost", step=20))
        return works(state, run, launch)

    launcher = drive(tmp_path, behaviour)
    assert {launcher.launched.count(run) for run in launcher.launched} == {2}


def test_a_run_that_loses_a_host_each_time_has_failed(tmp_path: Path) -> None:
    def behaviour(state: StudyState, run: Run, launch: int) -> Returned:
        return Returned(HostLostError("a host was lost", step=20))

    search = spec(confirm=ConfirmSpec(finalists=0), attempts=2, max_failures=0)
    launcher = drive(tmp_path, behaviour, search, falls_short="ended 2 times without a result")
    assert max(launcher.launched.count(run) for run in launcher.launched) == 2


class SlurmLauncher(ScriptedLauncher):
    """Launcher with the name by which the executor knows submitit's."""


def test_a_refused_first_run_takes_the_others_out_of_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[bool] = []
    monkeypatch.setattr("sweeps.study.executor.cancel_jobs", lambda: cancelled.append(True))
    state = study(tmp_path, spec(confirm=ConfirmSpec(finalists=0)))

    def behaviour(state: StudyState, run: Run, launch: int) -> Returned:
        return Returned(ConfigError(Problem("model.vocab_size", "too small")))

    driver = Driver(
        state,
        SearchScheduler(strategy(state.spec), None),
        Executor(SlurmLauncher(state, behaviour), "inline", 2),
        overrides=lambda run: [f"trial=trial-{run.number:04d}", f"seed={run.seed}"],
        check=lambda _: None,
        view=SilentView(),
    )
    with pytest.raises(ConfigError, match="too small"):
        driver.run()
    assert cancelled == [True]
