"""Run ``ablate verdict``: winner, tie or keep the baseline, written beside the runs as ``verdict.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ablations.config.schema import validate
from ablations.errors import ConfigError, Problem
from ablations.terminal import override_word, runs_dir_words
from sweeps.commands.command_options import VerdictSubject, read_options
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.published import published_table, published_tables
from sweeps.verdict.render import show
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import write_verdict

__all__ = ["main"]

_OF_COMMAND = (*(field.name for field in fields(VerdictSubject)), "config_dirs")


def main(config: Mapping[str, Any]) -> int:
    """Print the verdict on a study, or on a published table; a tie is an answer, so exit code 0."""
    own = {key: value for key, value in config.items() if key not in _OF_COMMAND}
    options = validate(VerdictOptions, own)
    subject = read_options(VerdictSubject, config)
    verbose, study, table = subject.verbose, subject.study, subject.table
    if (study is None) == (table is None):
        raise ConfigError(
            Problem(
                "study",
                "name a study, or a published table",
                found=f"study={study}, table={table}",
                allowed=f"study=NAME, or table= one of {', '.join(published_tables())}",
            )
        )
    if table is not None:
        show(decide(published_table(table), options), verbose=verbose)
        return 0
    runs_dir = Path(subject.runs_dir)
    assert study is not None
    verdict = decide(gather(runs_dir, study, subject.objective), options)
    if subject.write:
        write_verdict(runs_dir / study, verdict)
    show(verdict, verbose=verbose)
    named = override_word("study", study) + runs_dir_words(runs_dir)
    print(f"next: ablate report {named}, ablate promote {named} full=…")
    return 0
