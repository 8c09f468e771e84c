"""Conversations and preferences as prepared rows: what is kept, cut, dropped, masked and held out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.data.manifest import StoreManifest
from ablations.data.readers import heldout
from ablations.data.rows.chat_template import ChatSpec, add_chat
from ablations.data.rows.row_specs import RowSpec
from ablations.data.rows.row_store import RowStore
from ablations.data.rows.samples import LeftOut, sample_of
from ablations.data.store import TokenStore
from ablations.data.tokenizer import TokenizerSpec, open_tokenizer
from ablations.errors import ConfigError, DataError
from tests.oracles.chats import (
    CHATML,
    conversation,
    make_base_tokenizer,
    prepare_rows,
    prepare_two_kinds,
    row_source,
    words,
    write_rows,
)

USER = {"role": "user", "content": "hello"}
REPLY = {"role": "assistant", "content": "good day"}
CONVERSATIONS = RowSpec(kind="conversations", max_tokens=48)
PAIRS = RowSpec(kind="preferences", max_tokens=48)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


@pytest.fixture(scope="module")
def stores(data_dir: Path) -> dict[str, Path]:
    return prepare_two_kinds(data_dir)


@pytest.fixture(scope="module")
def tokenizer(stores: dict[str, Path], data_dir: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data_dir / "tokenizers/tiny_chat")


# ------------------------------------------------------------------------------------- samples


def test_messages_may_stand_in_the_form_of_llava() -> None:
    spec = RowSpec(kind="conversations", max_tokens=64)
    said = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "good day"}]
    sample = sample_of({"messages": said}, spec, ())
    assert sample == sample_of({"messages": [USER, REPLY]}, spec, ())
    with pytest.raises(LeftOut, match="a role that the template does not know"):
        sample_of({"messages": [{"from": "tool", "value": "x"}, REPLY]}, spec, ())
    with pytest.raises(LeftOut, match="not a list of messages"):
        sample_of({"messages": [{"from": "human"}, REPLY]}, spec, ())


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "not a list of messages"),
        ("hello", "not a list of messages"),
        ([], "not a list of messages"),
        ([{"role": "user"}], "not a list of messages"),
        ([{"role": "tool", "content": "x"}, REPLY], "a role that the template does not know"),
        ([{"role": "user", "content": " "}, REPLY], "an empty message"),
        ([USER], "no answer of an assistant"),
        ([USER, {**REPLY, "content": "a<|im_end|>b"}], "contains a marker"),
    ],
)
def test_a_row_that_is_no_conversation_is_left_out_with_its_reason(
    messages: Any, reason: str
) -> None:
    with pytest.raises(LeftOut, match=reason):
        sample_of({"messages": messages}, CONVERSATIONS, ("<|im_start|>", "<|im_end|>"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "both answers are equal"),
        ({"prompt": "a", "chosen": [USER], "rejected": "b"}, "not the assistant's"),
        ({"prompt": "a", "chosen": [USER, REPLY], "rejected": "b"}, "another prompt"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "an empty message"),
    ],
)
def test_a_row_that_is_no_pair_is_left_out_with_its_reason(row: Any, reason: str) -> None:
    with pytest.raises(LeftOut, match=reason):
        sample_of(row, PAIRS, ())


def test_a_pair_may_have_its_prompt_in_its_answers_alone() -> None:
    spec = RowSpec(kind="preferences", max_tokens=48, prompt_column=None)
    assert spec.columns == ("chosen", "rejected")
    row = {"chosen": [USER, REPLY], "rejected": [USER, {**REPLY, "content": "x"}]}
    assert sample_of(row, spec, ()) == sample_of({**row, "prompt": "hello"}, PAIRS, ())
    for changed, reason in (
        ({"chosen": "good day"}, "not a list of messages"),
        ({"chosen": [REPLY]}, "without a prompt"),
        ({"rejected": [{**USER, "content": "other"}, REPLY]}, "another prompt"),
    ):
        with pytest.raises(LeftOut, match=reason):
            sample_of({**row, **changed}, spec, ())


def test_a_pair_may_repeat_its_prompt_in_its_answers_as_ultrafeedback_does() -> None:
    long = {
        "prompt": "hello",
        "chosen": [USER, REPLY],
        "rejected": [USER, {**REPLY, "content": "x"}],
    }
    short = {"prompt": "hello", "chosen": "good day", "rejected": "x"}
    assert sample_of(long, PAIRS, ()) == sample_of(short, PAIRS, ())


@pytest.mark.parametrize(
    "values",
    [{"max_tokens": 4}, {"max_tokens": 48, "available": 0}, {"max_tokens": 48, "max_turns": 1}],
)
def test_a_row_spec_refuses_what_it_cannot(values: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="too small"):
        RowSpec(kind="conversations", **values)


# ----------------------------------------------------------------------------------- tokenizer


def test_a_chat_tokenizer_keeps_the_ids_of_plain_text(tokenizer: Any, data_dir: Path) -> None:
    from transformers import AutoTokenizer

    base = AutoTokenizer.from_pretrained(data_dir / "tokenizers/tiny")
    text = words(0, 30)
    assert tokenizer(text)["input_ids"] == base(text)["input_ids"]
    markers = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    size = open_tokenizer(data_dir / "tokenizers/tiny").vocab_size
    assert markers == [size, size + 1]
    made = open_tokenizer(data_dir / "tokenizers/tiny_chat")
    assert (made.vocab_size, made.eos_token) == (size + 2, "<|endoftext|>")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_markers_that_a_tokenizer_has_are_used_again(data_dir: Path, tmp_path: Path) -> None:
    make_base_tokenizer(data_dir)
    once, twice = tmp_path / "once", tmp_path / "twice"
    add_chat(data_dir / "tokenizers/tiny", once, ChatSpec(template=CHATML))
    add_chat(once, twice, ChatSpec(template=CHATML))
    sizes = [
        len(json.loads((f / "tokenizer.json").read_text())["added_tokens"]) for f in (once, twice)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", ""),
            "mark what",
        ),
        (CHATML.replace("<|im_start|>", "<s>"), "does not write"),
    ],
)
def test_a_template_without_its_marks_is_refused(template: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        ChatSpec(template=template)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        # The end of the turn outside: a model that is trained on answers alone never learns to stop.
        (
            (
                "{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}",
                "{{- message['content'] -}}{%- endgeneration -%}{{- '<|im_end|>' -}}",
            ),
            "the end of the turn, inside",
        ),
        (("{%- endfor -%}", ""), "cannot be rendered"),
        (("{{- '\\n' -}}", "{{- loop.length -}}"), "otherwise when more turns follow"),
    ],
)
def test_a_template_that_cannot_train_is_refused(
    data_dir: Path, tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    make_base_tokenizer(data_dir)
    with pytest.raises(DataError, match=problem):
        add_chat(data_dir / "tokenizers/tiny", tmp_path, ChatSpec(template=CHATML.replace(*change)))


def test_a_chat_tokenizer_needs_base_and_template() -> None:
    with pytest.raises(ConfigError, match="all three or none"):
        TokenizerSpec(name="x", kind="chat", base="tiny")


# ---------------------------------------------------------------------------------------- rows


def test_the_mask_holds_the_answers_and_their_ends_of_turn(
    stores: dict[str, Path], tokenizer: Any
) -> None:
    (row,) = RowStore.open(stores["long"]).read(3)
    text = tokenizer.decode(row.tokens.tolist())
    assert text.startswith("<|im_start|>user\n")
    answers = tokenizer.decode(row.tokens[row.mask].tolist()).split("<|im_end|>")
    assert answers[-1] == ""
    for answer in answers[:-1]:
        assert f"<|im_start|>assistant\n{answer}<|im_end|>\n" in text


def test_a_pair_is_two_rows_whose_masks_hold_the_answer_alone(
    stores: dict[str, Path], tokenizer: Any
) -> None:
    store = RowStore.open(stores["pairs"])
    chosen, rejected = store.read(5)
    start = int(np.argmax(chosen.mask))
    assert chosen.tokens[:start].tolist() == rejected.tokens[:start].tolist()
    for row in (chosen, rejected):
        assert row.mask[start:].all()
        assert not row.mask[:start].any()
        assert tokenizer.decode(row.tokens[-1:].tolist()) == "<|im_end|>"
    assert len(store) == store.manifest.documents // 2


@pytest.mark.parametrize("name", ["short", "long", "pairs"])
def test_the_manifest_counts_rows_and_supervised_tokens(stores: dict[str, Path], name: str) -> None:
    store = RowStore.open(stores[name])
    rows = [row for sample in range(len(store)) for row in store.read(sample)]
    counts = store.counts
    assert sum(row.tokens.size for row in rows) == store.manifest.tokens
    assert sum(int(row.mask.sum()) for row in rows) == counts.supervised_tokens
    assert max(row.tokens.size for row in rows) == counts.longest <= counts.max_tokens
    supervised, all_tokens = (store.lengths(supervised=s) for s in (True, False))
    width = counts.width
    assert supervised.tolist() == [
        sum(int(row.mask.sum()) for row in rows[k * width : (k + 1) * width])
        for k in range(len(store))
    ]
    assert int(all_tokens.sum()) == store.manifest.tokens


@pytest.mark.parametrize("too_long", ["cut", "drop"])
def test_every_row_that_is_cut_or_dropped_is_counted(
    data_dir: Path, tmp_path: Path, too_long: str
) -> None:
    rows: list[dict[str, Any]] = [{"messages": conversation(f"k{n}", 1, 4)} for n in range(40)]
    rows += [{"messages": conversation(f"x{n}", 1, 60)} for n in range(5)]  # no answer in 48 tokens
    rows += [{"messages": conversation(f"y{n}", 6, 5)} for n in range(7)]  # the first answer fits
    rows += [{"messages": [USER]}, {"messages": "no"}]
    # Groups follow from the file's path: a share of a tenth holds out none of 40 for 1.5% of paths.
    source = row_source(write_rows(tmp_path / "r.jsonl", rows), too_long=too_long)
    source = replace(source, heldout_share=0.25)
    folder = prepare_rows(tmp_path / "data", {"some": source})["some"]
    manifest = StoreManifest.read(folder)
    counts = manifest.rows
    assert counts is not None
    left_out = sum(manifest.dropped.values())
    assert manifest.documents_read == len(rows)
    assert counts.rows + counts.heldout_rows + left_out == len(rows)
    if too_long == "drop":
        assert manifest.dropped["more than 48 tokens"] == 12
        assert (counts.cut_rows, counts.cut_tokens) == (0, 0)
    else:
        assert manifest.dropped["no answer within 48 tokens"] == 5
        assert 0 < counts.cut_rows <= 7
        assert counts.longest == 48


def test_held_out_samples_are_items_and_not_rows(stores: dict[str, Path], tokenizer: Any) -> None:
    items = [
        json.loads(line) for line in (stores["long"] / "heldout.jsonl").read_text().splitlines()
    ]
    assert items
    store = RowStore.open(stores["long"])
    texts = {
        tokenizer.decode(row.tokens.tolist()) for k in range(len(store)) for row in store.read(k)
    }
    for item in items:
        assert item["exact"]
        assert heldout(item["group"], 0.1)
        assert item["query"].endswith("<|im_start|>assistant\n")
        assert not any(text.startswith(item["query"]) for text in texts)
    manifest = store.manifest
    assert manifest.heldout.documents == len(items)
    assert manifest.heldout.bytes == sum(len(item["choices"][0].encode()) for item in items)


def test_an_item_of_a_pair_holds_both_answers(stores: dict[str, Path]) -> None:
    line = (stores["pairs"] / "heldout.jsonl").read_text().splitlines()[0]
    item = json.loads(line)
    assert len(item["choices"]) == 2
    assert item["gold"] == 0


@pytest.mark.parametrize("ending", ["", ".index", ".loss"])
def test_a_changed_file_of_rows_is_noticed(tmp_path: Path, ending: str) -> None:
    rows = [{"messages": conversation(n)} for n in range(30)]
    source = row_source(write_rows(tmp_path / "r.jsonl", rows))
    folder = prepare_rows(tmp_path / "data", {"some": source})["some"]
    path = folder / f"train/00000_rows.ds{ending}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="prepare"):
        RowStore.open(folder)


def test_prepared_rows_are_skipped_and_the_mask_is_part_of_their_identity(
    stores: dict[str, Path], data_dir: Path
) -> None:
    before = (stores["short"] / "manifest.json").stat().st_mtime_ns
    prepare_two_kinds(data_dir)
    assert (stores["short"] / "manifest.json").stat().st_mtime_ns == before
    assert set(StoreManifest.read(stores["short"]).checksums()) == {
        "train/00000_rows.ds",
        "train/00000_rows.ds.index",
        "train/00000_rows.ds.loss",
        "heldout.jsonl",
    }


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    from ablations.data.prepare import prepare

    make_base_tokenizer(tmp_path / "data")
    source = row_source(write_rows(tmp_path / "r.jsonl", [{"messages": conversation(0)}]))
    base = TokenizerSpec(name="tiny", kind="bpe", vocab_size=300)
    with pytest.raises(Exception, match="has no chat template"):
        prepare({"some": source}, base, tmp_path / "data")


def test_a_store_of_text_is_no_store_of_rows(stores: dict[str, Path]) -> None:
    manifest = replace(TokenStore.open(stores["short"]).manifest, rows=None)
    with pytest.raises(DataError, match="holds plain text"):
        RowStore(stores["short"], manifest)


def test_a_sample_that_is_not_there_is_an_index_error(stores: dict[str, Path]) -> None:
    store = RowStore.open(stores["short"])
    with pytest.raises(IndexError):
        store.read(len(store))


def test_a_cap_on_documents_reads_no_more(tmp_path: Path) -> None:
    rows = [{"messages": conversation(f"c{n}")} for n in range(40)]
    source = replace(row_source(write_rows(tmp_path / "r.jsonl", rows)), max_documents=30)
    manifest = StoreManifest.read(prepare_rows(tmp_path / "data", {"some": source})["some"])
    assert manifest.rows is not None
    assert manifest.documents_read == manifest.rows.rows + manifest.rows.heldout_rows == 30
