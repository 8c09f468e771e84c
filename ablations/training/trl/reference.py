"""Log-probabilities of the reference of a DPO round: computed once, and kept with the run.

A pair that comes again in a later epoch has them already. They belong to one model, rows and order; a file of
another round, or of a run that was changed, is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablations.errors import DamagedError
from ablations.files import file_sha256, read_json, write_sealed

__all__ = ["Reference"]

Floats = npt.NDArray[np.float32]


class Reference:
    """Chosen and rejected log-probabilities of the samples of a round.

    Args:
        folder: Run folder.
        number: The round, from 0.
        samples: Sample indices of the round.
        keys: For each sample, the number of its pair: equal pairs are computed once.
        identity: What they depend on besides the pairs: the model's files and the batch.
    """

    def __init__(
        self, folder: Path, number: int, samples: range, keys: npt.NDArray[np.int64], identity: str
    ) -> None:
        self._file = folder / f"reference_{number}.npy"
        self._seal = folder / f"reference_{number}.json"
        self._samples, self._keys = samples, keys
        self._identity = hashlib.sha256(identity.encode() + keys.tobytes()).hexdigest()
        self._values: Floats | None = None

    def ready(self, compute: Callable[[Sequence[int]], Floats], *, batch: int, write: bool) -> None:
        """Read the log-probabilities of an earlier try, or compute them.

        Args:
            compute: Sample indices [n] → log-probabilities [n, 2] of chosen and rejected answer.
            batch: Samples of one call of ``compute``.
            write: Keep them for the next try.
        """
        if (found := self._read()) is not None:
            self._values = found
            return
        _, first, which = np.unique(self._keys, return_index=True, return_inverse=True)
        distinct = [self._samples[int(place)] for place in first]
        parts = [
            compute(distinct[start : start + batch]) for start in range(0, len(distinct), batch)
        ]
        self._values = np.concatenate(parts)[which.reshape(-1)]
        if write:
            np.save(self._file, self._values)
            write_sealed(
                self._seal, {"identity": self._identity, "sha256": file_sha256(self._file)}
            )

    def of(self, sample: int) -> tuple[float, float]:
        """Return the log-probabilities of the chosen and the rejected answer of a sample."""
        assert self._values is not None
        chosen, rejected = self._values[sample - self._samples.start].tolist()
        return chosen, rejected

    def _read(self) -> Floats | None:
        """Return what an earlier try computed, if it is whole and of the same model, rows and order."""
        with contextlib.suppress(OSError, ValueError, KeyError, DamagedError):
            sealed: dict[str, Any] = read_json(self._seal)
            if sealed["identity"] != self._identity:
                return None
            if file_sha256(self._file) != sealed["sha256"]:
                return None
            values: Floats = np.load(self._file)
            return values if values.shape == (len(self._samples), 2) else None
        return None
