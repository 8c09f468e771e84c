"""Tokenizers: a byte-pair one trained on a sample of the sources, or any of Hugging Face's.

    data/tokenizers/<name>/
        tokenizer.json             what datatrove tokenises with
        tokenizer_config.json      what makes transformers' AutoTokenizer load the folder
        spec.json                  the settings it was made with, and its hash

The hash is over the content of ``tokenizer.json``, so a copy of the folder is the same tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ablations.data.rows.chat_template import (
    CHAT_PICTURE_FIELDS,
    TEMPLATE_FILE,
    ChatSpec,
    add_chat,
)
from ablations.errors import ConfigError, DataError, Problem
from ablations.files import (
    file_sha256,
    read_json,
    replace_folder,
    restore_folder,
    write_json,
    write_sealed,
)
from ablations.temporary import making_folder

__all__ = [
    "Tokenizer",
    "TokenizerSpec",
    "make_tokenizer",
    "open_tokenizer",
    "tokenizer_file",
    "tokenizer_hash",
]

SMALLEST_VOCABULARY = 257
"""256 bytes and the end-of-document token: with fewer, some text cannot be written."""


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """A tokenizer, and the way it is made."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: str
    """Its folder under ``data/tokenizers`` and of the stores made with it."""
    kind: Literal["bpe", "hub", "folder", "chat"] = "bpe"
    """bpe = trained here; hub = downloaded; folder = a local folder that AutoTokenizer loads;
    chat = another tokenizer of conf/tokenizer with a chat template."""
    vocab_size: int = 1024
    """bpe: tokens in the vocabulary, the end-of-document token included."""
    train_on: tuple[str, ...] = ()
    """bpe: sources to train on, an equal amount of each; empty = the sources being prepared."""
    sample_bytes: int = 1_000_000
    """bpe: text taken of each source."""
    repo: str | None = None
    """hub: ``owner/name``."""
    revision: str = "main"
    """hub: commit, tag or branch."""
    path: str | None = None
    """folder: where it is."""
    eos_token: str | None = None
    """Text of the end-of-document token; null = ``<|endoftext|>`` (bpe) or the tokenizer's own."""
    base: str | None = None
    """chat: tokenizer that the model was pretrained with, a name of data/tokenizers or conf/tokenizer."""
    chat: ChatSpec | None = None
    """chat: markers of turns, and the template that writes them."""

    def __post_init__(self) -> None:
        problems = []
        if self.kind == "bpe" and self.vocab_size < SMALLEST_VOCABULARY:
            problems.append(
                Problem(
                    "tokenizer.vocab_size",
                    "too small for every byte and the end-of-document token",
                    found=self.vocab_size,
                    allowed=f"at least {SMALLEST_VOCABULARY}",
                )
            )
        if self.kind == "bpe" and self.sample_bytes <= 0:
            problems.append(Problem("tokenizer.sample_bytes", "must be above zero"))
        if self.kind == "hub" and not self.repo:
            problems.append(Problem("tokenizer.repo", "missing: the hub name of the tokenizer"))
        if self.kind == "folder" and not self.path:
            problems.append(Problem("tokenizer.path", "missing: the folder of the tokenizer"))
        if (self.kind == "chat") != bool(self.base and self.chat):
            problems.append(
                Problem(
                    "tokenizer.base",
                    "base and chat go with kind=chat: all three or none",
                    found=f"kind={self.kind}, base={self.base}",
                )
            )
        if not self.name or "/" in self.name or self.name.startswith("."):
            problems.append(Problem("tokenizer.name", "not a folder name", found=self.name))
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """A tokenizer on disk."""

    name: str
    folder: Path
    hash: str
    vocab_size: int
    """One more than the largest token id."""
    eos_token: str
    eos_id: int

    @property
    def token_bytes(self) -> int:
        """Bytes of a token on disk: 2 where every id fits (datatrove's rule)."""
        return 4 if self.vocab_size > 2**16 else 2

    @property
    def file(self) -> Path:
        """``tokenizer.json``."""
        return self.folder / "tokenizer.json"


