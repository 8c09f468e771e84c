"""Parts that the checks of gpu_check.py share: device, data, and how they report."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.specs import ModelSpec
from ablations.training.train_job import TrainJob
from tests.oracles.jobs import losses_of, make_job, with_execution
from tests.oracles.stores import write_stores

MODEL = ModelSpec(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
)
TRAINING = {
    "cuda": {"sequence_length": 256, "batch_size": 16, "peak_lr": 1e-3, "steps": 20},
    # bfloat16 crawls on CPUs
    "cpu": {"sequence_length": 32, "batch_size": 4, "peak_lr": 1e-3, "steps": 6},
}


class NeedsMoreError(Exception):
    """A check that this machine cannot make."""


@dataclass(frozen=True)
class Bench:
    """Device and data of the checks."""

    root: Path
    stores: dict[str, Path]
    device: str

    def job(self, name: str, *, device: str | None = None, **values: Any) -> TrainJob:
        """A small job; ``execution`` holds its execution's settings."""
        execution = values.pop("execution", {})
        values = {"model": MODEL, **TRAINING[self.device], **values}
        job = make_job(self.root / name, self.stores, **values)
        return with_execution(job, device=device or self.device, **execution)

    def train(self, job: TrainJob) -> list[float]:
        """Its losses, trained as the platform trains."""
        outcome = NanotronTrainer().train(job)
        if outcome.status != "done":
            log = (job.directory / "worker.log").read_text()[-1500:]
            raise AssertionError(f"{outcome.reason}\n{log}")
        return losses_of(job)

    def needs_cuda(self, devices: int = 1) -> None:
        """Skip the check where there are not so many GPUs."""
        if self.device != "cuda" or torch.cuda.device_count() < devices:
            raise NeedsMoreError("needs a GPU" if devices == 1 else f"needs {devices} GPUs")

    def needs_packages(self, *modules: str) -> None:
        """Skip the check where a package is missing, as on a machine that holds what training needs alone."""
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            raise NeedsMoreError(f"needs {', '.join(missing)}, which this Python lacks")


def gap_of(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def within(gap: float, limit: float, of_what: str) -> str:
    assert gap <= limit, f"{of_what}: relative gap {gap:.1e}, allowed {limit:.0e}"
    return f"{of_what}: largest relative gap {gap:.1e}"


def bench_of(root: Path, device: str) -> Bench:
    """A bench in ``root``, its token stores written once."""
    stores = {name: root / "stores" / name for name in ("web", "code")}
    if not (root / "stores").exists():
        write_stores(root / "stores", vocab_size=MODEL.vocab_size, tokens=200_000)
    return Bench(root, stores, device)
