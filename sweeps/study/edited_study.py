"""Check that the config files of a plain sweep were not edited between two commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ablations.config.removed import removed_option
from ablations.config.schema import source_values
from ablations.errors import ConfigError, Problem
from sweeps.study.config_snapshot import Pinned
from sweeps.study.definition import differences, shared_config
from sweeps.study.resources import is_run_config
from sweeps.study.study_state import StudyState

__all__ = ["refuse_edited"]


def refuse_edited(state: StudyState, before: Pinned, now: Pinned) -> None:
    """Refuse a plain sweep if its config files now compose other values for the existing trials.

    A search does not need this check, because study.json contains all that its runs share.

    Args:
        state: State of the study.
        before: Copy of the config files of the study's last command.
        now: Copy of the config files of this command.

    Raises:
        ConfigError: every value that differs, by trial.
    """
    if not _still_composes(before, state):
        return
    problems = [
        Problem(
            f"study {state.study!r}: {trial.spec.trial}: {where}",
            "its config files were edited since it was run",
            found=repr(new),
            allowed=repr(old),
            do="restore them, or name a new study=",
        )
        for trial in state.trials
        if trial.spec.overrides
        for where, old, new in differences(
            _shared(before, trial.spec.overrides), _shared(now, trial.spec.overrides), "config"
        )
    ]
    if problems:
        raise ConfigError(problems)


def _still_composes(before: Pinned, state: StudyState) -> bool:
    """Return whether the copy of the last command composes; not if it uses a removed option.

    Such a copy was made by an older version, and cannot be compared.

    Raises:
        HydraException: it does not compose for another reason.
    """
    from hydra.errors import HydraException

    from ablations.config.overrides import explain

    for overrides in [trial.spec.overrides for trial in state.trials if trial.spec.overrides][:1]:
        try:
            before.compose(overrides)
        except HydraException as error:
            if removed_option(explain(error, "run", overrides).where) is None:
                raise
            return False
    return True


def _shared(pinned: Pinned, overrides: Sequence[str]) -> dict[str, Any]:
    plain = pinned.compose(overrides)
    if is_run_config(plain):
        plain = {**plain, "source": source_values(plain, pinned.config_dirs)}
    return shared_config(plain, ())
