"""Fine-tuning and preferences in reports and cards: what was trained, and the stages after a full run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ablations.markdown import escaped, in_code
from analysis.figures.theme import number

if TYPE_CHECKING:
    import pandas as pd

    from analysis.report.chart import Chart

__all__ = ["after_section", "counted_words", "in_samples", "method_sentence", "stage_scores"]

counted_words: Mapping[str, str] = {
    "sft": "conversations",
    "dpo": "pairs",
    "vlm": "rows",
}
"""Method → what its budgets count."""

_LOSSES = {"all": "all tokens", "answers": "the answers alone"}


def method_sentence(configs: list[Mapping[str, Any]]) -> str | None:
    """Return how the runs were trained; None for pretraining, or if they differ in method.

    An option that differs between the runs is named without its value.
    """
    methods = [config.get("method") or {} for config in configs]
    kinds = {method.get("kind", "pretrain") for method in methods}
    if len(kinds) != 1 or (kind := kinds.pop()) not in counted_words:
        return None

    def shown(key: str, form: str, words: Mapping[str, str] | None = None) -> str:
        values = {method.get(key) for method in methods}
        if len(values) > 1:
            return f"several values of {key}"
        value = values.pop()
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return form.format((words or {}).get(text, text))

    starts = {(config.get("warm_start") or {}).get("checkpoint") for config in configs}
    begin = f" from {starts.pop()}" if len(starts) == 1 else " from several models"
    units = {"samples": counted_words[kind], "tokens": "tokens that the loss counts"}
    shares = shown("unit", "weights are shares of {}", units)
    if kind == "sft":
        return f"Fine-tuned with TRL{begin}: loss of {shown('loss', '{}', _LOSSES)}; {shares}."
    if kind == "vlm":
        return f"Trained on pictures{begin}: loss of {shown('loss', '{}', _LOSSES)}; {shares}."
    rounds = shown("rounds", "{} rounds")
    parts = [shown("beta", "beta {}"), "" if rounds == "1 rounds" else rounds, shares]
    return f"Direct Preference Optimization with TRL{begin}: {'; '.join(filter(None, parts))}."


def in_samples(chart: Chart, counted: str) -> Chart:
    """Return a figure whose axes and marks count what its runs count, if that is not tokens."""
    if counted == "tokens":
        return chart
    figure = chart.figure
    for name in ("xaxis", "yaxis"):
        axis = figure.layout[name]
        if axis.title.text:
            axis.title.text = _reworded(axis.title.text, counted)
    for trace in figure.data:
        for name in ("hovertemplate", "hovertext", "text"):
            value = getattr(trace, name, None)
            if isinstance(value, str):
                trace[name] = _reworded(value, counted)
            elif value is not None and name != "text":
                trace[name] = [_reworded(str(one), counted) for one in value]
    return replace(chart, caption=_reworded(chart.caption, counted), figure=figure)


def _reworded(text: str, counted: str) -> str:
    return re.sub(r"\btokens\b", counted, text)


def stage_scores(finals: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return trial → task/metric → value of the last checkpoints."""
    found: dict[str, dict[str, float]] = {}
    for row in finals.to_dict("records"):
        found.setdefault(str(row["trial"]), {})[f"{row['task']}/{row['metric']}"] = row["value"]
    return found


def after_section(
    record: Mapping[str, Any], scores: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    """Yield the section of a model card on the stages after a full run; nothing without one.

    Args:
        record: The promotion.
        scores: Stage → task/metric → value of its last checkpoint; stages that were not run are missing.
    """
    stages = record.get("after") or ()
    if not stages:
        return
    yield "## After pretraining"
    yield ""
    for stage in stages:
        shares = ", ".join(f"{escaped(n)} {share:.1%}" for n, share in stage["weights"].items())
        kind = stage["method"]["kind"]
        yield (
            f"- **{escaped(stage['name'])}** ({kind}): {stage['samples']:,} {counted_words[kind]} in "
            f"{stage['steps']:,} steps, learning rate {stage['peak_lr']:g}; {shares}. "
            f"{_beta(stage)}Chosen by study {in_code(stage['study'])}: {escaped(stage['verdict'])}"
        )
    yield ""
    names = ["full", *(str(stage["name"]) for stage in stages)]
    known = [name for name in names if name in scores]
    if len(known) < 2:
        yield "These stages have not been scored yet."
        yield ""
        return
    yield f"| task | {' | '.join(map(escaped, known))} |"
    yield f"|---|{'--:|' * len(known)}"
    for task in dict.fromkeys(task for name in known for task in scores[name]):
        values = [scores[name].get(task) for name in known]
        if sum(value is not None for value in values) > 1 or values[0] is None:
            cells = ["–" if value is None else number(value) for value in values]
            yield f"| {escaped(task)} | {' | '.join(cells)} |"
    yield ""


def _beta(stage: Mapping[str, Any]) -> str:
    method = stage["method"]
    if method["kind"] != "dpo":
        return ""
    rounds = method.get("rounds", 1)
    return f"Beta {method['beta']:g}{f', {rounds} rounds' if rounds > 1 else ''}. "
