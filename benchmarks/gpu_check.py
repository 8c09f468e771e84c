"""Does training work on this machine's GPU? One line a check, a JSON report, exit code 1 on a failure.

    python benchmarks/gpu_check.py [--device cuda] [--report gpu_check.json]

Run by `make gpu-check`; takes minutes, most of them compilation. With ``--device cpu`` it checks itself
on a machine without a GPU; what only a GPU can show is then "skipped". Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F

from ablations.training.export import export_checkpoint
from ablations.training.nanotron.trainer import NanotronTrainer
from ablations.training.packing import PositionMaker
from ablations.training.specs import ModelSpec
from ablations.training.together.trainer import train_together
from ablations.training.trainer import TrainJob
from tests.oracles.jobs import kinds_of, losses_of, make_job, steps_of, with_execution
from tests.oracles.stores import write_stores

MODEL = ModelSpec(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
TRAINING = {
    "cuda": {"sequence_length": 256, "batch_size": 16, "peak_lr": 1e-3},
    "cpu": {"sequence_length": 32, "batch_size": 4, "peak_lr": 1e-3},  # bfloat16 crawls on CPUs
}


class NeedsGpuError(Exception):
    """A check that this device cannot make."""


@dataclass(frozen=True)
class Bench:
    """Where the checks train, and on what."""

    root: Path
    stores: dict[str, Path]
    device: str

    def job(self, name: str, *, device: str | None = None, **values: Any) -> TrainJob:
        execution = values.pop("execution", {})
        job = make_job(
            self.root / name,
            self.stores,
            model=MODEL,
            **{"steps": 20, **TRAINING[self.device], **values},
        )
        return with_execution(job, device=device or self.device, **execution)

    def train(self, job: TrainJob) -> list[float]:
        outcome = NanotronTrainer().train(job)
        if outcome.status != "done":
            log = (job.directory / "worker.log").read_text()[-1500:]
            raise AssertionError(f"{outcome.reason}\n{log}")
        return losses_of(job)


def _gap(a: list[float], b: list[float]) -> float:
    return max(abs(x - y) / abs(y) for x, y in zip(a, b, strict=True))


def fp32_losses(bench: Bench) -> str:
    """Start of one rank, and float32 losses against the CPU's."""
    gap = _gap(bench.train(bench.job("fp32")), bench.train(bench.job("fp32_cpu", device="cpu")))
    assert gap < 1e-4, f"relative gap {gap:.1e}"
    return f"largest relative gap to the CPU run {gap:.1e}"


def bf16_losses(bench: Bench) -> str:
    """bfloat16 with float32 accumulation and fused AdamW."""
    gap = _gap(bench.train(bench.job("bf16", dtype="bfloat16")), bench.train(bench.job("fp32_b")))
    assert gap < 2e-2, f"relative gap {gap:.1e}"
    return f"largest relative gap to float32 {gap:.1e}"


def compiled(bench: Bench) -> str:
    """The compiled layer trains to the losses of the eager one."""
    job = bench.job("compiled", execution={"compile": True})
    gap = _gap(bench.train(job), bench.train(bench.job("eager")))
    assert gap < 1e-4, f"relative gap {gap:.1e}"
    return f"largest relative gap to eager {gap:.1e}"


def masking(bench: Bench) -> str:
    """Intra-document masking by flex attention against the dense mask on the CPU."""
    on = {"intra_document_masking": True}
    gap = _gap(
        bench.train(bench.job("masked", **on)),
        bench.train(bench.job("masked_cpu", device="cpu", **on)),
    )
    assert gap < 1e-4, f"relative gap {gap:.1e}"
    return f"largest relative gap to the CPU's dense mask {gap:.1e}"


