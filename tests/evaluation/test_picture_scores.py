"""Answers about pictures: scored in batches as one forward pass each, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ablations.errors import ConfigError
from ablations.evaluation import picture_scorer
from ablations.evaluation.picture_prompts import donors
from ablations.evaluation.results import CheckpointScores
from ablations.evaluation.scoring import ScoringPlace, score_checkpoints, score_folder
from ablations.evaluation.specs import METRICS, EvaluationSpec, TaskSpec
from ablations.training.vlm.text_part import write_text_part
from tests.oracles.picture_items import (
    make_picture_tokenizer,
    question,
    random_pictures,
    some_questions,
    write_picture_store,
    write_seeing_model,
)

PICTURES = 9
TASK = "heldout_shapes"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_picture_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def vlm(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seeing_model(tmp_path_factory.mktemp("vlm") / "model", tokenizer)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "shapes"
    return write_picture_store(folder, some_questions(24, PICTURES), random_pictures(PICTURES))


@pytest.fixture(scope="module")
def scored(vlm: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored")
    score(vlm, store, out)
    return out


def score(model: Path, store: Path, out: Path, **spec: Any) -> CheckpointScores:
    place = ScoringPlace(stores={"shapes": store})
    return score_folder(model, EvaluationSpec(**spec), out, place=place)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(out / "details/0" / f"{TASK}.parquet").to_pylist()
    return {row["item_id"]: row for row in table}


class Plain:
    """One forward pass of transformers for each answer, and its own greedy generation."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def inputs(self, query: str, pictures: np.ndarray) -> dict[str, Any]:
        import torch

        block = f"<fake_token_around_image><global-img>{'<image>' * 4}<fake_token_around_image>"
        text = query.replace("<image>", block if len(pictures) else "")
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        values = {"input_ids": torch.tensor([ids])}
        if len(pictures):
            pixels = (torch.from_numpy(pictures).float() / 255 - 0.5) / 0.5
            values["pixel_values"] = pixels[None]
        return values

    def bits(self, query: str, answer: str, pictures: np.ndarray) -> float:
        import torch

        values = self.inputs(query, pictures)
        after = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        before = values["input_ids"].shape[1]
        values["input_ids"] = torch.cat([values["input_ids"], torch.tensor([after])], dim=1)
        with torch.no_grad():
            logprobs = self.model(**values).logits[0].log_softmax(dim=-1)
        nats = sum(logprobs[before + place - 1, token] for place, token in enumerate(after))
        return -float(nats) / math.log(2) / len(answer.encode())

    def text(self, query: str, pictures: np.ndarray, most: int) -> str:
        import torch

        values = self.inputs(query, pictures)
        ids = values["input_ids"]
        ends = {self.tokenizer.eos_token_id, self.tokenizer.convert_tokens_to_ids("<|endoftext|>")}
        for _ in range(most):
            with torch.no_grad():
                chosen = self.model(**{**values, "input_ids": ids}).logits[0, -1].argmax()
            if int(chosen) in ends:
                break
            ids = torch.cat([ids, chosen[None, None]], dim=1)
        made = ids[0, values["input_ids"].shape[1] :]
        return str(self.tokenizer.decode(made, skip_special_tokens=True))


def items_of(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "heldout.jsonl").read_text().splitlines()]


def test_batches_are_equal_to_one_forward_pass_for_each_answer(
    vlm: Path, store: Path, scored: Path
) -> None:
    plain, pictures, items = Plain(vlm), random_pictures(PICTURES), items_of(store)
    others = donors([tuple(item["pictures"]) for item in items])
    rows = rows_of(scored)
    assert len(rows) == len(items) == 24
    for item, other in zip(items, others, strict=True):
        row, (answer,) = rows[item["id"]], item["choices"]
        shown: list[list[int]] = [item["pictures"], [], list(other or ())]
        own, without, shuffled = (
            plain.bits(item["query"], answer, pictures[numbers]) for numbers in shown
        )
        assert row["bpb"] == pytest.approx(own, abs=1e-5)
        assert row["bpb_without"] == pytest.approx(without, abs=1e-5)
        assert row["gain"] == pytest.approx(without - own, abs=1e-5)
        assert row["shuffled_gain"] == pytest.approx(shuffled - own, abs=1e-5)
        assert row["num_bytes"] == len(answer)
    # The pictures move these answers, or the comparison would show nothing.
    assert np.std([row["gain"] for row in rows.values()]) > 0.01
    assert min(abs(row["shuffled_gain"]) for row in rows.values()) > 1e-4


