"""Names and files of somebody else's that want to run a command, or to read the environment.

    python benchmarks/hostile_names.py [--every] [--only PART] [--keep FOLDER]

Each case (hostile_cases.py) gives commands in a workspace with prepared text and a recorded study. Then
every script that was written goes through ``bash -n`` and is run, every command that was printed or that a
README names is run, both with harmless programs in the place of Slurm's, torchrun and ablate; reports and
Markdown are parsed. A program ``canary`` and Python files leave a mark where they run; two variables of
the environment hold values that no output, file or name may hold. Prints what ran and what was read, and
exits 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from benchmarks.bad_input import fault_of, run_case, warm
from benchmarks.bad_input_named import Case
from benchmarks.hostile_cases import cases
from benchmarks.hostile_values import CANARIES, HostileCase

_STUBS = (
    *("torchrun", "sbatch", "srun", "scontrol", "squeue", "scancel", "sacct", "ablate"),
    *("pretrain_gpt.py", "litgpt", "python", "python3", "nanotron"),
)
"""Programs that scripts and printed commands call; each prints its words and a number."""

_SBATCH = {
    *(
        "job-name",
        "nodes",
        "ntasks-per-node",
        "gpus-per-node",
        "cpus-per-task",
        "partition",
        "time",
    ),
    *("requeue", "output", "mem-per-cpu", "array", "error", "signal", "open-mode"),
}
"""Options that a job's script may hold."""

_COMMAND = re.compile(r"(?:^|: |`|^    |# )((?:ablate|bash|pretrain_gpt\.py|sbatch) [^`\n]*)")


class Page(HTMLParser):
    """Elements and attributes of a page, and the texts of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.marks: set[tuple[str, str]] = set()
        self.scripts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element with its attributes."""
        self.marks |= {(tag, name) for name, _ in attrs} | {(tag, "")}
        self.marks |= {
            (tag, "javascript:")
            for _, value in attrs
            if "javascript:" in (value or "") and tag != "div"
        }
        if tag == "script":
            self.scripts.append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        """Note the end of a script."""
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        """Keep the text of a script."""
        if self._inside:
            self.scripts[-1] += data


def page_problems(text: str, plain: Page) -> Iterator[str]:
    """Yield what a page holds that the page of an honest study does not."""
    page = Page()
    page.feed(text)
    if extra := page.marks - plain.marks:
        yield f"elements that no honest page has: {sorted(extra)}"
    if len(page.scripts) != len(plain.scripts):
        yield f"{len(page.scripts)} scripts in the page, {len(plain.scripts)} in an honest one"
    elif page.scripts[1:] != plain.scripts[1:]:
        yield "the page's scripts are not those of an honest one"
    try:
        json.loads(page.scripts[0])
    except (ValueError, IndexError) as error:
        yield f"the figures are no JSON: {error}"


