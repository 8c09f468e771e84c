"""Files of nanotron's branches: read what others published, write what we promote, check both.

    published.yaml ──read──▶ NanotronFile ──import──▶ conf/ of our own ──write back──▶ the same
    a promotion ──chain──▶ file 1, file 2, … file n ──check──▶ what main would refuse

The registry's nanotron (0.4) trains here; the branches main and smollm3 train full runs elsewhere,
from these files. Nothing in this package imports either: their config classes are recorded
(:mod:`.schema`).
"""

from sweeps.nanotron_files.chain import ChainRun, chain, continuation, handover_problems
from sweeps.nanotron_files.document import check, load_yaml, parse, read, text_of, to_document
from sweeps.nanotron_files.lint import Oddity, oddities, parameters
from sweeps.nanotron_files.sections import NanotronFile
from sweeps.nanotron_files.semantics import Meaning, folders_of, meaning, source_names

__all__ = [
    "ChainRun",
    "Meaning",
    "NanotronFile",
    "Oddity",
    "chain",
    "check",
    "continuation",
    "folders_of",
    "handover_problems",
    "load_yaml",
    "meaning",
    "oddities",
    "parameters",
    "parse",
    "read",
    "source_names",
    "text_of",
    "to_document",
]
