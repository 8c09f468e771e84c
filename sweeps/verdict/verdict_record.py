"""Record of a verdict: the outcome, its evidence, and the noise that it rests on.

    runs/<study>/verdict.json     written by rename: a reader sees the old verdict or the new one

Differences are advantages, positive = better, whatever the direction of the score. Means and scores
keep their own direction. An unknown number is null.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ablations.errors import Problem, UserError, unknown_name
from ablations.files import finite_or_none, write_sealed
from ablations.record.stored import damaged, stored_object
from ablations.terminal import override_word
from sweeps.study.specs import Direction, loss_sign
from sweeps.verdict.contrasts import Estimate
from sweeps.verdict.decision import Outcome, Regret, TieKind
from sweeps.verdict.power import PowerEstimate
from sweeps.verdict.task_quality import TaskQuality
from sweeps.verdict.training_noise import NoiseSource
from sweeps.verdict.transfer import Transfer

__all__ = [
    "FORMAT",
    "VERDICT_FILE",
    "CandidateRow",
    "NoiseRow",
    "PictureNoise",
    "PictureRow",
    "TaskEffect",
    "TaskRow",
    "Verdict",
    "read_verdict",
    "write_verdict",
]

FORMAT = 1
"""Version of verdict.json; a reader refuses a newer one."""

VERDICT_FILE = "verdict.json"

TaskEffect = Literal["gains", "pays", "not shown", "unknown", "blind"]
"""Better, worse, no significant difference, not known, or better without use of the picture: the values on
disk."""

PictureNoise = Literal["seeds and items", "items", "unknown"]
"""Noise that a gain of pictures is compared with."""


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """One candidate of the comparison."""

    name: str
    trial: str
    """Its trial, as in the run folders; the name itself for a published table."""
    seeds: tuple[int, ...]
    """Seeds whose runs counted."""
    mean: float
    """Mean score, in its own direction, adjusted for seed effects if these were fitted."""
    advantage: Estimate | None
    """Advantage over the reference, corrected for all candidates; None for the reference itself."""
    finalist: bool
    """True if it may be the best of all."""
    weights: Mapping[str, float]
    """Source → weight of its mixture; empty if it is not a mixture."""


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """The pick against the reference on one metric of one task."""

    task: str
    metric: str
    reference: float | None
    """Mean of the reference, as scored."""
    pick: float | None
    """Mean of the pick, as scored."""
    advantage: Estimate | None
    """Advantage of the pick, corrected by Holm over the tasks; None if a score is missing."""
    effect: TaskEffect
    """``gains`` (better) or ``pays`` (worse) if the corrected p is at most alpha; ``blind`` if the better one
    of the two does not use the pictures of the task."""
    in_score: bool
    """True if the metric counts in the score."""
    items: int | None
    """Items compared in pairs; None if items were not kept."""
    item_error: float | None
    """Paired standard error over items alone, without training noise."""


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """Use of the pictures of one task by one candidate."""

    task: str
    candidate: str
    gain: float | None
    """Bits per byte of the answers without their pictures less those with them, mean over the candidate's
    runs; None if a run lacks it."""
    gain_low: float | None
    """Lower end of its one-sided interval; None if its noise is unknown."""
    shuffled_gain: float | None
    """Bits per byte with the picture of another item less those with their own."""
    shuffled_gain_low: float | None
    """Lower end of its one-sided interval."""
    runs: int
    """Runs of the candidate that count."""
    noise: PictureNoise
    """Noise behind the lower ends."""
    used: bool
    """True if both lower ends are above zero: only then the candidate may be named better on the task."""
    in_score: bool
    """True if a metric of the task counts in the score."""


@dataclass(frozen=True, kw_only=True)
class NoiseRow:
    """Noise that the verdict's intervals rest on."""

    source: NoiseSource
    """Seeds of the study, its late checkpoints, declared figures, or none."""
    run_sd: float | None
    """Training noise of the score of one run."""
    df: float
    """Degrees of freedom behind it."""
    item_error: float | None
    """Standard error that the choice of items adds to the pick's advantage."""
    blocked: bool
    """True if effects common to all candidates of a seed were removed."""
    bootstrap: tuple[float, float] | None
    """95% interval of the advantage by bootstrap over seeds, then items; not corrected."""
    permutation_p: float | None
    """Exact permutation p-value of the pick against the reference; None with too few seeds."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict on one study."""

    study: str
    outcome: Outcome
    tie_kind: TieKind | None
    sentence: str
    """The verdict in one sentence."""
    pick: str
    baseline: str | None
    """The candidate to beat; None if the study has none."""
    reference: str
    """Candidate that the pick is compared with: the baseline, or the runner-up."""
    direction: Direction
    """Direction in which the score is better."""
    score: str
    """Formula of the score, for people."""
    advantage: Estimate
    """The pick over the reference, positive = better, corrected for all candidates."""
    equivalence_p: float | None
    """p-value of a difference beyond the margin on either side; None without a margin."""
    regret: Regret
    finalists: tuple[str, ...]
    """Candidates that cannot be ruled out as the best, best mean first."""
    candidates: tuple[CandidateRow, ...]
    tasks: tuple[TaskRow, ...]
    signal: tuple[TaskQuality, ...]
    """Quality of each metric."""
    transfer: tuple[Transfer, ...]
    settle: tuple[PowerEstimate, ...]
    """Seeds and items that would settle it: for the observed difference, and for a stated one."""
    settle_text: str
    """The same in sentences; empty if the outcome is not a tie."""
    noise: NoiseRow
    confirmed: bool
    """True if the pick was tested on fresh seeds, not on the scores that it was chosen by."""
    alpha: float
    margin: float
    """Differences within it do not matter, in score units."""
    rule: str
    """The decision rule with its error rate."""
    caveats: tuple[str, ...]
    runs: tuple[str, ...]
    """Run folders that counted."""
    left_out: Mapping[str, str]
    """Run folder → reason for which it did not count."""
    created: float
    """Seconds since the epoch."""
    format: int = FORMAT
    objective: str = "score"
    """Name of the declared objective that the candidates are compared by."""
    question: str = ""
    """Question of the study as ``search.question`` states it; empty if it states none."""
    disagreements: tuple[str, ...] = ()
    """Views of the same runs whose sign differs from the advantage, each in a sentence."""
    answer: str = ""
    """The answer in weights of the mixture; empty if candidates have none."""
    may_be_best: Mapping[str, bool] = field(default_factory=dict)
    """Trial → False if a better one was found beyond the noise; the trials that `answer` speaks of.
    Empty in a record written before this field."""
    pictures: tuple[PictureRow, ...] = ()
    """Use of pictures by the pick and the reference; empty in a study without tasks about pictures."""

    @property
    def blind(self) -> tuple[PictureRow, ...]:
        """Tasks of the score whose pictures the pick does not use: it is no winner on them."""
        return tuple(
            row
            for row in self.pictures
            if row.candidate == self.pick and row.in_score and not row.used
        )

    @property
    def difference(self) -> float:
        """Pick minus reference in the score's own direction."""
        return -loss_sign(self.direction) * self.advantage.value


