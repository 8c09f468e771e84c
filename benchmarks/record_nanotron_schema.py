"""Record the config classes of a checkout of nanotron: class, field, type, default and commit.

    python benchmarks/record_nanotron_schema.py CHECKOUT main
    python benchmarks/record_nanotron_schema.py CHECKOUT smollm3

The second word names the branch that is checked out, and the file under
``sweeps/nanotron_files/recorded/`` that is written. The syntax trees alone are read: nothing of the
checkout is imported. Types and defaults are recorded as the source text of the annotation and of the
value, because that is what a reader of nanotron compares them with.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FILES = ("config.py", "models_config.py", "parallelism_config.py", "lighteval_config.py")
"""In this order: of two classes of one name the later one counts."""

OUT = Path(__file__).parents[1] / "sweeps" / "nanotron_files" / "recorded"


def record(checkout: Path, branch: str) -> dict[str, Any]:
    """Return what the config classes of ``checkout`` hold.

    Raises:
        OSError: ``checkout`` has no ``src/nanotron/config``.
        subprocess.CalledProcessError: ``checkout`` is no git checkout.
    """
    classes: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    for name in FILES:
        tree = ast.parse((checkout / "src" / "nanotron" / "config" / name).read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and _is_dataclass(node):
                classes[node.name] = {
                    "file": name,
                    "bases": [ast.unparse(base) for base in node.bases],
                    "fields": _fields(node),
                }
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                constants |= {ast.unparse(target): node.value.value for target in node.targets}
    commit, date = _git(checkout, "log", "-1", "--format=%H %cd", "--date=short").split()
    return {
        "repository": "huggingface/nanotron",
        "branch": branch,
        "commit": commit,
        "date": date,
        "constants": constants,
        "classes": classes,
    }


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


def _fields(node: ast.ClassDef) -> dict[str, dict[str, str]]:
    fields: dict[str, dict[str, str]] = {}
    for part in node.body:
        if isinstance(part, ast.AnnAssign):
            fact = {"type": ast.unparse(part.annotation)}
            if part.value is not None:
                fact["default"] = ast.unparse(part.value)
            fields[ast.unparse(part.target)] = fact
    return fields


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    """Write the record of the checkout that the command line names."""
    checkout, branch = Path(sys.argv[1]), sys.argv[2]
    path = OUT / f"{branch}.json"
    path.write_text(json.dumps(record(checkout, branch), indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
