"""Figures that show the answer, and those of the mixtures behind it.

One figure leads: a ratio curve for two sources, a ternary map for three, the shares of the two mixtures
compared for more, the advantages of the candidates where no weight was searched. It shows what the
verdict found; a surrogate is drawn beside it as a prediction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from analysis import figures
from analysis.report.chart import Chart

if TYPE_CHECKING:
    import pandas as pd

    from analysis.report.content import ReportContent
    from sweeps.verdict.verdict_record import Verdict

__all__ = ["lead_charts", "short_score"]

_MOST_LINES = 500
"""Most trials that parallel coordinates draw."""


def lead_charts(content: ReportContent) -> Iterator[Chart]:
    """Yield the figure beside the answer first, then those of the section of mixtures."""
    verdict, sources = content.loaded.verdict, len(content.sources)
    if content.mixtures.empty or not content.searched:
        if verdict is not None:
            yield from _advantages(verdict)
        return
    drawn = figures.thinned(content.judged)
    if sources == 2:
        yield _ratio(content, drawn)
        return
    if sources == 3:
        yield _ternary(content, drawn)
    elif verdict is not None:
        yield _weights(content, verdict)
    leads = sources > 3 and verdict is None
    yield _parallel(content, "lead" if leads else "mixtures")


def short_score(content: ReportContent) -> str:
    """Return the name of the score with its direction, for an axis."""
    direction = content.score.rsplit("; ", 1)[-1]
    return f"score ({direction})"


def _ratio(content: ReportContent, drawn: pd.DataFrame) -> Chart:
    names, frames = list(content.sources), content.frames
    seeds = figures.ratio_seeds_frame(frames.runs, frames.sources, names[0], stage=content.stage)
    return Chart(
        key="ratio",
        phone_height=250,
        section="lead",
        title="Score over the ratio",
        caption=f"{_judged(content, 'Grey: the shares that may be best')}"
        f"Bars are 95% of the seed noise.{_surrogate(content)}{_thinned(content, drawn)}",
        figure=figures.ratio_curve(
            drawn,
            names,
            seeds=seeds[seeds["trial"].isin(drawn["trial"])],
            prediction=content.fit.prediction if content.fit else None,
            score=short_score(content),
        ),
    )


def _ternary(content: ReportContent, drawn: pd.DataFrame) -> Chart:
    fit = content.fit
    return Chart(
        key="ternary",
        phone_height=320,
        section="lead",
        title="Map of mixtures",
        caption=f"Each corner is one source alone. {_judged(content)}"
        f"{_surrogate(content).strip()}{_thinned(content, drawn)}",
        figure=figures.ternary_map(
            drawn,
            list(content.sources),
            prediction=fit.prediction if fit else None,
            optimum=fit.optimum if fit else None,
            score=short_score(content),
        ),
    )


def _weights(content: ReportContent, verdict: Verdict) -> Chart:
    trial = content.trial_of
    frame = figures.answer_frame(
        content.judged,
        content.sources,
        reference=trial(verdict.reference),
        pick=trial(verdict.pick),
    )
    hidden = len(frame) - figures.MOST_ROWS
    more = f" The {hidden} smallest sources are left out." if hidden > 0 else ""
    return Chart(
        key="weights",
        section="lead",
        title="The two mixtures compared, source by source",
        caption="Grey: from the lowest to the highest share in the mixtures that may be best by the "
        f"verdict; not every combination inside was tested.{more}{_stage(content)}",
        figure=figures.answer_weights(
            frame,
            reference=verdict.reference,
            pick=verdict.pick,
            won=verdict.outcome == "winner",
        ),
    )


def _parallel(content: ReportContent, section: str) -> Chart:
    drawn = figures.thinned(content.judged, _MOST_LINES)
    return Chart(
        key="parallel",
        section=section,
        title="Mixtures by score",
        caption="One line per trial, coloured by its rank in score. If the dark lines run close "
        "together, the source's weight matters; if they spread, it does not."
        f"{_thinned(content, drawn)}",
        figure=figures.parallel_coordinates(
            drawn, list(content.sources), score=short_score(content)
        ),
    )


def _advantages(verdict: Verdict) -> Iterator[Chart]:
    frame = figures.advantages_frame(verdict.candidates, pick=verdict.pick)
    if frame.empty:
        return
    hidden = len(frame) - figures.MOST_ROWS
    more = f" The {hidden} candidates behind them are left out." if hidden > 0 else ""
    yield Chart(
        key="advantages",
        section="lead",
        title=f"Advantage of each candidate over {verdict.reference}",
        caption=f"Intervals of {1 - verdict.alpha:.0%}, simultaneous for all candidates.{more}",
        figure=figures.advantages(
            frame, reference=verdict.reference, won=verdict.outcome == "winner"
        ),
    )


def _judged(content: ReportContent, shares: str = "") -> str:
    """Return what a figure shows of the verdict; empty if the verdict does not record it."""
    verdict = content.loaded.verdict
    if verdict is None or not verdict.may_be_best:
        return ""
    open_marks = "open marks: trials that it ruled out as the best. "
    if not all(verdict.may_be_best.values()):
        return f"{shares} by the verdict; {open_marks}" if shares else f"Verdict: {open_marks}"
    return f"{shares} by the verdict. " if shares else ""


def _surrogate(content: ReportContent) -> str:
    fit = content.fit
    if fit is None:
        return _stage(content)
    return (
        f" The surrogate is {fit.best}, the best of {len(fit.leaderboard)} by cross-validation; its "
        "interval is calibrated to contain nine of ten trials that it was not fitted to. It is a "
        f"prediction, not the verdict.{_stage(content)}"
    )


def _stage(content: ReportContent) -> str:
    return f" Weights are those of stage {content.stage}." if content.stage else ""


def _thinned(content: ReportContent, drawn: pd.DataFrame) -> str:
    if len(drawn) == len(content.mixtures):
        return ""
    return (
        f" {len(drawn):,} of {len(content.mixtures):,} trials are drawn: the named ones, the hundred "
        "best and a random sample."
    )
