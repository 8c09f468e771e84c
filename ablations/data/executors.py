"""One source's preparation as datatrove jobs: in this process, in a pool, or on a Slurm cluster."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ablations.data.catalogue import SourceSpec
from ablations.data.manifest import StoreManifest, store_folder
from ablations.data.prepare_counts import Counting
from ablations.data.quality.artifact import require_usable
from ablations.data.readers import Place
from ablations.data.tokenizer import Tokenizer
from ablations.errors import AblationError, ConfigError, DataError, Problem
from ablations.ranges import Workers
from ablations.sbatch import line_problems, partition_problems, time_problems

if TYPE_CHECKING:
    from ablations.data.pipeline import DropStep

__all__ = [
    "SlurmSpec",
    "Work",
    "against_key",
    "dropping_steps",
    "jobs_folder",
    "run_here",
    "submit",
]


@dataclass(frozen=True, kw_only=True)
class SlurmSpec:
    """Options of the ranks of a source as Slurm jobs (datatrove's ``SlurmPipelineExecutor``)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    partition: str
    """Slurm partition."""
    time: str = "24:00:00"
    """Limit of a job, hours:minutes:seconds."""
    cpus_per_task: int = 2
    """Cores of a rank; the tokenizer uses them all."""
    mem_per_cpu_gb: int = 4
    """Memory of a core in GB."""
    at_once: Workers | None = None
    """Tasks of a source that run at the same time; null = all its shards."""
    env_command: str | None = None
    """Command that activates the Python environment inside a job."""
    sbatch_args: Mapping[str, str] | None = None
    """Further options of ``sbatch``."""

    def __post_init__(self) -> None:
        problems = [
            *partition_problems("prepare.slurm.partition", self.partition),
            *time_problems("prepare.slurm.time", self.time),
            *line_problems("prepare.slurm.sbatch_args", self.sbatch_args or {}),
        ]
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One source to prepare, and everything its ranks need."""

    name: str
    spec: SourceSpec
    tokenizer: Tokenizer
    data_dir: Path
    mirror: Path | None
    overlap_tasks: tuple[str, ...] = ()
    """Tasks whose items are sought in the text while it is read, for the contamination report."""
    against: Mapping[str, Path] = field(default_factory=dict)
    """Source that keeps its duplicates → its token store."""

    @property
    def folder(self) -> Path:
        """The store, once it is whole."""
        return store_folder(self.data_dir, self.tokenizer.name, self.spec.store or self.name)

    @property
    def partial(self) -> Path:
        """Folder that the ranks write to. It becomes the store."""
        return self.folder.with_name(f".{self.folder.name}.partial")

    @property
    def jobs(self) -> Path:
        """Marks of the ranks that are done, and datatrove's logs."""
        return jobs_folder(self.folder)

    @property
    def duplicates(self) -> Path:
        """Folder of the search for duplicates."""
        return self.partial / "duplicates"

    @property
    def has_classifier(self) -> bool:
        """Return whether the source's classifier is there; a store that is whole needs it no more."""
        return self.spec.classifier is not None and Path(self.spec.classifier).exists()

    def asked(self) -> dict[str, str]:
        """Return what decides the store: a preparation with another answer begins anew.

        Raises:
            DataError: the source's classifier is missing, or may not filter.
        """
        asked = {"source": self.spec.fingerprint(), "tokenizer": self.tokenizer.hash}
        if self.spec.classifier is not None:
            where = f"source.{self.name}.classifier"
            asked["classifier"] = require_usable(Path(self.spec.classifier), where).version
        for name in self.against:
            asked[against_key(name)] = self.content(name)
        return asked

    def content(self, other: str) -> str:
        """Return a checksum of the text of a source that this one is compared with.

        Raises:
            DataError: that source is not prepared.
        """
        folder = self.against[other]
        try:
            manifest = StoreManifest.read(folder)
        except AblationError as error:
            raise DataError(
                Problem(
                    f"source.{self.name}.duplicates.against",
                    f"the source {other!r} is not prepared",
                    found=str(folder),
                    do=f"prepare it first; a mixture may name it with weight 0: mixture.weights.{other}=0",
                )
            ) from error
        parts = [file.sha256 for file in manifest.files] + [manifest.heldout.sha256]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    def place(self) -> Place:
        """Folders of packages and mirrors for the readers."""
        return Place(downloads=self.data_dir / "downloads", mirror=self.mirror)


def jobs_folder(store: Path) -> Path:
    """Return the folder beside a store that notes which of its ranks are done."""
    return store.with_name(f".{store.name}.jobs")


def against_key(other: str) -> str:
    """Return the key of the version of another source, in requests and manifests."""
    return f"against {other}"


def dropping_steps(spec: SourceSpec, tokenizer: Path | None, items: Path) -> list[DropStep]:
    """Return the steps that leave documents out, in their order.

    Args:
        spec: The source.
        tokenizer: ``tokenizer.json``; needed for limits of length only.
        items: Folder of the item files to decontaminate against.
    """
    least, most = spec.min_tokens, spec.max_tokens
    if not (spec.drop_duplicates or spec.decontaminate or least or most):
        return []
    # Imported here: datatrove takes a second, and a plan asks for the steps too.
    from ablations.data.pipeline import DropByLength, DropContaminated, DropDuplicates
    from ablations.data.task_index import task_index

    steps: list[DropStep] = []
    if spec.drop_duplicates:
        steps.append(DropDuplicates())
    if spec.decontaminate:
        steps.append(DropContaminated(task_index(items, spec.decontaminate)))
    if least is not None or most is not None:
        assert tokenizer is not None
        steps.append(DropByLength(tokenizer, least, most))
    return steps


def _reading(work: Work) -> tuple[Any, list[Counting]]:
    """Return the steps that read the source and drop documents, before its duplicates."""
    from ablations.data.pipeline import ReadSource

    place = work.place()
    reader = ReadSource(work.spec, place.downloads, place.mirror)
    items = _items(work) if work.spec.decontaminate else Path()
    dropping: list[Counting] = []
    if work.spec.clean is not None:
        # Imported here: most sources are read as they are.
        from ablations.data.cleaning import cleaning_steps

        dropping += cleaning_steps(work.spec.clean)
    dropping += dropping_steps(work.spec, work.tokenizer.file, items)
    return reader, dropping


def _pipeline(work: Work) -> list[Any]:
    from ablations.data.pipeline import HoldOut, WriteTokens

    if work.spec.rows is not None:
        return _row_pipeline(work)
    reader, dropping = _reading(work)
    if work.spec.duplicates is not None:
        from ablations.data.duplicates import DropMarked

        dropping.append(DropMarked(work.duplicates, work.name, list(work.against)))
    if work.spec.classifier is not None:
        # Imported here: most sources need no classifier.
        from ablations.data.quality.score_step import ScoreDocuments

        classifier = Path(work.spec.classifier).absolute()
        dropping.append(ScoreDocuments(classifier, work.spec.min_score))
    return [
        reader,
        *dropping,
        HoldOut(work.partial, work.spec.heldout_share, reader, dropping),
        *_overlaps(work),
        WriteTokens(work.partial, work.tokenizer, scored=_scored(work.spec)),
    ]


def _stages(work: Work) -> list[Any]:
    """Return the stages of the search for duplicates that comes before the preparation."""
    if work.spec.duplicates is None:
        return []
    from ablations.data.duplicates import marked, stages

    if marked(work.duplicates, work.spec.shard_count):
        return []
    reader, dropping = _reading(work)
    return stages(
        work.spec.duplicates,
        work.duplicates,
        [reader, *dropping],
        work.spec.shard_count,
        list(work.against.values()),
        work.data_dir / "tokenizers",
    )


def _overlaps(work: Work) -> list[Any]:
    """Return the step that seeks the items of ``work.overlap_tasks``, for those whose items exist."""
    from ablations.data.contamination_report import task_keys
    from ablations.data.overlap_step import FindOverlaps
    from ablations.data.task_index import task_index

    benchmarks = work.data_dir / "benchmarks"
    there = [task for task in work.overlap_tasks if (benchmarks / f"{task}.jsonl").is_file()]
    if not there:
        return []
    index = task_index(benchmarks, there)
    return [FindOverlaps(work.partial, index, task_keys(work.data_dir, there))]


def _row_pipeline(work: Work) -> list[Any]:
    """Return the steps of a source of conversations or preferences."""
    from ablations.data.rows.row_pipeline import ReadSamples, WriteRows

    place = work.place()
    reader = ReadSamples(work.spec, work.tokenizer, place.downloads, place.mirror)
    dropping = dropping_steps(work.spec, work.tokenizer.file, _items(work))
    write = WriteRows(work.partial, work.spec, work.tokenizer, reader, dropping)
    return [reader, *dropping, write]


def _scored(spec: SourceSpec) -> bool:
    """Return whether the store keeps the score of each document."""
    return spec.buckets is not None or spec.classifier is not None


def _items(work: Work) -> Path:
    """``data/benchmarks``, with the tasks to decontaminate against fetched where they are missing."""
    from ablations.data.demo.benchmark_items import prepare_benchmarks
    from ablations.data.demo.benchmark_tasks import TASKS

    folder = work.data_dir / "benchmarks"
    missing = [task for task in work.spec.decontaminate if not (folder / f"{task}.jsonl").is_file()]
    if set(missing) & {*TASKS, "gsm8k_overlap"}:
        prepare_benchmarks(work.data_dir, mirror=work.mirror)
    return folder


def _finish(work: Work) -> Any:
    from ablations.data.finalize import Finish

    return Finish(
        name=work.name,
        spec=work.spec,
        tokenizer=work.tokenizer,
        partial=work.partial,
        folder=work.folder,
    )


def run_here(work: Work, workers: int) -> None:
    """Run every rank that is not done, in this process or in a pool, then make the store."""
    from ablations.data.pipeline import InProcess

    for stage in _stages(work):
        InProcess(
            pipeline=stage.steps,
            tasks=stage.tasks,
            workers=min(workers, stage.tasks),
            logging_dir=str(work.jobs / f"duplicates-{stage.name}"),
        ).run()
    InProcess(
        pipeline=_pipeline(work),
        tasks=work.spec.shard_count,
        workers=min(workers, work.spec.shard_count),
        logging_dir=str(work.jobs),
    ).run()
    _finish(work)()
    shutil.rmtree(work.jobs, ignore_errors=True)


def submit(work: Work, slurm: SlurmSpec) -> tuple[str, ...]:
    """Submit the ranks that are not done, and a job after them that makes the store; return their ids.

    The caller has made sure that no job of an earlier submission is left.

    Raises:
        WorkError: Slurm refused a job.
    """
    # Imported here: datatrove takes a second.
    from ablations.data.slurm_executor import Stage, submit_jobs

    stages = [
        Stage(one.name, one.steps, one.tasks, work.jobs / f"duplicates-{one.name}")
        for one in _stages(work)
    ]
    stages += [
        Stage("prepare", _pipeline(work), work.spec.shard_count, work.jobs),
        Stage("finish", [_finish(work)], 1, work.jobs / "finish"),
    ]
    options = {
        "time": slurm.time,
        "partition": slurm.partition,
        "cpus_per_task": slurm.cpus_per_task,
        "mem_per_cpu_gb": slurm.mem_per_cpu_gb,
        "env_command": slurm.env_command,
        "sbatch_args": dict(slurm.sbatch_args or {}),
    }
    return submit_jobs(
        work.name, work.folder, work.jobs, stages, at_once=slurm.at_once, options=options
    )
