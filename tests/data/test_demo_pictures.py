"""Pictures of the demo: answers that are in the picture alone, and the rows of the real packages."""

from __future__ import annotations

import itertools
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ablations.data.catalogue import PackageOrigin, load_source, load_tokenizer_spec
from ablations.data.demo.demo_pictures import PICTURE_CORPORA, SIDE
from ablations.data.demo.drawn_charts import COLOURS, QUESTIONS, TABLES, Chart, charts
from ablations.data.prepare import Prepared, prepare
from ablations.data.rows.chat_template import picture_tokens
from ablations.data.rows.row_store import RowStore
from ablations.errors import DataError
from tests.oracles.drawn import heldout_items, prepare_pictures, training_rows

DOWNLOADS = Path(__file__).resolve().parents[2] / "data" / "downloads"

PINS = {
    name: origin.packages
    for name in PICTURE_CORPORA
    if isinstance(origin := load_source(name).origin, PackageOrigin)
}


def _there(name: str) -> bool:
    return all(list(DOWNLOADS.glob(f"{p.name.replace('-', '_')}-{p.version}*")) for p in PINS[name])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Chart]:
    """Charts of tables of our own, in the place of the package's."""
    path = tmp_path_factory.mktemp("tables") / "vega_datasets-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for table, columns in TABLES.items():
            numbers = range(1, 90)
            if table.endswith(".json"):
                rows = ", ".join(
                    "{" + ", ".join(f'"{c}": {n * n}' for c in columns) + "}" for n in numbers
                )
                text = f"[{rows}]"
            else:
                lines = [",".join([str(n * n)] * len(columns)) for n in numbers]
                text = "\n".join([",".join(columns), *lines])
            archive.writestr(f"vega_datasets/_data/{table}", text)
    found = charts({"vega-datasets": path})
    return [next(found) for _ in range(QUESTIONS * 96)]


def _answered(chart: Chart) -> str:
    """Return the answer to a chart's question, found from its bars."""
    bars = sorted(range(len(chart.heights)), key=chart.heights.__getitem__)
    asked = chart.question
    if asked == "Which bar is highest?":
        return chart.colours[bars[-1]]
    if asked == "Which bar is lowest?":
        return chart.colours[bars[0]]
    assert asked == "How many bars are there?"
    return ("three", "four", "five", "six")[len(bars) - 3]


def test_the_answer_to_a_chart_is_in_its_bars(drawn: list[Chart]) -> None:
    for chart in drawn:
        assert _answered(chart) == chart.answer
        assert len(set(chart.colours)) == len(set(chart.letters)) == len(chart.heights)
        gaps = np.diff(sorted(chart.heights))
        assert gaps.min() >= 0.08


def test_without_the_picture_every_answer_to_a_question_is_as_likely(drawn: list[Chart]) -> None:
    for kind in range(QUESTIONS):
        answers = Counter(chart.answer for chart in drawn[kind::QUESTIONS])
        assert len(set(answers.values())) == 1
        assert len(answers) == (8, 8, 4)[kind]


def test_the_place_of_the_highest_bar_tells_nothing(drawn: list[Chart]) -> None:
    places = Counter(int(np.argmax(chart.heights)) for chart in drawn if len(chart.heights) == 4)
    mean = sum(places.values()) / 4
    assert all(abs(places[place] - mean) < 4 * mean**0.5 for place in range(4))


def test_a_drawn_chart_shows_its_bars(drawn: list[Chart]) -> None:
    for chart in drawn[:60]:
        pixels = np.asarray(chart.draw(SIDE))
        assert pixels.shape == (SIDE, SIDE, 3)
        sizes = []
        for colour in chart.colours:
            same = (pixels[: SIDE * 50 // 64] == COLOURS[colour]).all(axis=2)
            sizes.append(int(same.any(axis=1).sum()))
        assert np.argsort(sizes).tolist() == np.argsort(chart.heights).tolist()
        assert np.array_equal(pixels, np.asarray(chart.draw(SIDE)))


def test_every_digit_is_as_frequent() -> None:
    rows = list(PICTURE_CORPORA["digits"]({}))
    assert set(Counter(row.columns["answer"] for row in rows).values()) == {174}
    assert len(rows) == 1740
    pixels = np.asarray(rows[0].columns["images"]())
    assert pixels.shape == (SIDE, SIDE, 3)
    assert pixels.max() > 200


def test_other_digits_than_the_known_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablations.data.demo.demo_pictures._DIGITS_SHA256", "0" * 64)
    with pytest.raises(DataError, match="another file than the demo's"):
        next(PICTURE_CORPORA["digits"]({}))


def test_digits_are_prepared_alike_by_one_rank_and_by_two(tmp_path: Path) -> None:
    spec = load_source("digits")
    one, two = (
        prepare_pictures(tmp_path / str(shards), {"digits": replace(spec, shards=shards)})["digits"]
        for shards in (1, 2)
    )
    assert training_rows(one) == training_rows(two)
    assert heldout_items(one) == heldout_items(two)


# ---------------------------------------------------------------------- the packages themselves

ROWS = {
    "openmoji_names": 1462,
    "easy_vqa": 8000,
    "digits": 1740,
    "drawn_words": 4000,
    "drawn_charts": 6000,
}
"""Rows, held-out ones included (docs/sources.md). Emoji: as many as Python 3.11 knows names of."""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    data_dir = tmp_path_factory.mktemp("demo")
    (data_dir / "downloads").symlink_to(DOWNLOADS)
    sources = {name: load_source(name) for name in ROWS}
    made = prepare(sources, load_tokenizer_spec("demo_vision"), data_dir)
    return {one.name: one for one in made}


@pytest.mark.slow
@pytest.mark.skipif(
    not all(_there(name) for name in ROWS), reason="the demo's packages are not in data/downloads"
)
@pytest.mark.parametrize("name", ROWS)
def test_a_source_of_the_demo_has_its_rows(stores: dict[str, Prepared], name: str) -> None:
    store = RowStore.open(stores[name].folder)
    counts, spec = store.counts, load_source(name)
    assert spec.rows is not None
    assert counts.rows + counts.heldout_rows == pytest.approx(ROWS[name], rel=0.05)
    assert counts.rows == pytest.approx(spec.rows.available, rel=0.05)
    assert store.manifest.tokens == pytest.approx(spec.tokens_available, rel=0.1)
    assert counts.cut_rows == 0
    assert not store.manifest.dropped
    assert store.shown().tolist() == [1] * counts.rows
    tokens = picture_tokens(stores[name].folder.parents[1] / "tokenizers/demo_vision")
    assert tokens is not None
    (row,) = store.read(0)
    assert int((row.tokens == tokens.picture_id).sum()) == 1
    assert row.pictures.shape == (1, 3, SIDE, SIDE)


@pytest.mark.slow
@pytest.mark.skipif(not _there("drawn_charts"), reason="vega-datasets is not in data/downloads")
def test_the_charts_of_the_real_tables_are_balanced_too() -> None:
    (pin,) = PINS["drawn_charts"]
    (path,) = DOWNLOADS.glob(f"vega_datasets-{pin.version}*")
    made = list(itertools.islice(charts({"vega-datasets": path}), 6000))
    for kind in range(QUESTIONS):
        answers = Counter(chart.answer for chart in made[kind::QUESTIONS])
        assert max(answers.values()) - min(answers.values()) <= 1
    assert all(_answered(chart) == chart.answer for chart in made)
