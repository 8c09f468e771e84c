"""The first screen, long tables, colours, and the script that several reports share."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from ablations.cli import main
from ablations.files import write_sealed
from analysis import figures
from analysis.figures.mixtures import mark_verdict, mixture_frame, ruled_out, thinned
from analysis.figures.schedules import MOST_MARKS
from analysis.figures.theme import DARK, PALETTE
from analysis.frames import Frames
from analysis.frames.config_columns import varied_parameters
from analysis.promotions import promotions
from analysis.report import gather_report, pages, render_html
from analysis.report.facts import Fact, facts, hours_of
from analysis.report.lead_charts import lead_charts
from analysis.report.legend import figure_legend
from analysis.report.tables import PAGE_ROWS, Cell, Heading, Row, Table, rows_json
from sweeps.verdict.verdict_record import write_verdict

if TYPE_CHECKING:
    from analysis.report import ReportContent
    from sweeps.verdict.verdict_record import Verdict

PROMOTIONS = Path(__file__).parent / "fixtures" / "promotions"
CSS = pages.style()


def with_verdict(content: ReportContent, **changes: Any) -> ReportContent:
    """The content with another verdict; what was computed from the old one is left behind."""
    verdict = content.loaded.verdict
    assert verdict is not None
    return replace(content, loaded=replace(content.loaded, verdict=replace(verdict, **changes)))


def named(content: ReportContent) -> dict[str, Fact]:
    return {fact.name: fact for fact in facts(content)}


def verdict_of(content: ReportContent) -> Verdict:
    assert content.loaded.verdict is not None
    return content.loaded.verdict


def test_the_facts_are_those_of_the_verdict(content: ReportContent) -> None:
    found, verdict = named(content), verdict_of(content)
    advantage = verdict.advantage
    assert found["Difference"].value == f"{advantage.value:+.3g}"
    assert (
        f"95% interval {advantage.low:+.3g} to {advantage.high:+.3g}"
        in found["Difference"].lines[0]
    )
    assert f"{verdict.pick} minus {verdict.reference}" in found["Difference"].lines[1]
    assert verdict.regret.chance is not None
    assert found["Risk"].value == f"{verdict.regret.chance:.1%}"
    assert found["Cost"].lines[0] == "20 runs: 18 done, 1 failed, 1 training"
    assert found["Next"].lines == (verdict.settle_text,)


@pytest.mark.parametrize("chance", [None, 0.0, 1.0])
def test_a_risk_is_never_certain_and_may_be_unknown(
    content: ReportContent, chance: float | None
) -> None:
    regret = replace(verdict_of(content).regret, chance=chance)
    risk = named(with_verdict(content, regret=regret))["Risk"]
    assert risk.value == {None: "unknown", 0.0: "< 0.1%", 1.0: "> 99.9%"}[chance]


def test_a_winner_is_to_be_promoted_until_it_is(content: ReportContent) -> None:
    won = with_verdict(content, outcome="winner", settle_text="")
    assert named(won)["Next"].lines == ("`ablate promote study=ratio full=…`",)
    (made,) = promotions(PROMOTIONS)
    promoted = named(replace(won, promoted=(made,)))
    assert "Next" not in promoted
    assert promoted["Promoted"].value == "demo_full"
    assert promoted["Promoted"].lines == (
        "uniform, 2026-11-22 by demo; 4.3 minutes of one device (estimate)",
        "overridden gates: beats baseline",
    )


@pytest.mark.parametrize(
    ("held", "text"), [(True, "inside"), (False, "outside"), (None, "was expected.")]
)
def test_a_full_run_is_shown_against_its_prediction(
    tmp_path: Path, held: bool | None, text: str
) -> None:
    shutil.copytree(PROMOTIONS / "quick-demo_full-001", tmp_path / "one")
    row = {"task": "score", "metric": "", "mean": 0.1, "low": 0.0, "high": 0.2, "realised": 0.3}
    comparison = {"not_comparable": None, "outcomes": [row | {"held": held}]}
    write_sealed(tmp_path / "one" / "comparison.json", comparison)
    (made,) = promotions(tmp_path)
    assert text in made.outcome


def test_a_promotion_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "promotion.json").write_text("[]")
    (tmp_path / "b").mkdir()
    assert promotions(tmp_path) == []
    assert promotions(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("cpu", "wall", "devices", "words"),
    [
        (2.0, 3.0, ["cpu"], "2 hours of one CPU core"),
        (0.5, 1.0, [], "30.0 minutes of one CPU core"),
        (0.1, 72.0, ["cuda"], "72 hours (3.0 days) of runs on cuda"),
        (0.0, 0.0, ["cpu"], "not recorded yet"),
    ],
)
def test_a_cost_is_that_of_the_device_that_trained(
    cpu: float, wall: float, devices: list[str], words: str
) -> None:
    assert hours_of(cpu=cpu, wall=wall, devices=devices)[1] == words


def test_the_figure_shows_the_range_and_the_pick_of_the_verdict(content: ReportContent) -> None:
    verdict = verdict_of(content)
    trials = content.mixtures["trial"].tolist()
    pick = content.trial_of(verdict.pick)
    out = {trial: trial not in trials[3:6] for trial in trials}
    judged = with_verdict(content, outcome="winner", may_be_best={t: not o for t, o in out.items()})
    (chart,) = lead_charts(judged)
    shares = content.mixtures.set_index("trial")[content.sources[0]]
    (box,) = chart.figure.layout.shapes
    assert (box.x0, box.x1) == pytest.approx((shares[trials[3:6]].min(), shares[trials[3:6]].max()))
    stars = [trace for trace in chart.figure.data if trace.name == "winner"]
    assert [tuple(star.x) for star in stars] == [(shares[pick],)]
    open_marks = [t for t in chart.figure.data if str(t.marker.symbol).endswith("circle-open")]
    kinds = judged.judged.set_index("trial")["kind"]
    assert len(open_marks[0].x) == sum(o for t, o in out.items() if kinds[t] == "trial")
    assert "may be best (verdict)" in [mark.label for mark in figure_legend(chart.figure)]


def test_a_verdict_from_before_draws_no_range_that_it_did_not_record(
    content: ReportContent,
) -> None:
    (chart,) = lead_charts(with_verdict(content, may_be_best={}))
    assert not chart.figure.layout.shapes
    assert not ruled_out(with_verdict(content, may_be_best={}).judged).any()


@pytest.mark.parametrize(
    ("study", "leads"), [("ratio", "ratio"), ("three", "ternary"), ("four", "weights")]
)
def test_the_leading_figure_depends_on_the_sources(runs_dir: Path, study: str, leads: str) -> None:
    drawn = list(lead_charts(gather_report(runs_dir, study, surrogates=())))
    assert [chart.key for chart in drawn if chart.section == "lead"] == [leads]
    without = list(lead_charts(gather_report(runs_dir, study, surrogates=(), verdict="none")))
    assert len([chart for chart in without if chart.section == "lead"]) == 1


def test_a_search_over_parameters_alone_shows_advantages_and_names_the_values(
    runs_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs_dir / "ratio", tmp_path / "rates")
    for path in (tmp_path / "rates").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["config"]["mixture"]["weights"] = {"wiki": 0.5, "chat": 0.5}
        manifest["config"]["training"]["peak_lr"] = 1e-3 * (1 + int(manifest["trial"][-4:]))
        path.write_text(json.dumps(manifest))
    content = gather_report(tmp_path, "rates", surrogates=())
    (chart,) = lead_charts(content)
    assert chart.key == "advantages"
    page = render_html(content)
    assert list(content.parameters) == ["training.peak_lr"]
    assert "training.peak_lr</button>" in page
    pick = content.trial_of(verdict_of(content).pick)
    value = 1e-3 * (1 + int(pick[-4:]))
    assert f"{verdict_of(content).pick} is training.peak_lr {value}" in page


def test_varied_parameters_leave_out_weights_and_what_is_the_same() -> None:
    def config(lr: float, weight: float) -> dict[str, Any]:
        stages = {"main": {"share": 1.0, "weights": {"wiki": weight}}}
        return {"training": {"peak_lr": lr, "batch_size": 8}, "schedule": {"stages": stages}}

    rows = [("a", config(0.1, 0.2)), ("b", config(0.2, 0.3)), ("b", config(0.2, 0.3))]
    assert varied_parameters(rows) == {"training.peak_lr": {"a": 0.1, "b": 0.2}}
    assert varied_parameters(rows[1:]) == {}


def table(rows: int, more: str = "ablate run {name}") -> Table:
    made = [
        Row(
            [
                Cell(f"t{n}"),
                Cell(f"{n:,}", float(n)),
                Cell("", None, more.format(name=f"t{n}"), "command"),
            ]
        )
        for n in range(rows)
    ]
    return Table([Heading("trial"), Heading("n", number=True), Heading("repeat")], made)


def test_a_long_table_keeps_each_command_once() -> None:
    stored = json.loads(rows_json(table(5000)))
    assert stored["rows"][4321] == ["t4321", "4,321", ""]
    assert stored["texts"] == ["ablate run \0"]
    assert stored["labels"] == ["command"]


def test_a_cell_whose_number_cannot_be_read_from_its_text_keeps_it() -> None:
    cells = [Cell("+0.1 [0, 0.2]", 0.1), Cell("–", ""), Cell("1,024", 1024.0), Cell("wiki")]
    stored = json.loads(rows_json(Table([], [Row(cells)])))
    assert stored["rows"] == [[["+0.1 [0, 0.2]", 0.1], "–", "1,024", "wiki"]]


def test_the_rows_of_a_long_table_cannot_end_their_element() -> None:
    text = rows_json(Table([], [Row([Cell("</script><b>")])]))
    assert "<" not in text
    assert json.loads(text)["rows"] == [["</script><b>"]]


def test_a_large_study_is_drawn_with_its_named_and_best_trials(runs_dir: Path) -> None:
    frames = Frames.read(runs_dir, "ratio")
    small, names = mixture_frame(frames.trials, frames.sources)
    many = pd.concat([small.assign(trial=f"copy-{n:04d}-" + small["trial"]) for n in range(400)])
    many = many.assign(score=range(len(many)), kind="trial").reset_index(drop=True)
    many.loc[7, "kind"] = "baseline"
    drawn = thinned(many)
    assert len(drawn) == 1000
    assert set(many["trial"].head(100)) | {many.loc[7, "trial"]} <= set(drawn["trial"])
    assert thinned(many)["trial"].tolist() == drawn["trial"].tolist()
    assert len(thinned(small)) == len(small)
    judged = mark_verdict(many, pick=many.loc[3999, "trial"], won=False, may_be_best={})
    assert "pick" in set(thinned(judged)["kind"])
    figure = figures.ratio_curve(thinned(judged), names)
    assert sum(len(trace.x) for trace in figure.data if trace.mode == "markers") < 1100


def test_a_thinned_row_of_marks_keeps_its_ends() -> None:
    count = 5 * MOST_MARKS
    frame = pd.DataFrame(
        {"run": [f"r{n}" for n in range(count)], "stage": "main", "source": "wiki", "asked": 50.0}
    )
    frame["gap"] = [(n * 7919 % count) / count for n in range(count)]
    frame = frame.assign(realised=50.0, tolerance=2.0, row="wiki", fails=False)
    drawn = figures.realised_against_asked(frame)
    (marks,) = [trace for trace in drawn.data if trace.x is not None and len(trace.x) > 1]
    assert len(marks.x) == MOST_MARKS
    assert (min(marks.x), max(marks.x)) == (frame["gap"].min(), frame["gap"].max())


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2, definition of contrast ratio)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def palette(mode: str) -> dict[str, str]:
    """The style's variables of a mode: "light", "dark" or "print"."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.S)
    block = blocks[("light", "dark", "print").index(mode)]
    found = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", blocks[0])) | found


