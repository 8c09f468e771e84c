"""Slots: devices handed out to jobs that run in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.slots_launcher.launcher import SlotsLauncher
from omegaconf import OmegaConf

from ablations.errors import ConfigError
from sweeps.launchers.local import devices
from sweeps.launchers.local.devices import Slot, slots_of
from sweeps.launchers.local.job_worker import Job
from sweeps.launchers.local.pool import SlotPool, WorkerDied
from sweeps.launchers.local.suite_modules import suite_modules


class Task:
    """A job without Hydra: it says where it runs, and may die."""

    def __init__(self, seconds: float = 0.0, ends: str = "") -> None:
        self.seconds, self.ends = seconds, ends

    def run(self) -> Any:
        print("said by the job")
        time.sleep(self.seconds)
        if self.ends == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.ends == "raised":
            raise ValueError("a mistake")
        return _Answer((os.getpid(), os.environ["ABLATIONS_SLOT"], sorted(os.sched_getaffinity(0))))


class _Answer:
    def __init__(self, value: Any) -> None:
        self._return_value = value
        self.cfg = self.hydra_cfg = None


def run(pool: SlotPool, log: Path, **task: Any) -> Any:
    job: Job = Task(**task)  # type: ignore[assignment]
    return pool.run(job, log)._return_value


@pytest.fixture
def pool() -> SlotPool:
    cores = tuple(sorted(os.sched_getaffinity(0)))[:1]
    return SlotPool([Slot(name=str(i), devices=None, cores=cores) for i in range(2)], [])


def test_a_job_runs_in_its_own_process_bound_to_its_slot(pool: SlotPool, tmp_path: Path) -> None:
    pid, slot, cores = run(pool, tmp_path / "worker.log")
    assert pid != os.getpid()
    assert slot in ("0", "1")
    assert tuple(cores) == pool.slots[0].cores
    assert "said by the job" in (tmp_path / "worker.log").read_text()


def test_jobs_in_flight_never_share_a_slot(pool: SlotPool, tmp_path: Path) -> None:
    spans: list[tuple[str, float, float]] = []

    def one(i: int) -> None:
        began = time.monotonic()
        _, slot, _ = run(pool, tmp_path / f"{i}.log", seconds=0.2)
        spans.append((slot, began, time.monotonic()))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(spans) == 6
    ends = sorted(end for _, _, end in spans)
    assert {slot for slot, _, _ in spans} == {"0", "1"}
    assert ends[-1] - ends[0] > 0.2  # two at a time: three rounds


def test_a_killed_job_is_told_and_its_slot_comes_back(pool: SlotPool, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(WorkerDied, match="was killed by SIGKILL"):
            run(pool, tmp_path / "worker.log", ends="killed")
    run(pool, tmp_path / "worker.log")


def test_an_exception_comes_back_as_itself(pool: SlotPool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mistake"):
        run(pool, tmp_path / "worker.log", ends="raised")


def test_stopping_ends_what_runs(pool: SlotPool, tmp_path: Path) -> None:
    ended: list[BaseException] = []

    def one() -> None:
        with pytest.raises(WorkerDied) as raised:
            run(pool, tmp_path / "worker.log", seconds=60)
        ended.append(raised.value)

    thread = threading.Thread(target=one)
    thread.start()
    while "said" not in (
        (tmp_path / "worker.log").read_text() if (tmp_path / "worker.log").exists() else ""
    ):
        time.sleep(0.05)
    pool.stop()
    thread.join(timeout=20)
    assert len(ended) == 1


DRIVER = """
import contextlib, os, sys, threading, time
from pathlib import Path
from sweeps.launchers.local.devices import Slot
from sweeps.launchers.local.pool import SlotPool, WorkerDied
from sweeps.launchers.local.suite_modules import suite_modules

folder = Path(sys.argv[1])

class Task:
    def run(self):
        (folder / "pids").write_text(f"{os.getpid()} {os.getppid()}")
        (folder / "begun").touch()
        time.sleep(1.5)
        (folder / "done").touch()
        return 1

pool = SlotPool([Slot(name="0", devices=None, cores=tuple(os.sched_getaffinity(0)))], [])

def launch():
    with contextlib.suppress(WorkerDied):
        pool.run(Task(), folder / "worker.log")

threading.Thread(target=launch, daemon=True).start()
while not (folder / "begun").exists():
    time.sleep(0.01)
if sys.argv[2] == "dies":
    os.kill(os.getpid(), 9)
if sys.argv[2] == "stops":
    pool.stop()
