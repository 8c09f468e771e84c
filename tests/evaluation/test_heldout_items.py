"""A run that scores some held-out documents reads those, and they are the ones that it always scored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablations.errors import DataError
from ablations.evaluation import heldout_items as module
from ablations.evaluation.heldout_items import heldout_items, order_file
from ablations.evaluation.items import Pool
from ablations.evaluation.scoring import _limited

ROWS = [{"id": f"doc-{n}", "text": f"text {n} — " * (n % 7)} for n in range(50)]
ROWS += [{"id": "é", "text": "\ud83d alone"}, {"id": "item", "query": "q", "choices": ["a"]}]


def store(folder: Path, rows: list[dict[str, Any]]) -> Path:
    made = folder / "web"
    made.mkdir(exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=row["id"] == "é") + "\n" for row in rows)
    (made / "heldout.jsonl").write_text(text)
    return made


def whole(folder: Path, limit: int | None) -> list[dict[str, Any]]:
    """Return what reading everything and limiting it afterwards gives."""
    every = heldout_items("web", folder, 12, None)
    return _limited([Pool("", every)], limit)[0].items


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the rows that are parsed."""
    parsed: list[int] = []
    row = module.item_row
    monkeypatch.setattr(module, "item_row", lambda *given: parsed.append(1) or row(*given))
    return parsed


@pytest.mark.parametrize("limit", [1, 2, 17, 44, 45, 46, 1000, None])
def test_the_documents_are_those_of_the_whole_file(tmp_path: Path, limit: int | None) -> None:
    made = store(tmp_path, ROWS)
    wanted = whole(made, limit)
    for _ in range(3):
        assert heldout_items("web", made, 12, limit) == wanted


def test_a_later_run_reads_what_it_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, parsed = store(tmp_path, ROWS), reads(monkeypatch)
    first = heldout_items("web", made, None, 5)
    assert len(parsed) == len(ROWS)
    parsed.clear()
    assert heldout_items("web", made, None, 5) == first
    assert len(parsed) == 5
    parsed.clear()
    assert set(map(str, first)) < set(map(str, heldout_items("web", made, None, 9)))
    assert len(parsed) == 9


def test_a_file_of_another_state_is_read_anew(tmp_path: Path) -> None:
    made = store(tmp_path, ROWS)
    heldout_items("web", made, 12, 5)
    others = [{**row, "id": f"other-{row['id']}"} for row in ROWS[:40]]
    store(tmp_path, others)
    found = heldout_items("web", made, 12, 5)
    assert found == whole(made, 5)
    assert all(item["id"].startswith("other-") for item in found)


@pytest.mark.parametrize("harm", ["cut", "flip", "text", "float"])
def test_a_damaged_order_is_made_again(tmp_path: Path, harm: str) -> None:
    made = store(tmp_path, ROWS)
    wanted = heldout_items("web", made, 12, 5)
    path = order_file(made)
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[:-40])
    elif harm == "flip":
        content[-17] ^= 1
        path.write_bytes(content)
    elif harm == "text":
        path.write_text("no array")
    else:
        np.save(path, np.zeros(9))
    assert heldout_items("web", made, 12, 5) == wanted
    good = np.load(path)
    assert good[0] == (made / "heldout.jsonl").stat().st_size


def test_ids_that_repeat_are_limited_as_before(tmp_path: Path) -> None:
    """Two documents with one id have one rank: both are scored or neither."""
    made = store(tmp_path, [{"id": str(n // 2), "text": f"t{n}"} for n in range(40)])
    for _ in range(2):
        assert heldout_items("web", made, 12, 7) == whole(made, 7)
    assert not order_file(made).exists()


def test_a_disk_that_takes_no_file_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store(tmp_path, ROWS)

    def refused(path: Path) -> Any:
        raise PermissionError(path)

    monkeypatch.setattr(module, "replacing", refused)
    assert heldout_items("web", made, 12, 5) == whole(made, 5)
    assert not order_file(made).exists()


def test_an_empty_file_and_a_line_that_is_no_json_are_refused(tmp_path: Path) -> None:
    made = store(tmp_path, [])
    with pytest.raises(DataError, match="no held-out documents"):
        heldout_items("web", made, 12, 5)
    (made / "heldout.jsonl").write_text('{"id": "1", "text": "t"}\n{"id": \n')
    with pytest.raises(DataError, match=r"heldout\.jsonl:2: not JSON"):
        heldout_items("web", made, 12, 5)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text(max_size=6), min_size=1, max_size=12), st.integers(1, 14), st.integers(1, 14)
)
def test_any_text_and_limits_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], first: int, second: int
) -> None:
    rows = [{"id": str(n), "text": text} for n, text in enumerate([*texts, "one"])]
    made = store(tmp_path_factory.mktemp("any"), rows)
    for limit in (first, second, first):
        assert heldout_items("web", made, 12, limit) == whole(made, limit)


def test_the_order_is_beside_the_store_and_not_in_it(tmp_path: Path) -> None:
    made = store(tmp_path, ROWS)
    heldout_items("web", made, 12, 5)
    assert os.listdir(made) == ["heldout.jsonl"]
    assert order_file(made).parent == made.parent
