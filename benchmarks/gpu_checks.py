"""The checks of gpu_check.py: each a function of a :class:`Bench` that says what it saw, or fails."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F

from ablations.training.export import export_checkpoint
from ablations.training.memory import memory_of
from ablations.training.method import MethodSpec
from ablations.training.nanotron import rank
from ablations.training.packing import PositionMaker
from ablations.training.placement import fit
from ablations.training.specs import ExecutionSpec
from ablations.training.train_job import TrainJob
from ablations.training.trainers import trainer_of
from benchmarks.gpu_bench import MODEL, TRAINING, Bench, gap_of, within
from benchmarks.gpu_commands import scoring, study
from benchmarks.gpu_common import fresh_memory, nanotron_loop
from tests.oracles.chats import make_row_job, prepare_two_kinds, write_base_model
from tests.oracles.jobs import kinds_of, losses_of, steps_of, with_execution

ROOT = Path(__file__).resolve().parents[1]

# ------------------------------------------------------------------------------------- one training


def process_group(bench: Bench) -> str:
    """The process group of one rank starts and adds up (NCCL on a GPU, gloo on a CPU)."""
    device = torch.device(bench.device)
    with rank._ranks(device):
        ones = torch.ones(4, device=device)
        torch.distributed.all_reduce(ones)
        assert ones.sum().item() == 4.0
        return f"backend {torch.distributed.get_backend()}"


def fp32_losses(bench: Bench) -> str:
    """float32 losses against the CPU's."""
    here, there = bench.train(bench.job("fp32")), bench.train(bench.job("fp32_cpu", device="cpu"))
    return within(gap_of(here, there), 1e-4, "to the CPU run")


