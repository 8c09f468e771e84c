from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Schedule, Stage
from analysis import figures
from analysis.figures import theme
from analysis.figures.mixtures import indistinct, pooled_seed_sd
from analysis.frames import Frames, task_values, weights
from analysis.frames.views import main_metric, searched_stage
from analysis.records import scan
from analysis.score_fit import fit_score, mixture_grid
from sweeps.study.confirm import undominated
from sweeps.verdict.task_quality import TaskQuality


def study(runs_dir: Path, name: str) -> tuple[Frames, pd.DataFrame, list[str]]:
    frames = Frames.read(runs_dir, name)
    table, sources = figures.mixture_frame(frames.trials, frames.sources)
    return frames, table, sources


def every_figure(runs_dir: Path) -> dict[str, go.Figure]:
    two, ratio, pair = study(runs_dir, "ratio")
    _, three, corners = study(runs_dir, "three")
    four, many, names = study(runs_dir, "four")
    fit = fit_score(three, corners, families=("linear", "scheffe"))
    assert fit is not None
    values, metrics = task_values(four.scores), main_metric(four.scores)
    better = dict.fromkeys(values.columns, False)
    domains = figures.domain_values(values, four.tasks, metrics)
    opposed = figures.most_opposed(domains, {})
    assert opposed is not None
    labels = {"trial-0000": "natural", "trial-0001": "uniform"}
    curves = figures.learning_frame(four.scores, metrics, labels)
    schedule = two_stages()
    rate = LearningRate(peak=1e-3, warmup_steps=2, decay_steps=10, total_steps=40)
    ranks = figures.rank_transfer_frame(
        {"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 1.5, "c": 2.0, "b": 4.0}, minimised=True
    )
    seeds = figures.ratio_seeds_frame(two.runs, two.sources, pair[0])
    return {
        "ratio": figures.ratio_curve(ratio, pair, seeds=seeds, verdict="Tie."),
        "ternary": figures.ternary_map(
            three, corners, prediction=fit.prediction, optimum=fit.optimum
        ),
        "parallel": figures.parallel_coordinates(many, names),
        "effects": figures.effect_matrix(
            figures.effects_frame(values, weights(four.sources), better)
        ),
        "pareto": figures.pareto_front(
            figures.pareto_frame(domains, opposed, {}, four.trials), opposed, {}
        ),
        "learning": figures.learning_curve(curves, "task_00"),
        "loss": figures.loss_curve(figures.loss_frame(four.metrics, labels)),
        "timeline": figures.stage_timeline(*figures.timeline_frame(schedule, rate)),
        "epochs": figures.epochs_against_cap(figures.epochs_frame(four.sources, four.audits)),
        "realised": figures.realised_against_asked(figures.realised_frame(four.audits)),
        "transfer": figures.rank_transfer(ranks, small="small", large="large", agreement="1.0."),
        "signal": figures.task_signal(figures.signal_frame([signal()])),
        "cost": figures.cost_ledger(figures.cost_ledger_frame(four.cost)),
    }


def two_stages() -> Schedule:
    return Schedule(
        stages=(
            Stage(name="stable", steps=30, mixture=Mixture({"wiki": 0.75, "chat": 0.25})),
            Stage(name="decay", steps=10, mixture=Mixture({"chat": 0.5, "math": 0.5})),
        ),
        sequence_length=64,
        batch_size=8,
    )


def signal(**more: Any) -> TaskQuality:
    found: dict[str, Any] = {
        "task": "arc",
        "monotonicity": 0.9,
        "noise_sd": 0.1,
        "variance_ratio": 0.5,
        "above_chance": None,
        "stability": 0.5,
        "warnings": ("mixtures differ by less than the noise of a run",),
    }
    return TaskQuality(**(found | more))


@pytest.fixture(scope="module")
def drawn(runs_dir: Path) -> dict[str, go.Figure]:
    return every_figure(runs_dir)


NAMES = (
    "ratio",
    "ternary",
    "parallel",
    "effects",
    "pareto",
    "learning",
    "loss",
    "timeline",
    "epochs",
    "realised",
    "transfer",
    "signal",
    "cost",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_has_a_title_that_fits_a_phone(drawn: dict[str, go.Figure], name: str) -> None:
    layout = drawn[name].to_plotly_json()["layout"]
    if name == "ternary":
        titles = [layout["ternary"][f"{letter}axis"]["title"]["text"] for letter in "abc"]
        assert sorted(title.replace("<br>", "") for title in titles) == ["chat", "math", "wiki"]
        return
    axes = [axis for key, axis in layout.items() if key.startswith(("xaxis", "yaxis"))]
    assert len(axes) >= 2
    for axis in axes:
        lines = axis["title"]["text"].split("<br>")
        assert all(lines)
        assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_and_says_the_run_on_hover(
    drawn: dict[str, go.Figure], name: str
) -> None:
    traces = drawn[name].to_plotly_json()["data"]
    assert traces
    told = [t for t in traces if t.get("hovertext") is not None or t.get("hovertemplate")]
    assert told, "no trace has a hover text"
    if name in ("ratio", "ternary", "pareto", "parallel", "learning", "epochs", "realised"):
        text = str([t.get("hovertext") for t in told])
        assert "trial-0000" in text


@pytest.mark.parametrize("name", NAMES)
def test_series_differ_by_more_than_colour(drawn: dict[str, go.Figure], name: str) -> None:
    shown = [t for t in drawn[name].to_plotly_json()["data"] if t.get("showlegend") is not False]
    looks = [
        (
            t["type"],
            t.get("mode"),
            str((t.get("marker") or {}).get("symbol")),
            str((t.get("marker") or {}).get("pattern")),
            str((t.get("line") or {}).get("dash")),
            (t.get("line") or {}).get("width"),
            t.get("fill"),
            (t.get("marker") or {}).get("size") if name != "parallel" else t.get("name"),
        )
        for t in shown
    ]
    assert len(set(looks)) == len(looks)


def test_the_palette_is_that_of_okabe_and_ito() -> None:
    assert set(theme.PALETTE) == {
        "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442",
    }  # fmt: skip


@pytest.mark.parametrize(
    "figure",
    [
        figures.ratio_curve(pd.DataFrame(), []),
        figures.ternary_map(pd.DataFrame(), ["a", "b"]),
        figures.parallel_coordinates(pd.DataFrame(), []),
        figures.effect_matrix(pd.DataFrame()),
        figures.pareto_front(pd.DataFrame(), ("a", "b"), {}),
        figures.learning_curve(pd.DataFrame({"task": []}), "arc"),
        figures.loss_curve(pd.DataFrame()),
        figures.stage_timeline(pd.DataFrame(), pd.DataFrame()),
        figures.epochs_against_cap(pd.DataFrame()),
        figures.realised_against_asked(pd.DataFrame()),
        figures.rank_transfer(pd.DataFrame(), small="a", large="b"),
        figures.task_signal(pd.DataFrame()),
        figures.cost_ledger(pd.DataFrame()),
    ],
)
def test_without_data_a_figure_says_what_is_missing(figure: go.Figure) -> None:
    assert not figure.data
    assert len(figure.layout.annotations[0].text) > 10


def test_the_mixture_frame_has_the_scored_trials_and_marks_baselines(runs_dir: Path) -> None:
    frames, table, sources = study(runs_dir, "ratio")
    assert sources == ["chat", "wiki"]
    assert len(table) == 10
    assert set(table.loc[table["kind"] == "baseline", "name"]) == {"natural", "uniform"}
    noise = pooled_seed_sd(frames.trials)
    three_runs = table.set_index("trial").loc["trial-0000", "stderr"]
    assert three_runs == pytest.approx(noise / math.sqrt(3))


def test_pooled_noise_is_unknown_without_replicates() -> None:
    assert math.isnan(pooled_seed_sd(pd.DataFrame({"score_sd": [math.nan], "done": [1]})))


def test_effects_of_a_linear_truth_are_found() -> None:
    draw = np.random.default_rng(0)
    shares = pd.DataFrame(draw.dirichlet([1, 1, 1], 40), columns=["a", "b", "c"])
    values = pd.DataFrame({"up": shares["a"], "down": -2.0 * shares["a"] + 1.0})
    found = figures.effects_frame(values, shares, {"up": True, "down": True})
    table = found.pivot(index="task", columns="source", values="raw")
    # Ten points for a are ten points of a; for b they are taken from a by its part of a and c.
    assert table.loc["up", "a"] == pytest.approx(0.1)
    assert table.loc["down", "a"] == pytest.approx(-0.2)
    mean = shares.mean()
    assert table.loc["up", "b"] == pytest.approx(-0.1 * mean["a"] / (mean["a"] + mean["c"]))
    assert found["clear"].all()


def test_an_effect_is_turned_so_that_positive_is_better() -> None:
    draw = np.random.default_rng(0)
    shares = pd.DataFrame(draw.dirichlet([1, 1], 20), columns=["a", "b"])
    values = pd.DataFrame({"loss": shares["a"]})
    found = figures.effects_frame(values, shares, {"loss": False}).set_index("source")["effect"]
    assert found["a"] < 0 < found["b"]


def test_names_that_are_cut_alike_stay_apart() -> None:
    names = ["fineweb_edu_sample_10BT", "fineweb_edu_simple_10BT"]
    rows = [(task, source, 1.0, 0.1, 9.0, True, 8) for task in names for source in names]
    columns = ["task", "source", "effect", "raw", "t", "clear", "mixtures"]
    figure = figures.effect_matrix(pd.DataFrame(rows, columns=columns))
    for axis, values in (("xaxis", figure.data[0].x), ("yaxis", figure.data[0].y)):
        assert sorted(values) == sorted(figure.layout[axis].tickvals) == names
        assert len(set(figure.layout[axis].ticktext)) == 1


@pytest.mark.parametrize(
    ("tasks", "sources", "down", "cell"),
    [
        (3, 4, "task", "+1.0"),
        (30, 5, "task", "+1.0"),
        (30, 6, "task", "+"),
        (4, 9, "source", "+1.0"),
        (7, 9, "source", "+"),
        (20, 17, "task", "+"),
    ],
)
def test_an_effect_matrix_fits_its_columns(tasks: int, sources: int, down: str, cell: str) -> None:
    rows = [
        (f"task {t}", f"source {s}", 1.0 if s else -1.0, 0.1, 9.0, s != 1, 40)
        for t in range(tasks)
        for s in range(sources)
    ]
    columns = ["task", "source", "effect", "raw", "t", "clear", "mixtures"]
    heat = figures.effect_matrix(pd.DataFrame(rows, columns=columns)).data[0]
    assert len(heat.y) == (tasks if down == "task" else sources)
    said = {(y, x): heat.text[i][j] for i, y in enumerate(heat.y) for j, x in enumerate(heat.x)}
    key = ("task 0", "source 2") if down == "task" else ("source 2", "task 0")
    assert said[key] == cell
    unclear = ("task 0", "source 1") if down == "task" else ("source 1", "task 0")
    assert said[unclear] == ("(+1.0)" if cell == "+1.0" else "")


def test_too_few_mixtures_have_no_effects() -> None:
    shares = pd.DataFrame({"a": [0.1, 0.9], "b": [0.9, 0.1]})
    assert figures.effects_frame(pd.DataFrame({"t": [1.0, 2.0]}), shares, {}).empty


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    table = np.array(points, dtype=float)
    front = undominated(-table)
    assert front.any()
    for place, (x, y) in enumerate(points):
        dominated = any(a >= x and b >= y and (a, b) != (x, y) for a, b in points)
        assert front[place] == (not dominated)


def test_the_timeline_has_the_schedule_s_tokens_and_rates() -> None:
    schedule = two_stages()
    rate = LearningRate(peak=1e-3, warmup_steps=4, decay_steps=10, total_steps=40)
    stages, curve = figures.timeline_frame(schedule, rate)
    read = (stages["weight"] * (stages["end"] - stages["start"])).groupby(stages["source"]).sum()
    assert read.to_dict() == pytest.approx(schedule.tokens())
    assert curve["tokens"].iloc[-1] == schedule.total_tokens
    assert curve["lr"].max() == pytest.approx(1e-3)
    assert curve["lr"].iloc[-1] == pytest.approx(rate.at(39))


def test_epochs_are_as_read_where_a_run_was_audited(runs_dir: Path) -> None:
    frames = Frames.read(runs_dir, "ratio")
    table = figures.epochs_frame(frames.sources, frames.audits)
    assert table.groupby("run")["audited"].first().value_counts().to_dict() == {True: 18, False: 2}
    assert not table["over"].any()
    table = figures.epochs_frame(frames.sources.assign(epoch_cap=0.5), frames.audits)
    assert table["over"].any()


@pytest.mark.parametrize("exempt", [{}, {"chat": "published recipe"}])
def test_a_source_that_is_exempt_from_the_cap_is_not_crossed_out(
    runs_dir: Path, exempt: dict[str, str]
) -> None:
    files = []
    for run in scan(runs_dir, "ratio"):
        mixture = run.manifest["config"]["mixture"] | {"epoch_cap": 0.1}
        mixture |= {"epoch_cap_exempt": exempt} if exempt else {}
        config = run.manifest["config"] | {"mixture": mixture}
        files.append(replace(run, manifest=run.manifest | {"config": config}))
    frames = Frames(files)
    table = figures.epochs_frame(frames.sources, frames.audits)
    beyond = table[table["epochs"] > 0.1]
    assert set(beyond["source"]) == {"wiki", "chat"}
    assert set(beyond[beyond["over"]]["source"]) == {"wiki", "chat"} - set(exempt)
    traces = {t.name: t for t in figures.epochs_against_cap(table).data}
    assert set(traces["over the cap"].y) == {"wiki", "chat"} - set(exempt)
    assert ("exempt from the cap" in traces) == bool(exempt)
    for trace in (traces[name] for name in traces if name == "exempt from the cap"):
        assert set(trace.y) == {"chat"}
        assert len(trace.y) == 20
        assert all("exempt from the cap:<br>published recipe" in text for text in trace.hovertext)
        assert trace.marker.symbol not in {traces["over the cap"].marker.symbol, "circle-open"}


def test_a_gap_beyond_the_tolerance_fails() -> None:
    audits = pd.DataFrame(
        {
            "run": ["r", "r"], "stage": ["main"] * 2, "source": ["wiki", "chat"],
            "asked": [0.5, 0.5], "realised": [0.006, 0.994], "gap": [-0.494, 0.494],
            "tolerance": [0.001] * 2,
        }
    )  # fmt: skip
    table = figures.realised_frame(audits)
    assert table["fails"].all()
    assert table["gap"].abs().tolist() == pytest.approx([49.4, 49.4])


def test_ranks_count_from_the_best() -> None:
    up = figures.rank_transfer_frame({"a": 1.0, "b": 2.0}, {"b": 5.0, "a": 4.0}, minimised=False)
    assert up.set_index("mixture")["small_rank"].to_dict() == {"a": 2.0, "b": 1.0}
    down = figures.rank_transfer_frame({"a": 1.0, "b": 2.0}, {"a": 1.0}, minimised=True)
    assert down["mixture"].tolist() == ["a"]


def test_a_criterion_that_was_not_measured_neither_passes_nor_fails() -> None:
    table = figures.signal_frame([signal()]).set_index("criterion")
    assert table.loc["above chance", "passes"] is None
    assert table.loc["mixtures over noise", "passes"] == False  # noqa: E712
    assert table.loc["monotone in tokens", "passes"] == True  # noqa: E712


def test_failed_runs_are_a_phase_of_the_ledger(runs_dir: Path) -> None:
    ledger = figures.cost_ledger_frame(Frames.read(runs_dir, "ratio").cost).set_index("phase")
    assert ledger.loc["failed", "runs"] == 1
    assert ledger["runs"].sum() == 20


def test_the_surrogate_finds_the_optimum_of_a_made_up_study(runs_dir: Path) -> None:
    _, table, sources = study(runs_dir, "three")
    fit = fit_score(table, sources, families=("linear", "scheffe", "gp"))
    assert fit is not None
    assert fit.best in ("scheffe", "gp")
    assert sum(fit.optimum.values()) == pytest.approx(1.0)
    tied = indistinct(fit.prediction, minimised=True)
    assert tied[fit.prediction["mean"].idxmin()]
    assert (fit.prediction["low"] <= fit.prediction["high"]).all()


def test_too_few_trials_have_no_surrogate(runs_dir: Path) -> None:
    _, table, sources = study(runs_dir, "three")
    assert fit_score(table.head(5), sources) is None


@pytest.mark.parametrize("sources", [2, 3, 5])
def test_predictions_stay_where_mixtures_were_seen(sources: int) -> None:
    seen = np.random.default_rng(0).dirichlet(np.ones(sources) * 3, 12)
    grid = mixture_grid(sources, seen)
    assert np.allclose(grid.sum(axis=1), 1.0)
    assert (grid >= seen.min(axis=0) - 1e-6).all() if sources > 2 else True
    assert (grid[:, 0] <= seen[:, 0].max() + 1e-6).all()


def test_the_searched_stage_is_the_one_that_varies(runs_dir: Path) -> None:
    four = Frames.read(runs_dir, "four").sources
    assert searched_stage(four) is None
    fixed = four.copy()
    fixed.loc[fixed["stage"] == "stable", "weight"] = 0.25
    assert searched_stage(fixed) == "anneal"
    assert searched_stage(Frames.read(runs_dir, "ratio").sources) is None


@pytest.mark.parametrize(
    ("name", "most", "short"),
    [("wiki", 8, "wiki"), ("infiwebmath_3plus", 9, "infi…plus"), ("abcdefghij", 4, "ab…j")],
)
def test_long_names_lose_their_middle(name: str, most: int, short: str) -> None:
    assert theme.shorten(name, most) == short
    assert len(theme.shorten(name, most)) <= most
