from __future__ import annotations

import html
import itertools
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ablations.cli import main
from ablations.errors import DataError
from ablations.files import read_json, write_sealed
from ablations.markdown import escaped
from analysis.figures.theme import PALETTE
from analysis.report import (
    gather_report,
    model_card,
    render_html,
    render_markdown,
    report_tables,
    summaries,
)
from analysis.report.chart import Chart
from analysis.report.html import figures_json
from analysis.report.legend import legend
from analysis.study_files import load_verdict, rerun_command

if TYPE_CHECKING:
    from analysis.report import ReportContent

QUICK = ("linear", "scheffe")


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.S)


def test_the_page_answers_in_the_order_of_the_questions(page: str) -> None:
    wanted = [
        "verdict",
        "evidence",
        "tasks",
        "learning",
        "trials",
        "surrogates",
        "data",
        "cost",
        "provenance",
    ]
    found = re.findall(r'<section id="(\w+)"', page)
    assert found == wanted
    # A study of two sources opens with its ratio curve: the answer, the figure, then the facts.
    verdict = page[page.index('<section id="verdict"') : page.index('<section id="evidence"')]
    assert verdict.index('id="the-answer"') < verdict.index('id="figure-ratio"')
    assert verdict.index('id="figure-ratio"') < verdict.index('class="facts"')
    assert re.findall(r"<dt>(.*?)</dt>", verdict) == ["Difference", "Risk", "Cost", "Tasks", "Next"]
    assert list(re.findall(r'<a href="#(\w+)"', page)) == wanted


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    assert page.count("<script>") == 2
    assert "Content-Security-Policy" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)', without_scripts(page))


def test_the_page_says_that_the_study_runs_and_that_it_is_made_up(page: str) -> None:
    assert "still running: 18 of 20" in page
    assert "nothing here was trained" in page


def test_the_verdict_stands_first_and_a_tie_is_called_a_tie(
    page: str, content: ReportContent
) -> None:
    verdict = content.loaded.verdict
    assert verdict is not None
    assert verdict.outcome == "tie"
    text = without_scripts(page)
    span, advice = verdict.answer.removesuffix(".").rsplit("; ", 1)
    first = [f">{advice[0].upper()}{advice[1:]}.</h2>", f"<p>{span}.</p>", escape(verdict.sentence)]
    assert sorted(first, key=text.index) == first
    assert text.index('<span class="badge">tie</span>') < text.index(first[0])
    assert "Not distinguishable from the best" in text


def test_the_lines_below_the_verdict_state_the_comparison_the_tasks_and_a_tie(
    content: ReportContent,
) -> None:
    verdict = content.loaded.verdict
    assert verdict is not None
    said = list(summaries.under_headline(content))
    shares = {row.name: row.weights for row in verdict.candidates}[verdict.pick]
    largest = max(shares, key=lambda name: shares[name])
    assert said[0].startswith(f"Compared: {verdict.pick} is {largest} {100 * shares[largest]:.1f}%")
    assert said[1] == "Better and worse tasks: none of 6 tasks shows a significant difference."
    tie = f"A tie is a result: the study gives no reason to change from {verdict.reference}."
    assert tie in said
    assert any(line.startswith("What would settle it:") for line in said)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"a": 0.3, "b": 0.7, "c": 0.0}, "b 70.0%, a 30.0%"),
        (dict.fromkeys("abcdef", 1 / 6), ", ".join(f"{name} 16.7%" for name in "abcdef")),
        (
            dict.fromkeys("abcdefgh", 1 / 8),
            "a 12.5%, b 12.5%, c 12.5%, d 12.5%, e 12.5%, 3 others 37.5%",
        ),
    ],
)
def test_a_mixture_is_named_by_its_largest_sources(weights: dict[str, float], said: str) -> None:
    assert summaries.mixture_in_words(weights) == said


