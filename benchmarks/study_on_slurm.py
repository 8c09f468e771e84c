"""The demo study on a real one-node Slurm, disturbed: is anything of it different?

    python benchmarks/study_on_slurm.py DATA_DIR [--steps 600] [--trials 5] [--short] [OVERRIDE …]

DATA_DIR holds the demo's prepared sources (`ablate prepare`). The same study of ``experiment=demo_ratio``
(real text, nanotron, lighteval; the demo's steps, fewer items and trials) runs three times: on this
machine's slots, through Slurm left alone, and through Slurm with

    one job preempted by a job of a higher partition, one cancelled, one past its time limit,
    and the controller killed and started again.

Trials, losses of every step, scores of every checkpoint, items, and the verdict must be equal to the
last bit. Then a run trains under torchrun inside a job (``execution.dp=2``), left alone and preempted:
equal to the last bit again, and the losses of its first steps those of one rank but for rounding (which
training at this learning rate then multiplies by ten every ten steps). ``--short`` leaves out
confirmation, the study left alone on Slurm, the time limit (a minute at least) and torchrun;
``--only-ranks`` everything but torchrun. Wants root, slurm-wlm and munge.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablations.files import read_json
from ablations.record.run_record import RunRecord, list_runs
from tests.tools.slurm_local import Slurm, missing, slurm

STUDY = "disturbed"
TOKENS_A_STEP = 512
_LET_GO_SECONDS = 8.0
"""Past Slurm's KillWait: a job let go while its first life still ends fails at its start."""
_PATIENCE_SECONDS = 1800.0
_SAME_STEPS = 20
_ROUNDING = 1e-5
"""Of a loss of 6 in float32: ten units in the last place."""


@dataclass(frozen=True)
class Length:
    """Part of the demo study that is run."""

    steps: int
    trials: int
    confirm: bool

    def overrides(self, data: Path) -> list[str]:
        return [
            f"study={STUDY}",
            f"data_dir={data}",
            "training.sequence_length=64",
            "training.batch_size=8",
            f"schedule.total_tokens={self.steps * TOKENS_A_STEP}",
            "training.checkpoints=2",
            f"training.recovery_interval_steps={max(1, self.steps // 6)}",
            "evaluation.max_items=16",
            "evaluation.heldout_max_items=8",
            "execution.threads=1",
            "search.workers=2",
            f"search.budget.trials={self.trials}",
            f"search.strategy.design_trials={self.trials}",
            f"search.confirm.finalists={int(self.confirm)}",
            "search.confirm.seeds=[0,1]",
        ]


def ablate(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ablations.cli", *arguments]


def environment(cluster: Slurm | None) -> dict[str, str]:
    talking = cluster.environment if cluster else os.environ
    return {**talking, "OMP_NUM_THREADS": "1"}


def start(folder: Path, overrides: list[str], cluster: Slurm | None) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "out.log").open("ab") as log:
        return subprocess.Popen(
            ablate("run", "-m", *overrides),
            cwd=folder,
            env=environment(cluster),
            stdout=log,
            stderr=log,
        )


# ------------------------------------------------------------------------------ what a study found


def findings(folder: Path, study: str = STUDY) -> dict[str, Any]:
    """Everything that a study found, by run; what may differ (times, hosts) left out."""
    records = list_runs(folder / "runs", study)
    return {record.path.name: of_run(record) for record in records}


def of_run(record: RunRecord) -> dict[str, Any]:
    import pandas as pd

    result = {key: value for key, value in (record.result() or {}).items() if key != "cost"}
    scores = [{**row, "cpu_seconds": None} for row in record.scores()]
    spec = read_json(record.path / "trial.json")
    losses = [(row["step"], row["loss"], row["lr"], row["grad_norm"]) for row in record.metrics()]
    details = {
        str(path.relative_to(record.path)): pd.read_parquet(path).to_json(double_precision=15)
        for path in sorted(record.path.glob("details/*/*.parquet"))
    }
    return {
        "trial": spec,
        "result": result,
        "losses": losses,
        "scores": scores,
        "details": details,
        "audit": read_json(record.path / "audit.json"),
    }


