"""Files for nanotron's branches: read published files, write promoted runs, check both.

    published.yaml ──read──▶ NanotronFile ──import──▶ conf/ of our own ──write back──▶ the same
    a promotion ──chain──▶ file 1, file 2, … file n ──check──▶ problems that main would find

The platform trains with the registry's nanotron (0.4). The branches main and smollm3 train full runs
on a cluster from these files. Nothing in this package imports them: their config classes are
recorded (:mod:`.recorded_schema`).
"""

from sweeps.nanotron_files.chain import ChainRun, chain, continuation, handover_problems
from sweeps.nanotron_files.document import check, load_yaml, parse, read, text_of, to_document
from sweeps.nanotron_files.lint import Oddity, oddities, parameters
from sweeps.nanotron_files.sections import NanotronFile
from sweeps.nanotron_files.semantics import folders_of, source_names

__all__ = [
    "ChainRun",
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
