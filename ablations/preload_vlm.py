"""Imports of a run with method=vlm, done in advance, as ``preload`` does those of every run.

The Trainer of transformers takes four CPU-seconds to import.
"""

from __future__ import annotations

from ablations.evaluation.lighteval.clean_import import undisturbed

with undisturbed():
    import ablations.training.vlm.rank  # noqa: F401
