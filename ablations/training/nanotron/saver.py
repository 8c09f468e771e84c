"""Writing of checkpoints, in the step that is due or behind the steps after it.

    training  ── copy to host memory ──▶ step ─▶ step ─▶ step ── the next save waits ──▶ …
    thread         └─▶ files ─▶ every rank is done ─▶ checksums ─▶ rename

nanotron lays a checkpoint out and hands its tensors to ``safetensors.save_file`` and ``torch.save``. With a
background the two are replaced meanwhile: tensors are copied to host memory, and a thread writes the copies.
Ranks agree over a group of gloo of their own, because the training uses the others at the same time. Writing
and hashing release the interpreter, so the training's thread goes on.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed

__all__ = ["Saver"]

Write = Callable[[], object]


class Saver:
    """Writer of one rank's part of the checkpoints.

    Args:
        ranks: Number of ranks; all of them make one.
        background: Write behind the steps. Host memory for a copy of weights and optimiser is needed.
    """

    def __init__(self, ranks: int, *, background: bool) -> None:
        self.background = background
        self._several = ranks > 1
        several = background and self._several
        self._group = torch.distributed.new_group(backend="gloo") if several else None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._step: int | None = None

    @contextlib.contextmanager
    def collected(self) -> Iterator[list[Write]]:
        """Collect the tensors that nanotron saves in this block; without a background they are written."""
        writes: list[Write] = []
        if not self.background:
            yield writes
            return
        weights: Any = importlib.import_module("nanotron.serialize.weights")
        save_file, save = weights.save_file, torch.save

        def later_file(tensors: Any, filename: Any, metadata: Any = None) -> None:
            writes.append(functools.partial(save_file, _on_host(tensors), filename, metadata))

        def later(value: Any, file: Any) -> None:
            writes.append(functools.partial(save, _on_host(value), file))

        try:
            weights.save_file, torch.save = later_file, later  # type: ignore[assignment]
            yield writes
        finally:
            weights.save_file, torch.save = save_file, save

    def finish(self, step: int, writes: list[Write], complete: Write | None) -> None:
        """Write a checkpoint of which this rank has collected its part, or begin to.

        Args:
            step: The checkpoint.
            writes: What :meth:`collected` gave.
            complete: Function that gives the checkpoint its name after all ranks have written; of one rank.
        """
        self._step = step
        if self.background:
            arguments = (writes, complete)
            self._thread = threading.Thread(
                target=self._write, args=arguments, name="checkpoint", daemon=True
            )
            self._thread.start()
            return
        torch.distributed.barrier()
        if complete is not None:
            complete()
        torch.distributed.barrier()

    def done(self, *, wait: bool) -> int | None:
        """Return the step of a checkpoint that is complete since the last call, if there is one.

        Args:
            wait: Wait for a checkpoint that is being written.

        Raises:
            OSError: it could not be written; or what else its writing raised.
        """
        if self._thread is not None:
            if self._thread.is_alive() and not wait:
                return None
            self._thread.join()
            self._thread = None
        step, self._step = self._step, None
        error, self._error = self._error, None
        if error is not None:
            raise error
        return step

    def _write(self, writes: list[Write], complete: Write | None) -> None:
        self._try(*writes)
        # A part that is missing anywhere leaves the checkpoint without its name; its rank ends the run.
        if self._all_well() and complete is not None:
            self._try(complete)
        self._all_well()

    def _try(self, *writes: Write) -> None:
        try:
            for write in writes:
                write()
        except BaseException as error:
            self._error = error

    def _all_well(self) -> bool:
        """Return whether every rank has come as far as this one without an error."""
        if self._group is None:
            return self._error is None
        well = torch.tensor(int(self._error is None))
        try:
            torch.distributed.all_reduce(well, torch.distributed.ReduceOp.MIN, group=self._group)
        except BaseException as error:  # another rank is gone
            self._error = self._error or error
            return False
        return bool(well)


def _on_host(value: Any) -> Any:
    """Return a copy whose tensors are in host memory."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return type(value)({key: _on_host(one) for key, one in value.items()})
    if type(value) in (list, tuple):
        return type(value)(_on_host(one) for one in value)
    return copy.deepcopy(value)
