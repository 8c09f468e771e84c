"""Facts beside the answer of a report: the difference, the risk, the cost, the tasks, what comes next.

Each comes from a recorded value. A value that is not known is stated as such.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablations.quantities import count
from ablations.terminal import override_word
from analysis.report.tables import signed
from sweeps.promotion.by_method import method_of, next_command

if TYPE_CHECKING:
    from analysis.report.content import ReportContent
    from sweeps.verdict.verdict_record import Verdict

__all__ = ["Fact", "cost_value", "facts", "hours_of", "percent"]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact: a name, a value to read at a glance, and what it means."""

    name: str
    value: str
    lines: tuple[str, ...] = ()


def facts(content: ReportContent) -> Iterator[Fact]:
    """Yield the facts of a report in the order of the questions that a reader asks."""
    verdict = content.loaded.verdict
    if verdict is None:
        yield _progress(content)
    else:
        yield _difference(verdict)
        yield _risk(verdict)
    yield _cost(content)
    if verdict is not None and verdict.tasks:
        yield _tasks(verdict)
    yield from _next(content)


def _difference(verdict: Verdict) -> Fact:
    from sweeps.verdict.p_values import p_equals

    found = verdict.advantage
    compared = f"{verdict.pick} minus {verdict.reference}; + = better"
    if not math.isfinite(found.standard_error):
        return Fact(
            name="Difference",
            value=signed(found.value),
            lines=("interval unknown: the study does not show the training noise", compared),
        )
    interval = (
        f"{1 - verdict.alpha:.0%} interval {signed(found.low)} to {signed(found.high)} "
        f"({p_equals(found.p_corrected)}, corrected)"
    )
    return Fact(name="Difference", value=signed(found.value), lines=(interval, compared))


def _risk(verdict: Verdict) -> Fact:
    from sweeps.verdict.messages import number

    regret = verdict.regret
    if regret.chance is None:
        return Fact(name="Risk", value="unknown", lines=("the training noise is not known",))
    beyond = f" by more than {number(regret.margin)}" if regret.margin else ""
    lines = [f"chance that {verdict.pick} is worse than {verdict.reference}{beyond}"]
    if regret.expected is not None:
        lines.append(
            f"expected loss {number(regret.expected, 2)} if it is taken, "
            f"{number(regret.expected_if_kept, 2)} if it is not"
        )
    return Fact(name="Risk", value=percent(regret.chance), lines=tuple(lines))


def percent(share: float) -> str:
    """Return a probability in percent; one that rounds to 0 or 100 is a bound, because it is an estimate.

    >>> percent(0.4821), percent(0.00001), percent(0.99999)
    ('48.2%', '< 0.1%', '> 99.9%')
    """
    if share < 0.0005:
        return "< 0.1%"
    return "> 99.9%" if share > 0.9995 else f"{share:.1%}"


def _cost(content: ReportContent) -> Fact:
    counts = content.counts
    states = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
    runs = sum(counts.values())
    tokens = int(content.frames.cost["tokens"].fillna(0).sum())
    lines = [f"{runs:,} run{'' if runs == 1 else 's'}: {states}"]
    if tokens:
        lines.append(f"{count(tokens, digits=3)} {content.counted} trained on")
    return Fact(name="Cost", value=cost_value(content), lines=tuple(lines))


def cost_value(content: ReportContent) -> str:
    """Return the time that a study took, in words."""
    frame = content.frames.cost
    cpu = float(frame["train_cpu_seconds"].sum() + frame["eval_cpu_seconds"].sum()) / 3600.0
    wall = float(frame["wall_seconds"].sum()) / 3600.0
    devices = sorted(set(frame["device"].dropna().astype("str")))
    return hours_of(cpu=cpu, wall=wall, devices=devices)[1]


def hours_of(*, cpu: float, wall: float, devices: Sequence[str]) -> tuple[float, str]:
    """Return the hours that runs took: of the CPU if nothing else trained them, else by the wall clock.

    Returns:
        The hours, and the same in words.
    """
    from sweeps.promotion.schedule_text import hours_words

    if cpu + wall <= 0.0:
        return 0.0, "not recorded yet"
    if list(devices) in ([], ["cpu"]):
        return cpu, f"{hours_words(cpu)} of one CPU core"
    return wall, f"{hours_words(wall)} of runs on {', '.join(devices)}"


def _tasks(verdict: Verdict) -> Fact:
    counts = Counter(row.effect for row in verdict.tasks)
    better, worse = counts["gains"], counts["pays"]
    if not better + worse:
        return Fact(
            name="Tasks",
            value="no difference shown",
            lines=(f"on any of {len(verdict.tasks)} tasks",),
        )
    blind = [row.task for row in verdict.tasks if row.effect == "blind"]
    rest = len(verdict.tasks) - better - worse - len(blind)
    lines = [f"of {len(verdict.tasks)} tasks with {verdict.pick}; {rest} without a difference"]
    names = [row.task for row in verdict.tasks if row.effect == "pays"]
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"worse: {', '.join(names[:3])}{more}")
    if blind:
        lines.append(f"ahead without use of the picture: {', '.join(blind)}")
    return Fact(name="Tasks", value=f"{better} better, {worse} worse", lines=tuple(lines))


def _next(content: ReportContent) -> Iterator[Fact]:
    """Yield the promotions, or what is to be done next."""
    for one in content.promoted:
        if content.study in one.after:
            line = f"a stage of promotion {one.name}, {one.day} by {one.by}"
            yield Fact(name="Promoted", value=f"after {one.full}", lines=(line,))
            continue
        lines = [f"{one.candidate}, {one.day} by {one.by}; {one.cost} (estimate)"]
        if one.after:
            lines.append(f"then the picks of {', '.join(one.after)}")
        if one.overridden:
            lines.append(f"overridden gates: {', '.join(one.overridden)}")
        yield Fact(name="Promoted", value=one.full, lines=(*lines, *filter(None, [one.outcome])))
    verdict = content.loaded.verdict
    if verdict is None or content.promoted:
        return
    if verdict.outcome == "winner":
        method = method_of(content.configs[0]) if content.configs else "pretrain"
        command = next_command(override_word("study", content.study), content.study, method)
        if command is None:
            yield Fact(name="Next", value="train it", lines=("a longer run with its weights",))
        else:
            yield Fact(name="Next", value="promote it", lines=(f"`{command}`",))
    elif verdict.settle_text:
        yield Fact(name="Next", value="what would settle it", lines=(verdict.settle_text,))


def _progress(content: ReportContent) -> Fact:
    """Return how far a study without a verdict is."""
    counts = content.counts
    done, runs = counts.get("done", 0), sum(counts.values())
    lines = []
    scored = content.frames.trials.dropna(subset=["score"])
    if not scored.empty:
        lines.append(f"{len(scored):,} of {len(content.frames.trials):,} trials have a score")
    if failed := counts.get("failed", 0):
        lines.append(f"{failed:,} failed: {_reasons(content)}")
    return Fact(name="Runs", value=f"{done:,} of {runs:,} done", lines=tuple(lines))


def _reasons(content: ReportContent) -> str:
    """Return the most frequent reason why runs failed."""
    runs = content.frames.runs
    reasons = runs.loc[runs["status"] == "failed", "reason"].dropna().astype("str")
    if reasons.empty:
        return "the reason is not recorded"
    first = reasons.mode().iloc[0].splitlines()[0][:120]
    return first if reasons.nunique() == 1 else f"most often {first}"
