"""Made-up studies: records in the platform's layout, generated from a known truth.

Tests, benchmarks and a notebook need studies of every size and state within seconds. The value of a
task of domain d is ``floor + gain · exp(-pull · w_d)`` bits per byte at weight ``w_d`` of its source.
It falls with the tokens seen and is noisy over seeds and items, so that optimum, noise and ranking
are known in advance::

    study = SyntheticStudy(name="made_up", sources=("wiki", "chat"), trials=12)
    write_study(Path("runs"), study)

Nothing here is a result: every manifest has the label ``synthetic: true``, which reports show.
"""

from __future__ import annotations

from analysis.synthetic.records import write_study
from analysis.synthetic.study import SyntheticStudy, SyntheticTrial, synthetic_trials

__all__ = ["SyntheticStudy", "SyntheticTrial", "synthetic_trials", "write_study"]