def write_verdict(folder: Path, verdict: Verdict) -> Path:
    """Write the verdict into a study folder and return the path of the file."""
    path = folder / VERDICT_FILE
    plain = _plain(asdict(verdict))
    if not verdict.pictures:  # as before there were pictures
        del plain["pictures"]
    write_sealed(path, plain)
    return path


def read_verdict(folder: Path) -> Verdict:
    """Return the verdict of a study folder.

    Raises:
        UserError: there is none, or a newer version of the platform wrote it.
        DamagedError: the file is not what was written.
    """
    path = folder / VERDICT_FILE
    if not os.path.lexists(path):
        studies = [entry.name for entry in folder.parent.glob("*") if entry.is_dir()]
        if folder.name not in studies:
            raise UserError(unknown_name("study", "study", folder.name, studies))
        raise UserError(
            Problem(
                str(path),
                "no verdict yet",
                do=f"run `ablate verdict {override_word('study', folder.name)}`",
            )
        )
    stored = stored_object(path)
    if isinstance(stored.get("format"), int) and stored["format"] > FORMAT:
        raise UserError(
            Problem(
                str(path),
                "written by a newer version of the platform",
                found=f"verdict format {stored['format']}",
                allowed=f"at most {FORMAT}",
            )
        )
    try:
        verdict: Verdict = _build(Verdict, stored)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    return verdict


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _plain(value: Any) -> Any:
    """Return JSON values; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return finite_or_none(value) if isinstance(value, float) else value


def _build(kind: Any, value: Any) -> Any:
    """Invert ``_plain(asdict(...))`` for the types of this module."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        # A field that is newer than the record keeps its default.
        known = [f for f in fields(kind) if f.name in value or not _has_default(f)]
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in known})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and type(None) in arguments:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value)
    if origin is tuple:
        inner = arguments[0]
        return tuple(_build(inner, item) for item in value)
    if kind is float and value is None:
        return math.nan
    return value