"""


@pytest.mark.parametrize(("how", "done"), [("dies", True), ("leaves", True), ("stops", False)])
def test_a_run_finishes_without_its_driver_unless_the_driver_stops_it(
    tmp_path: Path, how: str, done: bool
) -> None:
    """Its task is a class of the driver's ``__main__``, as a Hydra application's may be."""
    driver = [sys.executable, "-c", DRIVER, str(tmp_path), how]
    code = subprocess.run(driver, check=False, cwd=Path(__file__).parents[3]).returncode
    assert code == (-signal.SIGKILL if how == "dies" else 0)
    if how != "dies":
        assert (tmp_path / "done").exists() == done
    run, server = (tmp_path / "pids").read_text().split()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in (run, server)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / "done").exists() == done


def test_a_stopped_pool_starts_no_job(pool: SlotPool, tmp_path: Path) -> None:
    pool.stop()
    with pytest.raises(WorkerDied, match="is ending its runs"):
        run(pool, tmp_path / "worker.log")


def test_a_launcher_holds_as_many_runs_as_it_has_slots() -> None:
    launcher = SlotsLauncher(slots=3, threads=1, devices_per_slot=1, preload=[])
    assert launcher.width == 3


_MATCHING = "ablations.evaluation.lighteval.answer_matching"


@pytest.mark.parametrize(
    ("tasks", "preload", "expected"),
    [
        ({"quiz": ["acc", "bpb"], "sums": ["exact_match", "bpb"]}, ["ablations.preload"], True),
        ({"quiz": ["acc", "bpb"], "code": ["pass_at_1"]}, ["ablations.preload"], False),
        ({}, ["ablations.preload"], False),
        ({"sums": ["exact_match"]}, ["hydra"], False),
    ],
)
def test_the_warm_server_imports_the_metrics_that_the_suite_uses(
    tasks: dict[str, list[str]], preload: list[str], expected: bool
) -> None:
    launcher = SlotsLauncher(slots=1, threads=1, devices_per_slot=1, preload=preload)
    suite = {name: {"metrics": metrics} for name, metrics in tasks.items()}
    config = OmegaConf.create({"evaluation": {"tasks": suite}})
    launcher.setup(hydra_context=None, task_function=print, config=config)
    modules = [*preload, _MATCHING] if expected else preload
    assert launcher._pool._server.modules == tuple(modules)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"evaluation": None},
        {"evaluation": {"tasks": None}},
        {"evaluation": {"tasks": {"quiz": None}}},
        {"evaluation": {"tasks": {"quiz": {"metrics": None}}}},
        {"evaluation": {"tasks": {"quiz": {"metrics": "${nowhere}"}}}},
    ],
)
def test_a_config_without_a_suite_needs_no_further_modules(config: dict[str, Any]) -> None:
    assert suite_modules(OmegaConf.create(config)) == []


@pytest.mark.parametrize(
    ("gpus", "cores", "asked", "expected"),
    [
        ([], 8, (None, None, 1), [(None, 1)] * 8),
        ([], 8, (None, 4, 1), [(None, 4)] * 2),
        ([], 8, (2, None, 1), [(None, 4)] * 2),
        (["0", "1", "2", "3"], 8, (None, None, 1), [(g, 2) for g in "0123"]),
        (["0", "1", "2", "3"], 8, (None, None, 2), [("0,1", 4), ("2,3", 4)]),
        (["0", "1"], 8, (1, None, 1), [("0", 8)]),
        (["0"], 8, (["0", "0"], 2, 1), [("0", 2), ("0", 2)]),
    ],
)
def test_slots_are_what_the_machine_has(
    monkeypatch: pytest.MonkeyPatch,
    gpus: list[str],
    cores: int,
    asked: tuple[Any, int | None, int],
    expected: list[tuple[str | None, int]],
) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(devices, "usable_cores", lambda: list(range(cores)))
    slots = slots_of(*asked)
    assert [(slot.devices, len(slot.cores)) for slot in slots] == expected
    if len(slots) * len(slots[0].cores) <= cores:
        assert len({core for slot in slots for core in slot.cores}) == len(slots) * expected[0][1]


def test_slots_that_name_one_gpu_share_its_memory() -> None:
    both = slots_of(["0", "0", "1"], 1, 1)
    shares = [slot.environment["ABLATIONS_DEVICE_SHARED_BY"] for slot in both]
    assert shares == ["2", "2", "1"]


@pytest.mark.parametrize("asked", [(0, None, 1), (3, None, 1)])
def test_slots_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[int, None, int]
) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: ["0", "1"])
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.slots"):
        slots_of(*asked)


@pytest.mark.parametrize(("listed", "found"), [("0,2", ["0", "2"]), ("", []), ("-1", [])])
def test_gpus_are_those_that_cuda_may_see(
    monkeypatch: pytest.MonkeyPatch, listed: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert devices.visible_gpus() == found


@pytest.mark.parametrize(
    ("exported", "found"), [("1", "1"), ("64", "2"), (None, None), ("x", None)]
)
def test_a_slot_takes_no_more_threads_than_exported_or_than_it_has_cores(
    monkeypatch: pytest.MonkeyPatch, exported: str | None, found: str | None
) -> None:
    if exported is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", exported)
    environment = Slot(name="0", devices=None, cores=(4, 5)).environment
    assert environment.get("OMP_NUM_THREADS") == found
