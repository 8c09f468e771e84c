"""Score checkpoints: several in one process, each task on its own, every failure reported.

    exports {step: folder} ─▶ load weights ─▶ every task ─▶ details/<step>/<task>.parquet, CheckpointScores
                                   ▲
          tasks, prompts, tokens and batches are made once for all checkpoints

A task that fails is missing, with its reason, and the others are scored. lighteval is imported by the first
call, or ahead of it by ``ablations.preload``.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.data.manifest import StoreManifest
from ablations.data.rows.row_specs import RowKind
from ablations.errors import CheckpointError, EvaluationError, Problem, UserError
from ablations.evaluation.items import ItemSources, Pool, load_items, rank
from ablations.evaluation.results import (
    CheckpointScores,
    TaskScores,
    missing,
    seal_details,
    summarise,
    write_details,
)
from ablations.evaluation.score_rule import Score, apply_rule
from ablations.evaluation.specs import EvaluationSpec, TaskSpec
from ablations.record.checksums import damage

if TYPE_CHECKING:
    from ablations.evaluation.lighteval import MemoryModel, SuiteTask
    from ablations.evaluation.logprob_scorer import CausalLM

__all__ = [
    "ScoringPlace",
    "score_checkpoints",
    "score_folder",
    "training_separator",
    "without_scores",
]

TOKENIZER_SPEC = "spec.json"
"""Settings file in a tokenizer's folder and in every export; see ``ablations.data.tokenizer``."""

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
    place = place or ScoringPlace()
    suite: _Suite | None = None
    for step in sorted(exports):
        began = time.process_time()
        folder = Path(exports[step])
        network = _load(folder, place)
        if suite is None or not suite.serves(folder):
            suite = _Suite(folder, network, spec, place)
            suite.refer(place)
        yield _score_one(suite, step, network, details, began, watch)


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
    step: int, spec: EvaluationSpec, sources: Collection[str], reason: str
) -> CheckpointScores:
    """Return the scores of a checkpoint that cannot be scored: every task is missing, with the reason."""
    tasks = {name: missing(task, reason) for name, task in spec.all_tasks(sources).items()}
    return CheckpointScores(
        step=step,
        tasks=tasks,
        score=None,
        direction=spec.score.direction if spec.score else None,
        reason=reason,
    )


# ------------------------------------------------------------------------------------------ suite


class _Suite:
    """Tasks of a spec, ready for any checkpoint of one tokenizer and window."""

    def __init__(
        self, folder: Path, network: CausalLM, spec: EvaluationSpec, place: ScoringPlace
    ) -> None:
        from transformers import AutoTokenizer

        from ablations.evaluation.lighteval import MemoryModel

        self.spec = spec
        self.specs = spec.all_tasks({name: _row_kind(path) for name, path in place.stores.items()})
        self.failed: dict[str, str] = {}
        self.tasks: dict[str, SuiteTask] = {}
        self._made_for = _tokenizer_and_window(folder)
        positions = int(getattr(network.model.config, "max_position_embeddings", 2048))
        window = min(positions, spec.window_tokens or positions)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise _unloadable(folder, "no tokenizer that transformers can load", error) from error
        self.model: MemoryModel = MemoryModel(
            tokenizer,
            window=window,
            batch_tokens=spec.batch_tokens,
            separator=training_separator(folder),
        )
        sources = ItemSources(
            benchmarks=Path(place.data_dir) / "benchmarks",
            stores=place.stores,
            mirror=Path(spec.mirror) if spec.mirror else None,
            prefer_hub=spec.origin == "hub",
            heldout_chars=spec.heldout_max_chars,
            expected=place.items,
        )
        for name, task in self.specs.items():
            self._build(name, task, sources)

    def refer(self, place: ScoringPlace) -> None:
        """Score the pairs of preference tasks with the reference model, if there is one."""
        from ablations.evaluation.lighteval import refer_to

        tasks = [task for task in self.tasks.values() if task.spec.form == "preference"]
        if place.reference is None or not tasks:
            return
        self.model.use(_load(Path(place.reference), place))
        for task in tasks:
            refer_to(task, self.model)

    def serves(self, folder: Path) -> bool:
        """Check that ``folder`` has the tokenizer and the window that this suite was made for."""
        return _tokenizer_and_window(folder) == self._made_for

    def _build(self, name: str, task: TaskSpec, sources: ItemSources) -> None:
        from ablations.evaluation.lighteval import build_task

        try:
            limit = self.spec.limit(task)
            pools = _limited(load_items(task, sources, limit), limit)
            self.tasks[name] = build_task(name, task, pools)
        except Exception as error:  # one broken task must not stop the others
            self.failed[name] = _one_line(error)


def _row_kind(store: Path) -> RowKind | None:
    """Return the kind of a store's rows; None for text, and for a store that cannot be read."""
    try:
        rows = StoreManifest.read(store).rows
    except UserError:
        return None  # its task says so
    return rows.kind if rows else None