def verdict(folder: Path) -> Any:
    """The study's verdict, the moment at which it was given left out."""
    command = ablate("verdict", f"study={STUDY}")
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return {**read_json(folder / "runs" / STUDY / "verdict.json"), "created": None}


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Paths at which two plain values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from differences(one.get(key), other.get(key), f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}/{number}")
    elif one != other and not (one != one and other != other):
        yield f"{where}: {str(one)[:80]} against {str(other)[:80]}"


# ------------------------------------------------------------------------------------ disturbances


LIMIT, PREEMPT, CANCEL, RESTART = (
    "past its time limit",
    "preempted",
    "cancelled",
    "controller restarted",
)
AFTER = {LIMIT: 0.05, PREEMPT: 0.4, CANCEL: 0.4, RESTART: 0.2}
"""Progress that a run must have made before; early where Slurm counts minutes and a run takes one."""


@dataclass
class Disturber:
    """Does each disturbance once, each to another run, in the middle of its training."""

    cluster: Slurm
    folder: Path
    """Folder in which the study runs."""
    study: str
    steps: int
    wanted: Sequence[str]
    """Disturbances, in order."""
    done: dict[str, str] = field(default_factory=dict)
    """Disturbance → the run that it happened to."""
    _limited: str = ""
    _pending_since: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        """Disturb what can be disturbed now, and let requeued jobs go."""
        self._release()
        self._heal()
        for name in self.wanted:
            if name in self.done:
                continue
            found = self._training(AFTER[name])
            if found is not None:
                job, run = found
                self.done[name] = run
                print(f"{name}: {run}, job {job}", flush=True)
                self._act(name, job)
            return

    def _act(self, name: str, job: str) -> None:
        if name == LIMIT:
            self._shorten(job)
        elif name == PREEMPT:
            self.cluster.preempt()
        elif name == CANCEL:
            self.cluster.run("scancel", job)
        else:
            self.cluster.restart_controller()

    def _shorten(self, job: str) -> None:
        self.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=1")
        self._limited = job

    def _heal(self) -> None:
        """Give the shortened job its time back once it was requeued."""
        if self._limited and self.cluster.jobs().get(self._limited) == "PENDING":
            self.cluster.run("scontrol", "update", f"JobId={self._limited}", "TimeLimit=30")
            self._limited = ""

    def _training(self, progress: float) -> tuple[str, str] | None:
        """A job and its run, in the middle of training and not disturbed before."""
        jobs = self.cluster.jobs()
        for record in list_runs(self.folder / "runs", self.study):
            run = record.path.name
            if record.result() is not None or run in self.done.values():
                continue
            job = _job_of(record)
            there = len(record.metrics()) >= progress * self.steps
            if there and job and jobs.get(job) == "RUNNING" and record.status == "training":
                return job, run
        return None

    def _release(self) -> None:
        pending = [job for job, state in self.cluster.jobs().items() if state == "PENDING"]
        now = time.monotonic()
        self._pending_since = {job: self._pending_since.get(job, now) for job in pending}
        for job, since in self._pending_since.items():
            if now - since > _LET_GO_SECONDS:
                self.cluster.release(job)


def _job_of(record: RunRecord) -> str | None:
    """The Slurm job that works on a run, or did so last."""
    jobs = [event["job"] for event in record.events() if event["kind"] == "job"]
    return str(jobs[-1]) if jobs else None


def disturb(overrides: list[str], disturber: Disturber) -> list[str]:
    """Run the study through Slurm while everything happens to it; what did not happen."""
    folder = disturber.folder
    _attend(start(folder, overrides, disturber.cluster), disturber.look, folder)
    for name, run in disturber.done.items():
        record = RunRecord(folder / "runs" / disturber.study / run)
        resumed = [event["step"] for event in record.events() if event["kind"] == "resume"]
        print(f"{name}: {run} resumed from step {resumed or 0}")
    return [name for name in disturber.wanted if name not in disturber.done]


def _attend(process: subprocess.Popen[bytes], look: Callable[[], None], folder: Path) -> None:
    end = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None:
        if time.monotonic() > end:
            process.terminate()
            break
        look()
        time.sleep(0.2)
    if process.wait() != 0:
        sys.exit(f"the study ended with {process.returncode}:\n{(folder / 'out.log').read_text()}")


