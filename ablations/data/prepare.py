"""``prepare``: sources in, token stores out.

    data/tokenizers/<name>/                made first, where it is not there
    data/<tokenizer>/.<source>.partial/    built here, rank by rank (and .<source>.jobs/: which are done)
    data/<tokenizer>/<source>/             appears by one rename, whole

Running it again skips the stores that are there and the ranks that are done. A process killed at any
moment leaves at worst a ``.partial`` folder, which nobody reads and the next run goes on with::

    sources = {name: load_source(name) for name in ("wiki", "chat")}
    prepare(sources, load_tokenizer_spec("demo_bpe"), Path("data"), workers=2)
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablations.data.against import in_order, other_versions
from ablations.data.catalogue import (
    HubOrigin,
    SourceSpec,
    SyntheticOrigin,
    load_source,
    load_tokenizer_spec,
)
from ablations.data.demo.packages import mirror_folder
from ablations.data.executors import SlurmSpec, Work, jobs_folder, run_here, submit
from ablations.data.expected import Expected, expected_of
from ablations.data.finalize import heldout_file, remove_scratch
from ablations.data.manifest import StoreManifest, store_folder
from ablations.data.prepare_counts import counts_file, hashes_file
from ablations.data.prepare_jobs import living_jobs, require_no_jobs
from ablations.data.readers import Place, heldout, read_source, resolve_revision
from ablations.data.shards import with_shards
from ablations.data.store import TokenStore
from ablations.data.tokenizer import Tokenizer, TokenizerSpec, make_tokenizer
from ablations.errors import DataError, HeldError, Problem
from ablations.files import free_bytes, read_json, restore_folder, write_sealed
from ablations.quantities import byte_size

__all__ = ["Prepared", "Progress", "SlurmSpec", "prepare"]

_POLL_SECONDS = 0.5
_BYTES_A_TOKEN = 2.0
"""Text bytes a token stands for, at least: the estimate of the disk must not be too low."""
_DOCUMENT_BYTES = 2_000.0
"""Bytes of a document where nothing tells its number, at most about."""
_DISK_RESERVE_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A token store after ``prepare``."""

    name: str
    folder: Path
    manifest: StoreManifest | None
    """None where Slurm jobs were submitted that will make it."""
    skipped: bool
    """It was there already."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """State of a preparation, reported a few times a second."""

    source: str
    phase: str
    """tokenizer | reading | done | skipped | submitted"""
    tokens: int = 0
    expected_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Told:
    """Listener to a source's preparation, and the figures that are expected of it."""

    tell: Callable[[Progress], None]
    expected_tokens: int


def prepare(
    sources: Mapping[str, SourceSpec],
    tokenizer: TokenizerSpec,
    data_dir: Path,
    *,
    workers: int = 1,
    force: bool = False,
    mirror: str | Path | None = None,
    slurm: SlurmSpec | None = None,
    progress: Callable[[Progress], None] | None = None,
    overlap_tasks: Sequence[str] = (),
) -> list[Prepared]:
    """Make the token stores of ``sources`` that are not there yet.

    Args:
        sources: Name → source.
        tokenizer: The tokenizer; made first where it is not there.
        data_dir: The data folder.
        workers: Ranks of a source that run side by side (local), or at most at once (Slurm).
        force: Make the tokenizer and the stores anew.
        mirror: Folder that stands for the hub and the registry.
        slurm: Submit Slurm jobs instead of working here.
        progress: Called with the state of the work; None = no output.
        overlap_tasks: Tasks whose items are sought in the text while it is read, if their files exist.

    Raises:
        DataError: a source that cannot be read, a store made with other settings, a full disk.
        HeldError: another process prepares the source.
    """
    tell = progress or (lambda _: None)
    data_dir, from_mirror = Path(data_dir).absolute(), mirror_folder(mirror)
    data_dir.mkdir(parents=True, exist_ok=True)
    _refuse_submitted(sources, tokenizer, data_dir)
    made = _tokenizer(sources, tokenizer, data_dir, from_mirror, force=force, tell=tell)
    shared: dict[str, Any] = {"tokenizer": made, "data_dir": data_dir, "mirror": from_mirror}
    shared["overlap_tasks"] = tuple(overlap_tasks)
    settled = with_shards(sources, data_dir, tokenizer.name)
    works = in_order({name: Work(name=name, spec=spec, **shared) for name, spec in settled.items()})
    standing = {work.name: None if force else _standing(work) for work in works}
    todo = [work for work in works if standing[work.name] is None]
    expected = {
        work.name: expected_of(work.spec, tokenizer, data_dir, mirror=from_mirror) for work in todo
    }
    _check_disk(todo, expected, data_dir)
    _synthetic_items(works, todo, data_dir)
    prepared = []
    for work in works:
        manifest = standing[work.name]
        if manifest is not None:
            tell(Progress(source=work.name, phase="skipped", tokens=manifest.tokens))
        else:
            told = _Told(tell=tell, expected_tokens=int(expected[work.name].tokens))
            manifest = _prepare_one(work, workers, slurm, force=force, told=told)
        skipped = standing[work.name] is not None
        prepared.append(
            Prepared(name=work.name, folder=work.folder, manifest=manifest, skipped=skipped)
        )
    return prepared


