"""Use lighteval, here and nowhere else: documents, prompts, few-shot examples and metrics.

    TaskSpec + items ──build_task──▶ Docs ──MemoryModel──▶ ModelResponses ──▶ metrics

This package corrects what lighteval 0.13.0 gets wrong. Nothing is downloaded: tasks are made from our items,
and the built-in ones are never imported. Nothing is cached: its response cache identifies a model by its
config, not by its weights. Token counts are true. Rolling log-likelihood works. A continuation longer than
the window is reported instead of crashing. Metrics are built directly, so that their names are stable.
Only what a suite uses is imported: see ``clean_import``.
"""

from __future__ import annotations

import logging

from ablations.evaluation.lighteval.clean_import import undisturbed

with undisturbed():  # rich, which transformers imports, draws from ``random``
    from ablations.evaluation.lighteval.lighteval_model import MemoryModel
    from ablations.evaluation.lighteval.lighteval_tasks import (
        SuiteTask,
        build_task,
        refer_to,
        sample_metrics,
    )

__all__ = ["MemoryModel", "SuiteTask", "build_task", "refer_to", "sample_metrics"]

# It warns of each generated answer without an expression in it, which for a small model is all of them.
logging.getLogger("lighteval").setLevel(logging.ERROR)
