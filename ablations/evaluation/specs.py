"""Tasks and score of an evaluation, as plain values that are checked when they are made.

    EvaluationSpec
    ├── tasks.<name>: TaskSpec      items (hub, mirror or file) → prompt → metrics
    │                               cloze      P(answer | question), zero-shot, the default
    │                               letters    the options are shown, P(" A" | prompt)
    │                               generative greedy text, compared with the reference
    │                               code       greedy text, run against its tests
    │                               rolling    every token of a text
    │                               preference a chosen and a rejected answer, against a reference model
    │                               instructions greedy text, checked for what its prompt asks
    │                               picture    an answer about a picture, with and without it
    └── score: ScoreRule            weighted mean of metrics, each rescaled by chance if set

A prompt is a template over the fields of an item (``docs/evaluation.md``)::

    prompt: "Question: {question}\\nAnswer:"
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ablations.data.rows.row_specs import RowKind
from ablations.errors import ConfigError, Problem, nearest

__all__ = [
    "HELDOUT_PREFIX",
    "HIGHER_IS_BETTER",
    "METRICS",
    "PICTURE_GAINS",
    "PROMPT_FIELDS",
    "WITHOUT_CHANCE",
    "Direction",
    "EvaluationSpec",
    "Form",
    "HubData",
    "Match",
    "ScoreRule",
    "ScoreTerm",
    "TaskSpec",
]

Form = Literal[
    "cloze", "letters", "generative", "code", "rolling", "preference", "instructions", "picture"
]
Match = Literal["text", "number", "latex"]
Direction = Literal["maximize", "minimize"]

METRICS: Mapping[Form, tuple[str, ...]] = {
    "cloze": ("acc", "acc_char", "bpb"),
    "letters": ("acc",),
    "generative": ("exact_match", "bpb"),
    "code": ("pass_at_1", "bpb"),
    "rolling": ("bpb",),
    "preference": ("margin", "reward_acc", "dpo_loss", "bpb", "acc", "acc_char"),
    "instructions": (
        *("prompt_level_strict_acc", "inst_level_strict_acc"),
        *("prompt_level_loose_acc", "inst_level_loose_acc"),
    ),
    # Bits per byte first: its seeds differ by a twentieth of what those of a gain do (docs/vision.md).
    "picture": ("bpb", "gain", "shuffled_gain", "bpb_without", "exact_match"),
}
"""Form → metrics that it can be scored by."""

HIGHER_IS_BETTER: Mapping[str, bool] = {
    "acc": True,
    "acc_char": True,
    "exact_match": True,
    "pass_at_1": True,
    "bpb": False,
    "margin": True,
    "reward_acc": True,
    "dpo_loss": False,
    **dict.fromkeys(METRICS["instructions"], True),
    "gain": True,
    "bpb_without": False,
    "shuffled_gain": True,
}

WITHOUT_CHANCE = frozenset(("bpb", "margin", "dpo_loss", "gain", "bpb_without", "shuffled_gain"))
"""Metrics that no guess is a level of; a score cannot be rescaled by one."""

PICTURE_GAINS = ("gain", "shuffled_gain")
"""Metrics that show whether a picture is used: without both, no difference of a picture task is judged."""

HELDOUT_PREFIX = "heldout_"
"""Prefix of the tasks of held-out documents, ``heldout_<source>``."""

_HELDOUT_FORMS: Mapping[RowKind | None, tuple[Form, tuple[str, ...]]] = {
    None: ("rolling", ("bpb",)),
    "conversations": ("generative", ("bpb",)),
    "preferences": ("preference", ("margin", "reward_acc", "dpo_loss", "bpb")),
    "pictures": ("picture", METRICS["picture"]),
}
"""Kind of a source's rows → form and metrics of its held-out task."""

PROMPT_FIELDS = ("query", "question", "passage", "subject", "options")
"""Names that a prompt template may use; ``options`` are the choices on lettered lines."""


