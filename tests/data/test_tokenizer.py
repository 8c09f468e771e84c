"""A trained tokenizer is the same each time, loses no text, and loads with transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablations.data.synthetic import SKILLS, documents
from ablations.data.tokenizer import (
    Tokenizer,
    TokenizerSpec,
    make_tokenizer,
    open_tokenizer,
    tokenizer_hash,
)
from ablations.errors import ConfigError, DataError
from ablations.files import read_json, write_json

SPEC = TokenizerSpec(name="small", vocab_size=300)


def texts() -> list[str]:
    return [text.text for skill in SKILLS for text in documents(skill, 60, seed=0)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return make_tokenizer(SPEC, tmp_path_factory.mktemp("tokenizers"), texts())


def test_training_twice_gives_the_same_tokenizer(small: Tokenizer, tmp_path: Path) -> None:
    assert make_tokenizer(SPEC, tmp_path, texts()).hash == small.hash


def test_every_text_comes_back_through_auto_tokenizer(small: Tokenizer) -> None:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(small.folder)
    assert len(loaded) == small.vocab_size == 300
    assert loaded.eos_token == small.eos_token == "<|endoftext|>"
    assert loaded.eos_token_id == small.eos_id
    for text in (*texts()[:5], "Ünïcode – 漢字\t 12 + 345 =\n\n  def f(x):\r\n", " leading"):
        ids = loaded(text)["input_ids"]
        assert loaded.decode(ids) == text
        assert small.eos_id not in ids


def test_digits_are_tokens_of_their_own(small: Tokenizer) -> None:
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(small.file))
    assert [token for token in fast.encode("4711").tokens if token.isdigit()] == list("4711")


def test_the_hash_is_of_the_content(small: Tokenizer, tmp_path: Path) -> None:
    content = read_json(small.file)
    write_json(tmp_path / "tokenizer.json", {**content, "truncation": {"max_length": 3}})
    assert tokenizer_hash(tmp_path) == small.hash
    content["model"]["merges"] = content["model"]["merges"][:-1]
    write_json(tmp_path / "tokenizer.json", content)
    assert tokenizer_hash(tmp_path) != small.hash


def test_a_tokenizer_is_made_once_and_refused_with_other_settings(tmp_path: Path) -> None:
    first = make_tokenizer(SPEC, tmp_path, texts())
    assert make_tokenizer(SPEC, tmp_path, iter(())).hash == first.hash
    other = TokenizerSpec(name="small", vocab_size=310)
    with pytest.raises(DataError, match="vocab_size=300"):
        make_tokenizer(other, tmp_path, texts())
    assert make_tokenizer(other, tmp_path, texts(), force=True).vocab_size == 310
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_changed_or_torn_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = make_tokenizer(SPEC, tmp_path, texts()).folder
    content = read_json(folder / "tokenizer.json")
    write_json(folder / "tokenizer.json", {**content, "normalizer": {"type": "Lowercase"}})
    with pytest.raises(DataError, match="changed since it was made"):
        open_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="not a whole tokenizer"):
        open_tokenizer(folder)


def test_a_tokenizer_is_hashed_again_only_if_its_bytes_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_tokenizer(SPEC, tmp_path, texts())
    hashed: list[Path] = []
    real = tokenizer_hash

    def counted(folder: Path) -> str:
        hashed.append(folder)
        return real(folder)

    monkeypatch.setattr("ablations.data.tokenizer.tokenizer_hash", counted)
    assert open_tokenizer(made.folder) == made
    assert not hashed
    write_json(made.file, read_json(made.file))  # another layout of the same content
    assert open_tokenizer(made.folder) == made
    assert hashed == [made.folder]


@pytest.mark.parametrize("name", ["tokenizer_config.json", "spec.json"])
def test_a_value_changed_in_its_other_files_is_noticed(tmp_path: Path, name: str) -> None:
    folder = make_tokenizer(SPEC, tmp_path, texts()).folder
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("endoftext", "endoftexT"))
    with pytest.raises(DataError, match=name):
        open_tokenizer(folder)


def test_a_tokenizer_of_an_older_version_has_no_checksums_and_is_read(tmp_path: Path) -> None:
    made = make_tokenizer(SPEC, tmp_path, texts())
    stored = read_json(made.folder / "spec.json")
    del stored["files"]
    write_json(made.folder / "spec.json", stored)
    assert open_tokenizer(made.folder) == made


def test_a_death_while_a_tokenizer_is_replaced_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_tokenizer(SPEC, tmp_path, texts())
    moves: list[str] = []
    real = Path.rename

    def dies_at_the_second(self: Path, target: Path) -> Path:
        moves.append(self.name)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            make_tokenizer(SPEC, tmp_path, texts(), force=True)
    assert not first.folder.exists()
    assert make_tokenizer(SPEC, tmp_path, iter(())).hash == first.hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_a_failed_training_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> object:
        yield "some text"
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="went away"):
        make_tokenizer(SPEC, tmp_path, broken())  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_local_folder_is_taken_as_it_is(small: Tokenizer, tmp_path: Path) -> None:
    spec = TokenizerSpec(name="copy", kind="folder", path=str(small.folder))
    copy = make_tokenizer(spec, tmp_path, ())
    assert (copy.vocab_size, copy.eos_id) == (small.vocab_size, small.eos_id)
    with pytest.raises(DataError, match="cannot be loaded"):
        make_tokenizer(
            TokenizerSpec(name="none", kind="folder", path=str(tmp_path / "no")), tmp_path, ()
        )
    bad = TokenizerSpec(name="bad", kind="folder", path=str(small.folder), eos_token="<no such>")
    with pytest.raises(DataError, match="no end-of-document token"):
        make_tokenizer(bad, tmp_path, ())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"name": "a/b"}, "tokenizer.name"),
        ({"name": "a", "vocab_size": 256}, "tokenizer.vocab_size"),
        ({"name": "a", "sample_bytes": 0}, "tokenizer.sample_bytes"),
        ({"name": "a", "kind": "hub"}, "tokenizer.repo"),
        ({"name": "a", "kind": "folder"}, "tokenizer.path"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        TokenizerSpec(**values)  # type: ignore[arg-type]


def test_wide_vocabularies_take_four_bytes(small: Tokenizer) -> None:
    assert small.token_bytes == 2
    wide = Tokenizer(
        name="w", folder=small.folder, hash="", vocab_size=2**16 + 1, eos_token="", eos_id=0
    )
    assert wide.token_bytes == 4
