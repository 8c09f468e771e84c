"""Count what autograd keeps of a training's forward pass: a task for a disposable worker process."""

from __future__ import annotations

import torch

from ablations.training.dataloader import Feed, Share
from ablations.training.nanotron import rank
from ablations.training.nanotron.engine import Engine
from ablations.training.placement import choose_device, fit
from ablations.training.resume import Start
from ablations.training.train_job import TrainJob


def kept_bytes(job: TrainJob) -> int:
    """Return the bytes that the first micro-batch's backward pass would need on CUDA, weights left out.

    The norm of a bfloat16 tensor is one kernel on CUDA, which keeps bfloat16, and so is attention. A CPU
    computes both in float32 and keeps that: it counts half.
    """
    device = choose_device(job.execution)
    with rank._ranks(device):
        job, cut = fit(job, device)
        feed = Feed(job, Share(0, 1, cut.micro_batch_size))
        engine = Engine(job, cut, Start(kind="start", step=0), feed=feed, device=device)
        weights = {w.untyped_storage().data_ptr() for w in engine.unwrapped_model.parameters()}
        half, width = job.training.dtype == "bfloat16", job.model.hidden_size
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                of_a_norm = tensor.dtype is torch.float32 and tensor.shape[-1:] == (width,)
                wide = of_a_norm or (tensor.dtype is torch.float32 and tensor.dim() == 4)
                kept[storage.data_ptr()] = storage.nbytes() // (2 if half and wide else 1)
            return tensor

        batch = next(engine.batches())
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            engine.model(**batch)
        return sum(kept.values())
