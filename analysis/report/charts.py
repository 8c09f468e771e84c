"""Figures of a study's report, with their captions. A figure without data is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ablations.errors import ConfigError
from analysis import figures
from analysis.direction import lower_is_better
from analysis.frames import Frames, task_values, weights
from analysis.frames.views import main_metric
from analysis.records import RunFiles
from analysis.report.chart import Chart
from analysis.report.content import ReportContent
from analysis.report.lead_charts import lead_charts
from analysis.report.post_training import counted_words, in_samples

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["charts", "shown_trials"]


def charts(content: ReportContent) -> list[Chart]:
    """Return the figures of a report, in order."""
    found = [
        *lead_charts(content),
        *_task_charts(content),
        *_learning_charts(content),
        *_data_charts(content),
        *_decision_charts(content),
    ]
    return [in_samples(chart, content.counted) for chart in found]


def _better(content: ReportContent) -> dict[str, bool]:
    """Return for each task whether a higher value of its main metric is better."""
    scores = content.frames.scores
    chosen = main_metric(scores)
    known = scores.drop_duplicates(["task", "metric"])
    rows = known[known["metric"].astype("str") == known["task"].astype("str").map(chosen)]
    return {
        str(task): bool(better)
        for task, better in zip(rows["task"], rows["higher_is_better"].fillna(True), strict=True)
    }


def _task_charts(content: ReportContent) -> Iterator[Chart]:
    frames = content.frames
    if frames.scores.empty or not content.searched:
        return
    values, better = task_values(frames.scores), _better(content)
    effects = figures.effects_frame(
        values, weights(frames.sources, stage=content.stage)[list(content.searched)], better
    )
    if not effects.empty:
        yield Chart(
            key="effects",
            section="tasks",
            title="Effect of each source on each task",
            caption="Change of a task when a source gets ten more points of weight, taken from the "
            "others in proportion, by a linear fit over all mixtures. In brackets, or without a sign: "
            "within the noise.",
            figure=figures.effect_matrix(effects),
        )
    domains = figures.domain_values(values, frames.tasks, main_metric(frames.scores))
    directions = {name: "bits per byte" not in str(name) for name in domains.columns}
    pair = figures.most_opposed(domains, directions)
    if pair is not None:
        frame = figures.pareto_frame(domains, pair, directions, frames.trials)
        drawn = frame[
            frame["front"] | frame["trial"].isin(figures.thinned(content.judged)["trial"])
        ]
        many = (
            f" {len(drawn):,} of {len(frame):,} trials are drawn."
            if len(drawn) < len(frame)
            else ""
        )
        yield Chart(
            key="pareto",
            section="tasks",
            title="Trade-off between two domains",
            caption="The two domains whose rankings of the mixtures disagree most. On the front, no "
            f"domain improves unless the other gets worse; differences below the noise do not count.{many}",
            figure=figures.pareto_front(drawn, pair, directions),
        )


def shown_trials(content: ReportContent) -> dict[str, str]:
    """Return the few trials that curves show, with labels: pick, reference, baselines, best seen."""
    found: dict[str, str] = {}
    verdict = content.loaded.verdict
    if verdict is not None:
        trial = {row.name: row.trial for row in verdict.candidates}
        found[trial.get(verdict.pick, verdict.pick)] = f"pick: {verdict.pick}"
        found.setdefault(trial.get(verdict.reference, verdict.reference), verdict.reference)
    mixtures = content.mixtures
    for row in mixtures[mixtures["kind"] != "trial"].to_dict("records"):
        named = row["name"] if isinstance(row["name"], str) else None
        found.setdefault(row["trial"], named or f"best seen: {row['trial']}")
    if not found:
        trials = content.frames.trials["trial"].astype("str")
        found = {trial: trial for trial in trials[:4]}
    return dict(list(found.items())[:6])


def _learning_charts(content: ReportContent) -> Iterator[Chart]:
    labels, frames = shown_trials(content), content.frames
    order = list(labels.values())
    # The steps of the other runs are not read: 20,000 runs have millions.
    shown = Frames([run for run in frames.files if str(run.manifest.get("trial")) in labels])
    loss = figures.loss_frame(shown.metrics, labels)
    if not loss.empty:
        yield Chart(
            key="loss",
            section="learning",
            title="Training loss",
            caption="Losses of different mixtures are not comparable: each is measured on its own text.",
            figure=figures.loss_curve(loss, order=order),
        )
    if frames.scores.empty:
        return
    frame = figures.learning_frame(shown.scores, main_metric(frames.scores), labels)
    for task in sorted(frame["task"].unique()):
        yield Chart(
            key=f"learning-{task}",
            section="learning",
            title=str(task),
            caption="",
            figure=figures.learning_curve(frame, task, order=order, named=False, legend=False),
            small=True,
        )


def _data_charts(content: ReportContent) -> Iterator[Chart]:
    frames = content.frames
    shown = next(iter(shown_trials(content)), None)
    run = next((f for f in frames.files if f.manifest.get("trial") == shown), None)
    timeline = _timeline(run) if run is not None else None
    if timeline is not None:
        yield Chart(
            key="timeline",
            section="data",
            title=f"Schedule of {shown_trials(content)[str(shown)]}",
            caption="Shares of tokens in each stage; the line is the learning rate.",
            figure=timeline,
        )
    epochs = figures.epochs_frame(frames.sources, frames.audits)
    if not epochs.empty:
        yield Chart(
            key="epochs",
            section="data",
            title="Epochs of every source",
            caption="One mark per run, over its whole schedule."
            + _thinned(epochs)
            + (" Triangles are exempt from the cap." if epochs["exemption"].notna().any() else ""),
            figure=figures.epochs_against_cap(epochs),
        )
    realised = figures.realised_frame(frames.audits)
    if not realised.empty:
        yield Chart(
            key="realised",
            section="data",
            title="Realised and requested shares",
            caption="One mark per run. Outside the grey band a run fails its audit."
            + _thinned(realised),
            figure=figures.realised_against_asked(realised),
        )


def _thinned(marks: pd.DataFrame) -> str:
    """Return that a figure draws a part of its marks; empty if it draws all."""
    if len(marks) <= figures.MOST_MARKS:
        return ""
    return (
        f" Of more than {figures.MOST_MARKS:,} marks of a kind a sample is drawn, with both ends of "
        "every row."
    )


def _timeline(run: RunFiles) -> go.Figure | None:
    """Draw the schedule of one run; None if its config does not define one."""
    from ablations.config.schema import validate
    from ablations.mixture.specs import MixtureSpec, ScheduleSpec

    config: Mapping[str, Any] = run.manifest.get("config") or {}
    training = config.get("training") or {}
    of_rows = (config.get("method") or {}).get("kind") in counted_words
    try:
        spec = validate(ScheduleSpec, config.get("schedule") or {})
        schedule = spec.build(
            validate(MixtureSpec, config.get("mixture") or {}),
            sequence_length=1 if of_rows else int(training["sequence_length"]),
            batch_size=int(training["batch_size"]),
        )
        rate = spec.lr.build(peak=float(training["peak_lr"]), schedule=schedule)
    except (ConfigError, KeyError, TypeError, ValueError):
        return None
    return figures.stage_timeline(*figures.timeline_frame(schedule, rate))


def _decision_charts(content: ReportContent) -> Iterator[Chart]:
    verdict = content.loaded.verdict
    if verdict is not None and verdict.signal:
        yield Chart(
            key="signal",
            section="tasks",
            title="Quality of the tasks",
            caption="Reported only: the study's own definition of the score is used.",
            figure=figures.task_signal(figures.signal_frame(verdict.signal)),
        )
    if verdict is not None:
        yield from _transfer_charts(content)
    ledger = figures.cost_ledger_frame(content.frames.cost)
    if (ledger["train_hours"] + ledger["score_hours"]).sum() > 0:
        yield Chart(
            key="cost",
            section="cost",
            title="Cost of the study",
            caption="CPU time per phase, including failed runs.",
            figure=figures.cost_ledger(ledger),
        )


def _transfer_charts(content: ReportContent) -> Iterator[Chart]:
    """Yield one chart for each pair of proxies that the verdict compared."""
    verdict = content.loaded.verdict
    assert verdict is not None
    means = arm_means(content.frames.files)
    for place, found in enumerate(verdict.transfer):
        frame = figures.rank_transfer_frame(
            means.get(found.small, {}),
            means.get(found.large, {}),
            minimised=lower_is_better(verdict.direction),
        )
        if len(frame) < 3:
            continue
        yield Chart(
            key=f"transfer-{place}",
            section="transfer",
            title=f"Rank at {found.small} and at {found.large}",
            caption="On the dashed line both proxies give a mixture the same rank.",
            figure=figures.rank_transfer(
                frame, small=found.small, large=found.large, agreement=agreement(found)
            ),
        )


def arm_means(files: tuple[RunFiles, ...]) -> dict[str, dict[str, float]]:
    """Return the mean score of the finished runs: name of a proxy → mixture → score."""
    from sweeps.verdict.proxies import mixture_of, proxy_of

    found: dict[str, dict[str, list[float]]] = {}
    names: dict[str, str] = {}
    for run in files:
        score = (run.result or {}).get("score")
        if score is None or (run.result or {}).get("status") != "done":
            continue
        config = run.manifest.get("config") or {}
        key = mixture_of(config)
        labels = run.manifest.get("labels") or {}
        names.setdefault(key, str(labels.get("name") or run.manifest.get("trial")))
        found.setdefault(proxy_of(config).name, {}).setdefault(key, []).append(float(score))
    return {
        arm: {names[key]: sum(scores) / len(scores) for key, scores in of_arm.items()}
        for arm, of_arm in found.items()
    }


def agreement(found: Any) -> str:
    """Return a transfer in one sentence, with its intervals."""

    def with_interval(value: float | None, interval: Any, form: str) -> str:
        if value is None:
            return "not known"
        text = format(value, form)
        if interval is None:
            return text
        return f"{text} (95% interval {format(interval[0], form)} to {format(interval[1], form)})"

    return (
        f"Rank correlation {with_interval(found.rank_correlation, found.rank_interval, '.2f')}; "
        f"pairs in the same order "
        f"{with_interval(found.decision_accuracy, found.decision_interval, '.0%')}; "
        f"{found.mixtures} mixtures."
    )
