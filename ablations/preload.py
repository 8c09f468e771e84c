"""Imports of a run, done in advance.

A launcher with warm workers imports this module once in the process that it forks runs from. Torch, nanotron,
lighteval and the Llama model of transformers take 7 CPU-seconds to import (``benchmarks/cold_start.py``),
which each run then saves. None of these imports starts threads or uses a GPU, so that a forked process works
like a new one.
"""

from __future__ import annotations

from ablations.evaluation.lighteval.clean_import import undisturbed

with undisturbed():
    # transformers imports modules when a name is used: these are what a run's first checkpoint uses.
    import torch._dynamo  # noqa: F401
    import transformers.generation.utils
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: F401
