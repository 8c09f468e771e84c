"""Contents of hostile names and files, for benchmarks/hostile_names.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CANARIES", "NAMES", "HostileCase", "pickled", "python_text"]

CANARIES = {"HOSTILE_TOKEN": "canary-secret-4f1d9a", "HOSTILE_WORD": "canary-word-7c22be"}
"""Variables of the environment whose values must appear nowhere."""

NAMES: Mapping[str, str] = {
    "substitution": "$(canary)",
    "backticks": "`canary`",
    "semicolon": "a; canary",
    "and": "a && canary &",
    "pipe": "a | canary",
    "newline": "a\ncanary\n",
    "carriage return": "a\rcanary",
    "sbatch line": "a\n#SBATCH --wrap=canary",
    "single quote": "a'; canary; '",
    "double quote": 'a"; canary; "',
    "shell variable": "$HOSTILE_WORD ${HOSTILE_TOKEN}",
    "oc.env": "${oc.env:HOSTILE_TOKEN}",
    "oc.env behind backslashes": "\\\\${oc.env:HOSTILE_TOKEN}",
    "oc.decode": "${oc.decode:${oc.env:HOSTILE_TOKEN}}",
    "env": "${env:HOSTILE_TOKEN}",
    "jinja": "{{ cycler.__init__.__globals__.os.popen('canary') }}{% raw %}",
    "format": "{0.__class__.__init__.__globals__} {source.__class__}",
    "script": "<script>canary()</script>",
    "end of script": "</script><script>canary()</script>",
    "image": "<img src=x onerror=canary()>",
    "attribute": '" onmouseover="canary()" x="',
    "comment": "<!-- <script>",
    "cdata": "]]>",
    "entity": "&lt;script&gt;canary()&lt;/script&gt;",
    "markdown link": "[x](javascript:canary())",
    "markdown table": "a | b\n|---|\n![x](http://127.0.0.1/)",
    "parents": "../../up",
    "dash": "-rf",
    "option": "--config-dir=/nowhere",
    "percent": "%s%n%(canary)s",
    "direction": "a\u202eyranac\u2066",
    "formula": "=HYPERLINK(canary)",
    "yaml tag": "!!python/object/apply:os.system [canary]",
}
"""Values that a name of somebody else's may have."""


@dataclass(frozen=True)
class HostileCase:
    """Files of the workspace, and the commands that a user gives there."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    prepare: Callable[[Path], None] | None = None
    config: bool = False
    """The text is a config, which may read variables that tell of no secret: ``${oc.env:HOME}``."""


def python_text(where: str) -> str:
    return (
        "import os\n"
        f"open(os.environ['CANARY_FILE'], 'a').write('python of {where}\\n')\n"
        "def f(*a, **k): return None\n"
        "class Evil:\n    @classmethod\n    def from_pretrained(cls, *a, **k): return cls()\n"
    )


def pickled() -> bytes:
    """Return a pickle that runs the canary when it is loaded."""
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, ("canary pickle",)

    return pickle.dumps(Evil())
