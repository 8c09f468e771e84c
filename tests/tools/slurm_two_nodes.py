"""A real two-node Slurm on this machine, for tests: two hosts with names, addresses and daemons of their own.

    python tests/tools/slurm_two_nodes.py start FOLDER      prints the SLURM_CONF to export
    python tests/tools/slurm_two_nodes.py stop FOLDER

    this machine: slurmctld, driver ── bridge ──┬── network and UTS namespace hn1: slurmd, its jobs
                                                └── network and UTS namespace hn2: slurmd, its jobs

Files and cores are shared, as on a cluster with one file system. A node can be lost: its link goes down and
all its processes are killed, so that nobody gets a last word. It wants root, ``iproute2`` and Debian's
``slurm-wlm`` and ``munge``. (``ip netns exec`` would hide the cgroups, and slurmd fails without them; so the
daemons enter their namespaces by nsenter and unshare.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.tools import slurm_local
from tests.tools.slurm_local import Slurm

NODES = ("hn1", "hn2")
_TOOLS = ("ip", "nsenter", "unshare", "mount")
_DOWN_SECONDS = 90.0

_CONF = """\
ClusterName=two
SlurmctldHost={host}({network}.254)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool/%n
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/%n.log
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,requeue_delay=0
SchedulerType=sched/backfill
JobRequeue=1
KillWait=5
ReturnToService=2
SlurmdTimeout=10
SlurmdParameters=config_overrides
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=hn1 NodeAddr={network}.1 CPUs=4 RealMemory={memory} State=UNKNOWN
NodeName=hn2 NodeAddr={network}.2 CPUs=4 RealMemory={memory} State=UNKNOWN
PartitionName=main Default=YES Nodes=ALL MaxTime=INFINITE State=UP OverSubscribe=YES:8
"""


def missing() -> str | None:
    """Return the reason why a two-node Slurm cannot start here; None if it can."""
    if reason := slurm_local.missing():
        return reason
    absent = [name for name in _TOOLS if shutil.which(name, path=slurm_local.SEARCHED) is None]
    if absent:
        return f"namespaces need {', '.join(absent)}: apt-get install iproute2 util-linux"
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True)
    return None if tried.returncode == 0 else "namespaces are not permitted here"


class TwoNodes(Slurm):
    """A running two-node Slurm."""

    @property
    def mark(self) -> str:
        """Six digits that names of this Slurm's bridge and namespaces contain."""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:6]

    @property
    def network(self) -> str:
        """The first three numbers of the addresses."""
        return f"10.{100 + int(self.mark[:2], 16) // 2}.{int(self.mark[2:4], 16)}"

    def namespace(self, node: str) -> str:
        return f"{node}-{self.mark}"

    def pids(self, node: str) -> list[int]:
        """Ids of all processes on a node."""
        done = subprocess.run(
            ["ip", "netns", "pids", self.namespace(node)], capture_output=True, text=True
        )
        return [int(word) for word in done.stdout.split()]

    def states(self) -> dict[str, str]:
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %t").splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}

    def lose(self, node: str) -> None:
        """Take a node away: first its link, then everything that ran there."""
        _ip("-n", self.namespace(node), "link", "set", "eth0", "down")
        self.kill_all(node)

    def kill_all(self, node: str) -> None:
        """Kill everything on a node, at once."""
        for pid in self.pids(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def bring_back(self, node: str) -> None:
        """Give the node its link and its daemon again."""
        _ip("-n", self.namespace(node), "link", "set", "eth0", "up")
        self.start_daemon(node)

    def wait_until_down(self, node: str) -> None:
        """Wait until the controller has noticed that a node is lost."""
        end = time.monotonic() + _DOWN_SECONDS
        while not self.states()[node].startswith("down"):
            if time.monotonic() > end:
                raise TimeoutError(f"{node} is not down: {self.states()}")
            time.sleep(0.5)

    def start_daemon(self, node: str) -> None:
        inside = (
            f"mount --bind {self.home}/hosts /etc/hosts && hostname {node} && "
            f"exec {slurm_local.path_of('slurmd')} -f {self.conf} -N {node}"
        )
        subprocess.run(
            [
                *("nsenter", f"--net=/var/run/netns/{self.namespace(node)}"),
                *("unshare", "--uts", "--mount", "bash", "-c", inside),
            ],
            env=self.environment,
            check=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """A two-node Slurm for the length of a ``with``, in a temporary folder."""
    # Not in a private folder: munge's user must be able to walk there.
    home = Path(tempfile.mkdtemp(prefix="slurm-two-"))
    home.chmod(0o711)
    try:
        yield start(home)
    finally:
        stop(home)
        shutil.rmtree(home, ignore_errors=True)


def start(home: Path) -> TwoNodes:
    """Start one whose files are in ``home``."""
    made = TwoNodes(home)
    for folder in ("state", *(f"spool/{node}" for node in NODES)):
        (home / folder).mkdir(parents=True, exist_ok=True)
    host = socket.gethostname().split(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    made.conf.write_text(
        _CONF.format(
            host=host,
            network=made.network,
            controller_port=slurm_local.free_port(),
            node_port=slurm_local.free_port(),
            home=home,
            socket=slurm_local.start_munge(home),
            memory=max(512, memory // 2),
        )
    )
    names = [f"127.0.0.1 localhost\n{made.network}.254 {host}\n"]
    names += [f"{made.network}.{number} {node}\n" for number, node in enumerate(NODES, start=1)]
    (home / "hosts").write_text("".join(names))
    try:
        _connect(made)
        slurm_local.daemon(made, "slurmctld", "-f", str(made.conf))
        for node in NODES:
            made.start_daemon(node)
        _await_idle(made)
    except BaseException:
        stop(home)
        raise
    return made


def _connect(made: TwoNodes) -> None:
    """Make the bridge, and a namespace for each node that is connected to it."""
    bridge = f"br-{made.mark}"
    _ip("link", "add", bridge, "type", "bridge")
    _ip("addr", "add", f"{made.network}.254/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    for number, node in enumerate(NODES, start=1):
        space, cable = made.namespace(node), f"v{number}-{made.mark}"
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", bridge, "up")
        _ip("-n", space, "addr", "add", f"{made.network}.{number}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")


def stop(home: Path) -> None:
    """End what :func:`start` started in ``home``: jobs, daemons, namespaces, the bridge."""
    made = TwoNodes(home)
    for node in NODES:
        made.kill_all(node)
    for name in ("slurmctld", "munged"):
        slurm_local.kill(home / f"{name}.pid", signal.SIGTERM)
    for node in NODES:
        _ip("netns", "del", made.namespace(node), check=False)
    _ip("link", "del", f"br-{made.mark}", check=False)


def _await_idle(made: TwoNodes) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(RuntimeError):
            if all(state == "idle" for state in made.states().values()):
                return
        time.sleep(0.3)
    logs = [made.home / "slurmctld.log", *(made.home / f"{node}.log" for node in NODES)]
    tails = [path.read_text()[-1500:] for path in logs if path.exists()]
    raise TimeoutError("the two-node Slurm did not come up:\n" + "\n".join(tails))


def _ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], check=check, capture_output=True, timeout=30)


if __name__ == "__main__":
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    action, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    if action == "start":
        print(f"export SLURM_CONF={start(folder).conf}")
    else:
        stop(folder)
