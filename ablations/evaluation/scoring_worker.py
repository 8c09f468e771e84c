"""Imports of a warm server for scoring: lighteval first, then the functions that its children call."""

from __future__ import annotations

import ablations.evaluation.lighteval.clean_import  # noqa: F401 - seconds of imports, once per server
from ablations.evaluation.scoring_process import score_in_worker
from ablations.evaluation.scoring_shares import score_share

__all__ = ["score_in_worker", "score_share"]