@pytest.mark.parametrize("mode", ["light", "dark", "print"])
def test_text_has_a_contrast_of_4_5_in_every_mode(mode: str) -> None:
    colours = palette(mode)
    grounds = ("page", "wash", "note", "better", "worse")
    for ground in grounds:
        assert contrast(colours["ink"], colours[ground]) >= 4.5, ground
    for name in ("soft", "link", "win", "tie", "keep", "none", "bad"):
        for ground in ("page", "wash"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def test_marks_have_a_contrast_of_3_on_a_dark_page() -> None:
    ground = palette("dark")["page"]
    assert DARK["white"] == ground
    for colour in PALETTE:
        assert contrast(DARK.get(colour, colour), ground) >= 3.0, colour
    grids = ("white", "rgba(255,255,255,0.8)", "#E6E6E6", "#DDDDDD")
    for name in DARK.keys() - set(grids):
        assert contrast(DARK[name], ground) >= 3.0, name


def test_headings_are_in_order_and_tables_have_their_scopes(page: str) -> None:
    page = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for landmark in ("<header>", "<nav aria-label=", '<main id="main">'):
        assert landmark in page
    assert not re.findall(r"<th(?! scope=)[ >]", page)
    assert page.count("<caption") == page.count("<table")
    for plot in re.findall(r'<div id="figure-[^>]*>', page):
        assert 'role="img"' in plot
        assert re.search(r'aria-label="[^"]+"', plot)


def test_reports_of_a_folder_share_one_script(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "my runs"
    for study in ("ratio", "three"):
        shutil.copytree(runs_dir / study, runs / study)
        given = [f"study={study}", f"runs_dir='{runs}'", "surrogates=none", "verdict=none"]
        assert main(["report", *given]) == 0
    (script,) = runs.glob("plotly-*.min.js")
    assert "single_file=true" in capsys.readouterr().out
    for study in ("ratio", "three"):
        page = (runs / study / "report.html").read_text()
        assert f'<script src="../{script.name}"></script>' in page
        assert len(page) < 1e6
    whole = script.read_bytes()
    script.write_bytes(whole[:1000])
    assert pages.share_plotly(runs) == script
    assert script.read_bytes() == whole
    assert main(["report", *given, "single_file=true"]) == 0
    page = (runs / "three" / "report.html").read_text()
    assert len(page) > 4e6
    assert "<script src" not in page
    assert "single_file=true" in page


def test_a_stored_verdict_keeps_which_trials_may_be_best(
    content: ReportContent, tmp_path: Path
) -> None:
    from sweeps.verdict.verdict_record import read_verdict

    verdict = verdict_of(content)
    assert set(verdict.may_be_best) == set(content.mixtures["trial"])
    write_verdict(tmp_path, verdict)
    assert read_verdict(tmp_path).may_be_best == verdict.may_be_best
    stored = json.loads((tmp_path / "verdict.json").read_text())
    del stored["may_be_best"], stored["content_sha256"]
    write_sealed(tmp_path / "verdict.json", stored)
    assert read_verdict(tmp_path).may_be_best == {}


def test_only_a_long_table_is_paged() -> None:
    assert not table(PAGE_ROWS).long
    assert table(PAGE_ROWS + 1).long
