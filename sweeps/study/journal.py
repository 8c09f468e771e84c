"""Journal of a study: Optuna's append-only log, used as a cache of the run folders.

A trial takes one line when it is added and two when it ends, so a killed driver leaves no half-written
trial. A torn last line is cut off before the log is opened, because it would make every later read
fail. No result exists in the journal alone: if it is lost, the same trials are read from the run
folders (:class:`~sweeps.study.study_state.StudyState`). Each line has a checksum, under a key that
Optuna ignores; lines of an older version have none.

    optuna-dashboard runs/<study>/journal.log
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.files import mend_lines, sealed, unsealed
from sweeps.search.space.specs import ParameterSpec
from sweeps.study.specs import Direction
from sweeps.study.trial import Outcome, Trial, TrialSpec

if TYPE_CHECKING:
    import optuna

__all__ = ["Journal"]

_SCALE = "ablations:score"
"""Attribute of the Optuna study that identifies the score of its values."""


class Journal:
    """Trials of one study on disk.

    Args:
        folder: Folder of the study.
        study: Name of the study.
        objectives: Name → better direction.
        parameters: Config path → searched parameter, mixtures excluded.
        scale: Identifier of the score that values are in; a journal with another one is rebuilt.
    """

    def __init__(
        self,
        folder: Path,
        study: str,
        objectives: Mapping[str, Direction],
        parameters: Mapping[str, ParameterSpec],
        scale: str = "",
    ) -> None:
        self.path = folder / "journal.log"
        _mend(self.path)
        # A lock file here is left by a killed driver: this process holds the study's lock.
        self.path.with_name("journal.log.lock").unlink(missing_ok=True)
        self._parameters = {path: _distribution(spec) for path, spec in parameters.items()}
        self._trials: dict[int, Trial] = {}
        self._ids: dict[int, int] = {}
        self._begin(study, objectives, scale)

    def _begin(self, study: str, objectives: Mapping[str, Direction], scale: str) -> None:
        """Open the log and read its trials; move a log that cannot be read aside and start a new one."""
        try:
            self._read(study, objectives, scale)
        except Exception as error:  # Optuna raises many types for a line that it did not write
            aside = _aside(self.path)
            self.path.rename(aside)
            print(
                f"{self.path}: damaged ({type(error).__name__}: {str(error)[:80]}); moved to "
                f"{aside.name}, its trials are read from the run folders",
                file=sys.stderr,
            )
            self._trials.clear()
            self._ids.clear()
            self._read(study, objectives, scale)

    def _read(self, study: str, objectives: Mapping[str, Direction], scale: str) -> None:
        _require_intact(self.path)
        self._storage, self._study = _open(self.path, study, objectives)
        if self._study.user_attrs.get(_SCALE, "") != scale:
            # Optuna cannot change a finished trial, so all values are written again.
            self.path.unlink()
            self._storage, self._study = _open(self.path, study, objectives)
            self._study.set_user_attr(_SCALE, scale)
        for frozen in self._study.get_trials(deepcopy=False):
            self._load(frozen)

    def _load(self, frozen: optuna.trial.FrozenTrial) -> None:
        if "ask" not in frozen.user_attrs:
            return
        spec = TrialSpec.from_plain(frozen.user_attrs["ask"])
        ended = frozen.user_attrs.get("outcomes", {})
        outcomes = {int(seed): Outcome(**outcome) for seed, outcome in ended.items()}
        self._ids[spec.number] = frozen._trial_id
        self._trials[spec.number] = Trial(
            spec=spec,
            outcomes=outcomes,
            settled=frozen.state.is_finished(),
            continued=bool(frozen.user_attrs.get("continued", False)),
        )

    @property
    def trials(self) -> Mapping[int, Trial]:
        """Return number → trial of every trial in the journal."""
        return self._trials

    def add(self, spec: TrialSpec) -> Trial:
        """Record a new trial in one line."""
        import optuna
        from optuna.distributions import FloatDistribution

        weights = _weights(spec)
        searched = {path: spec.point[path] for path in self._parameters if path in spec.point}
        started = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params={**weights, **searched},
            distributions={
                **dict.fromkeys(weights, FloatDistribution(0.0, 1.0)),
                **{path: self._parameters[path] for path in searched},
            },
            user_attrs=_attributes(spec),
        )
        started.datetime_start = datetime.now()
        # Study.add_trial writes the same line but does not return the id.
        self._ids[spec.number] = self._storage.create_new_trial(self._study._study_id, started)
        self._trials[spec.number] = Trial(spec=spec)
        return self._trials[spec.number]

    def end(
        self, trial: Trial, values: Sequence[float] | None, constraints: Mapping[str, float]
    ) -> None:
        """Record the end of a trial: its outcomes, then its state and values."""
        from optuna.trial import TrialState

        state = {
            "done": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }[trial.state if values is not None or trial.state != "done" else "failed"]
        storage, identity = self._storage, self._ids[trial.number]
        outcomes = {str(seed): outcome.plain() for seed, outcome in trial.outcomes.items()}
        storage.set_trial_user_attr(identity, "outcomes", outcomes)
        for name, value in constraints.items():
            storage.set_trial_system_attr(identity, f"constraints:{name}", value)
        complete = state == TrialState.COMPLETE
        storage.set_trial_state_values(identity, state, list(values or ()) if complete else None)
        self._trials[trial.number] = replace(trial, settled=True)

    def carry_on(self, trial: Trial) -> None:
        """Record that a trial that paused goes on to its end."""
        self._storage.set_trial_user_attr(self._ids[trial.number], "continued", True)
        self._trials[trial.number] = trial

    def keep(self, trial: Trial) -> None:
        """Update a trial in memory only: runs added after its end are read from their folders."""
        self._trials[trial.number] = trial


def _open(
    path: Path, study: str, objectives: Mapping[str, Direction]
) -> tuple[optuna.storages.BaseStorage, optuna.Study]:
    # Imported here: Optuna takes 0.6 s, and a plugin module must load at once.
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    class Sealing(JournalFileBackend):
        """Log with a checksum in every line."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            super().append_logs([sealed(log) for log in logs])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(Sealing(str(path), JournalFileOpenLock(str(path))))
    opened = optuna.create_study(
        storage=storage,
        study_name=study,
        directions=list(objectives.values()),
        load_if_exists=True,
    )
    _name_objectives(opened, list(objectives))
    return storage, opened


