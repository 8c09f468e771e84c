"""The only code that knows lighteval: its tasks, prompts, few-shot examples and metrics over our loop.

    TaskSpec + items ──build_task──▶ LightevalTask ──▶ Docs ──MemoryModel──▶ ModelResponses ──▶ metrics

What lighteval 0.13.0 gets wrong is put right here: nothing is downloaded (tasks are made from our items, the
built-in ones never imported), nothing is cached (its response cache knows models by config, not by
weights), token counts are true ones, rolling log-likelihood works, a continuation longer than the
window is reported instead of crashing, and metrics are built directly so that their names are stable.
"""

from __future__ import annotations

import logging

from ablations.evaluation.lighteval.lighteval_model import MemoryModel
from ablations.evaluation.lighteval.lighteval_tasks import SuiteTask, build_task, sample_metrics

__all__ = ["MemoryModel", "SuiteTask", "build_task", "sample_metrics"]

# It warns of every generated answer without an expression in it, which for a small model is every one.
logging.getLogger("lighteval").setLevel(logging.ERROR)
