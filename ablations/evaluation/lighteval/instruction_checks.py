"""Check whether a text follows its instructions (IFEval, arXiv 2311.07911), by lighteval's own checkers.

Three of the 25 checkers recognise a language with langdetect, two divide text into words and sentences with
nltk's punkt data. Neither is downloaded here: an item that needs what is not installed is refused, with the
command that installs it. Importing this module imports lighteval's tasks, 2 to 3 CPU-seconds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
from collections.abc import Callable, Iterable, Iterator, Mapping

from ablations.errors import DataError, Problem, unknown_name
from ablations.evaluation.dataset_readers import Item
from ablations.evaluation.lighteval import clean_import

with clean_import.undisturbed():
    import nltk
    from lighteval.models.model_output import ModelResponse
    from lighteval.tasks.requests import Doc


@contextlib.contextmanager
def _nothing_downloaded() -> Iterator[None]:
    """Keep lighteval from downloading nltk's data when it is imported: offline it waits for 6 seconds."""
    download, nltk.download = nltk.download, lambda *_, **__: False
    try:
        yield
    finally:
        nltk.download = download


with clean_import.undisturbed(), _nothing_downloaded():
    from lighteval.tasks.tasks.ifeval.instructions_registry import INSTRUCTION_DICT
    from lighteval.tasks.tasks.ifeval.main import IFEvalMetrics

__all__ = ["Followed", "require_checkers"]

_LANGUAGE = (
    *("language:response_language", "change_case:english_capital"),
    "change_case:english_lowercase",
)
"""Instructions whose checkers recognise the language of a text."""

_SENTENCES = ("length_constraints:number_sentences", "change_case:capital_word_frequency")
"""Instructions whose checkers divide a text into sentences or words."""


def require_checkers(items: Iterable[Item]) -> None:
    """Check that every instruction of the items can be checked on this machine.

    Raises:
        DataError: an instruction is unknown, or its checker lacks a package or data.
    """
    named = {name for item in items for name in item["instruction_id_list"]}
    problems = [
        unknown_name("instruction_id_list", "instruction", name, INSTRUCTION_DICT)
        for name in sorted(named - set(INSTRUCTION_DICT))
    ]
    if (used := sorted(named & set(_LANGUAGE))) and not importlib.util.find_spec("langdetect"):
        problems.append(
            Problem(
                "langdetect",
                f"not installed, and {', '.join(used)} cannot be checked without it",
                do="pip install 'ablations[ifeval]'",
            )
        )
    if (used := sorted(named & set(_SENTENCES))) and not _has_punkt():
        problems.append(
            Problem(
                "nltk_data",
                f"no punkt_tab, and {', '.join(used)} cannot be checked without it",
                do="python -m nltk.downloader punkt_tab, or leave out the items with these instructions",
            )
        )
    if problems:
        raise DataError(problems)


def _has_punkt() -> bool:
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        return False
    return True


class Followed:
    """The metrics of one text, computed once for all of them.

    ``prompt_level_*`` is 1 if every instruction of the prompt is followed. ``inst_level_*`` is the share that
    is followed; a task's value weighs it by the prompt's number of instructions, so that each counts alike.
    ``loose`` also tries the text without its first line, its last line and its asterisks.
    """

    def __init__(self) -> None:
        self._last: tuple[Doc, ModelResponse] | None = None
        self._values: Mapping[str, float] = {}

    def metric(self, name: str) -> Callable[[Doc, ModelResponse], float]:
        """Return the function that computes the metric ``name``."""

        def compute(doc: Doc, response: ModelResponse) -> float:
            if self._last is None or self._last[0] is not doc or self._last[1] is not response:
                self._values, self._last = _follows(doc, response), (doc, response)
            return self._values[name]

        return compute


def _follows(doc: Doc, response: ModelResponse) -> Mapping[str, float]:
    with _seeded():
        found = IFEvalMetrics().compute(doc, response)
    return {
        name: sum(value) / len(value) if isinstance(value, list) else float(value)
        for name, value in found.items()
    }


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Make the checkers' draws the same every time: langdetect's samples, values that an item left out."""
    if importlib.util.find_spec("langdetect"):
        from langdetect import DetectorFactory

        DetectorFactory.seed = 0
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)