def training_separator(folder: Path) -> int | None:
    """Return the id of the token that this platform's training put after each document.

    Stores contain text and that token, whatever the tokenizer's post-processor adds (such as a BOS),
    because datatrove's writer replaces the post-processor. An export of this platform has the settings of
    the tokenizer that the stores were made with, so the folder itself shows how it was trained.

    Returns:
        None for a folder that was not trained here; the tokenizer's own rule applies to it.

    Raises:
        CheckpointError: the settings cannot be read.
    """
    path = folder / TOKENIZER_SPEC
    if not path.is_file():
        return None
    try:
        made = json.loads(path.read_bytes())
        return int(made["eos_id"]) if "hash" in made else None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            Problem(str(path), "not the settings of a tokenizer", found=error, do="export again")
        ) from error


def _tokenizer_and_window(folder: Path) -> tuple[Any, ...]:
    """Return the parts of a model that a suite depends on; the weights are not among them."""
    config = json.loads((folder / "config.json").read_text())
    names = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", TOKENIZER_SPEC)
    files = tuple((folder / n).read_bytes() for n in names if (folder / n).exists())
    return (config.get("max_position_embeddings"), config.get("architectures"), files)


def _limited(pools: list[Pool], limit: int | None) -> list[Pool]:
    """Return the ``limit`` items that come first by a hash of their ids: smaller limits give subsets."""
    if limit is None or sum(len(pool.items) for pool in pools) <= limit:
        return pools
    last = sorted(rank(item) for pool in pools for item in pool.items)[limit - 1]
    return [
        Pool(pool.name, [item for item in pool.items if rank(item) <= last], pool.shots)
        for pool in pools
    ]


# ------------------------------------------------------------------------------------------ model


def _load(folder: Path, place: ScoringPlace) -> CausalLM:
    """Load the model of a transformers folder onto its device."""
    import torch
    from transformers import AutoModelForCausalLM

    from ablations.evaluation.logprob_scorer import CausalLM

    if not (folder / "config.json").exists():
        raise CheckpointError(
            Problem(
                str(folder),
                "not a transformers folder",
                found="no config.json",
                do="export the checkpoint first, or give a folder that contains config.json",
            )
        )
    if wrong := damage(folder):
        raise CheckpointError(
            Problem(str(folder), "damaged", found="; ".join(wrong[:3]), do="export it again")
        )
    cuda = place.device.startswith("cuda")
    try:
        with _no_progress_bar():
            model = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=getattr(torch, place.dtype or ("bfloat16" if cuda else "float32")),
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,  # unset, transformers asks, and may run code of the folder
            )
    except Exception as error:  # transformers raises errors of many types for a broken folder
        raise _unloadable(folder, "not a model that transformers can load", error) from error
    return CausalLM(model.to(place.device))


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Disable the bar of transformers, which would break ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unloadable(folder: Path, what: str, error: Exception) -> CheckpointError:
    return CheckpointError(Problem(str(folder), what, found=_one_line(error)))


# ---------------------------------------------------------------------------------------- scoring


def _score_one(
    suite: _Suite,
    step: int,
    network: CausalLM,
    details: Path,
    began: float,
    watch: Watch | None,
) -> CheckpointScores:
    suite.model.use(network)
    tasks: dict[str, TaskScores] = {}
    files: dict[str, Path] = {}
    for number, (name, spec) in enumerate(suite.specs.items()):
        if watch is not None:
            watch(step, name, number, len(suite.specs))
        path = Path(details) / str(step) / f"{name}.parquet"
        tasks[name] = _score_task(suite, name, spec, path)
        if tasks[name].reason is None:
            files[name] = path
    seal_details(Path(details) / str(step))
    if tasks and all(task.reason for task in tasks.values()):
        reasons = "; ".join(f"{name}: {task.reason}" for name, task in tasks.items())
        raise EvaluationError(f"step {step}: no task could be scored: {reasons}")
    rule = suite.spec.score
    score = apply_rule(rule, tasks) if rule else Score(None)
    return CheckpointScores(
        step=step,
        tasks=tasks,
        score=score.value,
        direction=rule.direction if rule else None,
        reason=score.reason,
        seconds=time.process_time() - began,
        details=files,
    )


def _score_task(suite: _Suite, name: str, spec: TaskSpec, path: Path) -> TaskScores:
    from ablations.evaluation.lighteval import sample_metrics

    if name in suite.failed:
        return missing(spec, suite.failed[name])
    try:
        items = sample_metrics(suite.tasks[name], suite.model)
    except Exception as error:  # one broken task must not stop the others
        return missing(spec, _one_line(error))
    write_details(path, items, spec.metrics)
    return summarise(spec, items)


def _one_line(error: Exception) -> str:
    """Return an error as a reason on one line, with its type unless the error is one of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, (UserError, EvaluationError)):
        return text
    return f"{type(error).__name__}: {text}"[:300]
