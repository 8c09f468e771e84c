"""While Slurm jobs prepare a source, nobody else does: the queue is asked, by the names of the jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.data.prepare import SlurmSpec, prepare
from ablations.data.prepare_jobs import SUBMITTED, job_name, living_jobs, require_no_jobs
from ablations.data.tokenizer import TokenizerSpec
from ablations.errors import HeldError, WorkError

TOKENIZER = TokenizerSpec(name="t", vocab_size=300, sample_bytes=5_000)

Queue = Callable[[str], None]


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """Set what ``squeue`` prints; ``scancel`` notes its arguments in ``cancelled``."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scancel").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/cancelled\n')
    (commands / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")

    def printing(lines: str) -> None:
        (commands / "squeue").write_text(
            f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\ncat <<'END'\n{lines}\nEND\n"
        )
        (commands / "squeue").chmod(0o755)

    return printing


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / ".talk.jobs").mkdir()
    (tmp_path / ".talk.jobs" / SUBMITTED).write_text('{"names": ["cluster-talk-1"]}')
    return tmp_path / "talk"


def test_jobs_that_run_or_wait_hold_the_source(store: Path, queue: Queue, tmp_path: Path) -> None:
    queue("12_1|RUNNING|None\n12_[2-3]|PENDING|Resources\n13|PENDING|Dependency\n11|FAILED|None")
    with pytest.raises(HeldError) as caught:
        require_no_jobs("talk", store, tmp_path / ".talk.jobs")
    assert "12_1 (running), 12_[2-3] (pending), 13 (pending)" in str(caught.value)
    assert "scancel 12 13" in str(caught.value)
    assert living_jobs("talk", store, tmp_path / ".talk.jobs")
    asked = (tmp_path / "asked").read_text()
    assert job_name("prepare", "talk", store) in asked
    assert "cluster-talk-1" in asked


def test_jobs_that_can_never_start_are_cancelled(store: Path, queue: Queue, tmp_path: Path) -> None:
    queue("12_1|CANCELLED|None\n13|PENDING|DependencyNeverSatisfied")
    assert not living_jobs("talk", store, tmp_path / ".talk.jobs")
    require_no_jobs("talk", store, tmp_path / ".talk.jobs")
    assert (tmp_path / "cancelled").read_text().strip() == "13"
    assert not (tmp_path / ".talk.jobs" / SUBMITTED).exists()


def test_a_queue_that_does_not_answer_holds_the_source(
    store: Path, queue: Queue, tmp_path: Path
) -> None:
    with pytest.raises(HeldError, match="the queue does not answer"):
        require_no_jobs("talk", store, tmp_path / ".talk.jobs")
    assert living_jobs("talk", store, tmp_path / ".talk.jobs")


def test_without_a_submission_no_queue_is_asked(tmp_path: Path, queue: Queue) -> None:
    require_no_jobs("talk", tmp_path / "talk", tmp_path / ".talk.jobs")
    assert not (tmp_path / "asked").exists()


def test_stores_of_two_folders_have_jobs_of_their_own(tmp_path: Path) -> None:
    names = {job_name("prepare", "talk", tmp_path / folder) for folder in ("a", "b")}
    assert len(names) == 2


def test_a_second_prepare_touches_nothing_while_jobs_work(tmp_path: Path, queue: Queue) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.jsonl").write_text('{"id": "1", "text": "some text"}\n' * 40)
    origin = FilesOrigin(kind="files", paths=(str(texts),))
    spec = SourceSpec(domain="x", tokens_available=9, origin=origin, licence="MIT")
    jobs = tmp_path / "data/t/.talk.jobs"
    jobs.mkdir(parents=True)
    (jobs / SUBMITTED).write_text("{}")
    queue("12_0|RUNNING|None")
    for slurm in (None, SlurmSpec(partition="main")):
        with pytest.raises(HeldError, match=r"Slurm jobs are preparing this source.*12_0"):
            prepare({"talk": spec}, TOKENIZER, tmp_path / "data", force=True, slurm=slurm)
    assert [path.name for path in jobs.iterdir()] == [SUBMITTED]
    assert not (tmp_path / "data/tokenizers").exists()


@pytest.mark.slow
def test_a_submission_that_slurm_refuses_leaves_no_lock(tmp_path: Path, queue: Queue) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    lines = "".join(f'{{"id": "{n}", "text": "text number {n}"}}\n' for n in range(400))
    (texts / "a.jsonl").write_text(lines)
    origin = FilesOrigin(kind="files", paths=(str(texts),))
    spec = SourceSpec(domain="x", tokens_available=9, origin=origin, licence="MIT")
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\nexit 1\n")
    sbatch.chmod(0o755)
    with pytest.raises(WorkError, match="Slurm took no job"):
        prepare({"talk": spec}, TOKENIZER, tmp_path / "data", slurm=SlurmSpec(partition="main"))
    assert not (tmp_path / "data/t/.talk.jobs" / SUBMITTED).exists()
    (made,) = prepare({"talk": spec}, TOKENIZER, tmp_path / "data")
    assert made.manifest is not None


def test_a_job_gets_its_variables_without_a_login_shell(tmp_path: Path, queue: Queue) -> None:
    from ablations.data.slurm_executor import Stage, submit_jobs

    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        "#!/bin/sh\n"
        f'echo "offset=$RUN_OFFSET $*" >> {tmp_path}/submitted\n'
        f"echo Submitted batch job $(wc -l < {tmp_path}/submitted)\n"
    )
    sbatch.chmod(0o755)
    folder = tmp_path / ".talk.jobs"
    stages = [Stage("prepare", [], 3, folder), Stage("finish", [], 1, folder / "finish")]
    options = {"time": "1:00:00", "partition": "main"}
    ids = submit_jobs("talk", tmp_path / "talk", folder, stages, at_once=None, options=options)
    assert ids == ("1", "2")
    first, second = (tmp_path / "submitted").read_text().splitlines()
    assert first.startswith("offset=0 ")
    assert second.startswith("offset=0 --dependency=afterok:1 ")
    assert "--export" not in first + second  # it would start a login shell before every task
    assert "RUN_OFFSET" not in os.environ
