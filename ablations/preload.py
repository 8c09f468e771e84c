"""Imports everything that a run needs, ahead of the run.

A launcher with warm workers imports this module once in the process that it forks runs from: torch,
nanotron, lighteval and the Llama model of transformers take 12 CPU-seconds that no run pays again.
Nothing here starts threads or touches a GPU, so that a fork is as good as a new process.
"""

from __future__ import annotations

from ablations.evaluation.lighteval.clean_import import undisturbed

with undisturbed():
    # transformers loads by attribute: the names below pull in what a run's first checkpoint would.
    import torch._dynamo  # noqa: F401
    import transformers.generation.utils
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: F401
