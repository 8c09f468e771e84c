"""One table of the figures that the GPU scripts left in a folder.

    python benchmarks/gpu_table.py build/gpu

A row a figure, in the order of the files and of their lines; of a figure measured twice, the last.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ablations.files import read_json_lines

SCRIPTS = ("gpu_check", "gpu_study", "gpu_training", "gpu_scoring")

_ABOUT = ("script", "device", "torch", "python", "time", "what", "said", "scores", "device_of_runs")


def main() -> int:
    folder = Path(sys.argv[1])
    rows = [row for script in SCRIPTS for row in rows_of(folder / f"{script}.jsonl")]
    if not rows:
        print(f"no figures in {folder}", file=sys.stderr)
        return 1
    about = sorted({(row["device"], row["torch"], row["python"]) for row in rows})
    for device, torch, python in about:
        print(f"{device}; torch {torch}; Python {python}; {rows[0]['time']} to {rows[-1]['time']}")
    print("\n| script | what | figure |\n|---|---|---|")
    for row in rows:
        print(f"| {row['script']} | {row['what']} | {figure_of(row)} |")
    return 0


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The last line of every figure of a script; none where the script did not begin."""
    if not path.exists():
        return []
    last: dict[str, dict[str, Any]] = {}
    for row in read_json_lines(path):
        if not row.get("not_reached") or row["what"] not in last:
            last[row["what"]] = row
    return list(last.values())


def figure_of(row: dict[str, Any]) -> str:
    """The figure in words: a check's answer, or its values by name."""
    if row.get("not_reached"):
        return "not reached"
    if row["script"] == "gpu_check":
        return f"{row['status']}: {_one_line(row['said'])} ({row['seconds']} s)"
    values = {
        name: value for name, value in row.items() if name not in _ABOUT and value is not None
    }
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _one_line(str(value))


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")[:300]


if __name__ == "__main__":
    sys.exit(main())
