"""``ablate verdict``: winner, tie or keep the baseline; kept beside the runs as ``verdict.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from ablations.schema import validate
from ablations.terminal import override_word, runs_dir_words
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.published import published_table, published_tables
from sweeps.verdict.record import write_verdict
from sweeps.verdict.render import show
from sweeps.verdict.study import gather

__all__ = ["main"]

_OF_COMMAND = ("study", "runs_dir", "table", "objective", "write", "verbose", "config_dirs")


def main(config: Mapping[str, Any]) -> int:
    """Print the verdict on a study, or on a published table; a tie is an answer, so exit code 0."""
    own = {key: value for key, value in config.items() if key not in _OF_COMMAND}
    options = validate(VerdictOptions, own)
    verbose = bool(config.get("verbose", False))
    study, table = config.get("study"), config.get("table")
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
        show(decide(published_table(str(table)), options), verbose=verbose)
        return 0
    runs_dir = Path(config.get("runs_dir") or "runs")
    verdict = decide(gather(runs_dir, str(study), config.get("objective")), options)
    if config.get("write", True):
        write_verdict(runs_dir / str(study), verdict)
    show(verdict, verbose=verbose)
    named = override_word("study", study) + runs_dir_words(runs_dir)
    print(f"next: ablate report {named}, ablate promote {named} full=…")
    return 0