def bf16_losses(bench: Bench) -> str:
    """bfloat16 with float32 accumulation over micro-batches, and fused AdamW."""
    micro = {"micro_batch_size": TRAINING[bench.device]["batch_size"] // 2}
    half = bench.train(bench.job("bf16", dtype="bfloat16", execution=micro))
    return within(gap_of(half, bench.train(bench.job("fp32_b"))), 2e-2, "to float32")


def compiled(bench: Bench) -> str:
    """The compiled layer trains to the losses of the eager one."""
    on = bench.train(bench.job("compiled", execution={"compile": True}))
    return within(gap_of(on, bench.train(bench.job("eager"))), 1e-4, "to the eager layer")


def float8(bench: Bench) -> str:
    """Compiled products in float8 train to about the losses of bfloat16."""
    bench.needs_packages("torchao")
    shared = {"dtype": "bfloat16", "execution": {"compile": bench.device == "cuda"}}
    eight = bench.train(bench.job("float8", float8=True, **shared))
    return within(gap_of(eight, bench.train(bench.job("bf16_c", **shared))), 2e-2, "to bfloat16")


def masking(bench: Bench) -> str:
    """Intra-document masking (flex attention on a GPU) against the dense mask on the CPU."""
    on = {"intra_document_masking": True}
    here = bench.train(bench.job("masked", **on))
    there = bench.train(bench.job("masked_cpu", device="cpu", **on))
    return within(gap_of(here, there), 1e-4, "to the CPU's dense mask")


def no_dense_mask(bench: Bench) -> str:
    """Flex attention allocates no [length, length] mask: memory over sequences of 8,192."""
    bench.needs_cuda()
    length = 8192
    maker = PositionMaker(
        length=length, width=64, theta=1e4, eos_id=0, device="cuda", dtype=torch.bfloat16
    )
    tokens = torch.randint(0, 100, (2, length), device="cuda")
    q, k, v = torch.randn(3, 2, 8, length, 64, device="cuda", dtype=torch.bfloat16)
    maker.of(tokens).attend(q, k, v)  # compiles
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    maker.of(tokens).attend(q, k, v)
    used = torch.cuda.max_memory_allocated() - before
    dense = 2 * length * length
    assert used < dense, f"{used / 2**20:.0f} MiB"
    return f"{used / 2**20:.0f} MiB for two samples; a dense mask alone is {dense / 2**20:.0f}"


def flash_kernel(bench: Bench) -> str:
    """The attention kernels of a real training step in bfloat16 with grouped queries, by the profiler."""
    bench.needs_cuda()
    device = torch.device("cuda")
    with rank._ranks(device):
        loop = nanotron_loop(bench.job("flash", dtype="bfloat16", steps=100), device)
        for _ in itertools.islice(loop, 3):
            pass
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            next(loop)
            torch.cuda.synchronize()
    names = [event.key for event in profile.key_averages()]
    flash = [name for name in names if "flash" in name.lower() or "cudnn" in name.lower()]
    assert flash, f"no flash kernel among {sorted(names)}"
    return "; ".join(name[:60] for name in flash[:2])


def no_synchronise(bench: Bench) -> str:
    """No step of one rank makes the host wait for the device."""
    bench.needs_cuda()
    device = torch.device("cuda")
    with rank._ranks(device):
        loop = nanotron_loop(bench.job("sync", steps=200, dtype="bfloat16"), device)
        for _ in itertools.islice(loop, 10):
            pass
        torch.cuda.set_sync_debug_mode("error")
        try:
            # Fewer than readings.py may lag behind: further steps wait for old losses, as meant.
            for _ in itertools.islice(loop, 5):
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "5 steps of one rank"


def resume(bench: Bench) -> str:
    """A run whose last checkpoint is torn goes on from the one before."""
    last = TRAINING[bench.device]["steps"]
    job = bench.job("resumed", checkpoint_steps=(last // 2,))
    before = bench.train(job)
    (job.checkpoints_dir / str(last) / "model_config.json").unlink()
    after = bench.train(job)
    assert "resume" in kinds_of(job)
    return "bit-identical" if after == before else within(gap_of(after, before), 1e-4, "not exact")


def export(bench: Bench) -> str:
    """The exported model's loss on the next batch against training's; its logits against the CPU's."""
    middle = TRAINING[bench.device]["steps"] // 2
    job = bench.job("exported", checkpoint_steps=(middle,))
    losses = bench.train(job)
    checkpoint = job.checkpoints_dir / str(middle)
    folder = export_checkpoint(checkpoint, job.directory / "exports" / str(middle), None)
    from transformers import AutoModelForCausalLM

    tokens = torch.from_numpy(list(steps_of(job))[middle])
    logits = {}
    for device in (bench.device, "cpu"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        with torch.no_grad():
            logits[device] = model(tokens[:, :-1].to(device)).logits.flatten(0, 1).cpu()
    loss = float(F.cross_entropy(logits[bench.device], tokens[:, 1:].flatten()))
    said = within(abs(loss - losses[middle]) / losses[middle], 1e-4, "loss")
    apart = float((logits[bench.device] - logits["cpu"]).abs().max())
    assert apart < 1e-2, f"logits differ by {apart:.1e}"
    return f"{said}; logits differ by at most {apart:.1e} from the CPU's"


def peak_memory(bench: Bench) -> str:
    """Peak memory of a training against what ``ablate plan`` says, eager and compiled."""
    bench.needs_cuda()
    device = torch.device("cuda")
    wide = replace(MODEL, vocab_size=49_152, hidden_size=576, intermediate_size=1536)
    wide = replace(wide, num_hidden_layers=12, num_attention_heads=9, num_key_value_heads=3)
    said = []
    with rank._ranks(device):
        for compile_ in (False, True):
            long = {"sequence_length": 2048, "batch_size": 8, "steps": 100, "dtype": "bfloat16"}
            job = bench.job(f"memory_{compile_}", model=wide, **long)
            job, cut = fit(with_execution(job, compile=compile_, micro_batch_size=8), device)
            planned = memory_of(
                job.model,
                job.training,
                job.execution,
                micro_batch_size=cut.micro_batch_size,
                chunk_tokens=job.execution.loss_chunk_tokens,
            ).total
            fresh_memory(device)
            before = torch.cuda.memory_allocated()
            loop = nanotron_loop(job, device)
            for _ in itertools.islice(loop, 4):
                pass
            peak = torch.cuda.max_memory_allocated() - before
            del loop
            word = "compiled" if compile_ else "eager"
            said.append(f"{word} {peak / 2**30:.1f} of {planned / 2**30:.1f} GiB planned")
            assert 0.4 * planned < peak < 1.05 * planned, said[-1]
    return "; ".join(said)


def sft(bench: Bench) -> str:
    """Losses of SFT through TRL in float32 against the CPU's, on the same conversations."""
    return _post_training(bench, MethodSpec(kind="sft"), {"short": 0.5, "long": 0.5})


def dpo(bench: Bench) -> str:
    """Losses of DPO through TRL in float32 against the CPU's, on the same pairs."""
    return _post_training(bench, MethodSpec(kind="dpo"), {"pairs": 1.0})


def _post_training(bench: Bench, method: MethodSpec, weights: dict[str, float]) -> str:
    """Train the same rows on both devices, and resume on this one from the middle."""
    bench.needs_packages("trl", "datatrove")
    root = bench.root / method.kind
    stores, base = prepare_two_kinds(root), write_base_model(root / "base")
    losses = {}
    for device in (bench.device, "cpu"):
        job = make_row_job(
            root / device,
            stores,
            base,
            method=method,
            weights=weights,
            checkpoint_steps=(4, 8),
            execution=ExecutionSpec(device=device, threads=1),
        )
        losses[device] = _trained_on_rows(job)
        if device == bench.device:
            shutil.rmtree(job.checkpoints_dir / "8")
            resumed = _trained_on_rows(job)
            assert "resume" in kinds_of(job)
            apart = gap_of(resumed, losses[device])
    said = within(gap_of(losses[bench.device], losses["cpu"]), 1e-3, "to the CPU run")
    return f"{said}; {within(apart, 1e-4, 'resumed')}"


def _trained_on_rows(job: TrainJob) -> list[float]:
    outcome = trainer_of(job.method).train(job)
    if outcome.status != "done":
        log = (job.directory / "worker.log").read_text()[-1500:]
        raise AssertionError(f"{outcome.reason}\n{log}")
    return losses_of(job)


def ranks(bench: Bench) -> str:
    """Two data-parallel ranks with ZeRO-1 under torchrun against one rank."""
    if bench.device == "cuda":
        bench.needs_cuda(devices=2)
    two = bench.train(bench.job("ranks", execution={"dp": 2, "zero_stage": 1}))
    return within(gap_of(two, bench.train(bench.job("one_rank"))), 1e-4, "to one rank")


CHECKS: dict[str, Callable[[Bench], str]] = {
    check.__name__: check
    for check in (
        *(process_group, fp32_losses, bf16_losses, flash_kernel, no_synchronise),
        *(masking, no_dense_mask, compiled, float8, peak_memory),
        *(resume, export, scoring, study, sft, dpo, ranks),
    )
}
