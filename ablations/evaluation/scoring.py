"""Score checkpoints: several in one process, each task on its own, every failure reported.

    exports {step: folder} ─▶ load weights ─▶ every task ─▶ details/<step>/<task>.parquet, CheckpointScores
                                   ▲
          tasks, prompts, tokens and batches are made once for all checkpoints

A task that fails is missing, with its reason, and the others are scored. lighteval is imported by the first
call, or ahead of it by ``ablations.preload``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.data.manifest import StoreManifest
from ablations.data.rows.row_specs import RowKind
from ablations.errors import EvaluationError, UserError
from ablations.evaluation.finished_scores import finish_scores
from ablations.evaluation.items import ItemSources, Pool, load_items, rank
from ablations.evaluation.model_folder import (
    load_model,
    load_tokenizer,
    one_line,
    prompt_parts,
    training_separator,
)
from ablations.evaluation.results import (
    CheckpointScores,
    ItemScore,
    TaskScores,
    missing,
    summarise,
    write_details,
)
from ablations.evaluation.specs import EvaluationSpec, TaskSpec

if TYPE_CHECKING:
    from ablations.evaluation.lighteval import MemoryModel, SuiteTask
    from ablations.evaluation.logprob_scorer import CausalLM
    from ablations.evaluation.picture_scorer import PictureTask

__all__ = [
    "Scorer",
    "ScoringPlace",
    "row_kinds",
    "score_checkpoints",
    "score_folder",
    "without_scores",
]

Watch = Callable[[int, str, int, int], None]
"""Callback before each task with (step, task, its number from 0, number of tasks)."""


@dataclass(frozen=True, kw_only=True)
class ScoringPlace:
    """Folders that items are read from, and the device that runs the model."""

    data_dir: Path = Path("data")
    """Folder that contains ``benchmarks/``."""
    stores: Mapping[str, Path] = field(default_factory=dict)
    """Source → prepared token store, for the held-out tasks."""
    items: Mapping[str, str] = field(default_factory=dict)
    """Digests that the items must have, as :func:`~ablations.evaluation.items.item_digests` returns them;
    empty = no check."""
    reference: Path | None = None
    """Model that preferences are scored against: the one that a DPO run began from; None = no margins."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:<n>``."""
    dtype: str | None = None
    """Type of the weights; None = bfloat16 on CUDA, float32 on a CPU."""


def score_checkpoints(
    exports: Mapping[int, Path],
    spec: EvaluationSpec,
    *,
    details: Path,
    place: ScoringPlace | None = None,
    watch: Watch | None = None,
) -> Iterator[CheckpointScores]:
    """Score transformers folders in order of their steps; equal tokenizers share prompts and batches.

    Args:
        exports: Step → folder.
        spec: The tasks and the score.
        details: Folder of the per-item details, ``<details>/<step>/<task>.parquet``.
        place: Folders of the items, and the device.
        watch: Called before each task.

    Raises:
        CheckpointError: a folder is not a model that transformers can load.
        EvaluationError: no task could be scored.
    """
    scorer = Scorer(spec, details=details, place=place, watch=watch)
    for step in sorted(exports):
        began = time.process_time()
        tasks = scorer.score(step, Path(exports[step]))
        seconds = time.process_time() - began
        yield finish_scores(step, spec, tasks, Path(details), seconds)


def score_folder(
    folder: Path,
    spec: EvaluationSpec,
    out: Path,
    *,
    place: ScoringPlace | None = None,
    watch: Watch | None = None,
) -> CheckpointScores:
    """Score any transformers folder as step 0; details go below ``out``."""
    return next(
        score_checkpoints(
            {0: Path(folder)}, spec, details=Path(out) / "details", place=place, watch=watch
        )
    )


def without_scores(
    step: int,
    spec: EvaluationSpec,
    sources: Collection[str] | Mapping[str, RowKind | None],
    reason: str,
) -> CheckpointScores:
    """Return the scores of a checkpoint that cannot be scored: every task is missing, with the reason.

    Args:
        step: Step of the checkpoint.
        spec: The tasks and the score.
        sources: Sources with a held-out task; with the kinds of their rows where they have any.
        reason: Reason why it cannot be scored.
    """
    tasks = {name: missing(task, reason) for name, task in spec.all_tasks(sources).items()}
    return CheckpointScores(
        step=step,
        tasks=tasks,
        score=None,
        direction=spec.score.direction if spec.score else None,
        reason=reason,
    )


