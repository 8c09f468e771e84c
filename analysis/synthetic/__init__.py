"""Studies that nobody trained: records in the platform's layout, from a known truth.

Tests, benchmarks and the first notebook need studies of every size and state within seconds. A task
of domain d costs ``floor + gain · exp(-pull · w_d)`` bits per byte at weight ``w_d`` of its source,
falls with the tokens seen, and is noisy over seeds and items, so that optimum, noise and ranking are
known in advance::

    study = SyntheticStudy(name="made_up", sources=("wiki", "chat"), trials=12)
    write_study(Path("runs"), study)

Nothing here is a result: every manifest carries the label ``synthetic: true``, and reports say so.
"""

from __future__ import annotations

from analysis.synthetic.records import write_study
from analysis.synthetic.study import SyntheticStudy, SyntheticTrial, synthetic_trials

__all__ = ["SyntheticStudy", "SyntheticTrial", "synthetic_trials", "write_study"]