def no_dense_mask(bench: Bench) -> str:
    """Flex attention allocates no [length, length] mask: memory over sequences of 8,192."""
    _needs_cuda(bench)
    length = 8192
    maker = PositionMaker(
        length=length, width=64, theta=1e4, eos_id=0, device="cuda", dtype=torch.bfloat16
    )
    tokens = torch.randint(0, 100, (2, length), device="cuda")
    q, k, v = torch.randn(3, 2, 8, length, 64, device="cuda", dtype=torch.bfloat16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    positions = maker.of(tokens)
    positions.attend(q, k, v)
    used = torch.cuda.max_memory_allocated() - before
    assert used < 2 * length * length, f"{used / 2**20:.0f} MiB"
    return (
        f"{used / 2**20:.0f} MiB for two samples; a dense mask alone is {2 * length**2 / 2**20:.0f}"
    )


def flash_kernel(bench: Bench) -> str:
    """The kernel under scaled_dot_product_attention with grouped queries, by the profiler."""
    _needs_cuda(bench)
    q = torch.randn(4, 8, 2048, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    k, v = torch.randn(2, 4, 2, 2048, 64, device="cuda", dtype=torch.bfloat16)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        mixed.sum().backward()
        torch.cuda.synchronize()
    names = [event.key for event in profile.key_averages()]
    flash = [name for name in names if "flash" in name.lower() or "cudnn" in name.lower()]
    assert flash, f"kernels: {names}"
    return flash[0][:80]


def resume(bench: Bench) -> str:
    """A run whose last checkpoint is torn goes on from the one before."""
    job = bench.job("resumed", checkpoint_steps=(10,))
    before = bench.train(job)
    (job.checkpoints_dir / "20" / "model_config.json").unlink()
    after = bench.train(job)
    assert "resume" in kinds_of(job)
    gap = _gap(after, before)
    assert gap < 1e-4, f"relative gap {gap:.1e}"
    return "bit-identical" if after == before else f"largest relative gap {gap:.1e}"


def export(bench: Bench) -> str:
    """The exported model's loss on the next batch against the loss that training had there."""
    job = bench.job("exported", checkpoint_steps=(10,))
    losses = bench.train(job)
    folder = export_checkpoint(job.checkpoints_dir / "10", job.directory / "exports" / "10", None)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).to(bench.device).eval()
    tokens = torch.from_numpy(list(steps_of(job))[10]).to(bench.device)
    with torch.no_grad():
        logits = model(tokens[:, :-1]).logits.flatten(0, 1).float()
    loss = float(F.cross_entropy(logits, tokens[:, 1:].flatten()))
    gap = abs(loss - losses[10]) / losses[10]
    assert gap < 1e-4, f"relative gap {gap:.1e}"
    return f"relative gap of the loss {gap:.1e}"


def together(bench: Bench) -> str:
    """Two proxies as one batched model against each alone."""
    jobs = [bench.job(f"together_{seed}", seed=seed) for seed in (1, 2)]
    train_together(jobs)
    alone = [bench.train(bench.job(f"alone_{seed}", seed=seed)) for seed in (1, 2)]
    gap = max(_gap(losses_of(job), losses) for job, losses in zip(jobs, alone, strict=True))
    assert gap < 1e-4, f"relative gap {gap:.1e}"
    return f"largest relative gap to each alone {gap:.1e}"


CHECKS: tuple[Callable[[Bench], str], ...] = (
    fp32_losses,
    bf16_losses,
    compiled,
    masking,
    no_dense_mask,
    flash_kernel,
    resume,
    export,
    together,
)


def _needs_cuda(bench: Bench) -> None:
    if bench.device != "cuda":
        raise NeedsGpuError("needs a GPU")


def run(check: Callable[[Bench], str], bench: Bench) -> dict[str, Any]:
    began = time.time()
    try:
        status, said = "ok", check(bench)
    except NeedsGpuError as reason:
        status, said = "skipped", str(reason)
    except Exception as error:
        traceback.print_exc()
        status, said = "FAILED", f"{type(error).__name__}: {str(error).splitlines()[0]}"
    row = {"check": check.__name__, "status": status, "said": said, "seconds": time.time() - began}
    print(f"{row['check']:>14}  {status:7}  {row['seconds']:6.1f} s  {said}", flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--report", type=Path, help="write the results as JSON")
    parser.add_argument("--only", nargs="+", choices=[check.__name__ for check in CHECKS])
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device is seen; --device cpu checks what a CPU can show", file=sys.stderr)
        return 2
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor()
    print(f"{device}; torch {torch.__version__}; Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stores = write_stores(root / "stores", vocab_size=MODEL.vocab_size, tokens=200_000)
        bench = Bench(root, stores, arguments.device)
        chosen = [c for c in CHECKS if not arguments.only or c.__name__ in arguments.only]
        rows = [run(check, bench) for check in chosen]
    if arguments.report:
        about = {"device": device, "torch": torch.__version__, "time": time.time()}
        arguments.report.write_text(json.dumps({**about, "checks": rows}, indent=1) + "\n")
    return 1 if any(row["status"] == "FAILED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