def _refuse_submitted(
    sources: Mapping[str, SourceSpec], tokenizer: TokenizerSpec, data_dir: Path
) -> None:
    """Refuse while Slurm jobs prepare one of the sources, before anything that they read is touched.

    Raises:
        HeldError: every source that jobs are preparing.
    """
    problems: list[Problem] = []
    for name, spec in sources.items():
        store = store_folder(data_dir, tokenizer.name, spec.store or name)
        try:
            require_no_jobs(name, store, jobs_folder(store))
        except HeldError as error:
            problems += error.problems
    if problems:
        raise HeldError(problems)


def _tokenizer(
    sources: Mapping[str, SourceSpec],
    spec: TokenizerSpec,
    data_dir: Path,
    mirror: Path | None,
    *,
    force: bool,
    tell: Callable[[Progress], None],
) -> Tokenizer:
    """Yield the tokenizer, trained on the training part of the sources that it names."""
    place = Place(downloads=data_dir / "downloads", mirror=mirror)

    def sample() -> Iterator[str]:
        for name in spec.train_on or tuple(sources):
            tell(Progress(source=name, phase="tokenizer"))
            source = sources[name] if name in sources else load_source(name)
            taken = 0
            for text in read_source(source, place):
                if taken >= spec.sample_bytes:
                    break
                if not heldout(text.group, source.heldout_share):
                    taken += len(text.text.encode())
                    yield text.text

    if spec.base is not None and not (data_dir / "tokenizers" / spec.base).is_dir():
        base = load_tokenizer_spec(spec.base)
        _tokenizer(sources, base, data_dir, mirror, force=False, tell=tell)
    folder = data_dir / "tokenizers"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{spec.name}.lock"):
        return make_tokenizer(spec, folder, sample(), force=force, mirror=mirror)


def _standing(work: Work) -> StoreManifest | None:
    """Return the manifest of the store that is there; None if there is none.

    Raises:
        DataError: it was made with another tokenizer or from other settings, or is damaged.
    """
    restore_folder(work.folder)
    if not work.folder.exists():
        return None
    manifest = TokenStore.open(work.folder).manifest
    anew = "prepare with prepare.force=true to replace it"
    problems = other_versions(work, manifest)
    if manifest.tokenizer_hash != work.tokenizer.hash:
        problems.append(
            Problem(str(work.folder), "made with another tokenizer of the same name", do=anew)
        )
    if manifest.source_fingerprint != work.spec.fingerprint():
        problems.append(
            Problem(str(work.folder), "made from other settings of the source", do=anew)
        )
    elif work.has_classifier and (
        (version := work.asked()["classifier"]) != manifest.versions.get("classifier")
    ):
        problems.append(
            Problem(
                str(work.folder),
                "scored by another version of the classifier",
                found=manifest.versions.get("classifier"),
                allowed=version,
                do=anew,
            )
        )
    if problems:
        raise DataError(problems)
    _tidy(work)
    return manifest


def _tidy(work: Work) -> None:
    """Remove what a preparation that died after its store was whole had no time to."""
    lock = FileLock(work.folder.with_name(f".{work.folder.name}.lock"))
    with contextlib.suppress(Timeout, OSError), lock.acquire(timeout=0):
        if living_jobs(work.name, work.folder, work.jobs):
            return  # a preparation anew, by prepare.force
        remove_scratch(work.folder)
        shutil.rmtree(work.jobs, ignore_errors=True)


def _synthetic_items(works: list[Work], todo: list[Work], data_dir: Path) -> None:
    """Write the items of the synthetic skills with their sources, and again where they are damaged."""
    from ablations.data.demo.benchmark_items import prepare_synthetic_items, synthetic_items_stand

    def synthetic(some: list[Work]) -> bool:
        return any(isinstance(work.spec.origin, SyntheticOrigin) for work in some)

    if synthetic(todo) or (synthetic(works) and not synthetic_items_stand(data_dir)):
        prepare_synthetic_items(data_dir)


