"""A real one-node Slurm on this machine, for tests: controller, node daemon, nothing else.

    python tests/tools/slurm_local.py start FOLDER      prints the SLURM_CONF to export
    python tests/tools/slurm_local.py stop FOLDER

It wants root and Debian's packages (``apt-get install -y slurm-wlm munge``). Everything it writes is
in the folder, ports are free ones, and it ends what it started and nothing else: several may run side
by side. Jobs are scheduled within a second; accounting is off, as on many small clusters.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_START_SECONDS = 60.0
_SAVE_SECONDS = 6.0
"""The controller writes its state at most five seconds after a change."""
_SETTLE_SECONDS = 60.0
"""Longest wait for a saved state that holds every job as it is."""

_CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_delay=0
SchedulerType=sched/backfill
JobRequeue=1
KillWait=5
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP
PartitionName=main Default=YES OverSubscribe=YES:8 PriorityTier=1 GraceTime=30
PartitionName=urgent PriorityTier=9 PreemptMode=OFF
"""


def missing() -> str | None:
    """Return the reason why Slurm cannot start here; None if it can."""
    absent = [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a one-node Slurm needs root"
    return None


@dataclass(frozen=True)
class Slurm:
    """A running one-node Slurm."""

    home: Path

    @property
    def conf(self) -> Path:
        return self.home / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which its commands, and submitit, talk to it."""
        return {**os.environ, "PATH": SEARCHED, "SLURM_CONF": str(self.conf)}

    def run(self, *command: str, check: bool = True) -> str:
        """Return what one of Slurm's commands printed."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Id → state of the jobs that have not ended."""
        lines = self.run("squeue", "--noheader", "--format=%i %T").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def wait_for_job(self, state: str = "RUNNING", seconds: float = 60.0) -> str:
        """Id of a job that is in ``state``."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for job, now in self.jobs().items():
                if now == state:
                    return job
            time.sleep(0.2)
        raise TimeoutError(f"no job became {state} in {seconds:.0f} s: {self.jobs()}")

    def release(self, job: str) -> None:
        """Start a requeued job at once: the controller holds it back for two minutes otherwise."""
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def preempt(self, seconds: float = 60.0) -> None:
        """Take the node with a job of a higher partition: what runs there is warned and requeued."""
        submit = ("sbatch", "--parsable", "--partition=urgent", "--exclusive", "--output=/dev/null")
        urgent = self.run(*submit, "--wrap=sleep 1").strip()
        end = time.monotonic() + seconds
        while urgent in self.jobs():
            if time.monotonic() > end:
                raise TimeoutError(f"no job gave way in {seconds:.0f} s: {self.jobs()}")
            time.sleep(0.2)

    def cancel_all(self, seconds: float = 60.0) -> None:
        """Cancel every job and wait until the node is free again."""
        self.run("scancel", "--user=root", check=False)
        end = time.monotonic() + seconds
        while self.jobs():
            if time.monotonic() > end:
                raise TimeoutError(f"jobs that do not end in {seconds:.0f} s: {self.jobs()}")
            time.sleep(0.2)

    def restart_controller(self) -> None:
        """Kill the controller without warning and start it again from its saved state.

        It saves what changed every few seconds. A job submitted since would be forgotten, and its number
        given to another: then Slurm itself drains the node. A job that ended since would hold its CPUs for
        half an hour. So the kill waits for a saved state that holds every job as it is.
        """
        end = time.monotonic() + _SETTLE_SECONDS
        while not self._saved_as_it_is():
            if time.monotonic() > end:
                raise TimeoutError(f"no quiet moment in {_SETTLE_SECONDS:.0f} s: {self.jobs()}")
        kill(self.home / "slurmctld.pid", signal.SIGKILL)
        daemon(self, "slurmctld", "-f", str(self.conf))
        _await_idle(self)

    def _saved_as_it_is(self) -> bool:
        """Wait for the next saved state; True if no job has changed meanwhile."""
        saved, asked, jobs = self.home / "state" / "job_state", time.time(), self.jobs()
        end = time.monotonic() + _SAVE_SECONDS
        while time.monotonic() < end and not (saved.exists() and saved.stat().st_mtime > asked):
            time.sleep(0.1)
        return self.jobs() == jobs


@contextlib.contextmanager
def slurm(home: Path) -> Iterator[Slurm]:
    """A Slurm for the length of a ``with``."""
    started = start(home)
    try:
        yield started
    finally:
        stop(home)


def start(home: Path) -> Slurm:
    """Start one whose files are in ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    for folder in ("state", "spool"):
        (home / folder).mkdir(exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    made = Slurm(home)
    made.conf.write_text(
        _CONF.format(
            host=socket.gethostname().split(".")[0],
            controller_port=free_port(),
            node_port=free_port(),
            home=home,
            socket=start_munge(home),
            cpus=os.cpu_count(),
            memory=max(512, memory // 2),
        )
    )
    try:
        daemon(made, "slurmctld", "-f", str(made.conf))
        daemon(made, "slurmd", "-f", str(made.conf))
        _await_idle(made)
    except BaseException:
        stop(home)
        raise
    return made


def stop(home: Path) -> None:
    """End the daemons that :func:`start` started in ``home``, and their jobs."""
    made = Slurm(home)
    if made.conf.exists():
        for job in _or_nothing(made):
            made.run("scancel", "--signal=KILL", "--full", job, check=False)
            made.run("scancel", job, check=False)
    for name in ("slurmd", "slurmctld", "munged"):
        kill(home / f"{name}.pid", signal.SIGTERM)
    _end_steps(home)


def _or_nothing(made: Slurm) -> list[str]:
    try:
        return list(made.jobs())
    except (RuntimeError, subprocess.TimeoutExpired):
        return []


def _end_steps(home: Path) -> None:
    """Job steps outlive their daemon by design; those of this home carry its spool in their command."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "environ").read_bytes().split(b"\0")
            if (
                f"SLURM_CONF={home / 'slurm.conf'}".encode() in words
                and b"slurmstepd" in (process / "comm").read_bytes()
            ):
                os.kill(int(process.name), signal.SIGKILL)


def start_munge(home: Path) -> Path:
    """A munge daemon of our own, with its own key and socket."""
    user = pwd.getpwnam("munge")
    folder = home / "munge"
    folder.mkdir(exist_ok=True)
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    for path, mode in ((folder, 0o711), (key, 0o400)):
        os.chown(path, user.pw_uid, user.pw_gid)
        path.chmod(mode)
    command = [
        path_of("munged"),
        "--force",
        f"--socket={folder / 'socket'}",
        f"--key-file={key}",
        f"--pid-file={home / 'munge' / 'munged.pid'}",
        f"--log-file={folder / 'log'}",
        f"--seed-file={folder / 'seed'}",
    ]
    subprocess.run(["runuser", "-u", "munge", "--", *command], check=True, timeout=30)
    (home / "munged.pid").symlink_to(folder / "munged.pid")
    end = time.monotonic() + 10
    while not (folder / "socket").exists() and time.monotonic() < end:
        time.sleep(0.1)
    return folder / "socket"


def daemon(made: Slurm, name: str, *arguments: str) -> None:
    subprocess.run(
        [path_of(name), *arguments],
        env=made.environment,
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )


def _await_idle(made: Slurm) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        states = made.run("sinfo", "--noheader", "--format=%t", check=False).split()
        if any(state.rstrip("*") in ("idle", "mix", "alloc") for state in states):
            return
        time.sleep(0.3)
    logs = [made.home / "slurmctld.log", made.home / "slurmd.log"]
    tails = [path.read_text()[-1500:] for path in logs if path.exists()]
    raise TimeoutError("the one-node Slurm did not come up:\n" + "\n".join(tails))


def kill(pid_file: Path, number: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, number)
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)


def path_of(name: str) -> str:
    found = shutil.which(name, path=SEARCHED)
    assert found is not None
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    action, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    if action == "start":
        print(f"export SLURM_CONF={start(folder).conf}")
    else:
        stop(folder)
