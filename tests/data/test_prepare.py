"""Preparation: whole or not at all, once, and the same whatever happened on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock

from ablations.data import prepare as module
from ablations.data import verified
from ablations.data.catalogue import FilesOrigin, HubOrigin, SourceSpec
from ablations.data.duplicates_spec import DuplicatesSpec
from ablations.data.manifest import StoreManifest, store_folder
from ablations.data.prepare import Prepared, Progress, SlurmSpec, prepare
from ablations.data.readers import heldout
from ablations.data.store import TokenStore
from ablations.data.synthetic import documents
from ablations.data.tokenizer import TokenizerSpec, open_tokenizer
from ablations.errors import DataError, HeldError
from ablations.files import read_json_lines
from tests.oracles.skills import prepare_skills

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)


def write_texts(folder: Path, files: int = 3, each: int = 40) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = list(documents("dialogue", files * each, seed=0))
    for number in range(files):
        rows = [{"id": t.id, "text": t.text} for t in texts[number * each : (number + 1) * each]]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{number}.jsonl").write_text(lines)
    return folder


def source(folder: Path, **more: Any) -> SourceSpec:
    origin = FilesOrigin(kind="files", paths=(str(folder),))
    return SourceSpec(
        **{"domain": "x", "tokens_available": 9, "origin": origin, "licence": "MIT", **more}
    )


class Made(NamedTuple):
    data: Path
    texts: Path
    store: Prepared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("prepare")
    texts = write_texts(root / "texts")
    (store,) = prepare({"talk": source(texts)}, TOKENIZER, root / "data")
    return Made(root / "data", texts, store)


def manifest(prepared: Prepared) -> StoreManifest:
    assert prepared.manifest is not None
    return prepared.manifest


def test_every_document_is_in_the_store_or_held_out(made: Made) -> None:
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(made.data / "tokenizers" / "t" / "tokenizer.json"))
    stored = {fast.decode(t.tolist()) for t in TokenStore.open(made.store.folder).documents()}
    aside = {row["text"] for row in read_json_lines(made.store.folder / "heldout.jsonl")}
    texts = {text.text for text in documents("dialogue", 120, seed=0)}
    assert stored | aside == texts
    assert not stored & aside
    assert aside == {text for text in texts if heldout(text, 0.05)}


def test_the_manifest_counts_what_is_there(made: Made) -> None:
    found = manifest(made.store)
    texts = list(documents("dialogue", 120, seed=0))
    assert found.documents + found.heldout.documents == 120
    assert found.bytes + found.heldout.bytes == sum(len(t.text.encode()) for t in texts)
    assert found.tokens == sum(file.tokens for file in found.files)
    assert found.tokenizer_hash == open_tokenizer(made.data / "tokenizers" / "t").hash
    assert TokenStore.open(made.store.folder, full=True).num_tokens == found.tokens


def test_an_end_token_follows_each_document_and_documents_are_shuffled(made: Made) -> None:
    store = TokenStore.open(made.store.folder)
    tokens = np.fromfile(next((store.folder / "train").glob("*.ds")), dtype="<u2")
    assert (tokens == store.manifest.eos_id).sum() == store.manifest.documents
    assert tokens[-1] == store.manifest.eos_id
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(made.data / "tokenizers" / "t" / "tokenizer.json"))
    stored = [fast.decode(t.tolist()) for t in store.documents()]
    written = [t.text for t in documents("dialogue", 120, seed=0) if t.text in set(stored)]
    assert stored != written
    assert sorted(stored) == sorted(written)


def test_documents_of_too_few_or_too_many_tokens_are_dropped_and_counted(
    made: Made, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer as Fast

    fast = Fast.from_file(str(made.data / "tokenizers" / "t" / "tokenizer.json"))
    texts = {text.text for text in documents("dialogue", 120, seed=0)}
    lengths = {text: len(fast.encode(text, add_special_tokens=False).ids) for text in texts}
    least, most = np.quantile(list(lengths.values()), [0.3, 0.8]).astype(int).tolist()
    data = tmp_path / "data"
    shutil.copytree(made.data / "tokenizers", data / "tokenizers")
    spec = source(made.texts, min_tokens=least, max_tokens=most, heldout_share=0.2)
    (kept,) = prepare({"some": spec}, TOKENIZER, data)
    stored = {fast.decode(t.tolist()) for t in TokenStore.open(kept.folder).documents()}
    aside = {row["text"] for row in read_json_lines(kept.folder / "heldout.jsonl")}
    assert stored | aside == {text for text, n in lengths.items() if least <= n <= most}
    assert aside
    assert manifest(kept).dropped == {
        f"fewer than {least} tokens": sum(n < least for n in lengths.values()),
        f"more than {most} tokens": sum(n > most for n in lengths.values()),
    }


def test_a_second_run_does_nothing(made: Made) -> None:
    before = (made.store.folder / "manifest.json").stat().st_mtime_ns
    told: list[Progress] = []
    (again,) = prepare({"talk": source(made.texts)}, TOKENIZER, made.data, progress=told.append)
    assert again.skipped
    assert [one.phase for one in told] == ["skipped"]
    assert (made.store.folder / "manifest.json").stat().st_mtime_ns == before


def test_other_settings_of_the_source_or_tokenizer_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other settings of the source"):
        prepare({"talk": source(made.texts, max_documents=5)}, TOKENIZER, made.data)
    with pytest.raises(DataError, match="made with other settings"):
        prepare({"talk": source(made.texts)}, replace(TOKENIZER, vocab_size=301), made.data)
    data = tmp_path / "data"
    shutil.copytree(made.data, data)
    shutil.rmtree(data / "tokenizers")
    with pytest.raises(DataError, match="another tokenizer of the same name"):
        prepare({"talk": source(made.texts)}, replace(TOKENIZER, vocab_size=301), data)


def test_force_replaces_a_store(made: Made, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(made.data, data)
    fewer = source(made.texts, max_documents=60)
    (again,) = prepare({"talk": fewer}, TOKENIZER, data, force=True)
    assert manifest(again).documents + manifest(again).heldout.documents == 60
    assert not list((data / "t").glob(".talk.old"))


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_hold_the_same_documents_however_many_work(
    made: Made, tmp_path: Path, workers: int
) -> None:
    data = tmp_path / "data"
    shutil.copytree(made.data / "tokenizers", data / "tokenizers")
    spec = source(made.texts, shards=3)
    (sharded,) = prepare({"talk": spec}, TOKENIZER, data, workers=workers)
    assert len(manifest(sharded).files) == 3
    assert manifest(sharded).tokens == manifest(made.store).tokens
    first = [file.sha256 for file in manifest(sharded).files]
    if workers == 2:
        (alone,) = prepare({"twin": spec}, TOKENIZER, data, workers=1)
        assert [file.sha256 for file in manifest(alone).files] == first


def test_an_error_in_a_worker_process_arrives_whole(made: Made, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    (texts / "2.jsonl").write_text("{\n")
    shutil.copytree(made.data / "tokenizers", tmp_path / "data" / "tokenizers")
    spec = source(texts, shards=3)
    with pytest.raises(DataError, match=r"2.jsonl:1: not a JSON object"):
        prepare({"talk": spec}, TOKENIZER, tmp_path / "data", workers=2)
    assert not store_folder(tmp_path / "data", "t", "talk").exists()
    write_texts(texts)
    (mended,) = prepare({"talk": spec}, TOKENIZER, tmp_path / "data")
    assert manifest(mended).tokens == manifest(made.store).tokens


def test_nothing_held_out_or_nothing_left_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.data / "tokenizers", tmp_path / "tokenizers")
    few = source(made.texts, max_documents=2)
    with pytest.raises(DataError, match="too little data held out"):
        prepare({"few": few}, TOKENIZER, tmp_path)
    nothing = source(made.texts, keep={"id": "nobody"})
    with pytest.raises(DataError, match="no document left") as caught:
        prepare({"nothing": nothing}, TOKENIZER, tmp_path)
    assert "id is not nobody" in str(caught.value)
    (bare,) = prepare({"bare": replace(few, heldout_share=0.0)}, TOKENIZER, tmp_path)
    assert manifest(bare).heldout.documents == 0


def test_contaminated_documents_are_dropped_and_counted(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.data / "tokenizers", tmp_path / "tokenizers")
    bad = next(documents("dialogue", 1, seed=0)).text
    row = {"id": "0", "query": bad, "choices": ["a"], "gold": 0, "joiner": " ", "question": bad}
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "mine.jsonl").write_text(json.dumps(row) + "\n")
    spec = source(made.texts, decontaminate=("mine",))
    (clean,) = prepare({"talk": spec}, TOKENIZER, tmp_path)
    dropped = manifest(clean).dropped["contains mine"]
    assert dropped >= 1
    assert manifest(clean).documents + manifest(clean).heldout.documents == 120 - dropped
    with pytest.raises(DataError, match="unknown task 'nine'"):
        prepare({"x": source(made.texts, decontaminate=("nine",))}, TOKENIZER, tmp_path)


def test_a_disk_too_small_is_told_before_anything_is_read(made: Made) -> None:
    hub = HubOrigin(kind="hub", repo="nobody/huge")
    spec = source(made.texts, tokens_available=10**16, origin=hub)
    with pytest.raises(DataError, match="too little disk to prepare huge"):
        prepare({"huge": spec}, TOKENIZER, made.data)
    assert not list((made.data / "t").glob(".huge.partial"))


def test_two_at_once_the_second_is_told(made: Made) -> None:
    with FileLock(made.data / "t" / ".new.lock"), pytest.raises(HeldError, match="another process"):
        prepare({"new": source(made.texts)}, TOKENIZER, made.data)


def test_progress_tells_of_every_source(made: Made, tmp_path: Path) -> None:
    told: list[Progress] = []
    prepare({"a": source(made.texts)}, TOKENIZER, tmp_path, progress=told.append)
    phases = [one.phase for one in told]
    assert phases[0] == "tokenizer"
    assert phases[-1] == "done"
    assert "reading" in phases
    assert told[-1].tokens == manifest(made.store).tokens


def test_the_tiny_sources_are_quick_to_find_again(
    skills: dict[str, Prepared], data_dir: Path
) -> None:
    again = prepare_skills(data_dir, documents=300)
    assert all(one.skipped for one in again.values())


# ------------------------------------------------------------------ deaths around the commit point


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def deaths(monkeypatch: pytest.MonkeyPatch, at: int) -> Counter[str]:
    """Die before the ``at``-th call that moves or removes something; what was called so far."""
    calls: Counter[str] = Counter()

    def deadly(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            if calls.total() == at:
                raise Killed
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(shutil, "rmtree", deadly("rmtree", shutil.rmtree))
    for name in ("rename", "unlink"):
        monkeypatch.setattr(Path, name, deadly(name, getattr(Path, name)))
    return calls


@pytest.mark.parametrize("standing", [False, True])
def test_a_death_before_any_move_or_removal_of_the_finish_loses_nothing(
    made: Made, tmp_path: Path, standing: bool
) -> None:
    spec = source(made.texts, shards=2)
    at, died = 0, True
    while died:
        at += 1
        data = tmp_path / str(at)
        shutil.copytree(made.data / "tokenizers", data / "tokenizers")
        if standing:
            prepare({"talk": spec}, TOKENIZER, data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "run_here", finish_that_dies(patch, at))
            try:
                prepare({"talk": spec}, TOKENIZER, data, force=standing)
                died = False
            except Killed:
                pass
        (again,) = prepare({"talk": spec}, TOKENIZER, data)
        assert TokenStore.open(again.folder, full=True).num_tokens == manifest(made.store).tokens
        left = {path.name for path in again.folder.iterdir()}
        assert left == {"manifest.json", "train", "heldout.jsonl"}, at
        hidden = {path.name for path in (data / "t").iterdir() if path.is_dir()}
        # A forced preparation that died is begun anew by the next forced one.
        assert hidden - ({".talk.partial"} if standing else set()) == {"talk"}, at
    assert at > 4


def finish_that_dies(patch: pytest.MonkeyPatch, at: int) -> Callable[..., None]:
    from ablations.data import executors

    real = executors.run_here

    def run(work: Any, workers: int) -> None:
        finish = executors._finish

        def deadly_finish(work: Any) -> Any:
            step = finish(work)

            def call() -> Any:
                deaths(patch, at)
                return step()

            return call

        patch.setattr(executors, "_finish", deadly_finish)
        real(work, workers)

    return run


def test_a_preparation_that_lost_its_counts_does_those_ranks_again(
    made: Made, tmp_path: Path
) -> None:
    """The wedge of a version before: counts removed, the store without its name, ranks done."""
    data = tmp_path / "data"
    shutil.copytree(made.data / "tokenizers", data / "tokenizers")
    spec = source(made.texts, shards=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_here", finish_that_dies(patch, 1))
        with pytest.raises(Killed):
            prepare({"talk": spec}, TOKENIZER, data)
    shutil.rmtree(data / "t" / ".talk.partial" / "counts")
    (again,) = prepare({"talk": spec}, TOKENIZER, data)
    assert manifest(again).tokens == manifest(made.store).tokens


def test_a_fresh_store_is_not_read_again(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(f"read {path} again")

    monkeypatch.setattr(verified, "_seen", {})
    monkeypatch.setattr(verified, "file_sha256", refuse)
    assert TokenStore.open(made.store.folder).num_tokens == manifest(made.store).tokens


@pytest.mark.parametrize("name", ["synthetic_facts.jsonl", "checksums.json"])
@pytest.mark.parametrize("how", ["cut", "gone"])
def test_damaged_synthetic_items_are_made_anew(tmp_path: Path, name: str, how: str) -> None:
    prepare_skills(tmp_path, documents=60)
    folder = tmp_path / "benchmarks"
    before = (folder / "synthetic_facts.jsonl").read_bytes()
    if how == "cut":
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    else:
        (folder / name).unlink()
    prepare_skills(tmp_path, documents=60)
    assert (folder / "synthetic_facts.jsonl").read_bytes() == before


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_prepare import TOKENIZER, source
from ablations.data.prepare import prepare
prepare({"talk": source(Path(sys.argv[1]), shards=4)}, TOKENIZER, Path(sys.argv[2]), workers=2)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_store(made: Made, tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", files=4, each=3_000)
    data = tmp_path / "data"
    shutil.copytree(made.data / "tokenizers", data / "tokenizers")
    command = [sys.executable, "-c", RUN, str(texts), str(data), str(Path(__file__).parent)]
    folder, partial = data / "t" / "talk", data / "t" / ".talk.partial"
    for kill in range(3):
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 120
        # Later each time: as it starts, while ranks write, after the first rank, near the end.
        while process.poll() is None and time.monotonic() < deadline:
            written = len(list(partial.glob("counts/*.json"))) if partial.exists() else -1
            if written >= kill - 1:
                break
            time.sleep(0.01)
        time.sleep(0.05 * kill)
        # Every other time the pool's workers are left alive.
        if kill % 2:
            process.kill()
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if folder.exists():
            TokenStore.open(folder, full=True)
    subprocess.run(command, check=True, timeout=300)
    (fresh,) = prepare({"fresh": source(texts, shards=4)}, TOKENIZER, data)
    store = TokenStore.open(folder, full=True)
    ours = [file.sha256 for file in store.manifest.files]
    assert ours == [file.sha256 for file in manifest(fresh).files]
    assert store.manifest.heldout == manifest(fresh).heldout


SBATCH = """#!/bin/bash
# Runs the script at once, a task of its array after another, as a cluster would.
echo "$@" >> "$SLURM_FAKE/calls"
script=${@: -1}
tasks=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 $tasks); do
    SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=node0 bash "$script" >> "$SLURM_FAKE/log" 2>&1 || exit 1