@dataclass(frozen=True, kw_only=True)
class HubData:
    """Data set on the Hugging Face hub, or its copy in the mirror directory."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    repo: str
    """Hub name, ``owner/name``, and its folder under ``evaluation.mirror``."""
    columns: str
    """Layout of its rows: a name of ``ablations.evaluation.dataset_readers``."""
    subsets: tuple[str, ...] = ("default",)
    """Configurations of the data set; their items are pooled."""
    split: str = "test"
    """Split whose items are scored."""
    shots_split: str | None = None
    """Split that the few-shot examples come from."""
    revision: str | None = None
    """Commit or tag; unused with a mirror."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Evaluation set with its prompt and its metrics."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    form: Form
    """Form of the question; decides which metrics are possible."""
    domain: str
    """Ability that the task measures: english, knowledge, reasoning, math, code, …"""
    hub: HubData | None = None
    """Items as published on the hub."""
    items: str | None = None
    """Name of an item file, ``<data_dir>/benchmarks/<items>.jsonl``; a task may have this and ``hub``."""
    shots_items: str | None = None
    """Item file of the few-shot examples; null = examples are set aside from ``items``."""
    source: str | None = None
    """Source whose held-out documents are the items: ``rolling`` of text, ``generative`` of conversations,
    ``preference`` of pairs, ``picture`` of conversations about pictures."""
    prompt: str = "{query}"
    """Template of the prompt over the fields of an item."""
    metrics: tuple[str, ...]
    """Metrics to compute; the first one is the task's main metric."""
    match: Match = "text"
    """Comparison of ``exact_match``: normalised text, the last number, or a LaTeX expression."""
    shots: int = 0
    """Few-shot examples before the item, of its own subject if it has one."""
    max_new_tokens: int | None = None
    """Most tokens to generate; required by the metrics of generated text. picture: null = the tokens of the
    longest reference and 4 more."""
    stop: tuple[str, ...] = ()
    """Texts that end a generation and are not part of it."""
    chat: bool = False
    """Put the prompt to the model as a message of the user, in its tokenizer's chat template: for models that
    were fine-tuned on conversations."""
    chance: float | None = None
    """Score of guessing; by default one over the number of choices, 0 for generated text, and for answers
    about pictures the share of the most frequent one."""
    max_items: int | None = None
    """Most items to score, instead of the suite's limit."""

    def __post_init__(self) -> None:
        problems = [*self._data_problems(), *self._metric_problems(), *self._prompt_problems()]
        if problems:
            raise ConfigError(problems)

    def _data_problems(self) -> Iterator[Problem]:
        if self.form == "rolling":
            if not (self.source or self.items or self.hub):
                yield Problem("source", "a rolling task needs a source or an item file")
        elif self.form == "picture":
            if self.source is None or self.hub or self.items:
                yield Problem(
                    "source",
                    "a picture task reads the held-out rows of a source",
                    do="name a source with pictures, and neither items nor hub",
                )
            if self.shots:
                yield Problem("shots", "a picture task has no examples", found=self.shots)
        elif self.source is not None and self.form not in ("generative", "preference"):
            yield Problem(
                "source",
                "this form does not read held-out documents",
                found=self.form,
                allowed="rolling, generative, preference, picture",
            )
        elif not (self.hub or self.items or self.source):
            yield Problem("items", "a task needs items", do="name an item file or hub data")
        if self.shots and self.hub and not self.hub.shots_split:
            yield Problem("hub.shots_split", "few-shot examples need a split", found=self.shots)
        for name in ("shots", "max_items", "max_new_tokens"):
            value, least = getattr(self, name), 0 if name == "shots" else 1
            if value is not None and value < least:
                yield Problem(name, "too small", found=value, allowed=f">= {least}")

    def _metric_problems(self) -> Iterator[Problem]:
        allowed = METRICS[self.form]
        if not self.metrics:
            yield Problem("metrics", "a task needs a metric", allowed=", ".join(allowed))
        for metric in self.metrics:
            if metric not in allowed:
                close = nearest(metric, allowed, most=1)
                do = f"did you mean {close[0]!r}?" if close else None
                yield Problem(
                    "metrics",
                    f"{self.form} tasks have no such metric",
                    found=metric,
                    allowed=", ".join(allowed),
                    do=do,
                )
        generated = {"exact_match", "pass_at_1", *METRICS["instructions"]}
        limited = self.max_new_tokens is not None or self.form == "picture"
        if generated & set(self.metrics) and not limited:
            yield Problem("max_new_tokens", "generated text needs a limit", allowed=">= 1")
        if self.chance is not None and not 0.0 <= self.chance < 1.0:
            yield Problem("chance", "not a chance level", found=self.chance, allowed="0 <= … < 1")

    def _prompt_problems(self) -> Iterator[Problem]:
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(self.prompt) if name]
        except ValueError as error:
            yield Problem("prompt", f"not a template ({error})", found=self.prompt)
            return
        for name in names:
            if name not in PROMPT_FIELDS:
                yield Problem(
                    "prompt", "unknown field", found=name, allowed=", ".join(PROMPT_FIELDS)
                )
        if self.chat and self.form not in ("generative", "instructions"):
            yield Problem(
                "chat",
                "this form has no turns",
                found=self.form,
                allowed="generative, instructions",
            )
        if self.chat and self.source is not None:
            yield Problem("chat", "held-out conversations have their template already")
        if self.form == "letters" and "options" not in names:
            yield Problem("prompt", "a letters prompt shows the options", do="use {options}")


