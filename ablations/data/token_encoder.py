"""Token ids of texts: those of Hugging Face's tokenizers, by tiktoken where it gives the same ones.

    tokenizer.json ──▶ merges as ranks, pre-tokenizer as one pattern ──▶ tiktoken      4 to 5 times as fast
                  └──▶ tokenizers.Tokenizer: what cannot be made so, and a sample of every batch

Both apply merges in the order of their ranks. They differ only in how a text is cut before that, and in
merges that tiktoken infers: it joins two neighbours whenever they form a token, Hugging Face only if the pair
is a merge. The two agree if every token of the merges is what its own bytes are merged to, because a
stretch of text whose ends are not crossed is merged as if it stood alone. That is checked for every
token. Documents that contain an added token, such as ``<|endoftext|>``, are left to Hugging Face.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import tiktoken
    from tokenizers import Tokenizer as FastTokenizer

__all__ = ["Ids", "NotConvertibleError", "TokenEncoder", "TokensDifferError", "pattern_of"]

Ids = npt.NDArray[np.uint32]

_SAMPLE = 2
"""Documents of a batch that are encoded by both."""

_LETTERS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+"
_GPT2 = _LETTERS + r"| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Pattern of the ByteLevel pre-tokenizer, as tokenizers has it."""

_DIGIT = r"\p{N}\x{11DE0}-\x{11DE9}"
"""Characters that the Digits pre-tokenizer cuts out. Its Unicode tables are newer than those of the patterns:
they have ten digits more (Tolong Siki, Unicode 17)."""

_GPT2_DIGITS = (
    _LETTERS
    + rf"|[{_DIGIT}]| ?[^\s\p{{L}}{_DIGIT}]+"
    # A digit ends the piece before it, so the white space before a digit is not divided.
    + rf"|\s+(?![^\s{_DIGIT}])|\s+"
)


class NotConvertibleError(Exception):
    """Report that tiktoken would not give the ids of a tokenizer."""


class TokensDifferError(Exception):
    """Report that tiktoken gave other ids than Hugging Face's tokenizers."""


class TokenEncoder:
    """Encoder of documents.

    Args:
        file: ``tokenizer.json``.
        end: Id that is put after each document; None = none.
    """

    def __init__(self, file: Path, end: int | None = None) -> None:
        self._end = end
        self._fast, self._tiktoken, why = _load(file, file.stat().st_mtime_ns)
        self.reason: str | None = why
        """Reason that tiktoken is not used; None if it is."""

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of each text.

        Raises:
            TokensDifferError: a text of the batch's sample has other ids by Hugging Face's tokenizers. Call
                :meth:`give_up`, and encode again all texts that were encoded before.
        """
        if self._tiktoken is None:
            return self._slow(texts)
        found = [self._tiktoken.encode(text) for text in texts]
        left = [index for index, ids in enumerate(found) if ids is None]
        # Spread over the batch; the first and the last are in every batch of two or more.
        sample = (
            {round(index) for index in np.linspace(0, len(texts) - 1, _SAMPLE)} if texts else set()
        )
        both = sorted(sample.union(left))
        for index, ids in zip(both, self._slow([texts[index] for index in both]), strict=True):
            quick = found[index]
            if quick is not None and not np.array_equal(quick, self._without_end(ids)):
                raise TokensDifferError(f"for the document that begins {texts[index][:40]!r}")
            found[index] = self._without_end(ids)
        return [self._ended(ids) for ids in found if ids is not None]

    def give_up(self, difference: TokensDifferError) -> None:
        """Use Hugging Face's tokenizers alone from now on, with a warning."""
        self._tiktoken, self.reason = None, f"its ids differ {difference}"
        warnings.warn(f"tiktoken is not used: {self.reason}", stacklevel=2)

    def text_of(self, ids: Ids) -> str:
        """Return the text of a document's ids, which need not be those of Hugging Face's tokenizers."""
        text: str = self._fast.decode(self._without_end(ids).tolist(), skip_special_tokens=False)
        return text

    def _slow(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._fast.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._ended(np.array(one.ids, dtype=np.uint32)) for one in encoded]

    def _ended(self, ids: Ids) -> Ids:
        return ids if self._end is None else np.append(ids, np.uint32(self._end))

    def _without_end(self, ids: Ids) -> Ids:
        return ids if self._end is None else ids[:-1]


@functools.lru_cache(maxsize=2)
def _load(file: Path, changed: int) -> tuple[FastTokenizer, _Converted | None, str | None]:
    """Return the tokenizer of a file in both forms, or the reason that it has one; kept for later steps."""
    from tokenizers import Tokenizer as FastTokenizer

    del changed  # a part of the key
    fast = FastTokenizer.from_file(str(file))
    try:
        return fast, _Converted(json.loads(file.read_bytes()), fast), None
    except NotConvertibleError as why:
        return fast, None, str(why)
    except ImportError:
        return fast, None, "tiktoken is not installed"


