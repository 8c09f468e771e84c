"""Token ids by tiktoken are those of Hugging Face's tokenizers, or tiktoken is not used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ablations.commands.prepare import _print_slow_tokenizer
from ablations.data import token_encoder
from ablations.data.pipeline import WriteTokens
from ablations.data.token_encoder import TokenEncoder, TokensDifferError, pattern_of
from ablations.data.tokenizer import Tokenizer as Made

END = "<|endoftext|>"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SHAPES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), _bytes(use_regex=True)]
    ),
    "split": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), _bytes(use_regex=False)]
    ),
}
NASTY = [
    "",
    " ",
    "  ",
    "a  5",
    "a 5  6 b",
    "x   \n\n  y\t\t z ",
    "5's and it'S they're 7've'll",
    "naïve café ǅ ŉ \u0301\u0301a",
    "١٢٣ ½ ⅷ ²³ 一二三 \U00011de0\U00011de5x\U00011de9 9",
    "\u00a0a\u2003 b\u0085c\u2028d\ufeffe\u200b",
    "🙂👩‍👩‍👧 🇫🇷",
    "\x00\x01\x7f\r\n\r",
    f"one{END}two {END}",
    "<a><b> <|endoftext|",
    "don't" * 50 + " " * 300 + "!" * 300,
    "https://example.com/?q=1&r=%20#x __init__(self):\n        return 1_000.5e-3\n",
    "한국어 텍스트 ไทย हिन्दी",
]


def _bytes(*, use_regex: bool) -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def trained(shape: str, folder: Path, vocab_size: int = 700) -> Path:
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = SHAPES[shape]()
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator([*NASTY, Path(__file__).read_text()] * 3, trainer)
    path = folder / f"{shape}.json"
    fast.save(str(path))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {shape: trained(shape, folder) for shape in SHAPES}


@pytest.fixture(scope="module")
def encoders(files: dict[str, Path]) -> dict[str, TokenEncoder]:
    return {shape: TokenEncoder(path) for shape, path in files.items()}


def slow(file: Path, texts: list[str]) -> list[list[int]]:
    fast = Tokenizer.from_file(str(file))
    return [list(one.ids) for one in fast.encode_batch_fast(texts, add_special_tokens=False)]


def by_tiktoken(encoder: TokenEncoder, text: str) -> list[int] | None:
    assert encoder.reason is None
    assert encoder._tiktoken is not None
    ids = encoder._tiktoken.encode(text)
    return None if ids is None else ids.tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_special_cases_have_the_same_ids(
    files: dict[str, Path], encoders: dict[str, TokenEncoder], shape: str
) -> None:
    expected = slow(files[shape], NASTY)
    for text, ids in zip(NASTY, expected, strict=True):
        found = by_tiktoken(encoders[shape], text)
        assert found == (None if END in text else ids), text
    assert [ids.tolist() for ids in encoders[shape].encode_batch(NASTY)] == expected
    ended = TokenEncoder(files[shape], 0).encode_batch(NASTY)
    assert [ids.tolist() for ids in ended] == [[*ids, 0] for ids in expected]


letters = st.sampled_from([*"aAé5½ \t\n'\r.!<>|_\u00a0\u0301一🙂\U00011de3", "'s", "  ", "12", END])


@pytest.mark.parametrize("shape", SHAPES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_text_has_the_same_ids(
    files: dict[str, Path], encoders: dict[str, TokenEncoder], shape: str, data: st.DataObject
) -> None:
    text = "".join(data.draw(st.lists(letters | st.characters(exclude_categories=["Cs"]))))
    (expected,) = slow(files[shape], [text])
    assert [ids.tolist() for ids in encoders[shape].encode_batch([text])] == [expected]
    assert by_tiktoken(encoders[shape], text) in (expected, None)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_character_is_of_the_same_class(
    files: dict[str, Path], encoders: dict[str, TokenEncoder], shape: str
) -> None:
    # Planes 0, 1 and the tags; the other planes hold letters and unassigned characters alone.
    planes = [*range(0xD800), *range(0xE000, 0x20000), *range(0x20000, 0x110000, 4093)]
    texts = [
        "".join(f" {chr(point)}a{chr(point)}5" for point in planes[start : start + 2000])
        for start in range(0, len(planes), 2000)
    ]
    for text, ids in zip(texts, slow(files[shape], texts), strict=True):
        assert by_tiktoken(encoders[shape], text) == ids


def changed(file: Path, folder: Path, **parts: Any) -> Path:
    content = {**json.loads(file.read_text()), **parts}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content))
    return path


def step(kind: str, **values: Any) -> dict[str, Any]:
    plain = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"type": kind, **(plain if kind == "ByteLevel" else {}), **values}


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"normalizer": {"type": "NFC"}}, "has a normalizer"),
        ({"pre_tokenizer": None}, "does not end with ByteLevel"),
        ({"pre_tokenizer": step("ByteLevel", add_prefix_space=True)}, "without a prefix space"),
        (
            {
                "pre_tokenizer": step(
                    "Sequence",
                    pretokenizers=[step("Digits", individual_digits=False), step("ByteLevel")],
                )
            },
            "its pre-tokenizer is Digits, ByteLevel",
        ),
        ({"pre_tokenizer": step("ByteLevel", use_regex=False)}, "its pre-tokenizer is ByteLevel"),
        (
            {
                "pre_tokenizer": step(
                    "Sequence",
                    pretokenizers=[
                        step(
                            "Split",
                            pattern={"String": " "},
                            behavior="Isolated",
                            invert=False,
                        ),
                        step("ByteLevel", use_regex=False),
                    ],
                )
            },
            "splits in another way",
        ),
        ({"decoder": None}, "decoder"),
    ],
)
def test_what_tiktoken_cannot_do_is_left_to_hugging_face(
    files: dict[str, Path], tmp_path: Path, parts: dict[str, Any], reason: str
) -> None:
    path = changed(files["gpt2"], tmp_path, **parts)
    encoder = TokenEncoder(path)
    assert encoder.reason is not None
    assert reason in encoder.reason
    assert [ids.tolist() for ids in encoder.encode_batch(NASTY)] == slow(path, NASTY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dropout": 0.1}, "not a plain byte-pair encoding"),
        ({"continuing_subword_prefix": "##"}, "not a plain byte-pair encoding"),
        ({"ignore_merges": True}, "whole words"),
    ],
)
def test_another_model_is_not_converted(
    files: dict[str, Path], change: dict[str, Any], reason: str
) -> None:
    content = json.loads(files["gpt2"].read_text())
    content["model"] |= change
    with pytest.raises(token_encoder.NotConvertibleError, match=reason):
        token_encoder._Converted(content, Tokenizer.from_file(str(files["gpt2"])))


def test_a_token_that_its_own_bytes_never_become_is_not_converted(tmp_path: Path) -> None:
    letters = token_encoder._byte_letters()
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    for token in ("bc", "ab", "abc"):
        vocabulary[token] = len(vocabulary)
    # "abc" is first merged to "a", "bc", which tiktoken would join: the merge is of "ab" and "c".
    fast = Tokenizer(models.BPE(vocabulary, [("b", "c"), ("a", "b"), ("ab", "c")]))
    fast.pre_tokenizer, fast.decoder = _bytes(use_regex=True), decoders.ByteLevel()
    fast.save(str(tmp_path / "tokenizer.json"))
    encoder = TokenEncoder(tmp_path / "tokenizer.json")
    assert encoder.reason is not None
    assert "'abc'" in encoder.reason
    assert [ids.tolist() for ids in encoder.encode_batch(["abc"])] == [[97, 256]]


def test_the_patterns_are_those_of_the_pre_tokenizers(files: dict[str, Path]) -> None:
    assert pattern_of(json.loads(files["split"].read_text())) == LLAMA3
    unnormalised = json.loads(files["gpt2"].read_text())
    fast = Tokenizer.from_str(json.dumps(unnormalised))
    fast.normalizer = normalizers.NFC()
    with pytest.raises(token_encoder.NotConvertibleError, match="normalizer"):
        pattern_of(json.loads(fast.to_str()))


def test_a_difference_in_a_sample_has_all_documents_written_again(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that give the text back but are not those of the merges: in the middle of a batch, then first."""
    right = token_encoder._Converted.encode

    def wrong(self: Any, text: str) -> Any:
        return (
            self._ids[np.frombuffer(text.encode(), np.uint8)] if "x" in text else right(self, text)
        )

    made = Made(
        name="t", folder=files["gpt2"].parent, hash="", vocab_size=700, eos_token=END, eos_id=0
    )
    monkeypatch.setattr(Made, "file", property(lambda self: files["gpt2"]))
    texts = ["the first", "the x one", "the last", "the x again", "the end"]

    def stored(name: str) -> list[int]:
        writer = WriteTokens(tmp_path / name, made)
        writer.batch_size = 3
        writer.run(Document(text=text, id=str(n)) for n, text in enumerate(texts))
        (file,) = (tmp_path / name / "train").glob("*.ds")
        return [int(token) for token in np.fromfile(file, "<u2")]

    expected = stored("right")
    monkeypatch.setattr(token_encoder._Converted, "encode", wrong)
    with pytest.raises(TokensDifferError, match="the x again"):
        TokenEncoder(files["gpt2"]).encode_batch(texts[3:])
    with pytest.warns(UserWarning, match="tiktoken is not used"):
        assert stored("wrong") == expected


def test_prepare_prints_why_tiktoken_is_not_used(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(files["gpt2"].read_bytes())
    _print_slow_tokenizer(tmp_path)
    assert capsys.readouterr().out == ""
    other = tmp_path / "other"
    other.mkdir()
    changed(files["gpt2"], other, normalizer={"type": "NFC"})
    _print_slow_tokenizer(other)
    assert "tiktoken, which is faster, is not used: tokenizer.json has a normalizer" in (
        capsys.readouterr().out
    )
