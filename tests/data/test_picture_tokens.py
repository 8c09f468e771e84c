"""Tokenizers with a token of pictures: ids, template, and what they leave as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.data.catalogue import load_tokenizer_spec
from ablations.data.rows.chat_template import ChatSpec, add_chat, picture_tokens, render
from ablations.data.tokenizer import TokenizerSpec, make_tokenizer, open_tokenizer
from ablations.errors import ConfigError, DataError
from ablations.files import read_json, write_sealed
from tests.oracles.chats import CHAT_TOKENIZER, CHATML, make_base_tokenizer, words
from tests.oracles.drawn import END, VISION_CHAT, VISION_TOKENIZER


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("vision")
    make_base_tokenizer(data_dir)
    make_tokenizer(VISION_TOKENIZER, data_dir / "tokenizers", ())
    make_tokenizer(CHAT_TOKENIZER, data_dir / "tokenizers", ())
    return data_dir / "tokenizers"


def test_tokens_of_pictures_follow_those_of_the_base(tokenizers: Path) -> None:
    from transformers import AutoTokenizer

    base = AutoTokenizer.from_pretrained(tokenizers / "tiny")
    made = AutoTokenizer.from_pretrained(tokenizers / "tiny_vision")
    size = open_tokenizer(tokenizers / "tiny").vocab_size
    found = picture_tokens(tokenizers / "tiny_vision")
    assert found is not None
    assert found.picture == "<image>"
    assert made.convert_tokens_to_ids(END) == size
    assert (found.around_id, found.global_id, found.picture_id) == (size + 1, size + 2, size + 3)
    assert open_tokenizer(tokenizers / "tiny_vision").vocab_size == size + 4
    text = words(0, 30)
    assert made(text)["input_ids"] == base(text)["input_ids"]
    assert made("a<image><image>b")["input_ids"].count(found.picture_id) == 2
    assert made.eos_token == END


def test_a_tokenizer_without_pictures_has_none(tokenizers: Path) -> None:
    assert picture_tokens(tokenizers / "tiny") is None
    assert picture_tokens(tokenizers / "tiny_chat") is None


def test_a_damaged_tokenizer_is_refused(tokenizers: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a whole tokenizer folder"):
        picture_tokens(tmp_path)
    made = read_json(tokenizers / "tiny_vision/spec.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tokenizers / "tiny" / name).read_bytes())
    write_sealed(tmp_path / "spec.json", made)
    with pytest.raises(DataError, match="lacks tokens of pictures"):
        picture_tokens(tmp_path)


def test_chat_tokenizers_made_before_there_were_pictures_stand(tokenizers: Path) -> None:
    written = json.loads((tokenizers / "tiny_chat/spec.json").read_text())
    assert set(written["spec"]["chat"]) == {"template", "markers", "turn_end"}
    stood = make_tokenizer(CHAT_TOKENIZER, tokenizers, ())
    assert stood.hash == written["hash"]
    changed = replace(CHAT_TOKENIZER, chat=ChatSpec(template=CHATML, picture="<image>"))
    with pytest.raises(DataError, match="made with other settings"):
        make_tokenizer(changed, tokenizers, ())


def test_tokens_of_pictures_that_a_tokenizer_has_are_used_again(
    tokenizers: Path, tmp_path: Path
) -> None:
    add_chat(tokenizers / "tiny_vision", tmp_path, VISION_CHAT)
    sizes = [
        len(json.loads((folder / "tokenizer.json").read_text())["added_tokens"])
        for folder in (tokenizers / "tiny_vision", tmp_path)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("values", [{"picture": END}, {"picture": "<a>", "picture_around": "<a>"}])
def test_markers_and_tokens_of_pictures_must_differ(values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="must differ"):
        replace(VISION_CHAT, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["demo_vision", "smolvlm"])
@pytest.mark.parametrize("shown", [True, False])
def test_the_template_writes_what_the_processor_of_smolvlm_does(name: str, shown: bool) -> None:
    from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE
    from transformers.utils.chat_template_utils import render_jinja_template

    def part(text: str) -> dict[str, str]:
        return {"type": "text", "text": text}

    asked = [{"type": "image"}, part("What?")] if shown else [part("What?")]
    parts: list[dict[str, Any]] = [
        {"role": "user", "content": asked},
        {"role": "assistant", "content": [part("A cat.")]},
        {"role": "user", "content": [part("Why?")]},
        {"role": "assistant", "content": [part("It purrs.")]},
    ]
    (wanted,), _ = render_jinja_template([parts], chat_template=DEFAULT_CHAT_TEMPLATE)
    plain = [
        {"role": "user", "content": "<image>What?" if shown else "What?"},
        {"role": "assistant", "content": "A cat."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "It purrs."},
    ]
    spec: TokenizerSpec = load_tokenizer_spec(name)
    assert spec.chat is not None
    text, spans = render(spec.chat.template, plain)
    begin = "" if name == "smolvlm" else "<|im_start|>"
    assert begin + text == wanted
    assert [text[start:end] for start, end in spans] == [f" A cat.{END}", f" It purrs.{END}"]


def test_the_space_before_an_answer_is_trained_with_its_first_token(tokenizers: Path) -> None:
    from collections import Counter

    from ablations.data.rows.rendering import Renderer
    from ablations.data.rows.row_specs import RowSpec
    from ablations.data.rows.samples import Message, Sample

    spec = RowSpec(kind="pictures", max_tokens=64, picture_size=16)
    renderer = Renderer(tokenizers / "tiny_vision", spec, Counter())
    sample = Sample((Message("user", "<image>what?"), Message("assistant", "red cat")))
    (row,) = renderer.rows(sample)
    from tokenizers import Tokenizer as FastTokenizer

    fast = FastTokenizer.from_file(str(tokenizers / "tiny_vision/tokenizer.json"))
    trained = fast.decode(row.tokens[row.mask].tolist(), skip_special_tokens=False)
    assert trained == f" red cat{END}"
    assert renderer.shown(row) == 1