def _weights(spec: TrialSpec) -> dict[str, float]:
    """Return the weights of a trial as parameters, which the dashboard plots."""
    return {
        f"{path}.{source}": weight
        for path, weights in spec.point.items()
        if isinstance(weights, dict)
        for source, weight in weights.items()
    }


def _attributes(spec: TrialSpec) -> dict[str, Any]:
    """Return what the dashboard shows besides the parameters, and the specification."""
    swept = {"overrides": " ".join(spec.overrides)} if spec.overrides else {}
    return {
        "trial": spec.trial,
        "phase": spec.phase,
        "name": spec.name,
        **swept,
        "ask": spec.plain(),
    }


def _name_objectives(study: optuna.Study, names: list[str]) -> None:
    """Name the values of trials, for the dashboard; written once."""
    import warnings

    with warnings.catch_warnings():
        # Optuna warns at each use that metric names are experimental.
        warnings.simplefilter("ignore")
        if study.metric_names != names:
            study.set_metric_names(names)


def _distribution(spec: ParameterSpec) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if spec.kind == "choice":
        return distributions.CategoricalDistribution(spec.choices)
    assert spec.low is not None
    assert spec.high is not None
    if spec.kind == "int":
        return distributions.IntDistribution(int(spec.low), int(spec.high))
    return distributions.FloatDistribution(spec.low, spec.high, log=spec.kind == "log")


def _aside(path: Path) -> Path:
    """Return a free path next to a damaged log."""
    number = 1
    while (found := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return found


def _require_intact(path: Path) -> None:
    """Check each line against its checksum.

    Raises:
        DamagedError: a line is not what was written.
        ValueError: a line is not JSON.
    """
    if not path.exists():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            unsealed(json.loads(line), f"line {number}")


def _mend(path: Path) -> None:
    """Cut off everything after the last whole line that is JSON."""
    mend_lines(path)
    if not path.exists():
        return
    content = path.read_bytes()
    keep = len(content)
    while keep:
        start = content.rfind(b"\n", 0, keep - 1) + 1
        try:
            json.loads(content[start:keep])
            break
        except ValueError:
            keep = start
    if keep < len(content):
        with path.open("rb+") as stream:
            stream.truncate(keep)
