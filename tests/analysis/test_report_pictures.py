"""Reports and cards of studies with pictures: the gains beside bits per byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from analysis.frames.config_columns import planned_tasks
from analysis.report import (
    ReportContent,
    gather_report,
    model_card,
    render_html,
    render_markdown,
    report_tables,
)
from analysis.report.facts import facts
from tests.oracles.picture_studies import BLIND, SEES, TASK, PictureStudy, two_arms

FIXTURES = Path(__file__).parent / "fixtures"


def content_of(runs_dir: Path, mix: tuple[float, float]) -> ReportContent:
    two_arms(PictureStudy(runs_dir), SEES, mix)
    return gather_report(runs_dir, "look", surrogates=())


@pytest.mark.parametrize(("mix", "used"), [(SEES, "yes"), (BLIND, "no")])
def test_the_gains_stand_beside_bits_per_byte(
    tmp_path: Path, mix: tuple[float, float], used: str
) -> None:
    content = content_of(tmp_path, mix)
    table = report_tables.pictures(content)
    assert table is not None
    titles = [column.title for column in table.columns]
    rows = {str(row.cells[1].text): dict(zip(titles, row.cells, strict=True)) for row in table.rows}
    own = rows["trial-0001"]
    assert own["task"].text == TASK
    assert own["picture used"].text == used
    assert own["bits per byte"].number == pytest.approx(1.5, abs=0.05)
    assert own["gain [at least, 97.5%]"].number == pytest.approx(mix[0], abs=0.05)
    assert own["exact match"].text == "–"
    assert rows["natural"]["picture used"].text == "yes"


def test_pages_have_the_table_and_the_reason(tmp_path: Path) -> None:
    content = content_of(tmp_path, BLIND)
    text = render_markdown(content)
    assert "### Use of pictures" in text
    assert "no winner is named" in text
    assert f"| {TASK} | ahead without use of the picture |" in text
    page = render_html(content)
    assert "Use of pictures" in page
    (tasks,) = [fact for fact in facts(content) if fact.name == "Tasks"]
    assert "better" not in tasks.value


def test_a_study_without_pictures_has_no_such_table() -> None:
    content = gather_report(FIXTURES / "runs", "demo_ratio", surrogates=())
    assert report_tables.pictures(content) is None
    assert "Use of pictures" not in render_markdown(content)


def test_a_card_has_the_gains_of_the_proxies(tmp_path: Path) -> None:
    promotion = tmp_path / "promotion"
    shutil.copytree(FIXTURES / "promotions" / "quick-demo_full-001", promotion)
    path = promotion / "promotion.json"
    record: dict[str, Any] = json.loads(path.read_text())
    row = {"task": TASK, "candidate": "mix", "gain": 0.4, "gain_low": 0.3, "used": True}
    row |= {"shuffled_gain": 0.5, "shuffled_gain_low": None}
    record.pop("checksum", None)
    record["verdict"]["pictures"] = [row]
    path.write_text(json.dumps(record))
    text = model_card(promotion)
    assert f"| {TASK} | mix | 0.4 (0.3) | 0.5 (–) | yes |" in text
    before = model_card(FIXTURES / "promotions" / "quick-demo_full-001")
    assert "picture" not in before


def test_the_held_out_task_of_pictures_is_planned_by_its_gain() -> None:
    config = {"source": {"digits": {"rows": {"kind": "pictures"}}}}
    (task,) = planned_tasks(config)
    assert (task.task, task.form, task.metric) == (TASK, "picture", "bpb")
