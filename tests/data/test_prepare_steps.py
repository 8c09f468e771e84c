"""Check the steps of a preparation one by one, on a few documents, with the counts that they leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datatrove.data import Document
from datatrove.pipeline.tokens.tokenizer import DocumentTokenizer
from datatrove.utils.logging import logger

from ablations.data import pipeline
from ablations.data.contamination import Hit
from ablations.data.finalize import heldout_file
from ablations.data.pipeline import (
    DropByLength,
    DropContaminated,
    DropDuplicates,
    HoldOut,
    InProcess,
    ReadSource,
    WriteTokens,
)
from ablations.data.prepare_counts import BESIDE, RankCounts, hashes_file, text_hash
from ablations.data.readers import heldout
from ablations.data.token_encoder import TokensDifferError
from ablations.files import read_json_lines


def documents(*texts: str, **metadata: Any) -> list[Document]:
    return [
        Document(text=text, id=str(number), metadata={"group": str(number), **metadata})
        for number, text in enumerate(texts)
    ]


def ids(found: Iterable[Document]) -> list[str]:
    return [document.id for document in found]


def test_a_reader_passes_on_what_a_document_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: list[Any] = []

    def read(spec: Any, place: Any) -> Iterable[SimpleNamespace]:
        places.append(place)
        place.seen["documents"] += 2
        values = {"text": "t", "id": "i", "group": "g"}
        yield SimpleNamespace(**values, score=None, url=None)
        yield SimpleNamespace(**values, score=0.0, url="")

    monkeypatch.setattr(pipeline, "read_source", read)
    spec: Any = SimpleNamespace()
    step = ReadSource(spec, tmp_path, None)
    first, second = step.run(None, rank=3, world_size=5)
    assert first.metadata == {"group": "g"}
    assert second.metadata == {"group": "g", "score": 0.0, "url": ""}
    assert (first.text, first.id) == ("t", "i")
    assert (places[0].rank, places[0].ranks, places[0].downloads) == (3, 5, tmp_path)
    assert step.seen == {"documents": 2}
    list(step.run(None))
    assert (places[1].rank, places[1].ranks) == (0, 1)


def test_of_equal_documents_the_first_is_kept() -> None:
    step = DropDuplicates()
    found = documents("a", "b", "a", "a", "c", "b")
    assert ids(step.run(found)) == ["0", "1", "4"]
    assert step.dropped == {"exact duplicate": 3}


def test_documents_that_differ_beside_their_text_are_no_duplicates() -> None:
    step = DropDuplicates()
    found = [*documents("a", **{BESIDE: "x"}), *documents("a", **{BESIDE: "y"}), *documents("a")]
    assert len(list(step.run(found))) == 3
    assert step.dropped == {}


def test_a_document_is_dropped_for_the_first_of_its_tasks_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "_BATCH_DOCUMENTS", 2)
    batches: list[list[str]] = []

    def hits(texts: list[str]) -> list[list[Hit]]:
        batches.append(list(texts))
        return [[Hit(task, "q", 1.0) for task in text.split()] for text in texts]

    index: Any = SimpleNamespace(hits_of_many=hits)
    step = DropContaminated(index)
    assert ids(step.run(documents("", "b", "b a", "", "b"))) == ["0", "3"]
    assert step.dropped == {"contains b": 2, "contains a": 1}
    assert batches == [["", "b"], ["b a", ""], ["b"]]


class Letters:
    """An encoder with a token for each letter."""

    def __init__(self, file: Path, *_: object) -> None:
        self.fails = [file.name == "differs"]
        self.asked: list[list[str]] = []
        self.given_up: list[TokensDifferError] = []

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        self.asked.append(texts)
        if self.fails.pop() if self.fails else False:
            raise TokensDifferError("they differ")
        return [[ord(letter) for letter in text] for text in texts]

    def give_up(self, difference: TokensDifferError) -> None:
        self.given_up.append(difference)


@pytest.mark.parametrize(
    ("least", "most", "kept", "dropped"),
    [
        (None, None, ["0", "1", "2", "3", "4"], {}),
        (0, None, ["0", "1", "2", "3", "4"], {}),
        (2, None, ["2", "3", "4"], {"fewer than 2 tokens": 2}),
        (2, 3, ["2", "3"], {"fewer than 2 tokens": 2, "more than 3 tokens": 1}),
        (None, 0, ["0"], {"more than 0 tokens": 4}),
        (5, 2, [], {"fewer than 5 tokens": 5}),
    ],
)
def test_lengths_are_limited_on_both_sides_exactly(
    monkeypatch: pytest.MonkeyPatch,
    least: int | None,
    most: int | None,
    kept: list[str],
    dropped: dict[str, int],
) -> None:
    monkeypatch.setattr(pipeline, "TokenEncoder", Letters)
    step = DropByLength(Path("same"), least, most)
    assert ids(step.run(documents("", "a", "ab", "abc", "abcd"))) == kept
    assert step.dropped == dropped


def test_a_document_of_few_bytes_is_not_tokenised_and_one_of_few_tokens_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Letters] = []

    def encoder(file: Path) -> Letters:
        made.append(Letters(file))
        return made[-1]

    monkeypatch.setattr(pipeline, "TokenEncoder", encoder)
    monkeypatch.setattr(pipeline, "_BATCH_DOCUMENTS", 2)
    step = DropByLength(Path("differs"), 2, None)
    assert ids(step.run(documents("a", "é", "ab", "abc", "b"))) == ["2", "3"]
    assert step.dropped == {"fewer than 2 tokens": 3}
    # The first batch is encoded again, after the difference of its ids was noted.
    assert made[0].asked == [["é", "ab"], ["é", "ab"], ["abc"]]
    assert len(made[0].given_up) == 1


def test_documents_are_trained_on_or_held_out_and_counted(tmp_path: Path) -> None:
    share = 0.5
    texts = [f"{'é' * (number + 1)}" for number in range(12)]
    given = documents(*texts)
    for document in given[::3]:
        document.metadata["score"] = float(document.id)
    aside = [document for document in given if heldout(document.metadata["group"], share)]
    kept = [document for document in given if document not in aside]
    assert len(aside) not in (0, 6, 12)
    spec: Any = SimpleNamespace()
    reader = ReadSource(spec, tmp_path, None)
    reader.seen["documents"] = 20
    reader.dropped["empty"] = 3
    reader.replaced.update(characters=4, bytes=6)
    reader.ignored[".png"] = 2
    steps: list[Any] = [
        SimpleNamespace(dropped=Counter({"empty": 1, "short": 2}), rewritten={"html": 5}),
        SimpleNamespace(dropped=Counter({"short": 1})),
        SimpleNamespace(dropped=Counter(), rewritten={"html": 3, "mail": 1}),
    ]
    step = HoldOut(tmp_path, share, reader, steps)
    assert ids(step.run(given, rank=7)) == ids(kept)
    counts = RankCounts.read_rank(tmp_path, 7)
    assert counts == RankCounts(
        read=20,
        documents=len(kept),
        bytes=sum(2 * (int(document.id) + 1) for document in kept),
        heldout_documents=len(aside),
        heldout_bytes=sum(2 * (int(document.id) + 1) for document in aside),
        replaced_characters=4,
        replaced_bytes=6,
        dropped={"empty": 4, "short": 3},
        ignored_files={".png": 2},
        rewritten={"html": 8, "mail": 1},
    )
    rows = list(read_json_lines(heldout_file(tmp_path, 7)))
    assert [row["id"] for row in rows] == ids(aside)
    for row in rows:
        scored = {"score": float(row["id"])} if int(row["id"]) % 3 == 0 else {}
        assert row == {"id": row["id"], "text": texts[int(row["id"])], **scored}
    assert "é" in heldout_file(tmp_path, 7).read_text(encoding="utf-8")
    hashes = np.load(hashes_file(tmp_path, 7)).tolist()
    assert hashes == sorted(map(text_hash, texts))


def test_the_first_rank_is_the_one_that_nobody_names(tmp_path: Path) -> None:
    spec: Any = SimpleNamespace()
    step = HoldOut(tmp_path, 0.0, ReadSource(spec, tmp_path, None), ())
    assert ids(step.run(documents("a", "b"))) == ["0", "1"]
    assert RankCounts.read_rank(tmp_path, 0).documents == 2


def tokenizer(size: int) -> Any:
    return SimpleNamespace(
        name="t", file=Path("t/tokenizer.json"), eos_token="<e>", eos_id=0, token_bytes=size
    )


@pytest.mark.parametrize(("size", "width"), [(2, "<u2"), (4, "<u4")])
def test_tokens_are_written_in_the_tokenizers_width(tmp_path: Path, size: int, width: str) -> None:
    step = WriteTokens(tmp_path, tokenizer(size))
    written: list[bytes] = []
    file: Any = SimpleNamespace(write_bytes=written.append)
    step._add(file, [np.array([1, 258], np.int64), np.array([7], np.int64)])
    assert step.token_size == size
    assert written == [np.array([1, 258], width).tobytes(), np.array([7], width).tobytes()]
    assert not step._scored


@pytest.mark.parametrize(
    ("workers", "ranks", "beside"),
    [(1, [0, 1], False), (2, [3], False), (2, [], False), (2, [1, 4], True), (3, [0, 2, 5], True)],
)
def test_several_ranks_of_several_workers_are_done_side_by_side(
    monkeypatch: pytest.MonkeyPatch, workers: int, ranks: list[int], beside: bool
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(
        pipeline,
        "run_side_by_side",
        lambda run, which, count: calls.append(("beside", list(which), count)),
    )
    monkeypatch.setattr(
        InProcess, "_run_for_rank", lambda self, rank: calls.append((self.pipeline, rank))
    )
    executor = InProcess.__new__(InProcess)
    executor.workers = workers
    executor.pipeline = [Counter(a=1)]
    executor.get_incomplete_ranks = lambda: ranks
    executor.run()
    if beside:
        assert calls == [("beside", ranks, workers)]
        return
    assert [rank for _, rank in calls] == ranks
    # Each rank has fresh steps.
    assert all(steps == executor.pipeline for steps, _ in calls)
    assert len({id(steps[0]) for steps, _ in calls} | {id(executor.pipeline[0])}) == len(ranks) + 1


def test_datatrove_is_silent_while_it_runs_and_not_after(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    for name in ("disable", "enable"):
        monkeypatch.setattr(logger, name, lambda what, name=name: calls.append((name, what)))

    def work() -> None:
        with pipeline._quiet():
            assert calls == [("disable", "datatrove")]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert calls == [("disable", "datatrove"), ("enable", "datatrove")]


def test_a_token_file_tells_its_tokenizer_by_name(tmp_path: Path) -> None:
    step = WriteTokens(tmp_path, tokenizer(2))
    file = step._begin("x.ds")
    step._add(file, [np.array([1, 2, 3], np.int64), np.array([4], np.int64)])
    file.close()
    train = tmp_path / "train"
    assert np.fromfile(train / "x.ds", "<u2").tolist() == [1, 2, 3, 4]
    assert (train / "x.ds.metadata").read_text().splitlines()[:2] == ["t|2", "4"]


@pytest.mark.parametrize("scored", [True, False])
def test_what_an_earlier_try_left_is_removed_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: bool
) -> None:
    train = tmp_path / "train"
    calls: list[tuple[Any, ...]] = []
    step = WriteTokens(tmp_path, tokenizer(2), scored=scored)
    train.mkdir(exist_ok=True)
    for name in ("00000_old.ds", "00001_kept.ds"):
        (train / name).write_text("")
    (tmp_path / "described").mkdir()
    (tmp_path / "described/00000.json").write_text("old")

    def run(self: Any, data: Iterable[Document], rank: int, world_size: int) -> str:
        there = [path.name for path in train.iterdir()]
        described = (tmp_path / "described/00000.json").exists()
        calls.append((ids(data), rank, world_size, there, described))
        for name in ("00000_unshuffled.ds", "00000_unshuffled.ds.index", "00000_new.ds"):
            (train / name).write_text("")
        return "result"

    written: list[Any] = []
    monkeypatch.setattr(DocumentTokenizer, "run", run)
    monkeypatch.setattr(pipeline, "describe_rank", lambda *which: written.append(which[:2]))
    monkeypatch.setattr(
        pipeline,
        "write_rank_scores",
        lambda *which: written.append([*which[1:3], sorted(which[3])]),
    )
    given = documents("a", "b", "c")
    for number, document in enumerate(given):
        document.metadata["score"] = number / 2
    assert step.run(given) == "result"
    assert calls == [(["0", "1", "2"], 0, 1, ["00001_kept.ds"], False)]
    assert sorted(path.name for path in train.iterdir()) == ["00000_new.ds", "00001_kept.ds"]
    scores = [[0, [0.0, 0.5, 1.0], [0, 1, 2]]] if scored else []
    assert written == [*scores, (tmp_path, 0)]
