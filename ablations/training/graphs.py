"""A forward and backward pass recorded once as a CUDA graph and replayed for every micro-batch.

A small model leaves a large GPU waiting for the host, which issues kernels one by one: a step of
1M parameters is some hundred launches of 5 µs. A replay is one. What that asks for: tensors that stay
where they are. Inputs are copied into buffers; gradients are added into the buffers that they had while
recording; the reader of both is :class:`StaticPass`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ablations.training.specs import ExecutionSpec, TrainingSpec

__all__ = ["StaticPass", "why_no_graph"]

_WARM_UP_PASSES = 3
"""Before recording: compilation, cuBLAS workspaces, the allocator (torch's notes on CUDA graphs)."""


def why_no_graph(
    execution: ExecutionSpec, training: TrainingSpec, device: torch.device
) -> str | None:
    """Why a training that asks for ``execution.cuda_graph`` does without; None where it has one."""
    if device.type != "cuda":
        return "there is no CUDA device"
    if execution.ranks > 1:
        return "several ranks talk to each other in the middle of a pass"
    if training.intra_document_masking:
        return "with intra-document masking every micro-batch has a mask of its own"
    return None


class StaticPass:
    """One pass over buffers.

    Args:
        run: The losses of a micro-batch, of any shape; called to record, and not again.
        example: Inputs of the shapes that all micro-batches have.
        parameters: What gradients are wanted of; their ``grad`` is this object's from now on.
        record: False runs the pass anew each time over the same buffers: for devices without graphs,
            and to test everything but the recording.
    """

    def __init__(
        self,
        run: Callable[..., torch.Tensor],
        example: Sequence[torch.Tensor],
        parameters: Sequence[torch.Tensor],
        *,
        record: bool = True,
    ) -> None:
        self._inputs = [tensor.clone() for tensor in example]
        self._parameters, self._run = tuple(parameters), run
        self.grads = [torch.zeros_like(parameter) for parameter in parameters]
        self.zero_grads()
        self._graph = self._recorded() if record else None
        self.zero_grads()

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Add the gradients of a micro-batch to ``grads``; its losses, until the next call."""
        for buffer, tensor in zip(self._inputs, inputs, strict=True):
            buffer.copy_(tensor)
        if self._graph is None:
            self._losses = self._pass()
        else:
            self._graph.replay()
        return self._losses

    def zero_grads(self) -> None:
        """Forget what was added up; parameters that lost their gradients get the buffers back."""
        torch._foreach_zero_(self.grads)
        for parameter, grad in zip(self._parameters, self.grads, strict=True):
            parameter.grad = grad

    def _recorded(self) -> torch.cuda.CUDAGraph:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_PASSES):
                self._pass()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._losses = self._pass()
        return graph

    def _pass(self) -> torch.Tensor:
        losses = self._run(*self._inputs)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()