class _Converted:
    """Tiktoken's encoding of a byte-level BPE tokenizer, and the ids that its ranks stand for."""

    def __init__(self, content: Mapping[str, Any], fast: FastTokenizer) -> None:
        pattern = pattern_of(content)
        ranks, self._ids = _ranks(content["model"])
        _require_reachable(content["model"], fast)
        self._encoding = _encoding(pattern, ranks)
        self._sizes = np.array([len(token) for token in ranks], np.int64)
        self._added = tuple(one["content"] for one in content.get("added_tokens") or ())

    def encode(self, text: str) -> Ids | None:
        """Return the ids of a text; None if they are left to Hugging Face's tokenizers."""
        if any(token in text for token in self._added):
            return None
        try:
            ranks = np.array(self._encoding.encode_ordinary(text), np.int64)
        except (ValueError, RuntimeError):  # the pattern's limit of backtracking
            return None
        # What the pattern does not match is left out by tiktoken.
        if int(self._sizes[ranks].sum()) != len(text.encode()):
            return None
        return self._ids[ranks]


def pattern_of(content: Mapping[str, Any]) -> str:
    """Return the pattern whose matches are the pieces that the pre-tokenizer of ``tokenizer.json`` makes.

    Raises:
        NotConvertibleError: it is none of the known ones, or something else changes the text.
    """
    for part in ("normalizer", "truncation", "padding"):
        if content.get(part) is not None:
            raise NotConvertibleError(f"tokenizer.json has a {part}")
    if (content.get("decoder") or {}).get("type") != "ByteLevel":
        raise NotConvertibleError("its decoder is not ByteLevel")
    asked = content.get("pre_tokenizer") or {}
    steps = asked.get("pretokenizers") or [] if asked.get("type") == "Sequence" else [asked]
    *before, last = steps or [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        raise NotConvertibleError(
            "its pre-tokenizer does not end with ByteLevel without a prefix space"
        )
    whole = last.get("use_regex", True)
    if not before and whole:
        return _GPT2
    if len(before) == 1 and whole and before[0].get("type") == "Digits":
        if before[0].get("individual_digits"):
            return _GPT2_DIGITS
    elif len(before) == 1 and not whole and before[0].get("type") == "Split":
        return _split_pattern(before[0])
    raise NotConvertibleError(
        f"its pre-tokenizer is {', '.join(str(one.get('type')) for one in steps)}"
    )


def _split_pattern(split: Mapping[str, Any]) -> str:
    pattern = split.get("pattern") or {}
    isolated = split.get("behavior") == "Isolated" and not split.get("invert")
    if "Regex" not in pattern or not isolated:
        raise NotConvertibleError(
            "its pre-tokenizer splits in another way than by isolated matches"
        )
    return str(pattern["Regex"])


def _ranks(model: Mapping[str, Any]) -> tuple[dict[bytes, int], Ids]:
    """Return bytes of a token → rank, and the id of each rank: the 256 bytes, then the merges in order."""
    plain = (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not model.get("byte_fallback")
    )
    if not plain:
        raise NotConvertibleError("its model is not a plain byte-pair encoding")
    byte_of = {letter: byte for byte, letter in enumerate(_byte_letters())}
    vocabulary = model["vocab"]
    tokens = [*byte_of]
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        tokens.append(left + right)
    try:
        ids = np.array([vocabulary[token] for token in tokens], np.uint32)
        ranks = {bytes(byte_of[letter] for letter in token): i for i, token in enumerate(tokens)}
    except KeyError as error:
        raise NotConvertibleError(f"it has no token {error}, or one that is not of bytes") from None
    if len(ranks) != len(tokens):
        raise NotConvertibleError("two of its merges make the same token")
    return ranks, ids


def _byte_letters() -> list[str]:
    """Return the letter of each byte in a byte-level vocabulary: itself if it can be printed (GPT-2)."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


def _require_reachable(model: Mapping[str, Any], fast: FastTokenizer) -> None:
    """Require that each token of the merges is what the merges make of its own bytes."""
    if model.get("ignore_merges"):
        raise NotConvertibleError(
            "it takes whole words from its vocabulary, whatever the merges are"
        )
    for merge in model["merges"]:
        token = merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
        if len(fast.model.tokenize(token)) != 1:
            raise NotConvertibleError(f"its merges do not make the token {token!r} of its bytes")


def _encoding(pattern: str, ranks: Mapping[bytes, int]) -> tiktoken.Encoding:
    import tiktoken

    try:
        return tiktoken.Encoding(
            "converted", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens={}
        )
    except ValueError as error:
        raise NotConvertibleError(f"tiktoken cannot read its pattern: {error}") from None
