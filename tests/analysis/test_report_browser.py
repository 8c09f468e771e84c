"""The page in a browser: no error, no request, no label over another, tables that sort and search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.report import gather_report, render_html
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