def test_better_and_worse_tasks_are_counted_and_listed_first(content: ReportContent) -> None:
    verdict = content.loaded.verdict
    assert verdict is not None
    effects = ["not shown", "pays", "gains", "gains", "unknown", "not shown"]
    rows = tuple(
        replace(row, effect=effect) for row, effect in zip(verdict.tasks, effects, strict=True)
    )
    moved = replace(content, loaded=replace(content.loaded, verdict=replace(verdict, tasks=rows)))
    said = list(summaries.under_headline(moved))[1]
    assert "2 of 6 better, 1 worse; 3 without a significant difference" in said
    table = report_tables.task_effects(moved)
    assert table is not None
    assert [row.style for row in table.rows] == ["better", "better", "worse", "", "", ""]
    assert table.columns[1].title == "effect"
    shown = ["▲ better"] * 2 + ["▼ worse"] + ["no significant difference"] * 2 + ["unknown"]
    assert [row.cells[1].text for row in table.rows] == shown
    page = render_html(moved)
    assert "<summary>Better and worse tasks (6 rows)</summary>" in page
    for style in ("better", "worse"):
        assert f'<tr class="{style}">' in page
        assert f"tr.{style} td" in page
    paying = tuple(replace(row, effect="not shown") for row in rows[2:])
    only = replace(verdict, tasks=(*rows[:2], *paying))
    said = list(
        summaries.under_headline(replace(moved, loaded=replace(moved.loaded, verdict=only)))
    )[1]
    assert f"with {verdict.pick}: 0 of 6 better, 1 worse ({rows[1].task})" in said


def test_the_page_names_the_command_that_made_it(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "my page.html"
    given = ["study=three", f"runs_dir={runs_dir}", f"out={page}", "surrogates=[linear,scheffe]"]
    assert main(["report", *given]) == 0
    command = re.findall(r"<pre>(ablate report.*?)</pre>", page.read_text())[-1]
    assert shlex.split(html.unescape(command)) == ["ablate", "report", *given]


def test_the_page_says_where_its_data_comes_from() -> None:
    fixtures = Path(__file__).parent / "fixtures" / "runs"
    table = report_tables.data_sources(gather_report(fixtures, "demo_ratio", surrogates=()))
    assert table is not None
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in table.rows}
    assert rows["chat"] == [
        "english",
        "1,886,000",
        "MIT",
        "https://github.com/BYU-PCCL/chitchat-dataset",
        "97a38aab68f2a3f6",
    ]


def test_small_figures_share_a_legend_of_the_marks_that_they_draw(page: str) -> None:
    found = re.findall(r'<ul class="legend">.*?</ul>', page, flags=re.S)
    assert len(found) == 2, "one beside the answer, one of the small figures"
    labels = re.findall(r"</svg>(.*?)</li>", found[1])
    drawn = json.loads(re.findall(r'id="figures">(.*?)</script>', page, flags=re.S)[0])
    curves = drawn["learning-task_00"]
    assert not curves["layout"]["showlegend"]
    series = [trace for trace in curves["data"] if trace.get("name")]
    assert [trace["name"] for trace in series] == labels
    assert re.findall(r'fill="(#\w+)"', found[1]) == [trace["line"]["color"] for trace in series]


def test_every_style_of_a_series_has_a_mark() -> None:
    marks = legend([f"series {n}" for n in range(len(PALETTE))])
    assert len({(mark.colour, mark.dashes, mark.shape) for mark in marks}) == len(PALETTE)


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("'", "&#39;").replace("<", "&lt;")


def test_every_trial_has_a_row_and_every_run_its_command(page: str, runs_dir: Path) -> None:
    rows = re.search(r'<table id="trials-table".*?</table>', page, flags=re.S)
    assert rows is not None
    assert rows[0].count("<tr") == 1 + 12
    for run in (runs_dir / "ratio").iterdir():
        assert f"# {run.name}" in rows[0]
    assert "step 20: loss is not finite" in rows[0]


def test_figures_are_json_without_an_early_end(page: str) -> None:
    found = re.search(r'id="figures">(.*?)</script>', page, flags=re.S)
    assert found is not None
    figures = json.loads(found[1])
    assert {"ratio", "effects", "loss", "timeline", "epochs", "realised", "signal", "cost"} <= set(
        figures
    )
    for figure in figures.values():
        assert "template" not in figure["layout"]
        assert f'id="figure-{next(k for k, v in figures.items() if v is figure)}"' in page


