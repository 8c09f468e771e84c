"""Held-out conversations and preferences: answers by bits per byte, pairs by their margin."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ablations.errors import ConfigError
from ablations.evaluation.prompts import make_prompt
from ablations.evaluation.scoring import ScoringPlace, score_folder
from ablations.evaluation.specs import EvaluationSpec, TaskSpec
from tests.oracles.chats import prepare_two_kinds, write_base_model


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_two_kinds(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> dict[str, Path]:
    """Two models with the chat tokenizer: a reference and another one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("models")
    tokenizer = stores["long"].parents[1] / "tokenizers/tiny_chat"
    made = {}
    for seed, name in enumerate(("reference", "policy")):
        folder = write_base_model(root / f"{name}_base", seed)
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(302, mean_resizing=False)
        model.save_pretrained(root / name)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(root / name)
        (root / name / "spec.json").write_text((tokenizer / "spec.json").read_text())
        made[name] = root / name
    return made


def items_of(store: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "heldout.jsonl").read_text().splitlines()]


def logprob(model: Path, query: str, answer: str) -> float:
    """Log-probability of an answer after a query, by transformers alone."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    before, after = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (query, answer)
    )
    ids = torch.tensor([before + after])
    with torch.no_grad():
        logits = network(ids).logits[0].log_softmax(dim=-1)
    places = range(len(before), len(before) + len(after))
    return float(sum(logits[place - 1, ids[0, place]] for place in places))


def test_answers_of_conversations_are_scored_over_all_their_bytes(
    stores: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    place = ScoringPlace(stores={"long": stores["long"]})
    scores = score_folder(models["policy"], EvaluationSpec(), tmp_path, place=place)
    items = items_of(stores["long"])
    nats = [logprob(models["policy"], item["query"], item["choices"][0]) for item in items]
    size = sum(len(item["choices"][0].encode()) for item in items)
    assert scores.flat()["heldout_long/bpb"] == pytest.approx(
        -sum(nats) / math.log(2) / size, rel=1e-4
    )


def test_a_generation_ends_with_the_turn_or_the_document(models: dict[str, Path]) -> None:
    from transformers import AutoTokenizer

    from ablations.evaluation.lighteval import MemoryModel
    from ablations.evaluation.model_folder import training_separator

    tokenizer = AutoTokenizer.from_pretrained(models["policy"])
    separator = training_separator(models["policy"])
    model = MemoryModel(tokenizer, window=64, batch_tokens=512, separator=separator)
    assert tokenizer.convert_ids_to_tokens(sorted(model.encoder.ends)) == [
        "<|endoftext|>",
        "<|im_end|>",
    ]


def test_pairs_are_scored_by_their_margin_against_the_reference(
    stores: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    place = ScoringPlace(stores={"pairs": stores["pairs"]}, reference=models["reference"])
    scores = score_folder(models["policy"], EvaluationSpec(), tmp_path, place=place)
    margins = []
    for item in items_of(stores["pairs"]):
        own, before = (
            [logprob(models[name], item["query"], answer) for answer in item["choices"]]
            for name in ("policy", "reference")
        )
        margins.append((own[0] - before[0]) - (own[1] - before[1]))
    found = scores.flat()
    assert found["heldout_pairs/margin"] == pytest.approx(np.mean(margins), abs=1e-3)
    assert found["heldout_pairs/reward_acc"] == pytest.approx(np.mean(np.array(margins) > 0))
    loss = np.mean([math.log1p(math.exp(-0.1 * margin)) for margin in margins])
    assert found["heldout_pairs/dpo_loss"] == pytest.approx(loss, rel=1e-4)
    table = pq.read_table(tmp_path / "details/0/heldout_pairs.parquet").to_pydict()
    assert len(table["choice_logprobs"][0]) == 2


def test_the_reference_itself_has_no_margin(
    stores: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    place = ScoringPlace(stores={"pairs": stores["pairs"]}, reference=models["reference"])
    found = score_folder(models["reference"], EvaluationSpec(), tmp_path, place=place).flat()
    assert found["heldout_pairs/margin"] == 0.0
    assert found["heldout_pairs/dpo_loss"] == pytest.approx(math.log(2))


def test_without_a_reference_margins_are_missing_and_the_rest_is_scored(
    stores: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    place = ScoringPlace(stores={"pairs": stores["pairs"]})
    found = score_folder(models["policy"], EvaluationSpec(), tmp_path, place=place).flat()
    assert found["heldout_pairs/margin"] is None
    assert found["heldout_pairs/bpb"] is not None


@pytest.mark.parametrize("form", ["generative", "preference"])
def test_an_exact_item_keeps_the_end_of_its_query(form: Any) -> None:
    item = {"query": "a\n", "choices": ["b", "c"], "gold": 0, "joiner": "", "exact": True}
    assert make_prompt(item, form, "{query}").exact
    assert not make_prompt({**item, "exact": False}, form, "{query}").exact


@pytest.mark.parametrize(
    ("kind", "form", "main"),
    [
        (None, "rolling", "bpb"),
        ("conversations", "generative", "bpb"),
        ("preferences", "preference", "margin"),
    ],
)
def test_the_held_out_task_of_a_source_is_by_the_kind_of_its_rows(
    kind: Any, form: str, main: str
) -> None:
    task = EvaluationSpec().all_tasks({"some": kind})["heldout_some"]
    assert (task.form, task.metrics[0]) == (form, main)


def test_a_form_that_reads_no_held_out_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not read held-out"):
        TaskSpec(form="letters", domain="d", source="some", prompt="{options}", metrics=("acc",))