def test_generated_texts_are_those_of_one_greedy_pass_each(
    vlm: Path, store: Path, scored: Path
) -> None:
    plain, pictures, items = Plain(vlm), random_pictures(PICTURES), items_of(store)
    longest = max(
        len(plain.tokenizer(item["choices"][0], add_special_tokens=False)["input_ids"])
        for item in items
    )
    for item in items[:8]:
        expected = plain.text(item["query"], pictures[item["pictures"]], longest + 4)
        assert rows_of(scored)[item["id"]]["text"] == expected


def test_an_answer_is_right_if_it_is_the_generated_text(vlm: Path, tmp_path: Path) -> None:
    plain, pictures = Plain(vlm), random_pictures(2)
    wrong, asked = question(0, [0], "never"), question(1, [1], "x")
    text = plain.text(asked["query"], pictures[[1]], 3)
    store = write_picture_store(
        tmp_path / "shapes", [wrong, {**asked, "choices": [text]}], pictures
    )
    task = TaskSpec(
        form="picture", domain="d", source="shapes", metrics=("exact_match",), max_new_tokens=3
    )
    score(vlm, store, tmp_path, tasks={TASK: task})
    assert {name: row["exact_match"] for name, row in rows_of(tmp_path).items()} == {
        "q0": 0.0,
        "q1": 1.0,
    }


def test_metrics_of_a_checkpoint_are_those_of_its_items(
    vlm: Path, store: Path, tmp_path: Path
) -> None:
    """Gains are the difference of two bits per byte, and questions of one picture are one draw."""
    found = score(vlm, store, tmp_path)
    rows = list(rows_of(tmp_path).values())
    size = np.array([row["num_bytes"] for row in rows], dtype=float)
    metrics = found.tasks[TASK].metrics
    for name in ("bpb", "bpb_without", "gain", "shuffled_gain"):
        values = np.array([row[name] for row in rows])
        assert metrics[name].value == pytest.approx(np.average(values, weights=size))
        assert metrics[name].chance is None
    flat = {name: metrics[name].value or math.nan for name in ("gain", "bpb_without", "bpb")}
    assert flat["gain"] == pytest.approx(flat["bpb_without"] - flat["bpb"])
    gains = np.array([row["gain"] for row in rows])
    groups = np.array([row["group"] for row in rows])
    sums = [
        (size * (gains - np.average(gains, weights=size)))[groups == group].sum()
        for group in np.unique(groups)
    ]
    assert metrics["gain"].groups == len(sums) < len(rows)
    error = math.sqrt(len(sums) / (len(sums) - 1) * float(np.square(sums).sum())) / size.sum()
    assert metrics["gain"].stderr == pytest.approx(error)


def test_chance_is_the_share_of_the_most_frequent_answer(
    vlm: Path, store: Path, tmp_path: Path
) -> None:
    answers = ["red", "Red ", "blue", "green", "blue", "red", "cat"]
    items = [question(number, [number], answer) for number, answer in enumerate(answers)]
    folder = write_picture_store(tmp_path / "shapes", items, random_pictures(7))
    metrics = score(vlm, folder, tmp_path).tasks[TASK].metrics
    assert metrics["exact_match"].chance == pytest.approx(3 / 7)
    assert metrics["exact_match"].row()["chance"] == pytest.approx(3 / 7)


def test_another_picture_is_never_one_of_the_item(store: Path) -> None:
    shown = [tuple(item["pictures"]) for item in items_of(store)]
    found = donors(shown)
    for own, other in zip(shown, found, strict=True):
        assert other is not None
        assert len(other) == len(own)
        assert not set(own) & set(other)
    assert found == donors(shown)
    # Items of one picture each exchange their pictures: none is left out.
    singles = [(number,) for number in range(30)]
    assert sorted(str(one) for one in donors(singles)) == sorted(map(str, singles))