done
echo "Submitted batch job $(wc -l < "$SLURM_FAKE/calls")"
"""
SRUN = '#!/bin/bash\nwhile [[ $1 == -* ]]; do [[ $1 == -n ]] && shift; shift; done\nexec "$@"\n'


@pytest.mark.slow
@pytest.mark.parametrize("duplicates", [None, DuplicatesSpec(kind="near")])
def test_slurm_jobs_make_the_same_store(
    made: Made,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    duplicates: DuplicatesSpec | None,
) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("srun", SRUN),
        ("scontrol", "#!/bin/bash\necho node0\n"),
    ):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    path = f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("SLURM_FAKE", str(tmp_path))
    data = tmp_path / "data"
    shutil.copytree(made.data / "tokenizers", data / "tokenizers")
    spec = source(made.texts, shards=2, duplicates=duplicates)
    slurm = SlurmSpec(partition="cpu", sbatch_args={"account": "us"})
    (submitted,) = prepare({"talk": spec}, TOKENIZER, data, slurm=slurm, workers=2)
    assert submitted.manifest is None
    found = TokenStore.open(submitted.folder, full=True)
    if duplicates is None:
        assert found.num_tokens == manifest(made.store).tokens
    # Each job waits for the one before it: the search for duplicates has three.
    waits = (tmp_path / "calls").read_text().count("afterok:")
    assert waits == (1 if duplicates is None else 4)
    (again,) = prepare({"talk": spec}, TOKENIZER, data)
    assert again.skipped
    (here,) = prepare({"here": spec}, TOKENIZER, data)
    assert [file.sha256 for file in found.manifest.files] == [
        file.sha256 for file in manifest(here).files
    ]
    assert found.manifest.dropped == manifest(here).dropped
