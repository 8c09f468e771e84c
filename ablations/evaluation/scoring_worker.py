"""What a warm scoring process imports before it forks: lighteval, then the function it is asked for."""

from __future__ import annotations

import ablations.evaluation.lighteval.clean_import  # noqa: F401 - seconds of imports, once per server
from ablations.evaluation.scoring_process import score_in_worker

__all__ = ["score_in_worker"]