def test_without_another_picture_there_is_no_control(vlm: Path, tmp_path: Path) -> None:
    items = [question(number, [0], "red") for number in range(3)]
    folder = write_picture_store(tmp_path / "shapes", items, random_pictures(1))
    metrics = score(vlm, folder, tmp_path).tasks[TASK].metrics
    assert metrics["shuffled_gain"].value is None
    assert metrics["gain"].value is not None
    assert metrics["bpb"].n == 3


def test_pictures_in_parts_give_the_same_scores(
    vlm: Path, store: Path, scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_scorer, "_MOST_PICTURES", 3)
    score(vlm, store, tmp_path, batch_tokens=40)
    whole, parts = rows_of(scored), rows_of(tmp_path)
    assert {name: row["text"] for name, row in parts.items()} == {
        name: row["text"] for name, row in whole.items()
    }
    for name, row in parts.items():
        for metric in METRICS["picture"]:
            assert row[metric] == pytest.approx(whole[name][metric], abs=1e-5)


def test_text_tasks_are_scored_with_the_text_part(vlm: Path, tmp_path: Path) -> None:
    wiki = tmp_path / "wiki"
    wiki.mkdir()
    lines = [{"id": str(n), "text": "red cat and a blue dog " * (n + 1)} for n in range(5)]
    (wiki / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = write_text_part(vlm, tmp_path / "text")
    place = ScoringPlace(stores={"wiki": wiki})
    whole, part = (
        score_folder(folder, EvaluationSpec(), tmp_path / folder.name, place=place)
        for folder in (vlm, text)
    )
    assert whole.flat()["heldout_wiki/bpb"] is not None
    assert whole.flat() == part.flat()


def test_checkpoints_share_prompts_and_keep_their_own_scores(
    vlm: Path, tokenizer: Path, store: Path, scored: Path, tmp_path: Path
) -> None:
    second = write_seeing_model(tmp_path / "second", tokenizer, seed=1)
    place = ScoringPlace(stores={"shapes": store})
    exports = {1: vlm, 2: second, 3: vlm}
    steps = list(score_checkpoints(exports, EvaluationSpec(), details=tmp_path / "d", place=place))
    assert steps[0].flat() == steps[2].flat()
    assert steps[0].flat() != steps[1].flat()
    alone = score(second, store, tmp_path / "alone")
    assert steps[1].flat() == pytest.approx(alone.flat(), abs=1e-5)


@pytest.mark.parametrize(
    ("positions", "lost"), [(128, 0), (40, None)], ids=["all fit", "some do not"]
)
def test_an_item_that_does_not_fit_with_its_pictures_has_no_score(
    tokenizer: Path, store: Path, tmp_path: Path, positions: int, lost: int | None
) -> None:
    model = write_seeing_model(tmp_path / "model", tokenizer, positions=positions)
    found = score(model, store, tmp_path).tasks[TASK]
    rows = rows_of(tmp_path)
    assert len(rows) == 24
    unscored = [row for row in rows.values() if math.isnan(row["gain"])]
    assert found.too_long == len(unscored)
    assert (len(unscored) == lost) if lost is not None else 0 < len(unscored) < 24
    for row in unscored:
        assert all(math.isnan(row[name]) for name in METRICS["picture"])
    assert found.metrics["gain"].n == 24 - len(unscored)


def test_a_generation_near_the_end_of_the_window_loses_no_picture(
    tokenizer: Path, tmp_path: Path
) -> None:
    """The prompt is not cut to make room: its first tokens are its picture."""
    item = question(1, [0], "red")
    other = question(2, [1], "red")
    model = write_seeing_model(tmp_path / "model", tokenizer)
    plain, pictures = Plain(model), random_pictures(2)
    length = plain.inputs(item["query"], pictures[:1])["input_ids"].shape[1]
    answer = len(plain.tokenizer("red", add_special_tokens=False)["input_ids"])
    window = length + answer + 1
    store = write_picture_store(tmp_path / "shapes", [item, other], pictures)
    task = TaskSpec(
        form="picture", domain="d", source="shapes", metrics=("exact_match",), max_new_tokens=30
    )
    score(model, store, tmp_path, tasks={TASK: task}, window_tokens=window)
    expected = plain.text(item["query"], pictures[:1], answer + 1)
    assert rows_of(tmp_path)["q1"]["text"] == expected


def reason_of(
    model: Path, items: Sequence[dict[str, Any]], pictures: np.ndarray, out: Path
) -> str | None:
    store = write_picture_store(out / "shapes", items, pictures)
    wiki = out / "wiki"
    wiki.mkdir()
    (wiki / "heldout.jsonl").write_text('{"id": "0", "text": "red cat"}\n')
    place = ScoringPlace(stores={"shapes": store, "wiki": wiki})
    found = score_folder(model, EvaluationSpec(), out / "out", place=place)
    assert found.flat()["heldout_wiki/bpb"] is not None  # one broken task does not stop the others
    return found.tasks[TASK].reason


def test_a_language_model_sees_no_pictures(vlm: Path, tmp_path: Path) -> None:
    text = write_text_part(vlm, tmp_path / "text")
    reason = reason_of(text, [question(0, [0], "red")], random_pictures(1), tmp_path)
    assert reason == "the model has no vision part: it is a language model alone"


def test_pictures_of_another_size_are_not_shown(vlm: Path, tmp_path: Path) -> None:
    small = random_pictures(1)[:, :, :8, :8]
    reason = reason_of(vlm, [question(0, [0], "red")], small, tmp_path)
    assert reason == "the pictures have 8 pixels a side, and the model takes 16"


def test_items_of_text_alone_are_no_items_about_pictures(vlm: Path, tmp_path: Path) -> None:
    reason = reason_of(vlm, [question(0, [], "red")], random_pictures(1), tmp_path)
    assert reason is not None
    assert "no held-out item shows a picture" in reason


def test_items_of_text_among_others_are_left_out(vlm: Path, tmp_path: Path) -> None:
    items = [question(0, [], "red"), question(1, [0], "red"), question(2, [1], "cat")]
    store = write_picture_store(tmp_path / "shapes", items, random_pictures(2))
    score(vlm, store, tmp_path)
    assert set(rows_of(tmp_path)) == {"q1", "q2"}


def test_a_prompt_needs_a_place_for_each_picture(vlm: Path, tmp_path: Path) -> None:
    item = {**question(0, [0], "red"), "pictures": [0, 1]}
    reason = reason_of(vlm, [item], random_pictures(2), tmp_path)
    assert reason is not None
    assert "item q0: needs one <image> for each picture; found: 1 for 2 pictures" in reason


def test_pictures_that_changed_are_refused(vlm: Path, store: Path, tmp_path: Path) -> None:
    folder = write_picture_store(tmp_path / "shapes", items_of(store), random_pictures(PICTURES))
    content = bytearray((folder / "heldout.pictures").read_bytes())
    content[7] ^= 1
    (folder / "heldout.pictures").write_bytes(bytes(content))
    reason = None
    try:
        score(vlm, folder, tmp_path)
    except Exception as error:
        reason = str(error)
    assert reason is not None
    assert "not the pictures that were held out" in reason


def test_a_model_whose_tokenizer_has_another_picture_token_is_refused(
    vlm: Path, tmp_path: Path
) -> None:
    for file in vlm.iterdir():
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "model/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "image_token_id": 5}))
    reason = reason_of(
        tmp_path / "model", [question(0, [0], "red")], random_pictures(1), tmp_path / "o"
    )
    assert reason is not None
    assert "have two ids for <image>: 5 and" in reason


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": None, "items": "some"}, "reads the held-out rows of a source"),
        ({"shots": 2}, "has no examples"),
        ({"metrics": ("acc",)}, "picture tasks have no such metric"),
    ],
)
def test_a_picture_task_that_cannot_be_scored_is_refused(
    values: dict[str, Any], message: str
) -> None:
    given = {"form": "picture", "domain": "d", "source": "some", "metrics": ("gain",), **values}
    with pytest.raises(ConfigError, match=message):
        TaskSpec(**given)


def test_held_out_pictures_have_their_gains_beside_bits_per_byte() -> None:
    task = EvaluationSpec().all_tasks({"shapes": "pictures"})[TASK]
    assert (task.form, task.metrics) == ("picture", METRICS["picture"])
    assert task.metrics[0] == "bpb"
    assert replace(task, max_new_tokens=5).max_new_tokens == 5