def test_text_of_users_cannot_break_the_page(runs_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(runs_dir / "ratio", tmp_path / "ratio")
    manifest = tmp_path / "ratio" / "trial-0002-0" / "manifest.json"
    values = json.loads(manifest.read_text())
    values["labels"]["name"] = "</script><b>60/40</b>"
    manifest.write_text(json.dumps(values))
    page = render_html(gather_report(tmp_path, "ratio", surrogates=()))
    assert "</script><b>" not in page
    assert "&lt;b&gt;60/40" in page


def test_a_study_of_one_run_is_reported(runs_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(runs_dir / "ratio" / "trial-0002-0", tmp_path / "one" / "trial-0002-0")
    content = gather_report(tmp_path, "one", surrogates=QUICK)
    assert content.loaded.verdict is None
    assert "at least two candidates" in content.loaded.note
    assert content.fit is None
    assert "no verdict" in render_html(content)


def test_a_study_that_has_only_begun_is_reported(runs_dir: Path, tmp_path: Path) -> None:
    run = tmp_path / "new" / "trial-0000-0"
    run.mkdir(parents=True)
    shutil.copy(runs_dir / "ratio" / "trial-0000-0" / "manifest.json", run)
    values = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(values | {"status": "pending"}))
    page = render_html(gather_report(tmp_path, "new"))
    assert "0 of 1 recorded runs" in page
    assert "No run has recorded its cost yet" in page


def test_a_study_without_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no run yet"):
        gather_report(tmp_path, "empty")


def test_a_stored_verdict_is_used_and_said_to_be_old_when_runs_ended_since(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs_dir / "ratio", tmp_path / "ratio")
    assert main(["verdict", "study=ratio", f"runs_dir={tmp_path}"]) == 0
    capsys.readouterr()
    first = gather_report(tmp_path, "ratio", surrogates=())
    assert (first.loaded.origin, first.loaded.note) == ("stored", "")
    stored = tmp_path / "ratio" / "verdict.json"
    write_sealed(stored, read_json(stored) | {"created": 1.0})
    old = load_verdict(tmp_path, "ratio", first.frames.files, "auto")
    assert "19 runs ended after this verdict" in old.note
    stored.write_text(stored.read_text().replace('"created": 1', '"created": 2'))
    anew = load_verdict(tmp_path, "ratio", first.frames.files, "auto")
    assert (anew.origin, anew.note[:34]) == ("computed", "The stored verdict cannot be read.")
    assert main(["report", "study=ratio", f"runs_dir={tmp_path}", "surrogates=none"]) == 0
    assert "verdict.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "note"), [("none", "No verdict was requested"), ("stored", "There is no verdict yet")]
)
def test_no_verdict_is_made_where_none_is_wanted(runs_dir: Path, mode: Any, note: str) -> None:
    found = load_verdict(runs_dir, "ratio", (), mode)
    assert found.verdict is None
    assert note in found.note


def test_a_run_is_repeated_from_its_own_config(runs_dir: Path, content: ReportContent) -> None:
    run = content.frames.files[0]
    assert rerun_command(run) == content.frames.runs["command"].iloc[0]
    (run.path / "config.yaml").write_text("study: ratio\n")
    try:
        command = rerun_command(run)
    finally:
        (run.path / "config.yaml").unlink()
    assert command.startswith(f"ablate run --config-dir {run.folder} --config-name config ")
    assert " study=ratio_again " in command


def test_markdown_says_what_the_page_says(content: ReportContent) -> None:
    text = render_markdown(content)
    assert text.startswith("## How do the runs of ratio compare?\n")
    assert content.loaded.verdict is not None
    assert f"**{escaped(content.loaded.verdict.sentence)}**" in text
    assert "| scheffe |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert tables
    for first, second in itertools.pairwise(tables):
        if set(second) <= set("|-:"):
            assert first.count("|") == second.count("|")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b *c* <d>\ne", "a\\|b \\*c\\* &lt;d&gt; e"),
        ("[click](http://x) ![i](y)", "\\[click\\](http://x) !\\[i\\](y)"),
        ("_loud_ heldout_wiki ~~no~~", "\\_loud\\_ heldout_wiki \\~\\~no\\~\\~"),
        ("back\\slash `ablate ls`", "back\\\\slash `ablate ls`"),
    ],
)
def test_markdown_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize("name", ["<!--", "</script>", "a<!--<script>b", "-->", "\u2028"])
def test_figures_are_json_whatever_a_name_holds(name: str) -> None:
    """A browser reads the element's text as JSON: it must parse, and must not end the element."""
    import plotly.graph_objects as go

    figure = go.Figure().add_scatter(x=[1], y=[1], name=name)
    chart = Chart(key="k", section="s", title="t", caption="c", figure=figure)
    text = figures_json([chart])
    assert json.loads(text)["k"]["data"][0]["name"] == name
    assert "<" not in text