class Scorer:
    """Scores checkpoints, whole or task by task; equal tokenizers share prompts and batches.

    The arguments are those of :func:`score_checkpoints`.
    """

    def __init__(
        self,
        spec: EvaluationSpec,
        *,
        details: Path,
        place: ScoringPlace | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._spec, self._details, self._watch = spec, Path(details), watch
        self._place = place or ScoringPlace()
        self._suite: _Suite | None = None
        self._loaded: tuple[Path, CausalLM] | None = None

    def score(
        self, step: int, folder: Path, only: Collection[str] | None = None
    ) -> dict[str, TaskScores]:
        """Return the scores of the tasks of ``only``, or of all, in the order of the suite.

        Their details are written, and are not sealed: :func:`finish_scores` does it for all tasks together.
        """
        if self._loaded is None or self._loaded[0] != folder:
            self._loaded = folder, load_model(folder, self._place.device, self._place.dtype)
        network = self._loaded[1]
        if self._suite is None or not self._suite.serves(folder):
            self._suite = _Suite(folder, network, self._spec, self._place)
        suite = self._suite
        names = [name for name in suite.specs if only is None or name in only]
        suite.make(names, network)
        tasks: dict[str, TaskScores] = {}
        for number, name in enumerate(names):
            if self._watch is not None:
                self._watch(step, name, number, len(names))
            path = self._details / str(step) / f"{name}.parquet"
            tasks[name] = _score_task(suite, name, suite.specs[name], network, path)
        return tasks


# ------------------------------------------------------------------------------------------ suite


class _Suite:
    """Tasks of a spec, ready for any checkpoint of one tokenizer and window."""

    def __init__(
        self, folder: Path, network: CausalLM, spec: EvaluationSpec, place: ScoringPlace
    ) -> None:
        from ablations.evaluation.lighteval import MemoryModel

        self.spec, self._place = spec, place
        self.specs = spec.all_tasks(row_kinds(place.stores))
        self.failed: dict[str, str] = {}
        self.tasks: dict[str, SuiteTask] = {}
        self.shown: dict[str, PictureTask] = {}
        self._folder = folder
        self._made_for = prompt_parts(folder)
        positions = int(getattr(network.model.config, "max_position_embeddings", 2048))
        self._window = min(positions, spec.window_tokens or positions)
        self.model: MemoryModel = MemoryModel(
            load_tokenizer(folder),
            window=self._window,
            batch_tokens=spec.batch_tokens,
            separator=training_separator(folder),
        )
        self._sources = ItemSources(
            benchmarks=Path(place.data_dir) / "benchmarks",
            stores=place.stores,
            mirror=Path(spec.mirror) if spec.mirror else None,
            prefer_hub=spec.origin == "hub",
            heldout_chars=spec.heldout_max_chars,
            expected=place.items,
        )

    def make(self, names: Collection[str], network: CausalLM) -> None:
        """Make the tasks of ``names`` that are not made yet.

        The pairs of preference tasks are scored with the reference model, if there is one.
        """
        from ablations.evaluation.lighteval import refer_to

        known = {*self.tasks, *self.shown, *self.failed}
        new = [name for name in names if name not in known]
        for name in new:
            self._build(name, self.specs[name], network)
        made = [self.tasks[name] for name in new if name in self.tasks]
        pairs = [task for task in made if task.spec.form == "preference"]
        place = self._place
        if place.reference is None or not pairs:
            return
        self.model.use(load_model(Path(place.reference), place.device, place.dtype))
        for task in pairs:
            refer_to(task, self.model)

    def serves(self, folder: Path) -> bool:
        """Check that ``folder`` has the tokenizer and the window that this suite was made for."""
        return prompt_parts(folder) == self._made_for

    def _build(self, name: str, task: TaskSpec, network: CausalLM) -> None:
        from ablations.evaluation.lighteval import build_task

        try:
            limit = self.spec.limit(task)
            pools = _limited(load_items(task, self._sources, limit), limit)
            if task.form == "picture":
                self.shown[name] = self._about_pictures(task, pools, network)
            else:
                self.tasks[name] = build_task(name, task, pools)
        except Exception as error:  # one broken task must not stop the others
            self.failed[name] = one_line(error)

    def _about_pictures(
        self, task: TaskSpec, pools: Sequence[Pool], network: CausalLM
    ) -> PictureTask:
        from ablations.evaluation.picture_model import PictureLM
        from ablations.evaluation.picture_prompts import tokens_of_model
        from ablations.evaluation.picture_scorer import build_picture_task

        if not isinstance(network, PictureLM):
            raise EvaluationError("the model has no vision part: it is a language model alone")
        encoder = self.model.encoder
        tokens = tokens_of_model(self._folder, encoder.tokenizer, network.picture_id)
        return build_picture_task(
            task,
            pools,
            self._sources.stores[str(task.source)],
            network,
            encoder,
            tokens=tokens,
            window=self._window,
            batch_tokens=self.spec.batch_tokens,
        )

    def score(self, name: str, network: CausalLM) -> list[ItemScore]:
        """Score the items of one task with the weights of ``network``."""
        from ablations.evaluation.lighteval import sample_metrics
        from ablations.evaluation.picture_model import PictureLM
        from ablations.evaluation.picture_scorer import score_pictures

        if name in self.shown:
            assert isinstance(network, PictureLM)  # the suite serves models of one architecture
            return score_pictures(self.shown[name], network)
        self.model.use(network.text if isinstance(network, PictureLM) else network)
        return sample_metrics(self.tasks[name], self.model)


def row_kinds(stores: Mapping[str, Path]) -> dict[str, RowKind | None]:
    """Return the kind of the rows of each store; None for text, and for a store that cannot be read."""
    return {name: _row_kind(path) for name, path in stores.items()}


def _row_kind(store: Path) -> RowKind | None:
    try:
        rows = StoreManifest.read(store).rows
    except UserError:
        return None  # its task says so
    return rows.kind if rows else None


def _limited(pools: list[Pool], limit: int | None) -> list[Pool]:
    """Return the ``limit`` items that come first by a hash of their ids: smaller limits give subsets."""
    if limit is None or sum(len(pool.items) for pool in pools) <= limit:
        return pools
    last = sorted(rank(item) for pool in pools for item in pool.items)[limit - 1]
    return [
        Pool(pool.name, [item for item in pool.items if rank(item) <= last], pool.shots)
        for pool in pools
    ]


# ---------------------------------------------------------------------------------------- scoring


def _score_task(
    suite: _Suite, name: str, spec: TaskSpec, network: CausalLM, path: Path
) -> TaskScores:
    if name in suite.failed:
        return missing(spec, suite.failed[name])
    try:
        items = suite.score(name, network)
    except Exception as error:  # one broken task must not stop the others
        return missing(spec, one_line(error))
    write_details(path, items, spec.metrics)
    return summarise(spec, items)
