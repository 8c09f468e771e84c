"""Text of a comparison: differences between mixtures first, learning progress last."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweeps.promotion.compare import Comparison, Outcome

__all__ = ["text"]

_SEALS = {
    "broken": "The prediction was changed after the full run began: its intervals do not count.",
    "unmarked": "A full run began without the prediction's mark: its intervals do not count.",
    "none": "This promotion sealed no prediction.",
}


def text(found: Comparison) -> str:
    """Return a comparison for people, as Markdown."""
    lines = [
        f"# {found.promotion}: prediction and full run",
        "",
        *_lead(found),
        *_outcomes(found),
        *_left_out(found),
        *_changes(found),
        *_facts(found),
        "",
        found.calibration.text(found.runs_dir),
    ]
    return "\n".join(lines) + "\n"


def _lead(found: Comparison) -> Iterator[str]:
    if found.not_comparable is not None:
        yield f"**Not comparable**: {found.not_comparable}."
        yield ""
    if found.basis == "over the run":
        yield (
            "The baseline was not run at full size, so no difference between mixtures can be seen and "
            "the prediction is not put to the test. This command trains it:"
        )
        yield ""
        conf = shlex.quote(f"{found.folder}/conf")
        yield f"    ablate run --config-dir {conf} experiment=baseline"
        yield ""
    elif found.not_comparable is None:
        yield from _verdict(found)
    if found.seal in _SEALS:
        yield _SEALS[found.seal]
        yield ""


def _verdict(found: Comparison) -> Iterator[str]:
    scores = [row for row in found.outcomes if row.task == "score"]
    tasks = [row for row in found.outcomes if row.task != "score" and row.held is not None]
    for row in scores:
        yield (
            f"Winner minus baseline at full size, score, positive = better: **{row.realised:+.4g}**; "
            f"predicted {row.mean:+.4g} ({_interval(row)}): {_held(row)}."
        )
    if not scores and found.seal != "none":
        why = found.left_out.get("score", "no score was predicted")
        yield f"Winner minus baseline at full size: the score is not compared ({why})."
    if tasks:
        yield (
            f"{sum(bool(row.held) for row in tasks)} of {len(tasks)} tasks inside their sealed 90% "
            "intervals."
        )
    yield ""


def _interval(row: Outcome) -> str:
    if row.low is None or row.high is None:
        return "no interval: the study showed no noise"
    return f"90% interval {row.low:+.4g} to {row.high:+.4g}"


def _held(row: Outcome) -> str:
    return {True: "inside", False: "**outside**", None: "not put to the test"}[row.held]


def _outcomes(found: Comparison) -> Iterator[str]:
    if not found.outcomes:
        return
    yield "| winner minus baseline | predicted | 90% interval | realised | |"
    yield "|---|--:|--:|--:|---|"
    for row in found.outcomes:
        name = f"{row.task}/{row.metric}" if row.metric else "**score**"
        known = row.low is not None and row.high is not None
        interval = f"{row.low:+.3g} to {row.high:+.3g}" if known else "unknown"
        yield f"| {name} | {row.mean:+.3g} | {interval} | {row.realised:+.3g} | {_held(row)} |"
    yield ""


def _left_out(found: Comparison) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for key, why in found.left_out.items():
        reasons.setdefault(why, []).append(key)
    for why, keys in reasons.items():
        yield f"Left out ({why}): {', '.join(keys)}."
    if reasons:
        yield ""


def _changes(found: Comparison) -> Iterator[str]:
    kind = "change" if found.basis == "against the baseline" else "learning progress"
    if found.correlation is not None:
        interval = "no interval below five tasks"
        if found.interval is not None:
            interval = f"95% interval {found.interval[0]:.2f} to {found.interval[1]:.2f}"
        yield (
            f"Rank correlation over tasks of the relative {kind} {found.basis}: "
            f"{found.correlation:.2f} ({interval}, {len(found.rows)} tasks); "
            f"{found.same_direction or 0.0:.0%} moved the way that the proxies predicted."
        )
    elif found.not_comparable is None:
        yield f"{len(found.rows)} tasks: too few for a rank correlation."
    yield ""
    yield f"| relative {kind} | metric | proxies | full run |"
    yield "|---|---|--:|--:|"
    for row in found.rows:
        yield f"| {row.task} | {row.metric} | {row.predicted:+.2%} | {row.realised:+.2%} |"
    yield ""
    yield f"Relative change {found.basis}, positive = better."


def _facts(found: Comparison) -> Iterator[str]:
    yield f"Realised mixture: {'; '.join(found.audit_gaps) or 'as asked in every stage'}."
    if found.unseen:
        named = ", ".join(f"{name} ({share:.1%})" for name, share in found.unseen.items())
        line = f"Read by the full run and by no proxy: {named}"
        if found.not_comparable is None:
            line += (
                "; winner and baseline read it alike, so their difference can be compared; it is diluted "
                "by that share, as the prediction assumed"
            )
        yield line + "."
    yield (
        f"Loss spikes: {found.spikes}. Score {_number(found.score)}, baseline "
        f"{_number(found.baseline_score)}, proxies {_number(found.proxy_score)}."
    )


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.4f}"
