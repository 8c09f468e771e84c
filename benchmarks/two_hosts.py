"""Two hosts against one, on a real two-node Slurm in this machine: is any loss, table or store different?

    python benchmarks/two_hosts.py [run] [study] [prepare] [--keep FOLDER]

    run        two hosts × two ranks against one host × four, 50 steps; then a longer run whose first host is
               lost in the middle, requeued by Slurm and resumed, against the same run left alone
    study      a search whose runs take two nodes each (hydra/launcher=slurm_nodes) and lose a node, against
               the same search on this machine's slots
    prepare    four tasks on two nodes, one task killed, one node lost, the command given twice meanwhile and
               once after; against the stores that a local preparation makes

Everything must be equal to the last bit (gloo on CPU, one thread for each rank). The texts are generated. A
lost node loses its link first, so nobody on it gets a last word; Slurm notices by itself. Wants root,
slurm-wlm, munge and iproute2 (tests/tools/slurm_two_nodes.py).
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablations.files import read_json
from ablations.record.run_record import RunRecord, list_runs
from benchmarks.study_on_slurm import ablate, differences, environment, findings
from tests.tools.slurm_two_nodes import TwoNodes, missing, two_nodes

STEPS, LONG = 50, 600
_WAIT_SECONDS = 400.0
_LET_GO_SECONDS = 8.0
"""Past Slurm's KillWait: a job let go while its first life still ends fails at its start."""

_SKILLS = ("facts", "arithmetic", "junk")

COMMON = [
    "experiment=synthetic",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "training.sequence_length=32",
    "training.checkpoints=2",
    "mixture.epoch_cap=1000",
    "execution.threads=1",
    "evaluation.max_items=8",
    "evaluation.heldout_max_items=4",
    "progress=false",
]


def sources(documents: int = 400, shards: int = 1) -> list[str]:
    """Return overrides that generate little text; only the facts have the documents and the shards."""
    sizes = {skill: (documents, shards) if skill == "facts" else (400, 1) for skill in _SKILLS}
    return [
        f"+source.synthetic_{skill}={{shards:{parts},"
        f"origin:{{kind:synthetic,skill:{skill},documents:{count},seed:0}}}}"
        for skill, (count, parts) in sizes.items()
    ]


