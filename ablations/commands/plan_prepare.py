"""The part of the plan that ``ablate prepare`` will do: download, tokenise, store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from ablations.config.options import PrepareOptions
from ablations.files import free_bytes
from ablations.quantities import byte_size, count, duration
from ablations.terminal import named_column

if TYPE_CHECKING:
    from ablations.data.expected import Expected

__all__ = ["preparation"]

_BYTES_PER_CPU_SECOND = 1.5e6
"""Text that is read, hashed, tokenised and written in a CPU-second (measured: 1.49 MB, vocabulary 1,024,
benchmarks/prepare.py, 2026-11-26)."""


def preparation(expected: Mapping[str, Expected], options: PrepareOptions, data_dir: Path) -> Table:
    """Return what preparing each source reads, downloads and stores, and how long it takes.

    Args:
        expected: Source without a store → what is expected.
        options: Options of the preparation.
        data_dir: Folder of the stores, for the free disk.
    """
    table = Table(title="`ablate prepare` will make", title_justify="left")
    named_column(table, "source")
    for heading in ("documents", "text", "tokens", "download", "on disk", "while made"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("known from")
    for name, one in expected.items():
        table.add_row(name, *_row(one), one.basis)
    text = sum(one.text_bytes for one in expected.values())
    cores = _cores(options)
    took = duration(text / _BYTES_PER_CPU_SECOND / cores)
    table.caption = (
        f"{byte_size(sum(one.store_bytes for one in expected.values()))} on disk, "
        f"{byte_size(free_bytes(data_dir))} free here; about {took} on {cores} cores, the download apart"
    )
    table.caption_justify = "left"
    return table


def _row(one: Expected) -> tuple[str, ...]:
    return (
        "–" if one.documents is None else count(one.documents),
        byte_size(one.text_bytes),
        count(one.tokens),
        "unknown" if one.download_bytes is None else byte_size(one.download_bytes),
        byte_size(one.store_bytes),
        byte_size(one.peak_bytes),
    )


def _cores(options: PrepareOptions) -> int:
    """Return the cores that the preparation uses: of this machine, or at least of its Slurm jobs."""
    slurm = options.slurm or {}
    if slurm.get("partition"):
        return int(slurm.get("cpus_per_task") or 1) * int(slurm.get("at_once") or 1)
    return len(os.sched_getaffinity(0))
