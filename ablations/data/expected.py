"""Estimate what preparing a source will read, store and download, before it is prepared.

Local text (files, a mirror of the hub) is measured: read to its end where it is small, else a sample of
2 MB, with the source's own filters and caps. Other text counts with the figures of the source's config
(``tokens_available``, ``size``, ``subsets``), cut to ``max_bytes`` and ``max_documents``. Nothing is written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ablations.data.catalogue import (
    FilesOrigin,
    HubOrigin,
    PackageOrigin,
    SizeSpec,
    SourceSpec,
    SyntheticOrigin,
)
from ablations.data.file_rows import count_rows, find_files
from ablations.data.readers import Place, heldout, mirrored_files, read_source
from ablations.data.synthetic import Text
from ablations.data.tokenizer import TokenizerSpec, tokenizer_file
from ablations.errors import AblationError
from ablations.files import read_json

__all__ = [
    "SAMPLE_BYTES",
    "Expected",
    "bytes_per_token",
    "expected_of",
    "expected_stores",
    "whole_stores",
]

SAMPLE_BYTES = 2_000_000

_VOCABULARIES = ((1_024, 2.3), (32_000, 4.6))
"""Vocabulary → bytes of English text a token: the demo's four sources (docs/sources.md); FineWeb-Edu's
sample, 46.1 GB of text (conf/source/fineweb_edu_10bt.yaml) in 10.03G tokens of a vocabulary of 32,000
(the ``.ds`` files of pietrolesci/fineweb-edu-10BT on the hub)."""

_DOWNLOAD_SHARE = 0.63
"""Bytes of a parquet file for each byte of its text: FineWeb-Edu's sample, 29.0 GB for 46.1 GB."""

_INDEX_ENTRY_BYTES = 8

