"""Run ``ablate verdict``: winner, tie or keep the baseline, written beside the runs as ``verdict.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ablations.config.schema import validate
from ablations.documents import Answer
from ablations.errors import ConfigError, Problem
from ablations.terminal import override_word, runs_dir_words
from sweeps.commands.command_options import VerdictSubject, read_options
from sweeps.promotion.by_method import method_of_study, next_command
from sweeps.verdict.decide import VerdictOptions, decide
from sweeps.verdict.published import published_table, published_tables
from sweeps.verdict.render import show
from sweeps.verdict.study_observations import gather
from sweeps.verdict.verdict_record import Verdict, write_verdict

__all__ = ["VerdictResult", "answer", "main"]

_OF_COMMAND = (*(field.name for field in fields(VerdictSubject)), "config_dirs")


@dataclass(frozen=True, kw_only=True)
class VerdictResult:
    """A verdict, and where it was written."""

    file: str | None
    """``verdict.json`` of the study; None if nothing was written."""
    verdict: Verdict


def main(config: Mapping[str, Any]) -> int:
    """Print the verdict on a study, or on a published table; a tie is an answer, so exit code 0."""
    subject, verdict = _verdict(config)[:2]
    show(verdict, verbose=subject.verbose)
    if subject.study is not None:
        runs_dir = Path(subject.runs_dir)
        named = override_word("study", subject.study) + runs_dir_words(runs_dir)
        after = next_command(named, subject.study, method_of_study(runs_dir, subject.study))
        print(f"next: ablate report {named}{f', {after}' if after else ''}")
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Return the verdict for a program; it is written beside the runs as :func:`main` does."""
    _, verdict, file = _verdict(config)
    return Answer(result=VerdictResult(file=None if file is None else str(file), verdict=verdict))


def _verdict(config: Mapping[str, Any]) -> tuple[VerdictSubject, Verdict, Path | None]:
    """Decide, and write the verdict where that is asked for."""
    own = {key: value for key, value in config.items() if key not in _OF_COMMAND}
    options = validate(VerdictOptions, own)
    subject = read_options(VerdictSubject, config)
    study, table = subject.study, subject.table
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
        return subject, decide(published_table(table), options), None
    runs_dir = Path(subject.runs_dir)
    assert study is not None
    verdict = decide(gather(runs_dir, study, subject.objective), options)
    written = write_verdict(runs_dir / study, verdict) if subject.write else None
    return subject, verdict, written
