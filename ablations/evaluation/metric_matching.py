"""Check that every pattern of metrics matches a metric of the suite, and can be judged.

A score that names no metric of the suite is missing at every checkpoint. That is known before
training, so it is refused then.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ablations.data.rows.row_specs import RowKind
from ablations.errors import Problem, nearest
from ablations.evaluation.specs import PICTURE_GAINS, WITHOUT_CHANCE, EvaluationSpec, ScoreTerm

__all__ = ["metric_names", "score_problems", "unmatched", "unseen"]

Sources = Iterable[str] | Mapping[str, RowKind | None]
"""Sources whose held-out part is scored; with the kinds of their rows where they have any."""

_SHOWN = 12
"""Most metrics that a message lists."""


def metric_names(evaluation: EvaluationSpec, sources: Sources) -> tuple[str, ...]:
    """Return the ``task/metric`` names that a run of ``sources`` is scored on."""
    tasks = evaluation.all_tasks(sources)
    return tuple(f"{name}/{metric}" for name, task in tasks.items() for metric in task.metrics)


def score_problems(evaluation: EvaluationSpec, sources: Sources) -> list[Problem]:
    """Return a problem for each term of the score that cannot have a value in a run of ``sources``."""
    names = metric_names(evaluation, sources)
    terms = evaluation.score.terms if evaluation.score else {}
    return [
        problem
        for name, term in terms.items()
        for problem in (
            *_term_problems(f"evaluation.score.terms.{name}", term, names, evaluation),
            *unseen(f"evaluation.score.terms.{name}.metrics", term.metrics, evaluation, sources),
        )
    ]


def _term_problems(
    where: str, term: ScoreTerm, names: Sequence[str], evaluation: EvaluationSpec
) -> Iterator[Problem]:
    problem = unmatched(f"{where}.metrics", term.metrics, names, evaluation)
    if problem is not None:
        yield problem
    matched = fnmatch.filter(names, term.metrics)
    # Bits per byte has no chance level, so the score would be missing (evaluation/score_rule.py).
    bits = [name for name in matched if name.rpartition("/")[2] in WITHOUT_CHANCE]
    if term.rescale and bits:
        yield Problem(
            f"{where}.rescale",
            "has no chance level to rescale by",
            found=", ".join(bits[:_SHOWN]),
            do="leave rescale out, or name accuracies alone",
        )


def unseen(
    where: str, pattern: str, evaluation: EvaluationSpec, sources: Sources
) -> Iterator[Problem]:
    """Yield the problems of a pattern that judges pictures without showing that they are used.

    Bits per byte and exact match of an answer improve with its language alone. A verdict names no winner on
    them unless the picture's gain is above zero, so a run that does not measure it could win nothing.

    Args:
        where: Key of the pattern.
        pattern: Pattern over ``task/metric``.
        evaluation: The suite.
        sources: Sources of a run.
    """
    tasks = evaluation.all_tasks(sources)
    about_pictures = {
        f"{name}/{metric}": (name, metric)
        for name, task in tasks.items()
        if task.form == "picture"
        for metric in task.metrics
    }
    matched = [about_pictures[name] for name in fnmatch.filter(about_pictures, pattern)]
    for task in dict.fromkeys(task for task, _ in matched):
        absent = [metric for metric in PICTURE_GAINS if metric not in tasks[task].metrics]
        if absent:
            yield Problem(
                where,
                f"judges answers about the pictures of {task} without {' and '.join(absent)}, which show "
                "that the picture is used",
                found=pattern,
                do=f"add {' and '.join(absent)} to evaluation.tasks.{task}.metrics",
            )
    if blind := [f"{task}/{metric}" for task, metric in matched if metric == "bpb_without"]:
        yield Problem(
            where,
            "judges answers without their pictures, which no picture moves",
            found=", ".join(blind[:_SHOWN]),
            do="name gain, bpb or exact_match instead",
        )


def unmatched(
    where: str, pattern: str, names: Sequence[str], evaluation: EvaluationSpec
) -> Problem | None:
    """Return the problem of a pattern that matches none of the metrics ``names``; None if it matches."""
    if any(fnmatch.fnmatchcase(name, pattern) for name in names):
        return None
    shown = ", ".join(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown += f", … ({len(names)} in all)"
    close = nearest(pattern, names, most=1)
    do = f"did you mean {close[0]!r}?" if close else "name a metric of the suite"
    if not evaluation.heldout and pattern.startswith(("heldout_", "*/bpb")):
        do = "set evaluation.heldout=true, or name a metric of the suite"
    return Problem(
        where,
        "matches no metric that the runs are scored on",
        found=pattern,
        allowed=shown or "none: the suite has no task",
        do=do,
    )
