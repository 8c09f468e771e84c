"""The contamination report of a store as a step of each rank; the last step merges what they found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.batching import batched

from ablations.data.contamination import Scan, TaskIndex
from ablations.data.contamination_report import write_rank_report

__all__ = ["FindOverlaps"]

_BATCH_DOCUMENTS = 256


class FindOverlaps(PipelineStep):  # type: ignore[misc]
    """Seek the items of tasks in the training documents, which all pass.

    Args:
        folder: Partial folder of the store.
        index: The items.
        keys: Task → key of its report, as :func:`ablations.data.contamination_report.task_keys` returns it.
    """

    name, type = "overlaps", "FILTER"

    def __init__(self, folder: Path, index: TaskIndex, keys: Mapping[str, str]) -> None:
        super().__init__()
        self.folder, self.index, self.keys = folder, index, keys

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield every document; write the rank's report at the end."""
        del world_size
        scan = Scan(self.index)
        for batch in batched(data, _BATCH_DOCUMENTS):
            scan.add([(document.id, document.text) for document in batch])
            yield from batch
        write_rank_report(self.folder, rank, scan.reports, self.keys)
