"""Shared trunk of a run: train it once, and start the run from it.

    runs/<study>/trunks/<key>-<seed>/    metrics.jsonl, events.jsonl, checkpoints/<step>/ of the first steps
        trunk.json                       written last: step, tokens, cost; or the reason why it diverged
        lock, holder.json                the run that trains it; others wait

With ``execution.trunk_tokens`` a run looks for the trunk of its own first steps in its study. The first
run that needs it trains it; a run that is killed while it does leaves a trunk that the next run goes on
with. If the trunk diverges, each run trains alone, and diverges under its own name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.config.schema import RunConfig
from ablations.errors import CheckpointError, HeldError, Problem, TrainingError
from ablations.files import write_sealed
from ablations.record.lease import hold
from ablations.record.legs import LegCost, earlier_legs, step_seconds
from ablations.record.run_record import HOLDER, RunRecord
from ablations.record.stored import stored_object
from ablations.run_identity import store_digests
from ablations.training.checkpoints import newest
from ablations.training.trainers import trainer_of
from ablations.training.trunk import TRUNK_EVENT, Trunk, adopt, trunk_of

if TYPE_CHECKING:
    from ablations.execute import Work
    from ablations.training.train_job import TrainJob

__all__ = [
    "TRUNK_FILE",
    "TrunkCost",
    "share_trunk",
    "trunk_costs",
    "trunk_fields",
    "trunk_of_run",
    "trunk_step_of",
    "trunks_dir",
]

TRUNK_FILE = "trunk.json"
"""File of a trunk that has ended: status, reason, cost."""
_WAIT_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class TrunkCost:
    """Cost of one trunk."""

    name: str
    """``<key>-<seed>``."""
    step: int
    tokens: float
    flops: float
    wall_seconds: float
    """Wall-clock seconds of all its legs."""
    train_cpu_seconds: float
    devices: int = 1


def trunks_dir(study: Path) -> Path:
    """Return the folder of a study's trunks."""
    return study / "trunks"


def trunk_of_run(config: RunConfig, job: TrainJob, step: int) -> Trunk:
    """Return the trunk of the first ``step`` steps of a run; it need not exist yet."""
    folder = trunks_dir(Path(config.runs_dir) / config.study)
    return trunk_of(job, step, store_digests(config), folder)


def share_trunk(work: Work) -> None:
    """Start a run from the trunk that its plan names, if it has not come so far; train it if nobody has.

    Raises:
        TrainingError: a worker of the trunk died.
        CheckpointError: the trunk was damaged again after it was trained anew.
    """
    step = work.plan.trunk_step
    own = newest(work.job.checkpoints_dir)
    if step is None or (own is not None and int(own.name) >= step):
        return
    trunk = trunk_of_run(work.config, work.job, step)
    try:
        _start_from(work, trunk)
    except CheckpointError as damaged:
        # The trunk goes on from an older checkpoint, or begins anew; a second damage is raised.
        RunRecord(trunk.job.directory).event("damaged", step=step, reason=str(damaged))
        (trunk.job.directory / TRUNK_FILE).unlink(missing_ok=True)
        _start_from(work, trunk)


def _start_from(work: Work, trunk: Trunk) -> None:
    """Take up the trunk once it is there; train it if nobody does."""
    while (found := _ended(trunk)) is None:
        try:
            _train(work, trunk)
        except HeldError:  # another run trains it
            time.sleep(_WAIT_SECONDS)
    if found["status"] == "done":
        adopt(work.job, trunk)


def trunk_fields(work: Work) -> dict[str, Any]:
    """Return what the result of a run states about its trunk: name, step and tokens; empty without one."""
    for event in work.record.events():
        if event["kind"] == TRUNK_EVENT:
            tokens = event["step"] * work.plan.schedule.tokens_per_step
            return {"trunk": {"name": event["trunk"], "step": event["step"], "tokens": tokens}}
    return {}


def trunk_step_of(record: RunRecord) -> int:
    """Return the last step of the trunk that a run started from; 0 for a run that trained alone."""
    steps = [event["step"] for event in record.events() if event["kind"] == TRUNK_EVENT]
    return int(steps[0]) if steps else 0


def trunk_costs(study: Path) -> list[TrunkCost]:
    """Return the cost of the trunks of a study that have ended, by name."""
    return [
        TrunkCost(name=path.parent.name, **stored_object(path)["cost"])
        for path in sorted(trunks_dir(study).glob(f"*/{TRUNK_FILE}"))
    ]


def _ended(trunk: Trunk) -> Mapping[str, Any] | None:
    path = trunk.job.directory / TRUNK_FILE
    return stored_object(path) if os.path.lexists(path) else None


def _train(work: Work, trunk: Trunk) -> None:
    folder = trunk.job.directory
    folder.mkdir(parents=True, exist_ok=True)

    def refusal(who: str) -> Problem:
        return Problem(str(folder), "this trunk is being trained", found=who, do="wait for it")

    with hold(folder / "lock", folder / HOLDER, refusal):
        if _ended(trunk) is not None:
            return
        record, began = RunRecord(folder), time.time()
        earlier = earlier_legs(record)
        work.progress.phase(f"trunk of {trunk.step} steps", trunk.step)
        outcome = trainer_of(work.config.method).train(
            trunk.job, work.progress.step, in_process=work.in_process
        )
        leg = LegCost(
            wall_seconds=time.time() - began,
            train_cpu_seconds=outcome.cpu_seconds,
            step_seconds=max(0.0, step_seconds(record) - earlier.step_seconds),
        )
        diverged = any(event["kind"] == "diverged" for event in record.events())
        if outcome.status == "failed" and not diverged:
            record.event("failed", step=outcome.last_step, reason=outcome.reason, **asdict(leg))
            raise TrainingError(f"the trunk: {outcome.reason}", step=outcome.last_step)
        schedule, cost = trunk.job.schedule, earlier.plus(leg)
        tokens = outcome.last_step * schedule.tokens_per_step
        paid = TrunkCost(
            name=folder.name,
            step=outcome.last_step,
            tokens=float(tokens),
            flops=_flops(work, outcome.last_step),
            wall_seconds=cost.wall_seconds,
            train_cpu_seconds=cost.train_cpu_seconds,
            devices=trunk.job.execution.ranks,
        )
        write_sealed(
            folder / TRUNK_FILE,
            {
                "status": outcome.status,
                "reason": outcome.reason,
                "cost": {key: value for key, value in asdict(paid).items() if key != "name"},
            },
        )


def _flops(work: Work, steps: int) -> float:
    """Return the FLOPs of the first steps of a run."""
    schedule, config = work.plan.schedule, work.config
    if config.method.of_rows:  # rows differ in length: as a run's own cost counts them
        return float(work.plan.flops * steps / schedule.total_steps)
    each = config.model.flops_per_token(schedule.sequence_length)
    return float(each * steps * schedule.tokens_per_step)
