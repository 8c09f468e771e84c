"""The steps of a preparation that clean: datatrove's filters and formatters, counted as ours are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import LanguageFilter, URLFilter
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.pipeline.formatters.pii import PIIFormatter
from datatrove.utils.lid import FT176LID
from tldextract import TLDExtract

from ablations.data.clean_spec import CleanSpec
from ablations.data.pipeline import DropStep
from ablations.errors import DataError, Problem

__all__ = ["DropFiltered", "ReplacePrivate", "cleaning_steps"]


class DropFiltered(DropStep):
    """Leave out what a filter of datatrove drops.

    Args:
        kind: The filter.
        reason: Why, for the counts; the filter's own reason is added.
    """

    name = "filter"

    def __init__(self, kind: BaseFilter, reason: str) -> None:
        super().__init__()
        self.kind, self.reason = kind, reason

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield what the filter keeps."""
        del rank, world_size
        for document in data:
            kept, reason = get_filter_result(self.kind.filter(document))
            if kept:
                yield document
            else:
                self.drop(f"{self.reason}: {reason}" if reason else self.reason)


class ReplacePrivate(PipelineStep):  # type: ignore[misc]
    """Replace e-mail and public IP addresses; a document that changed is counted in ``rewritten``."""

    name, type = "private data", "FORMAT"

    def __init__(self) -> None:
        super().__init__()
        self.formatter = PIIFormatter()
        self.dropped: Counter[str] = Counter()
        self.rewritten: Counter[str] = Counter()

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield every document."""
        del rank, world_size
        for document in data:
            text = self.formatter.format(document.text)
            if text != document.text:
                self.rewritten["private data replaced"] += 1
                document.text = text
            yield document


def cleaning_steps(spec: CleanSpec) -> list[Any]:
    """Return the steps of ``spec``, in the order in which they run."""
    steps: list[Any] = []
    if spec.url_column is not None:
        steps.append(DropFiltered(_url_filter(spec), "address on a block list"))
    if spec.languages:
        steps.append(
            DropFiltered(_language_filter(spec), f"language is not {' or '.join(spec.languages)}")
        )
    if spec.pii:
        steps.append(ReplacePrivate())
    return steps


class _Addresses(URLFilter):  # type: ignore[misc]
    """datatrove's filter, which stops at a document without an address; here it is on no list."""

    def filter(self, document: Document) -> bool | tuple[bool, str]:
        """Return whether the document is kept, and why not."""
        return True if not document.metadata.get("url") else super().filter(document)


class _OwnLanguages(FT176LID):  # type: ignore[misc]
    """datatrove's language identification with a model from a file.

    The file is read by each process itself: steps are copied before they run, a model cannot be.
    """

    def __init__(self, languages: list[str], file: Path) -> None:
        super().__init__(languages)
        self.file = file
        self._model: Any = None

    @property
    def model(self) -> Any:
        """Return the model."""
        if self._model is None:
            import fasttext.FastText

            self._model = fasttext.FastText._FastText(str(self.file))
        return self._model


def _url_filter(spec: CleanSpec) -> BaseFilter:
    found = _Addresses(
        extra_domains=list(spec.blocked_domains), use_integrated_lists=spec.url_lists
    )
    # The list of public suffixes that rides in the package: no network, and the same on every machine.
    found.tldextractor = TLDExtract(suffix_list_urls=())
    return found


def _language_filter(spec: CleanSpec) -> BaseFilter:
    languages = list(spec.languages)
    found = LanguageFilter(languages, language_threshold=spec.language_threshold)
    if spec.language_model is not None:
        file = Path(spec.language_model).absolute()
        if not file.is_file():
            raise DataError(Problem("source.clean.language_model", "no such file", found=file))
        found.model = _OwnLanguages(languages, file)
    return found
