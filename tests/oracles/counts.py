"""Windows of the first samples of a schedule, in closed form."""

from __future__ import annotations

import numpy as np

from ablations.mixture.audit import WindowCounts
from ablations.mixture.sampler import Sampler


def closed_counts(sampler: Sampler, samples: int) -> WindowCounts:
    """Return the counts of samples 0..samples-1, from the sampler's own closed form."""
    schedule, edge, rows = sampler.schedule, 0, []
    before = np.zeros(len(schedule.sources), dtype=np.int64)
    for stage in schedule.stages:
        edge = min(samples, edge + stage.steps * schedule.batch_size)
        after = np.array(list(sampler.counts(edge).values()), dtype=np.int64)
        rows.append(after - before)
        before = after
    return WindowCounts(schedule, np.stack(rows))