@contextmanager
def one_node() -> Iterator[Slurm]:
    # Not in a private folder: munge's user must be able to walk there.
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    home.chmod(0o711)
    try:
        with slurm(home) as cluster:
            yield cluster
    finally:
        shutil.rmtree(home, ignore_errors=True)


def compare(name: str, calm: Path, other: Path) -> int:
    """Print how a study differs from the one left alone; the number of differences."""
    found = list(differences(findings(calm), findings(other)))
    found += differences(verdict(calm), verdict(other), "verdict")
    runs = len(findings(other))
    print(f"{name}: {runs} runs, {len(found)} differences from the study left alone on the slots")
    for line in found[:20]:
        print(f"  {line}")
    return len(found)


def ranks(root: Path, overrides: list[str], cluster: Slurm, steps: int) -> bool:
    """Return whether two ranks under torchrun in a job, preempted or not, give the result of one rank."""
    sweep = [o for o in overrides if not o.startswith("search.")]
    sweep += ["search=none", "study=ranks"]
    calm, hit = root / "ranks", root / "ranks-preempted"
    _attend(start(calm, [*sweep, "execution.dp=2,1"], cluster), lambda: None, calm)
    two, one = findings(calm, "ranks").values()
    pairs = zip(two["losses"][:_SAME_STEPS], one["losses"][:_SAME_STEPS], strict=True)
    gap = max(abs(mine[1] - other[1]) for mine, other in pairs)
    print(f"torchrun in a job: {_SAME_STEPS} losses of two ranks are those of one within {gap:.1e}")
    disturber = Disturber(cluster, hit, "ranks", steps, (PREEMPT,))
    missed = disturb([*sweep, "execution.dp=2"], disturber)
    (again,) = findings(hit, "ranks").values()
    kept = ("losses", "scores", "details", "result")
    found = list(differences({k: two[k] for k in kept}, {k: again[k] for k in kept}))
    print(f"torchrun in a job, preempted: {len(found)} differences from two ranks left alone")
    return gap < _ROUNDING and not found and not missed


ON_SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.cpus_per_task=2",
    "hydra.launcher.timeout_min=30",
    "hydra.launcher.signal_delay_s=10",
]


def studies(root: Path, overrides: list[str], cluster: Slurm, length: Length, short: bool) -> bool:
    """Return whether the study gives the same results on the slots, on Slurm, and disturbed on Slurm."""
    calm, queued = root / "slots", [*overrides, *ON_SLURM]
    here = ["hydra.launcher.slots=1", "hydra.launcher.threads=1"]
    _attend(start(calm, [*overrides, *here], None), lambda: None, calm)
    bad = 0
    if not short:
        _attend(start(root / "slurm", queued, cluster), lambda: None, root / "slurm")
        bad += compare("left alone on Slurm", calm, root / "slurm")
    wanted = (PREEMPT, CANCEL, RESTART) if short else (LIMIT, PREEMPT, CANCEL, RESTART)
    disturber = Disturber(cluster, root / "disturbed", STUDY, length.steps, wanted)
    missed = disturb(queued, disturber)
    bad += compare("disturbed on Slurm", calm, root / "disturbed")
    if missed:
        print(f"the study ended before this happened: {', '.join(missed)}; give it more steps")
    return not bad and not missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only-ranks", action="store_true")
    parser.add_argument("--keep", type=Path, help="where the studies stay")
    options, given = parser.parse_known_args()
    if reason := missing():
        sys.exit(reason)
    length = Length(options.steps, options.trials, confirm=not options.short)
    overrides = [*(given or ["experiment=demo_ratio"]), *length.overrides(options.data.resolve())]
    root = (options.keep or Path(tempfile.mkdtemp(prefix="study-"))).resolve()
    good = True
    with one_node() as cluster:
        if not options.only_ranks:
            good = studies(root, overrides, cluster, length, options.short)
        if not options.short:
            good &= ranks(root, [*overrides, *ON_SLURM], cluster, length.steps)
    if options.keep is None:
        shutil.rmtree(root)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