_HELDOUT_ROW_BYTES = 40
"""Bytes of a held-out document's row beside its text, about."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Figures expected of preparing one source."""

    basis: str
    """``its text`` (read to its end), ``a sample of its text``, or ``published size``."""
    documents: float | None
    """Documents kept and held out; None if nothing tells."""
    text_bytes: float
    """UTF-8 bytes of their texts: what is tokenised."""
    tokens: float
    """Training tokens: what a run can read."""
    download_bytes: float | None
    """Bytes that come over the network; None if nothing tells."""
    store_bytes: float
    """Size of the store: tokens, document ends, pictures, held-out text."""
    peak_bytes: float
    """Largest size while it is made: the tokens twice, since they are shuffled from one file to another."""

    def part(self, share: float) -> Expected:
        """Return what one bucket of the source is expected to give, by its share of the tokens."""

        def cut(value: float | None) -> float | None:
            return None if value is None else share * value

        return Expected(
            basis=self.basis,
            documents=cut(self.documents),
            text_bytes=share * self.text_bytes,
            tokens=share * self.tokens,
            download_bytes=cut(self.download_bytes),
            store_bytes=share * self.store_bytes,
            peak_bytes=share * self.peak_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Part of a local source that was read."""

    ended: bool
    """True if it was read to its end."""
    read: int
    """Documents read, those left out included."""
    rows: float
    """Documents that there are to read; 0 if it was read to its end."""
    documents: int
    text_bytes: int
    train_bytes: int
    tokens: float
    """Tokens of the training documents, an end token for each included."""


_known: dict[str, Expected] = {}


def expected_stores(
    sources: Mapping[str, SourceSpec],
    names: Iterable[str],
    tokenizer: TokenizerSpec,
    data_dir: Path,
    *,
    mirror: Path | None = None,
    vocab_size: int | None = None,
) -> dict[str, Expected]:
    """Return what preparing the named ones of ``sources`` gives; of a bucket its share of the source."""
    found = {}
    for name in names:
        spec = sources[name]
        whole = sources[spec.part.of] if spec.part else spec
        expected = expected_of(whole, tokenizer, data_dir, mirror=mirror, vocab_size=vocab_size)
        share = spec.tokens_available / whole.tokens_available
        found[name] = expected.part(share) if spec.part else expected
    return found


def whole_stores(
    sources: Mapping[str, SourceSpec], parts: Mapping[str, Expected]
) -> dict[str, Expected]:
    """Return what preparing each source gives, for parts as :func:`expected_stores` returns them.

    Buckets are cut from one store: they are downloaded, tokenised and stored together.
    """
    found: dict[str, Expected] = {}
    for name, expected in parts.items():
        part = sources[name].part
        if part is None:
            found[name] = expected
        elif part.of not in found:
            share = sources[name].tokens_available / sources[part.of].tokens_available
            found[part.of] = expected.part(1.0 / share)
    return found


def expected_of(
    spec: SourceSpec,
    tokenizer: TokenizerSpec,
    data_dir: Path,
    *,
    mirror: Path | None = None,
    vocab_size: int | None = None,
) -> Expected:
    """Return what preparing ``spec`` will give; measured once in a process.

    Args:
        spec: The source.
        tokenizer: Tokenizer of the store; it need not be made yet.
        data_dir: Data folder, where the tokenizer is looked for.
        mirror: Folder that stands for the hub.
        vocab_size: Size of the vocabulary where the tokenizer is not there; null = its config's.
    """
    file = tokenizer_file(tokenizer, data_dir, mirror)
    size = _vocabulary(tokenizer, data_dir) or vocab_size or tokenizer.vocab_size
    asked = [asdict(spec), str(file), size, str(data_dir), str(mirror), str(Path.cwd())]
    key = json.dumps(asked, sort_keys=True, default=str)
    if key not in _known:
        _known[key] = _expected(spec, file, size, data_dir, mirror)
    return _known[key]


def bytes_per_token(vocab_size: int) -> float:
    """Return the bytes of English text that a token of a byte-pair vocabulary stands for, about."""
    (small, few), (large, many) = _VOCABULARIES
    share = math.log(vocab_size / small) / math.log(large / small)
    return min(4.8, max(1.0, few + (many - few) * share))


def _vocabulary(tokenizer: TokenizerSpec, data_dir: Path) -> int | None:
    """Return the size of the tokenizer that is made; None if it is not."""
    try:
        made = read_json(Path(data_dir) / "tokenizers" / tokenizer.name / "spec.json")
        return int(made["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, kw_only=True)
class _Text:
    """Text that is kept or held out, and its training tokens."""

    basis: str
    documents: float | None
    text_bytes: float
    tokens: float


def _expected(
    spec: SourceSpec, tokenizer: Path | None, vocab_size: int, data_dir: Path, mirror: Path | None
) -> Expected:
    place = Place(downloads=Path(data_dir) / "downloads", mirror=mirror)
    # Rows are not measured: their columns are no text, and their length is settled by a template.
    local = None if spec.rows is not None else _local_files(spec, mirror)
    size = spec.published()
    sample = None if local is None else _read(spec, place, local, tokenizer, vocab_size)
    if sample is None or not sample.documents:
        text = _of_published(spec, size, vocab_size)
    else:
        text = _of_sample(spec, sample)
    token_bytes = 4 if vocab_size > 2**16 else 2
    documents = text.documents or 0.0
    aside = spec.heldout_share * (text.text_bytes + documents * _HELDOUT_ROW_BYTES)
    store = text.tokens * token_bytes + documents * _INDEX_ENTRY_BYTES + aside
    store += _picture_bytes(spec, documents)
    return Expected(
        **vars(text),
        download_bytes=_download(spec, size, text.text_bytes, local=local is not None),
        store_bytes=store,
        peak_bytes=store + text.tokens * token_bytes,
    )


def _picture_bytes(spec: SourceSpec, documents: float) -> float:
    """Return the bytes of a source's pictures: one for each row, or all frames, none of them twice."""
    rows = spec.rows
    if rows is None or rows.picture_size is None:
        return 0.0
    count = float(rows.available or documents)
    if spec.max_documents is not None:
        count = min(count, float(spec.max_documents)) if count else float(spec.max_documents)
    return count * (rows.frames or 1) * 3 * rows.picture_size**2


def _of_sample(spec: SourceSpec, sample: _Sample) -> _Text:
    if sample.ended:
        return _Text(
            basis="its text",
            documents=float(sample.documents),
            text_bytes=float(sample.text_bytes),
            tokens=sample.tokens,
        )
    mean = sample.text_bytes / sample.documents
    documents = sample.documents * sample.rows / sample.read
    size, kept = _capped(spec, documents * mean, documents, mean)
    tokens = size * (1.0 - spec.heldout_share) * sample.tokens / max(1, sample.train_bytes)
    return _Text(basis="a sample of its text", documents=kept, text_bytes=size, tokens=tokens)


def _of_published(spec: SourceSpec, size: SizeSpec, vocab_size: int) -> _Text:
    ratio = size.text_bytes / size.tokens if size.text_bytes else bytes_per_token(vocab_size)
    documents = None if size.documents is None else float(size.documents)
    mean = size.text_bytes / size.documents if size.text_bytes and size.documents else None
    text, kept = _capped(spec, float(size.text_bytes or size.tokens * ratio), documents, mean)
    # Published tokens are those that a run is taken to read: what is held out is within their error.
    tokens = text / ratio
    return _Text(basis="published size", documents=kept, text_bytes=text, tokens=tokens)


def _capped(
    spec: SourceSpec, whole: float, documents: float | None, mean: float | None
) -> tuple[float, float | None]:
    """Return text and documents within the caps; on average the document that crosses the cap on bytes
    is left out by half its length, once in each shard."""
    text = whole
    if spec.max_documents is not None and mean is not None:
        text = min(text, -(-spec.max_documents // spec.shard_count) * spec.shard_count * mean)
    if spec.max_bytes is not None and spec.max_bytes < text:
        text = max(0.0, spec.max_bytes - (mean or 0.0) / 2 * spec.shard_count)
    if documents is not None and whole > 0:
        documents *= text / whole
    return text, documents


def _download(spec: SourceSpec, size: SizeSpec, text: float, *, local: bool) -> float | None:
    if local or isinstance(spec.origin, SyntheticOrigin):
        return 0.0
    if isinstance(spec.origin, PackageOrigin):
        return float(size.download_bytes) if size.download_bytes else None
    if size.download_bytes and size.text_bytes:
        return size.download_bytes * min(1.0, text / size.text_bytes)
    return text * _DOWNLOAD_SHARE


def _local_files(spec: SourceSpec, mirror: Path | None) -> list[Path] | None:
    """Return the source's files on this machine; None if its text is not here."""
    try:
        if isinstance(spec.origin, FilesOrigin):
            return find_files(spec.origin)
        if isinstance(spec.origin, HubOrigin) and mirror is not None:
            return mirrored_files(spec.origin, mirror)
    except AblationError:  # what is wrong with it, `prepare` tells
        return None
    return None


def _origin(spec: SourceSpec) -> FilesOrigin:
    origin = spec.origin
    return origin if isinstance(origin, FilesOrigin) else FilesOrigin(kind="files", paths=("",))


def _read(
    spec: SourceSpec, place: Place, files: list[Path], tokenizer: Path | None, vocab_size: int
) -> _Sample | None:
    """Read the source until its end or the size of a sample; None if it cannot be read."""
    ended = True

    def beginning(texts: Iterable[Text]) -> Iterator[Text]:
        nonlocal ended
        size = 0
        for text in texts:
            if size >= SAMPLE_BYTES:
                ended = False
                return
            size += len(text.text.encode())
            yield text

    try:
        texts = list(_filtered(beginning(read_source(spec, place)), spec, tokenizer))
        rows = 0.0 if ended else count_rows(files, _origin(spec))
    except AblationError:
        return None
    train = [text.text for text in texts if not heldout(text.group, spec.heldout_share)]
    train_bytes = sum(len(text.encode()) for text in train)
    return _Sample(
        ended=ended,
        # The document that ended the sample was read and is not in it.
        read=max(1, place.seen["documents"] - (not ended)),
        rows=rows,
        documents=len(texts),
        text_bytes=sum(len(text.text.encode()) for text in texts),
        train_bytes=train_bytes,
        tokens=_tokens(train, train_bytes, tokenizer, vocab_size),
    )


def _filtered(texts: Iterator[Text], spec: SourceSpec, tokenizer: Path | None) -> Iterator[Text]:
    """Yield what the preparation's filters leave.

    Documents that contain items of tasks are not looked for, nor limits of length without a tokenizer.
    """
    spec = replace(spec, decontaminate=())
    if tokenizer is None:
        spec = replace(spec, min_tokens=None, max_tokens=None)
    # Imported here: most sources need no filter, and datatrove takes a second.
    from ablations.data.executors import dropping_steps

    steps = dropping_steps(spec, tokenizer, Path())
    if not steps:
        yield from texts
        return
    from datatrove.data import Document

    stream: Iterable[Document] = (
        Document(text=text.text, id=text.id, metadata={"group": text.group}) for text in texts
    )
    for step in steps:
        stream = step.run(stream)
    for document in stream:
        yield Text(document.id, document.text, document.metadata["group"])


def _tokens(texts: list[str], size: int, tokenizer: Path | None, vocab_size: int) -> float:
    if tokenizer is None:
        return size / bytes_per_token(vocab_size) + len(texts)
    # Imported here: what is prepared needs no tokenizer to be planned.
    from tokenizers import Tokenizer as FastTokenizer

    fast = FastTokenizer.from_file(str(tokenizer))
    encoded = fast.encode_batch_fast(texts, add_special_tokens=False)
    return float(sum(len(one.ids) for one in encoded) + len(texts))
