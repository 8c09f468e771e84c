"""kill -9 at random moments, checkpoint writes included: is anything of the run different?

    python benchmarks/training_kill.py [--kills 25] [--seed 0] [--method sft]

One run is left alone. The other is killed, worker after worker, at moments drawn at random: some
time after its worker began or wrote its first to third checkpoint (half of them), or while the next
one is being written (the other half). Then it is left to finish. Losses, windows read and final
weights must be equal to the last bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
import torch

from ablations.training.checkpoints import PARTIAL
from ablations.training.export import read_weights
from ablations.training.method import MethodSpec
from ablations.training.train_job import TrainJob
from ablations.training.trainers import trainer_of
from tests.oracles.chats import make_row_job, prepare_two_kinds, write_base_model
from tests.oracles.jobs import kinds_of, losses_of, make_job
from tests.oracles.stores import write_stores
from tests.oracles.vision_rows import make_vision_job, prepare_three_kinds

STEPS = {"pretrain": 400, "sft": 200, "dpo": 200, "vlm": 200}


def make_jobs(root: Path, method: str) -> list[TrainJob]:
    """The same job twice: to be left alone, and to be killed."""
    names, steps = ("undisturbed", "killed"), STEPS[method]
    often = tuple(range(8, steps, 8))
    if method == "pretrain":
        stores = write_stores(root / "stores", vocab_size=64)
        return [
            make_job(root / name, stores, steps=steps, checkpoint_steps=often, peak_lr=3e-3)
            for name in names
        ]
    if method == "vlm":
        shown = prepare_three_kinds(root / "data")
        model = write_base_model(root / "base")
        return [
            make_vision_job(root / name, shown, model, steps=steps, checkpoint_steps=often)
            for name in names
        ]
    rows, base = prepare_two_kinds(root / "data"), write_base_model(root / "base")
    weights = {"pairs": 1.0} if method == "dpo" else None
    return [
        make_row_job(
            root / name,
            rows,
            base,
            weights=weights,
            steps=steps,
            method=MethodSpec(kind=method),  # type: ignore[arg-type]
            checkpoint_steps=often,
        )
        for name in names
    ]


def weights_of(job: TrainJob) -> dict[str, torch.Tensor]:
    """The weights of the last checkpoint."""
    folder = job.checkpoints_dir / str(job.schedule.total_steps)
    if not job.method.of_rows:
        return read_weights(folder)
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def kill_worker(job: TrainJob, moments: random.Random, seen: dict[str, int]) -> None:
    """Kill this process's worker once, a few checkpoints into its work."""
    before, wanted = _events(job), moments.randint(1, 4)
    last = job.checkpoints_dir / str(job.schedule.total_steps)
    while _events(job) < before + wanted:  # its start, and up to three checkpoints
        if last.exists():
            return
        time.sleep(0.001)
    if moments.random() < 0.5:
        while not (job.checkpoints_dir / PARTIAL).exists():
            if last.exists():
                return
            time.sleep(0.0002)
        time.sleep(moments.uniform(0.0, 0.03))
    else:
        time.sleep(moments.uniform(0.0, 0.1))
    for server in psutil.Process().children():
        for child in server.children():
            os.kill(child.pid, signal.SIGKILL)
            child.wait(5)
            seen["in a checkpoint write"] += (job.checkpoints_dir / PARTIAL).exists()
            seen["kills"] += 1


def _events(job: TrainJob) -> int:
    return len(kinds_of(job))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", choices=list(STEPS), default="pretrain")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        jobs = make_jobs(Path(folder), arguments.method)
        trainer = trainer_of(jobs[0].method)
        left_alone = trainer.train(jobs[0])
        seen = {"kills": 0, "in a checkpoint write": 0}
        finished = False
        while seen["kills"] < arguments.kills and not finished:
            killer = threading.Thread(
                target=kill_worker, args=(jobs[1], moments, seen), daemon=True
            )
            killer.start()
            finished = trainer.train(jobs[1]).status == "done"
            killer.join(timeout=3)
        outcome = trainer.train(jobs[1])
        weights = [weights_of(job) for job in jobs]
        resumed = kinds_of(jobs[1]).count("resume")
        equal = {
            "losses": losses_of(jobs[0]) == losses_of(jobs[1]),
            "windows": outcome.windows == left_alone.windows,
            "weights": all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0]),
        }
    print(
        f"{seen['kills']} kills, {seen['in a checkpoint write']} of them in a checkpoint write;"
        f" resumed {resumed} times"
    )
    verdicts = ", ".join(f"{name} {'yes' if same else 'NO'}" for name, same in equal.items())
    print(f"bit-identical: {verdicts}")
    if not all(equal.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