def call(folder: Path, *words: str, cluster: TwoNodes | None = None) -> tuple[int, str]:
    """Return code and output of one command."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ablate(*words),
        cwd=folder,
        env=environment(cluster),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout


def require(folder: Path, *words: str, cluster: TwoNodes | None = None) -> str:
    code, output = call(folder, *words, cluster=cluster)
    if code != 0:
        sys.exit(f"ablate {' '.join(words)} ended with {code}:\n{output}")
    return output


def wait_for(what: str, there: Callable[[], Any], seconds: float = _WAIT_SECONDS) -> Any:
    end = time.monotonic() + seconds
    while not (found := there()):
        if time.monotonic() > end:
            raise TimeoutError(f"not seen in {seconds:.0f} s: {what}")
        time.sleep(0.3)
    return found


def of_run(record: RunRecord) -> dict[str, Any]:
    """Return the findings of a run; times are left out."""
    kept = {key: value for key, value in (record.result() or {}).items() if key != "cost"}
    losses = [(row["step"], row["loss"], row["grad_norm"]) for row in record.metrics()]
    scores = [{**row, "cpu_seconds": None} for row in record.scores()]
    return {"result": kept, "losses": losses, "scores": scores, "audit": record.audit()}


def only_run(folder: Path) -> RunRecord | None:
    found = list_runs(folder / "runs")
    return found[0] if found else None


def at_step(folder: Path, step: int) -> Callable[[], bool]:
    def reached() -> bool:
        record = only_run(folder)
        rows = record.metrics() if record else []
        return bool(rows) and rows[-1]["step"] >= step

    return reached


def wait_for_jobs(cluster: TwoNodes, seconds: float = _WAIT_SECONDS) -> None:
    """Wait until the queue is empty; start requeued jobs, which the controller holds back for two minutes."""
    held_since: dict[str, float] = {}
    end = time.monotonic() + seconds
    while cluster.jobs():
        now = time.monotonic()
        if now > end:
            raise TimeoutError(f"jobs are left after {seconds:.0f} s: {cluster.jobs()}")
        listed = cluster.run("squeue", "--noheader", "--format=%A|%r").splitlines()
        held = {line.partition("|")[0] for line in listed if line.endswith("|BeginTime")}
        held_since = {job: held_since.get(job, now) for job in held}
        for job, since in held_since.items():
            if now - since > _LET_GO_SECONDS:
                cluster.release(job)
        time.sleep(0.5)


def lose_for_a_while(cluster: TwoNodes, node: str) -> None:
    """Lose a node until Slurm has noticed, and bring it back."""
    cluster.lose(node)
    cluster.wait_until_down(node)
    cluster.bring_back(node)
    wait_for(f"{node} up", lambda: not cluster.states()[node].startswith("down"))


# ----------------------------------------------------------------------------------------- one run


def in_a_job(cluster: TwoNodes, folder: Path, words: list[str]) -> str:
    """Submit ``ablate run`` on both nodes, one task on each; return the job's id."""
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join(
        ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", *ablate("run", *words)]
    )
    done = subprocess.run(
        [
            *("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2"),
            *("--requeue", "--open-mode=append", "--output=out.log", f"--wrap={command}"),
        ],
        cwd=folder,
        env=environment(cluster),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def wait_for_end(cluster: TwoNodes, folder: Path, job: str) -> RunRecord:
    wait_for_jobs(cluster)
    record = only_run(folder)
    if record is None or record.result() is None:
        sys.exit(f"job {job} left no result:\n{(folder / 'out.log').read_text()}")
    return record


def runs(root: Path, cluster: TwoNodes, data: list[str]) -> bool:
    """Return whether two hosts give the results of one, left alone and with a host lost."""
    words = [*COMMON, *sources(), *data, "execution.dp=4"]
    short, long = (f"schedule.total_tokens={steps * 256}" for steps in (STEPS, LONG))
    hosts, kept = "execution.nodes=2", "training.recovery_interval_steps=20"
    require(root / "one", "run", *words, short)
    job = in_a_job(cluster, root / "two", [*words, short, hosts])
    two = of_run(wait_for_end(cluster, root / "two", job))
    one = of_run(_the_run(root / "one"))
    found = list(differences(one, two))
    print(
        f"two hosts × two ranks: {len(two['losses'])} losses, {len(found)} differences", flush=True
    )
    require(root / "calm", "run", *words, long, kept)
    job = in_a_job(cluster, root / "lost", [*words, long, kept, hosts])
    wait_for("a third of the run", at_step(root / "lost", LONG // 3))
    lose_for_a_while(cluster, "hn1")
    record = wait_for_end(cluster, root / "lost", job)
    resumed = [event["step"] for event in record.events() if event["kind"] == "resume"]
    more = list(differences(of_run(_the_run(root / "calm")), of_run(record)))
    print(f"first host lost: resumed from step {resumed}, {len(more)} differences", flush=True)
    for line in [*found, *more][:20]:
        print(f"  {line}")
    return not found and not more and bool(resumed)


def _the_run(folder: Path) -> RunRecord:
    record = only_run(folder)
    assert record is not None
    return record


# ----------------------------------------------------------------------------------------- a study


def study(root: Path, cluster: TwoNodes, data: list[str]) -> bool:
    """Return whether a study whose runs take two nodes, and lose one, ends as on the slots."""
    words = [
        *("run", "-m", *COMMON, *sources(), *data, "study=hosts", "search=mixture"),
        *("execution.dp=2", f"schedule.total_tokens={LONG * 256}"),
        *("training.recovery_interval_steps=50", "search.budget.trials=3"),
        *("search.strategy.design_trials=3", "search.confirm.finalists=0"),
    ]
    on_slurm = [
        *("hydra/launcher=slurm_nodes", "execution.nodes=2", "hydra.launcher.gpus_per_node=null"),
        *("hydra.launcher.cpus_per_task=2", "hydra.launcher.timeout_min=30"),
        *("hydra.launcher.signal_delay_s=10", "search.workers=2"),
    ]
    require(root / "slots", *words, "hydra.launcher.slots=1")
    queued = root / "slurm"
    queued.mkdir(parents=True)
    with (queued / "out.log").open("ab") as log:
        process = subprocess.Popen(
            ablate(*words, *on_slurm), cwd=queued, env=environment(cluster), stdout=log, stderr=log
        )
    try:
        wait_for("a run in its middle", lambda: _middle(queued) or process.poll() is not None)
        print(f"node lost while {_middle(queued)} trained", flush=True)
        lose_for_a_while(cluster, "hn2")
        wait_for("the study's end", lambda: _ended(process, cluster))
        code = process.returncode
    finally:
        process.kill()
    if code != 0:
        sys.exit(f"the study ended with {code}:\n{(queued / 'out.log').read_text()}")
    found = list(differences(findings(root / "slots", "hosts"), findings(queued, "hosts")))
    found += differences(_verdict(root / "slots"), _verdict(queued), "verdict")
    resumed = {
        record.path.name: [e["step"] for e in record.events() if e["kind"] == "resume"]
        for record in list_runs(queued / "runs", "hosts")
    }
    count = len(findings(queued, "hosts"))
    print(
        f"study on two nodes: {count} runs, {len(found)} differences, resumed {resumed}", flush=True
    )
    for line in found[:20]:
        print(f"  {line}")
    return not found and any(resumed.values())


def _ended(process: subprocess.Popen[bytes], cluster: TwoNodes) -> bool:
    wait_for_jobs(cluster)
    return process.poll() is not None


def _middle(folder: Path) -> str | None:
    for record in list_runs(folder / "runs", "hosts"):
        if record.result() is None and len(record.metrics()) >= LONG // 3:
            return record.path.name
    return None


def _verdict(folder: Path) -> Any:
    require(folder, "verdict", "study=hosts")
    return {**read_json(folder / "runs/hosts/verdict.json"), "created": None}


# ------------------------------------------------------------------------------------- preparation


def preparation(root: Path, cluster: TwoNodes) -> bool:
    """Return whether jobs that were killed and lost make the stores that a local preparation makes."""
    words = ["prepare", *COMMON, *sources(documents=200_000, shards=4)]
    queue = [
        *("prepare.slurm.partition=main", "prepare.slurm.cpus_per_task=2"),
        "prepare.slurm.mem_per_cpu_gb=1",
    ]
    require(root / "here", *words)
    there = root / "there"
    require(there, *words, *queue, cluster=cluster)
    code, refusal = call(there, *words, *queue, cluster=cluster)
    print(f"given twice: exit code {code}, {refusal.strip().splitlines()[-1].strip()}", flush=True)
    partial = there / "data/synthetic_bpe/.synthetic_facts.partial/train"
    wait_for("tokens of a task", lambda: any(f.stat().st_size for f in _files(partial, "*.ds*")))
    wait_for("a task on hn1", lambda: bool(_tasks(cluster, "hn1")))
    killed = _kill_a_task(cluster, "hn1")
    print(f"killed the task of job {killed}; lost node hn2", flush=True)
    lose_for_a_while(cluster, "hn2")
    wait_for_jobs(cluster)
    left = (there / "data/synthetic_bpe/synthetic_facts").exists()
    print(f"store of the killed task: {'there' if left else 'not there'}", flush=True)
    require(there, *words, *queue, cluster=cluster)
    wait_for_jobs(cluster)
    one, other = (dict(checksums(folder)) for folder in (root / "here", there))
    found = list(differences(one, other))
    scratch = [path.name for path in (there / "data/synthetic_bpe").glob(".*.jobs")]
    scratch += [path.name for path in (there / "data/synthetic_bpe").glob(".*.partial")]
    print(f"stores: {len(one)} files, {len(found)} differences; left behind: {scratch}", flush=True)
    for line in found[:20]:
        print(f"  {line}")
    return code == 2 and not left and not found and len(one) >= 6 and not scratch


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    yield from folder.glob(pattern) if folder.exists() else ()


def _tasks(cluster: TwoNodes, node: str) -> dict[str, list[int]]:
    """Return job → processes of its task, for the jobs that prepare on a node."""
    of_job: dict[str, list[int]] = {}
    for pid in cluster.pids(node):
        with suppress(OSError):
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            given = dict(word.partition(b"=")[::2] for word in words)
            name = given.get(b"SLURM_JOB_NAME", b"").decode()
            if name.startswith("prepare-synthetic_facts") and b"SLURM_STEP_ID" in given:
                of_job.setdefault(given[b"SLURM_JOB_ID"].decode(), []).append(pid)
    return of_job


def _kill_a_task(cluster: TwoNodes, node: str) -> str:
    """Kill the processes of one preparing task on a node; return the number of its job."""
    of_job = _tasks(cluster, node)
    job = min(of_job)
    for pid in of_job[job]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return job


def checksums(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield file of a store → SHA-256, as the manifests give them."""
    for path in sorted((folder / "data/synthetic_bpe").glob("*/manifest.json")):
        manifest = read_json(path)
        for file in manifest["files"]:
            yield f"{path.parent.name}/{file['name']}", str(sorted(file.items()))
        yield f"{path.parent.name}/heldout", manifest["heldout"]["sha256"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["run", "study", "prepare", []])
    parser.add_argument("--keep", type=Path, help="where the runs stay")
    options = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the daemons have to be ended
    parts = options.parts or ["run", "study", "prepare"]
    root = (options.keep or Path(tempfile.mkdtemp(prefix="two-hosts-"))).resolve()
    good = True
    with two_nodes() as cluster:
        data = [f"data_dir={root / 'data'}"]
        if {"run", "study"} & set(parts):
            require(root, "prepare", *COMMON, *sources(), *data)
        if "run" in parts:
            good &= runs(root / "run", cluster, data)
        if "study" in parts:
            good &= study(root / "study", cluster, data)
        if "prepare" in parts:
            good &= preparation(root / "prepare", cluster)
    if options.keep is None:
        shutil.rmtree(root, ignore_errors=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