@dataclass(frozen=True, kw_only=True)
class ScoreTerm:
    """Part of a score: the mean of the metrics that a pattern matches."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    metrics: str
    """Pattern over ``task/metric`` with ``*`` and ``?``, e.g. ``heldout_*/bpb``."""
    weight: float = 1.0
    """Weight of the term's mean in the score."""
    rescale: bool = False
    """Take (value - chance) / (1 - chance) of each metric before the mean."""
    direction: Direction | None = None
    """Direction in which the metrics improve; known for each metric, so set it only to override that."""

    def __post_init__(self) -> None:
        problems = []
        if self.metrics.count("/") != 1:
            problems.append(
                Problem("metrics", "not a task/metric pattern", found=self.metrics, do="e.g. */acc")
            )
        if not 0.0 < self.weight < float("inf"):
            problems.append(Problem("weight", "not a weight", found=self.weight, allowed="> 0"))
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class ScoreRule:
    """Rule for the one number that a study optimises: the weighted mean of its terms.

    A term whose metrics improve against ``direction`` counts negatively.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    direction: Direction
    """``maximize`` if a larger score is better, else ``minimize``."""
    terms: Mapping[str, ScoreTerm]
    """Parts of the score, each under a name of your choice."""

    def __post_init__(self) -> None:
        if not self.terms:
            raise ConfigError(Problem("score.terms", "a score needs at least one term"))


_LIMITS = {
    "max_items": 1,
    "heldout_max_items": 1,
    "heldout_max_chars": 1,
    "window_tokens": 2,  # one position to read, one to predict
    "batch_tokens": 1,
}


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """Tasks that every checkpoint is scored on, and the score made of them."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    tasks: Mapping[str, TaskSpec] = field(default_factory=dict)
    """Tasks of the suite, by name."""
    score: ScoreRule | None = None
    """Rule that turns metrics into the score; null if nothing is optimised."""
    origin: Literal["items", "hub"] = "items"
    """Data that a task reads if it names both: item files (offline) or hub data sets."""
    heldout: bool = True
    """Add a task ``heldout_<source>`` for the held-out documents of each source of the run."""
    guards: tuple[str, ...] = ()
    """method=sft and dpo: sources of the pretraining that have a task ``heldout_<source>`` too: what the
    model forgets shows there."""
    max_items: int | None = None
    """Most items of a task to score: a fixed shuffle is cut, so smaller cuts are subsets of larger ones."""
    heldout_max_items: int | None = None
    """Most documents of a held-out task to score, cut the same way."""
    heldout_max_chars: int | None = None
    """Most characters of a held-out document to score, from its beginning."""
    window_tokens: int | None = None
    """Most positions to feed; null = all that the model has. If training used shorter sequences than the
    model has positions, set it to their length, because the other positions were never trained."""
    mirror: str | None = None
    """Directory that contains hub data sets as ``<owner>/<name>/``; if set, nothing is downloaded."""
    dtype: Literal["auto", "float32", "bfloat16"] | None = None
    """Type of the weights while they are scored; null = bfloat16 on CUDA, float32 on a CPU; auto = chosen as
    for ``training.dtype``, and recorded with the run."""
    batch_tokens: int = 8192
    """Tokens of a scoring batch, padding included; memory grows with it, results do not change. On a CPU
    log-probabilities use 1,024 at most, which its caches hold."""

    def __post_init__(self) -> None:
        problems = [
            Problem(f"evaluation.{name}", "too small", found=value, allowed=f">= {least}")
            for name, least in _LIMITS.items()
            if (value := getattr(self, name)) is not None and value < least
        ]
        problems += [
            Problem(f"evaluation.tasks.{name}", "not a task name", found=name, allowed="no / or |")
            for name in self.tasks
            if {"/", "|"} & set(name)
        ]
        if problems:
            raise ConfigError(problems)

    def all_tasks(
        self, sources: Iterable[str] | Mapping[str, RowKind | None] = ()
    ) -> dict[str, TaskSpec]:
        """Return the suite and, if ``heldout`` is set, the held-out task of each of ``sources``.

        Args:
            sources: Names, or names with the kind of their rows: answers of conversations, with and without
                their pictures, and pairs of preferences are scored, of text every token.
        """
        tasks = dict(self.tasks)
        kinds = sources if isinstance(sources, Mapping) else dict.fromkeys(sources)
        if self.heldout:
            for source, kind in kinds.items():
                form, metrics = _HELDOUT_FORMS[kind]
                tasks.setdefault(
                    HELDOUT_PREFIX + source,
                    TaskSpec(
                        form=form,
                        domain=source,
                        source=source,
                        metrics=metrics,
                        max_items=self.heldout_max_items,
                    ),
                )
        return tasks

    def limit(self, task: TaskSpec) -> int | None:
        """Return the most items of ``task`` to score; None = all."""
        if task.max_items is not None or task.source is not None:
            return task.max_items
        return self.max_items