class Workplace:
    """Places of the cases: the start workspace, the stubs, the mark that the canary leaves."""

    def __init__(self, folder: Path) -> None:
        self.start, self.now = folder / "start", folder / "now"
        self.mark, self.bin = folder / "mark" / "ran", folder / "bin"
        self.mark.parent.mkdir(parents=True)
        self.bin.mkdir()
        self._write_stub("canary", f'printf "%s\\n" "canary $*" >> {self.mark}')
        for name in _STUBS:
            self._write_stub(name, 'printf "%s\\n" "$@"; echo 7')
        os.environ.update(CANARIES, CANARY_FILE=str(self.mark), HOME=str(folder / "home"))
        (folder / "home").mkdir()
        os.environ["PATH"] = f"{os.environ['PATH']}:{folder / 'canary'}"
        (folder / "canary").mkdir()
        shutil.copy(self.bin / "canary", folder / "canary/canary")

    def _write_stub(self, name: str, line: str) -> None:
        (self.bin / name).write_text(f"#!/bin/bash\n{line}\n")
        (self.bin / name).chmod(0o755)

    def bash(self, *words: str) -> str:
        """Run bash with the stubs in the place of programs; what it printed."""
        done = subprocess.run(
            ["bash", *words],
            cwd=self.now,
            env={
                **os.environ,
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "SLURM_JOB_NODELIST": "n",
                "PROMOTION": ".",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return (done.stdout + done.stderr).decode(errors="replace")


def make_start(folder: Path) -> Page:
    """Make the workspace that each case gets a copy of; returns the page of an honest study."""
    from analysis.report import gather_report, render_html
    from analysis.synthetic import SyntheticStudy, write_study
    from tests.conftest import _prepare
    from tests.sweeps.promotion.conftest import GOOD, PLAIN, MadeStudy

    folder.mkdir()
    _prepare(folder / "data")
    made = MadeStudy(folder / "runs")
    for seed in (0, 1, 2):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD, effect=0.4)
    made.judge()
    (folder / "empty").mkdir()
    root = Path(__file__).resolve().parents[1]
    shutil.copy(
        root / "tests/golden/promotion/chain_smollm2_1b7/4_decay.yaml", folder / "published.yaml"
    )
    shape = SyntheticStudy(
        name="honest",
        trials=6,
        steps=8,
        checkpoints=4,
        items=0,
        running=1,
        failed=1,
        stages=("a", "b"),
    )
    write_study(folder.parent / "honest", shape)
    page = Page()
    content = gather_report(folder.parent / "honest", "honest", surrogates=("linear",))
    page.feed(render_html(content, plotly_file="../plotly.min.js"))
    page.marks |= {
        ("details", "open"),  # of the table of shares that fail the audit
        ("pre", ""),
        ("ul", ""),
        ("li", ""),
        ("code", ""),
        ("dl", ""),
        ("details", ""),
        ("summary", ""),
        ("div", "role"),
        ("td", "class"),
        ("h3", ""),
        ("tr", "class"),
    }
    return page


def run_hostile(case: HostileCase, place: Workplace, plain: Page) -> tuple[list[str], str]:
    """Run one case; what went wrong, and all that it printed."""
    shutil.copytree(place.start, place.now, symlinks=True)
    if case.prepare:
        case.prepare(place.now)
    before = {path: path.read_bytes() for path in place.now.rglob("*") if path.is_file()}
    problems, printed = [], ""
    for words in case.commands:
        code, output = run_case(Case(words), place.now)
        (place.now / "output").unlink(missing_ok=True)
        printed += f"$ ablate {' '.join(words)}\n{output}[{code}]\n"
        if fault := fault_of(code, output):
            problems.append(f"{words[0]}: {fault}")
    written = [
        path
        for path in sorted(place.now.rglob("*"))
        if path.is_file() and not path.is_symlink() and before.get(path) != path.read_bytes()
    ]
    printed += run_written(written, printed, place, problems)
    for path in written:
        if path.suffix == ".html":
            problems += page_problems(path.read_text(), plain)
        if path.suffix == ".md":
            problems += [
                f"{path.name}: {mark} stands in it as HTML"
                for mark in ("<script", "<img ")
                if raw_html(path.read_text(), mark)
            ]
    problems += found_values(case, place, printed, written)
    if place.mark.exists():
        problems.append(f"ran: {place.mark.read_text()[:200]!r}")
        place.mark.unlink()
    shutil.rmtree(place.now)
    return problems, printed


def raw_html(text: str, mark: str) -> bool:
    """Return whether Markdown holds an element outside of code: unescaped, and in no backticks."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    return any(re.search(rf"(?<!\\){re.escape(mark)}", line) for line in lines)


def run_written(written: list[Path], printed: str, place: Workplace, problems: list[str]) -> str:
    """Run the scripts and commands of a case; what they printed."""
    said = ""
    for path in written:
        if path.suffix in (".sh", ".sbatch"):
            if error := place.bash("-n", str(path)):
                problems.append(f"bash -n {path.name}: {error[:200]}")
            for line in path.read_text().splitlines():
                option = re.match(r"#SBATCH --([a-z-]+)", line)
                if line.startswith("#SBATCH") and (not option or option[1] not in _SBATCH):
                    problems.append(f"{path.name}: {line[:80]}")
            said += place.bash(str(path), "1")
    texts = [printed, *(path.read_text() for path in written if path.suffix in (".md", ".yaml"))]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, flags=re.S)]
    for block in dict.fromkeys(blocks):
        said += place.bash("-c", block)
    for text in texts:
        for command in dict.fromkeys(
            _COMMAND.findall(
                "\n".join(line for line in text.splitlines() if not line.startswith("$ "))
            )
        ):
            said += place.bash("-c", command)
    return said


def found_values(
    case: HostileCase, place: Workplace, printed: str, written: list[Path]
) -> Iterator[str]:
    """Yield where the value of a variable appears."""
    for name, value in CANARIES.items():
        if name == "HOSTILE_WORD" and case.config:
            continue
        if value in printed:
            at = printed.index(value)
            yield f"{name} read: printed: {printed[max(0, at - 150) : at + 30]!r}"
        for path in written:
            if value.encode() in path.read_bytes() or value in str(path):
                yield f"{name} read: {path.relative_to(place.now)}"
        for path in place.now.rglob(f"*{value}*"):
            yield f"{name} read: {path.relative_to(place.now)}"


def main() -> int:
    """Run the cases; 1 where anything ran or was read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--every", action="store_true", help="each name through each way in")
    parser.add_argument("--keep", type=Path, help="folder for what the cases printed")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    sys.argv = ["ablate"]
    chosen = [case for case in cases(every=options.every) if options.only in case.name]
    warm()
    began = time.monotonic()
    ran = read = other = commands = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        plain = make_start(place.start)
        for case in chosen:
            problems, printed = run_hostile(case, place, plain)
            commands += len(case.commands)
            was_read = any(" read: " in problem for problem in problems)
            was_run = any(problem.startswith("ran: ") for problem in problems)
            ran, read = ran + was_run, read + was_read
            other += bool(problems) and not (was_run or was_read)
            for problem in problems:
                print(f"{case.name}\n    {problem}", flush=True)
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                name = re.sub(r"\W+", "_", case.name)
                (options.keep / f"{name}.txt").write_text(printed, errors="replace")
    seconds = time.monotonic() - began
    print(
        f"{len(chosen)} cases, {commands} commands: {ran} ran, {read} read, {other} otherwise wrong; "
        f"{seconds:.0f} s"
    )
    return 1 if ran or read or other else 0


if __name__ == "__main__":
    sys.exit(main())