def test_a_missing_number_of_a_figure_is_null_in_the_page() -> None:
    """`JSON.parse` refuses NaN and Infinity, which Python's own encoder writes."""
    import plotly.graph_objects as go

    figure = go.Figure().add_scatter(x=[float("nan"), 1.0], y=[float("inf"), 2.0])
    figure.add_heatmap(z=[[1.0, float("nan")]], zmin=float("nan"))
    text = figures_json([Chart(key="k", section="s", title="t", caption="c", figure=figure)])
    scatter, heat = json.loads(text, parse_constant=pytest.fail)["k"]["data"]
    assert (scatter["x"], scatter["y"]) == ([None, 1.0], [None, 2.0])
    assert (heat["z"], heat["zmin"]) == ([[1.0, None]], None)


def test_the_command_writes_page_markdown_and_frames(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", "study=ratio", f"runs_dir={runs_dir}", f"out={tmp_path / 'r.html'}"]
    arguments += [f"markdown={tmp_path / 'r.md'}", f"frames={tmp_path / 'f'}", "frames_format=csv"]
    assert main([*arguments, "surrogates=[linear]", "verdict=none"]) == 0
    (script,) = tmp_path.glob("plotly-*.min.js")
    assert f'<script src="{script.name}"></script>' in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.md").exists()
    assert (tmp_path / "f" / "trials.csv").exists()
    assert str(tmp_path / "r.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("study=ratoi", "did you mean 'ratio'"),
        ("surrogates=[lightgb]", "did you mean 'lightgbm'"),
        ("verdict=old", "verdict"),
        ("frames_format=xlsx", "frames_format"),
        ("outt=x", "outt"),
    ],
)
def test_a_mistake_is_told_and_exits_with_2(
    runs_dir: Path, argument: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["report", "study=ratio", f"runs_dir={runs_dir}", argument]
    assert main(given) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_folder_cannot_be_overwritten_by_the_page(
    runs_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["report", "study=three", f"runs_dir={runs_dir}", f"out={tmp_path}"]
    assert main([*given, "surrogates=none", "verdict=none"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_folder_that_is_no_promotion_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a promotion"):
        model_card(tmp_path)


@pytest.fixture(scope="module")
def card() -> str:
    fixtures = Path(__file__).parent / "fixtures"
    return model_card(fixtures / "promotions" / "quick-demo_full-001", fixtures / "runs")


def test_a_card_says_what_was_trained_on_which_data_under_which_licence(card: str) -> None:
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "| chat | english | MIT | 25.00% | 22.50% | 20.00% | 15.00% |" in card
    assert "of 1,200 steps. A step is 1,024 tokens." in card
    assert "- sequence length 64" in card
    assert "hidden size 192" in card


def test_a_card_says_what_is_not_known_and_what_was_overridden(card: str) -> None:
    assert "The full run has not been scored yet." in card
    assert "The gate beats baseline was overridden: a trial of the machinery" in card
    assert "Tie: uniform is" in card


def test_a_card_has_the_scores_of_a_full_run_that_is_done(runs_dir: Path, tmp_path: Path) -> None:
    fixtures = Path(__file__).parent / "fixtures" / "promotions" / "quick-demo_full-001"
    shutil.copytree(runs_dir / "ratio" / "trial-0000-0", tmp_path / fixtures.name / "full-0")
    text = model_card(fixtures, tmp_path)
    assert "| task_00 | bpb |" in text
    assert "not been scored" not in text