def tokenizer_hash(folder: Path) -> str:
    """SHA-256 (hex) over the content of ``tokenizer.json``, whatever its layout.

    Truncation and padding are left out: transformers writes them where it was last used so.
    """
    content = read_json(Path(folder) / "tokenizer.json")
    kept = {key: value for key, value in content.items() if key not in ("truncation", "padding")}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def open_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer in ``folder``, one of ``data/tokenizers``.

    Raises:
        DataError: the folder is missing, not whole, or was changed since it was made.
    """
    try:
        made = read_json(folder / "spec.json")
        files = made.get("files", {})
        # Its bytes are those that were hashed: parsing a vocabulary of 49,152 takes 0.2 s.
        whole = files.get("tokenizer.json") == file_sha256(folder / "tokenizer.json")
        found = made["hash"] if whole else tokenizer_hash(folder)
        changed = _changed_files(folder, files)
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            Problem(
                str(folder),
                "not a whole tokenizer folder",
                found=error,
                do="run `ablate prepare`, with prepare.force=true where the folder is there",
            )
        ) from error
    if found != made["hash"]:
        changed = ["tokenizer.json", *changed]
    if changed:
        raise DataError(
            [
                Problem(
                    str(folder / name),
                    "changed since it was made",
                    do="prepare with prepare.force=true",
                )
                for name in dict.fromkeys(changed)
            ]
        )
    return Tokenizer(
        name=folder.name,
        folder=folder,
        hash=found,
        vocab_size=made["vocab_size"],
        eos_token=made["eos_token"],
        eos_id=made["eos_id"],
    )


def _changed_files(folder: Path, files: dict[str, str]) -> list[str]:
    """Names of the files that are missing or are not those that were made.

    ``tokenizer.json`` is compared by its content alone: transformers rewrites its layout.
    """
    return [
        name
        for name, digest in files.items()
        if name != "tokenizer.json"
        and not ((folder / name).is_file() and file_sha256(folder / name) == digest)
    ]


def tokenizer_file(spec: TokenizerSpec, data_dir: Path, mirror: Path | None = None) -> Path | None:
    """Return the ``tokenizer.json`` of a tokenizer that is made, or of the local folder that it will be
    made from; None if it is not on this machine."""
    spec = _from_mirror(spec, mirror)
    folders = [Path(data_dir) / "tokenizers" / spec.name]
    if spec.kind == "folder" and spec.path is not None:
        folders.append(Path(spec.path))
    files = [folder / "tokenizer.json" for folder in folders]
    return next((file for file in files if file.is_file()), None)


def _from_mirror(spec: TokenizerSpec, mirror: Path | None) -> TokenizerSpec:
    """Return the tokenizer as a local folder, if it is one of the hub that the mirror holds."""
    if spec.kind != "hub" or mirror is None or not (mirror / str(spec.repo)).is_dir():
        return spec
    return replace(spec, kind="folder", repo=None, path=str(mirror / str(spec.repo)))


def make_tokenizer(
    spec: TokenizerSpec,
    tokenizers: Path,
    texts: Iterable[str],
    *,
    force: bool = False,
    mirror: Path | None = None,
) -> Tokenizer:
    """Return the tokenizer of ``spec`` in its folder under ``tokenizers``: made unless it is there.

    Args:
        spec: Which tokenizer.
        tokenizers: ``data/tokenizers``.
        texts: The sample to train a byte-pair tokenizer on; read only when one is trained.
        force: Make it anew.
        mirror: Folder that stands for the hub, where it holds the tokenizer's repository.

    Raises:
        DataError: one of this name is there, made with other settings.
    """
    folder = tokenizers / spec.name
    restore_folder(folder)
    if folder.exists() and not force:
        found = open_tokenizer(folder)
        before, now = read_json(folder / "spec.json")["spec"], _plain(spec)
        changed = sorted(key for key in now if before.get(key) != now[key])
        if changed:
            raise DataError(
                Problem(
                    str(folder),
                    "a tokenizer of this name was made with other settings",
                    found=", ".join(f"{key}={before.get(key)}" for key in changed),
                    allowed=", ".join(f"{key}={now[key]}" for key in changed),
                    do="choose another tokenizer.name, or prepare with prepare.force=true",
                )
            )
        return found
    with making_folder(folder) as building:
        more: dict[str, Any] = {}
        if spec.kind == "chat":
            eos_token, eos_id, size = _add_chat(spec, tokenizers, building)
            more["base_hash"] = open_tokenizer(tokenizers / str(spec.base)).hash
        else:
            taken = _from_mirror(spec, mirror)
            eos_token, eos_id, size = _BUILDERS[taken.kind](taken, building, texts)
        made = {"spec": _plain(spec), "hash": tokenizer_hash(building), "vocab_size": size}
        kept = [*sorted(building.glob("*.json")), *building.glob(TEMPLATE_FILE)]
        files = {path.name: file_sha256(path) for path in kept}
        made |= {"eos_token": eos_token, "eos_id": eos_id, "files": files, **more}
        write_sealed(building / "spec.json", made)
        replace_folder(building, folder)
    return open_tokenizer(folder)


def _plain(spec: TokenizerSpec) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    if plain["chat"] and plain["chat"]["picture"] is None:  # as before there were pictures
        for key in CHAT_PICTURE_FIELDS:
            del plain["chat"][key]
    return plain


def _train_bpe(spec: TokenizerSpec, folder: Path, texts: Iterable[str]) -> tuple[str, int, int]:
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    eos = spec.eos_token or "<|endoftext|>"
    fast = Fast(models.BPE())
    # Digits one by one, as cosmo2's tokenizer does: numbers share their digits' embeddings, which
    # a model of half a million parameters needs to add at all.
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(_pieces(texts), trainer)
    fast.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": eos,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000_000,
        },
    )
    return eos, fast.token_to_id(eos) or 0, int(fast.get_vocab_size())


def _pieces(texts: Iterable[str], characters: int = 1_000) -> Iterator[str]:
    """Texts cut at about ``characters``: the trainer spreads pieces, not documents, over threads."""
    for text in texts:
        for start in range(0, len(text), characters):
            yield text[start : start + characters]


def _take_pretrained(
    spec: TokenizerSpec, folder: Path, texts: Iterable[str]
) -> tuple[str, int, int]:
    del texts
    from transformers import AutoTokenizer

    where = spec.path if spec.kind == "folder" else spec.repo
    options = {} if spec.kind == "folder" else {"revision": spec.revision}
    try:
        loaded = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            Problem(
                f"tokenizer {where}",
                "cannot be loaded",
                found=str(error).splitlines()[0],
                do="without a network, copy it to <owner>/<name> of the mirror, or set "
                "tokenizer.kind=folder and tokenizer.path",
            )
        ) from error
    if not loaded.is_fast:
        raise DataError(Problem(f"tokenizer {where}", "has no tokenizer.json (not a fast one)"))
    eos = spec.eos_token or loaded.eos_token
    eos_id = None if eos is None else loaded.convert_tokens_to_ids(eos)
    if eos is None or eos_id is None or loaded.convert_ids_to_tokens(eos_id) != eos:
        raise DataError(
            Problem(
                f"tokenizer {where}",
                "no end-of-document token",
                found=eos,
                do="name one of its tokens in tokenizer.eos_token",
            )
        )
    loaded.save_pretrained(folder)
    return str(eos), int(eos_id), int(max(loaded.get_vocab().values())) + 1


def _add_chat(spec: TokenizerSpec, tokenizers: Path, folder: Path) -> tuple[str, int, int]:
    """Derive a chat tokenizer from one that exists; the end-of-document token stays that of the base."""
    from tokenizers import Tokenizer as Fast

    assert spec.base is not None
    assert spec.chat is not None
    base = open_tokenizer(tokenizers / spec.base)
    add_chat(base.folder, folder, spec.chat)
    vocabulary = Fast.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    return base.eos_token, base.eos_id, max(base.vocab_size, max(vocabulary.values()) + 1)


_BUILDERS = {"bpe": _train_bpe, "hub": _take_pretrained, "folder": _take_pretrained}
