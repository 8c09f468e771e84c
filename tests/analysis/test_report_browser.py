"""The page in a browser: no error, no request, no label over another, tables that sort and search."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.report import ReportContent, gather_report, pages, render_html
from analysis.synthetic import SyntheticStudy, write_study


@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 800, False), (390, 844, True)])
def test_the_page_opens_without_an_error_a_request_or_a_sideways_scroll(
    page: str, tmp_path: Path, browsers: Any, width: int, height: int, phone: bool
) -> None:
    (tmp_path / "report.html").write_text(page)
    window = browsers.open(width, height, phone=phone)
    try:
        window.open(tmp_path / "report.html")
        window.wait_for("return document.body.dataset.drawn === 'yes'")
        assert window.errors() == []
        assert window.requests() == []
        assert window.run("return document.documentElement.scrollWidth") <= width
        drawn = window.run("return document.querySelectorAll('[data-drawn=yes] .main-svg').length")
        assert drawn > 10
    finally:
        window.close()


def test_the_table_of_trials_sorts_and_searches(page: str, tmp_path: Path, browsers: Any) -> None:
    (tmp_path / "report.html").write_text(page)
    window = browsers.open()
    try:
        window.open(tmp_path / "report.html")
        table = "document.getElementById('trials-table')"
        click = f"[...{table}.tHead.rows[0].cells].find((c) => c.textContent === 'score').click();"
        first = f"return [...{table}.tBodies[0].rows].map((r) => r.cells[5].dataset.value)"
        rising = window.run(click + first)
        known = [float(value) for value in rising if value]
        assert known == sorted(known)
        assert rising[len(known) :] == [""] * (12 - len(known))
        falling = window.run(click + first)
        assert [float(value) for value in falling if value] == known[::-1]
        search = (
            "const box = document.querySelector('input[type=search]'); box.value = 'uniform done';"
            "box.dispatchEvent(new Event('input'));"
            "return document.getElementById('trials-table-count').textContent"
        )
        assert window.run(search) == "1 of 12"
    finally:
        window.close()


def drawn(browsers: Any, path: Path, width: int = 1280, height: int = 800) -> Any:
    """A window with the page of a report, its figures drawn."""
    window = browsers.open(width, height, phone=width < 600)
    window.open(path)
    window.wait_for("return document.body.dataset.drawn === 'yes'")
    return window


BOTTOMS = """
const bottom = (found) => found.getBoundingClientRect().bottom;
const facts = [...document.querySelectorAll("dl.facts > div")].slice(0, 3);
return Object.fromEntries([
  ["question", bottom(document.querySelector("h1"))],
  ["answer", bottom(document.querySelector(".answer"))],
  ["figure", bottom(document.querySelector(".screen figure"))],
  ...facts.map((fact) => [fact.querySelector("dt").textContent, bottom(fact)]),
]);
"""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (400, 860)])
def test_the_first_screen_has_the_answer_its_figure_the_difference_the_risk_and_the_cost(
    page: str, tmp_path: Path, browsers: Any, width: int, height: int
) -> None:
    (tmp_path / "report.html").write_text(page)
    window = drawn(browsers, tmp_path / "report.html", width, height)
    try:
        found = window.run(BOTTOMS)
        assert list(found) == ["question", "answer", "figure", "Difference", "Risk", "Cost"]
        assert {name: at for name, at in found.items() if not 0 < at <= height} == {}
        # The navigation stays: beside the page, or wrapped above it.
        window.run("scrollTo(0, 4000)")
        place = "const b = document.querySelector('nav').getBoundingClientRect(); return "
        window.wait_for("return scrollY > 1000")
        assert window.run(f"{place}b.top") == 0
        assert window.run(f"{place}b.right") <= width
        tops = "new Set([...document.querySelectorAll('nav li')].map((l) => l.offsetTop)).size"
        assert window.run(f"return {tops}") > 1
    finally:
        window.close()


def test_a_dark_page_has_dark_figures_and_prints_light(
    page: str, tmp_path: Path, browsers: Any
) -> None:
    (tmp_path / "report.html").write_text(page)
    window = browsers.open()
    try:
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        window.ask("Emulation.setEmulatedMedia", features=dark)
        window.open(tmp_path / "report.html")
        window.wait_for("return document.body.dataset.drawn === 'yes'")
        ground = "return getComputedStyle(document.body).backgroundColor"
        paper = "return document.querySelector('#figure-ratio .main-svg').style.background"
        letters = "return document.querySelector('#figure-ratio .xtitle').style.fill"
        assert window.run(ground) == window.run(paper) == "rgb(21, 24, 28)"
        assert window.run(letters) == "rgb(230, 230, 230)"
        folds = "return document.querySelectorAll('details.fold:not([open])').length"
        closed = window.run(folds)
        assert closed > 3
        window.run("dispatchEvent(new Event('beforeprint'))")
        assert window.run(folds) == 0
        assert window.run(paper) in ("white", "rgb(255, 255, 255)")
        widths = "return [...document.querySelectorAll('.plot')].map((p) => p._fullLayout.width)"
        assert set(window.run(widths)) == {310, 660}
        window.run("dispatchEvent(new Event('afterprint'))")
        assert window.run(folds) == closed
        assert window.run(paper) == "rgb(21, 24, 28)"
        assert window.errors() == []
    finally:
        window.close()


def test_a_copied_folder_keeps_its_figures_and_a_lone_page_asks_for_the_script(
    content: ReportContent, tmp_path: Path, browsers: Any
) -> None:
    runs = tmp_path / "runs"
    report = runs / "a study" / "report.html"
    report.parent.mkdir(parents=True)
    script = pages.share_plotly(runs)
    report.write_text(render_html(content, plotly_file=pages.link(report, script)))
    shutil.move(runs, tmp_path / "copied")
    copied = tmp_path / "copied" / "a study" / "report.html"
    window = drawn(browsers, copied)
    try:
        assert window.errors() == []
        assert window.requests() == []
        assert (
            window.run("return document.querySelectorAll('[data-drawn=yes] .main-svg').length") > 10
        )
    finally:
        window.close()
    shutil.move(copied, tmp_path / "lone.html")
    window = drawn(browsers, tmp_path / "lone.html")
    try:
        message = "return document.getElementById('figure-ratio').textContent"
        assert "single_file=true" in window.run(message)
        assert window.run("return document.querySelector('.answer h2').textContent").startswith(
            "Keep"
        )
    finally:
        window.close()


@pytest.fixture(scope="module")
def many_trials(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study with 130 trials, more than its table shows at once."""
    folder = tmp_path_factory.mktemp("trials")
    study = SyntheticStudy(
        name="trials", trials=130, tasks=2, items=0, checkpoints=1, steps=2, confirmed=0, failed=4
    )
    write_study(folder, study)
    return render_html(gather_report(folder, "trials", surrogates=(), verdict="none"))


