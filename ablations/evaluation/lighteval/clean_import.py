"""Import lighteval without side effects on the process.

Imported here are documents, prompts, few-shot examples and the interface of a model: 0.2 CPU-seconds beyond
torch and transformers. lighteval's tasks and metrics take seconds more (inspect_ai, scipy.stats, pandas,
scikit-learn, nltk); ``answer_matching`` alone imports metrics, for the suites that match generated answers.
``benchmarks/cold_start.py`` measures both.

Importing lighteval 0.13.0 can switch gradients off for the whole process (its transformers backend
does, at module level), and parts of it re-seed ``random`` and numpy. :func:`undisturbed` restores all of
that.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

__all__ = ["undisturbed"]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Restore gradient mode and the random states of Python, numpy and torch at the end of the block."""
    gradients = torch.is_grad_enabled()
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)


# lighteval imports GitPython, which refuses to be imported where no git executable is found.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

with undisturbed():
    import lighteval.models.abstract_model
    import lighteval.tasks.prompt_manager  # noqa: F401
