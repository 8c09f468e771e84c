"""Imports of a run with method=sft or dpo, done in advance, as ``preload`` does those of every run.

TRL's trainers take five CPU-seconds to import.
"""

from __future__ import annotations

from ablations.evaluation.lighteval.clean_import import undisturbed

with undisturbed():
    import ablations.training.trl.rank  # noqa: F401