def test_a_long_table_turns_its_pages_sorts_and_searches_all_rows(
    many_trials: str, tmp_path: Path, browsers: Any
) -> None:
    (tmp_path / "report.html").write_text(many_trials)
    window = browsers.open()
    try:
        window.open(tmp_path / "report.html")
        table = "document.getElementById('trials-table')"
        names = f"return [...{table}.tBodies[0].rows].map((r) => r.cells[0].textContent)"
        count = "return document.getElementById('trials-table-count').textContent"
        turn = "document.querySelector('button[data-turn=\"1\"]').click();"
        assert window.run(names) == [f"trial-{n:04d}" for n in range(100)]
        assert window.run(turn + names) == [f"trial-{n:04d}" for n in range(100, 130)]
        assert window.run(count) == "101–130 of 130"
        head = f"[...{table}.tHead.rows[0].cells].find((c) => c.textContent === 'score')"
        column = f"return [...{table}.tBodies[0].rows].map((r) => r.cells[5].textContent)"
        best = [float(text) for text in window.run(f"{head}.click();" + column)]
        assert best == sorted(best)
        assert len(best) == 100
        rest = window.run(turn + column)
        assert rest[-4:] == ["–"] * 4
        assert min(float(text) for text in rest[:-4]) >= best[-1]
        search = "const box = document.querySelector('input[type=search]'); box.value = '{}';"
        search += "box.dispatchEvent(new Event('input'));"
        assert window.run(search.format("trial-0128") + count) == "1 of 130"
        pre = f"return {table}.querySelector('details pre').textContent"
        assert "# trial-0128-0: step 20: loss is not finite" in window.run(pre)
        assert window.errors() == []
    finally:
        window.close()


LONG = (
    "fineweb_edu_high_quality",
    "dclm_baseline_filtered",
    "finemath_4plus",
    "stack_edu_python",
    "cosmopedia_v2",
)


@pytest.fixture(scope="module")
def long_names(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study with long names of five sources, three stages and sixteen tasks."""
    folder = tmp_path_factory.mktemp("long")
    stages = ("stable_phase", "math_and_code_added", "annealing")
    study = SyntheticStudy(name="long", sources=LONG, trials=14, tasks=16, stages=stages, items=0)
    write_study(folder, study)
    return render_html(gather_report(folder, "long", surrogates=("linear", "scheffe")))


@pytest.fixture(scope="module")
def many_sources(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study with seventeen sources."""
    folder = tmp_path_factory.mktemp("many")
    sources = tuple(f"domain_number_{n:02d}" for n in range(17))
    study = SyntheticStudy(name="many", sources=sources, trials=21, tasks=7, items=0, confirmed=0)
    write_study(folder, study)
    return render_html(gather_report(folder, "many", surrogates=(), verdict="none"))


@pytest.mark.parametrize("name", ["page", "long_names", "many_sources"])
@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 800, False), (390, 844, True)])
def test_labels_do_not_overlap(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    browsers: Any,
    name: str,
    width: int,
    height: int,
    phone: bool,
) -> None:
    """Boxes of axis titles, tick labels and legends of each figure, measured in the page."""
    (tmp_path / "report.html").write_text(request.getfixturevalue(name))
    window = browsers.open(width, height, phone=phone)
    try:
        window.open(tmp_path / "report.html")
        window.wait_for("return document.body.dataset.drawn === 'yes'")
        assert window.run(OVERLAPS) == []
    finally:
        window.close()


OVERLAPS = """
const found = [];
// The box of a slanted label is larger than its letters: two of them may share a corner.
const slanted = (item) => /rotate\\((?!0[,)]|-?90)/.test(item.getAttribute("transform") || "");
for (const plot of document.querySelectorAll("figure [data-drawn=yes]")) {
  const area = plot.getBoundingClientRect();
  const boxes = [...plot.querySelectorAll(".xtitle, .ytitle, .xtick text, .ytick text, .legend")]
    .map((item) => [item.textContent.slice(0, 20), item.getBoundingClientRect(), slanted(item)])
    .filter(([, box]) => box.width > 0);
  for (let i = 0; i < boxes.length; i++) {
    const [name, a, slant] = boxes[i];
    if (a.left < area.left - 1 || a.right > area.right + 1) found.push(plot.id + ": cut " + name);
    for (let j = i + 1; j < boxes.length; j++) {
      const [other, b, slants] = boxes[j];
      if (slant && slants) continue;
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 2 && high > 2) found.push(plot.id + ": " + name + " / " + other);
    }
  }
}
return found;
"""