def _check_disk(works: list[Work], expected: Mapping[str, Expected], data_dir: Path) -> None:
    needed = sum(
        needed_bytes(work.spec, expected[work.name], work.tokenizer.token_bytes) for work in works
    )
    free = free_bytes(data_dir)
    if works and needed + _DISK_RESERVE_BYTES > free:
        names = ", ".join(work.name for work in works)
        raise DataError(
            Problem(
                str(data_dir),
                f"too little disk to prepare {names}",
                found=f"{byte_size(free)} free",
                allowed=f"about {byte_size(needed + _DISK_RESERVE_BYTES)}",
                do="set data_dir to a larger disk, or max_bytes of the sources",
            )
        )


def needed_bytes(spec: SourceSpec, expected: Expected, token_bytes: int) -> int:
    """Return the disk that preparing ``spec`` takes at its peak, at most about.

    Text that was not looked at counts with two bytes a token, so that the estimate is not too low.
    """
    documents = expected.documents or expected.text_bytes / _DOCUMENT_BYTES
    sought = int(documents * spec.duplicates.document_bytes) if spec.duplicates else 0
    if expected.basis != "published size":
        return int(expected.peak_bytes) + sought
    most = [spec.tokens_available]
    if spec.max_bytes is not None:
        most.append(int(spec.max_bytes / _BYTES_A_TOKEN))
    stored = int(min(most) * (2 * token_bytes + 4 * spec.heldout_share))
    return max(int(expected.peak_bytes), stored) + sought


def _prepare_one(
    work: Work,
    workers: int,
    slurm: SlurmSpec | None,
    *,
    force: bool,
    told: _Told,
) -> StoreManifest | None:
    work.folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.folder.with_name(f".{work.folder.name}.lock"), timeout=0)
    try:
        with lock:
            require_no_jobs(work.name, work.folder, work.jobs)
            resolved = _begin(work, force=force)
            if slurm is not None:
                submit(resolved, slurm)
                told.tell(Progress(source=work.name, phase="submitted"))
                return None
            with _watch(resolved, told):
                run_here(resolved, workers)
            manifest = StoreManifest.read(work.folder)
    except Timeout as error:
        raise HeldError(
            Problem(str(work.folder), "another process is preparing this source", do="wait for it")
        ) from error
    told.tell(Progress(source=work.name, phase="done", tokens=manifest.tokens))
    return manifest


def _begin(work: Work, *, force: bool) -> Work:
    """Return the partial folder, kept from a killed attempt with the same settings, else a new one.

    A hub revision is resolved once and recorded there, so that every rank and every attempt reads
    the same commit.
    """
    asked = work.asked()
    record = work.partial / "asked.json"
    before: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        before = read_json(record)
    origin = work.spec.origin
    revision = before.get("revision")
    if force or {key: before.get(key) for key in asked} != asked:
        for folder in (work.jobs, work.partial):
            shutil.rmtree(folder, ignore_errors=True)
        work.partial.mkdir(parents=True)
        revision = None
        if isinstance(origin, HubOrigin) and work.mirror is None:
            revision = resolve_revision(origin)
        write_sealed(record, {**asked, "revision": revision})
    _forget_lost_ranks(work)
    if revision is not None and isinstance(origin, HubOrigin):
        return replace(work, spec=replace(work.spec, origin=replace(origin, revision=revision)))
    return work


def _forget_lost_ranks(work: Work) -> None:
    """Let the ranks that are marked as done and left no counts, hashes or held-out text run again.

    Versions before this one removed the counts before the store had its name, and wrote no hashes.
    """
    for rank in range(work.spec.shard_count):
        partial = work.partial
        files = (
            counts_file(partial, rank),
            hashes_file(partial, rank),
            heldout_file(partial, rank),
        )
        if not all(file.is_file() for file in files):
            (work.jobs / "completions" / f"{rank:05d}").unlink(missing_ok=True)


@contextlib.contextmanager
def _watch(work: Work, told: _Told) -> Iterator[None]:
    """Report the tokens written so far while the ranks run, in whatever process they do."""
    stop = threading.Event()
    tell, expected = told.tell, told.expected_tokens

    def report() -> None:
        while not stop.wait(_POLL_SECONDS):
            size = 0
            for path in (work.partial / "train").glob("*.ds"):
                with contextlib.suppress(OSError):  # shuffled and removed meanwhile
                    size += path.stat().st_size
            tell(
                Progress(
                    source=work.name,
                    phase="reading",
                    tokens=size // work.tokenizer.token_bytes,
                    expected_tokens=expected,
                )
            )

    tell(Progress(source=work.name, phase="reading", expected_tokens=expected))
    watcher = threading.Thread(target=report, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
