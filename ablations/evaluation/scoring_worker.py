"""Imports of a warm server for scoring: lighteval first, then the functions that its children call.

Each worker would import transformers' network of Llama by itself: 1.7 CPU-seconds.
"""

from __future__ import annotations

from ablations.evaluation.lighteval.clean_import import undisturbed  # seconds, once per server
from ablations.evaluation.scoring_process import score_in_worker
from ablations.evaluation.scoring_shares import score_share

with undisturbed():
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

__all__ = ["score_in_worker", "score_share"]
