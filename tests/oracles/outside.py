"""The world outside of the sandbox, and what a program did to it."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from types import TracebackType

__all__ = ["Outside"]


class Outside:
    """A folder, a listening port and this process, as hostile programs find them in ``fill``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "empty").mkdir(parents=True)
        (folder / "secret").write_text("s")
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self._before = self._state()

    def __enter__(self) -> Outside:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    def fill(self, program: str) -> str:
        """Put this world's places into a program."""
        places = {
            "OUTSIDE": str(self.folder),
            "PARENT": str(os.getpid()),
            "PORT": str(self._server.getsockname()[1]),
        }
        for name, place in places.items():
            program = program.replace(name, place)
        return program

    def damage(self) -> list[str]:
        """Name what is not as it was."""
        after = self._state()
        found = [name for name, value in self._before.items() if after[name] != value]
        try:
            self._server.accept()[0].close()
            found.append("connection")
        except BlockingIOError:
            pass
        return found

    def _state(self) -> dict[str, object]:
        secret = self.folder / "secret"
        status = os.stat(secret) if secret.exists() else None
        places = ("/dev/shm/generated", "/dev/shm/gen", "/tmp/generated", os.__file__ + ".x")
        return {
            "names": sorted(os.listdir(self.folder)),
            "text": secret.read_text() if status else None,
            "status": status and (status[:4], status.st_uid, status.st_gid, status.st_mtime_ns),
            "attributes": os.listxattr(secret) if status else None,
            "elsewhere": [place for place in places if os.path.exists(place)],
            "processors": os.sched_getaffinity(0),
            "scheduling": os.sched_getscheduler(0),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "limits": [resource.getrlimit(kind) for kind in range(16)],
            "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
            "working folder": os.getcwd(),
        }
