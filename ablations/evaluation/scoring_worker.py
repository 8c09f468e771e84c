"""Imports of a warm server for scoring: lighteval first, then the function that its children call."""

from __future__ import annotations

import ablations.evaluation.lighteval.clean_import  # noqa: F401 - seconds of imports, once per server
from ablations.evaluation.scoring_process import score_in_worker

__all__ = ["score_in_worker"]
