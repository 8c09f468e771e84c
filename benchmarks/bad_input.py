"""Random bad configs and command lines over all commands: what ends in a traceback, or in another exit code.

    python benchmarks/bad_input.py [--count 1000] [--seed 0] [--only COMMAND] [--keep FOLDER]

Each case is one command line with one to four faults: a wrong value, an unknown or misspelt key, a broken
override, a damaged config file, a wrong folder. Two in five are faults with names (bad_input_named.py),
until each of these was tried. A case runs in a child that this process forks with its imports warm, in a
workspace with a recorded study, tables of a swarm, a file of nanotron's and no prepared data.
Prints every case that ended otherwise than with exit code 0, 1 or 2 and no traceback, and exits 1 if
there was one.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from benchmarks.bad_input_cases import Cases
from benchmarks.bad_input_named import NAMED, Case

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT / "tests" / "analysis" / "fixtures"
SECONDS = 90
"""Longest a case may take."""

NO_TEST = 70
"""Exit code of a child whose command raised."""


def make_workspace(folder: Path) -> None:
    """Make what the commands read: a recorded study, a swarm, a nanotron file, a little text."""
    import yaml

    shutil.copytree(RECORDED / "runs", folder / "runs")
    shutil.copytree(next((RECORDED / "promotions").iterdir()), folder / "promotion")
    for name in ("empty", "files", "conf/mixture", "conf/source", "closed"):
        (folder / name).mkdir(parents=True)
    (folder / "files" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "text.jsonl").write_text(
        "".join(f'{{"id": "{i}", "text": "Line {i} of a little text."}}\n' for i in range(200))
    )
    source = {
        "domain": "english",
        "tokens_available": 2000,
        "licence": "none",
        "origin": {"kind": "files", "paths": [str(folder / "text.jsonl")]},
    }
    (folder / "conf/source/good.yaml").write_text(yaml.safe_dump(source))
    (folder / "conf/mixture/good.yaml").write_text("weights: {good: 1.0}\n")
    (folder / "conf/mixture/fuzz_alone.yaml").write_text("weights: {fuzz: 1.0}\n")
    chance = random.Random(0)
    rows = [(f"run{i}", w := chance.random(), 1 - w, 2 + w * w) for i in range(12)]
    (folder / "ratios.csv").write_text(
        "run,web,code\n" + "".join(f"{name},{a},{b}\n" for name, a, b, _ in rows)
    )
    (folder / "metrics.csv").write_text(
        "run,loss\n" + "".join(f"{name},{score}\n" for name, _, _, score in rows)
    )
    nanotron = sorted((ROOT / "tests/golden").rglob("*.yaml"))
    shutil.copy(nanotron[0], folder / "nanotron.yaml")
    (folder / "closed").chmod(0o555)


def run_case(case: Case, workspace: Path) -> tuple[int | None, str]:
    """Run one command line in a child; its exit code (None = it took too long) and its output."""
    if case.file is not None:
        path = workspace / "conf" / case.file[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        if case.file[1] is None:
            path.mkdir()
        else:
            path.write_bytes(case.file[1])
    output = workspace / "output"
    child = os.fork()
    if child == 0:
        _become(case, workspace, output)
    code = _wait(child)
    return code, output.read_text(errors="replace") if output.exists() else ""


def _become(case: Case, workspace: Path, output: Path) -> None:
    """Be the command; never returns."""
    code = NO_TEST
    try:
        os.setsid()
        os.chdir(workspace)
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        if case.closed and os.geteuid() == 0:
            give_up_rights()
        from hydra.core.global_hydra import GlobalHydra

        from ablations.cli import main

        GlobalHydra.instance().clear()
        words = list(case.words)
        if case.file is None and "good" in " ".join(words) and "--config-dir" not in words:
            words += ["--config-dir", "conf"]
        code = main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def give_up_rights() -> None:
    """Let permissions bind this process, though it is root's: it drops what overrides them."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the kernel's third version; this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: twice 32 bits
    overriding = 0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    if libc.capget(header, sets) == 0:
        sets[0] &= ~overriding
        sets[1] &= ~overriding
        sets[2] &= ~overriding
        if libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "the rights of root cannot be given up")


def _wait(child: int) -> int | None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            _end_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    _end_group(child)
    os.waitpid(child, 0)
    return None


def _end_group(child: int) -> None:
    """End what the command left behind: its own process group."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return


def fault_of(code: int | None, output: str) -> str | None:
    """Return what is wrong with how a case ended; None where nothing is."""
    if code is None:
        return f"took over {SECONDS} seconds"
    if "Traceback (most recent call last)" in output:
        lines = [line for line in output.splitlines() if line and not line.startswith((" ", "\t"))]
        return f"traceback: {lines[-1][:200]}"
    return None if code in (0, 1, 2) else f"exit code {code}"


def warm() -> None:
    """Import what the commands import, once for all children."""
    import importlib

    from ablations.cli import COMMANDS

    for command in COMMANDS.values():
        importlib.import_module(command.module)
    for name in ("torch", "pandas", "scipy.stats", "optuna", "plotly", "analysis.report"):
        importlib.import_module(name)
    for name in ("sweeps.promotion.promote", "sweeps.study.sweep", "sweeps.programs.annealing"):
        importlib.import_module(name)


def main() -> int:
    """Run the cases; 1 where one ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one command alone")
    parser.add_argument("--keep", type=Path, help="folder for the outputs of wrong cases")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    sys.argv = ["ablate"]
    warm()
    cases = Cases(options.seed, options.only)
    codes: Counter[str] = Counter()
    commands: Counter[str] = Counter()
    named = 0
    wrong = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        make_workspace(Path(folder) / "start")
        for number in range(options.count):
            case = cases.next()
            workspace = Path(folder) / "now"
            shutil.copytree(Path(folder) / "start", workspace)
            code, output = run_case(case, workspace)
            shutil.rmtree(workspace, ignore_errors=True)
            codes[str(code)] += 1
            commands[case.words[0]] += 1
            named += case.name is not None
            if fault := fault_of(code, output):
                wrong += 1
                print(f"#{number} ablate {shlex.join(case.words)[:300]}\n    {fault}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    shown = f"{shlex.join(case.words)}\n{case.file}\n{output}"
                    (options.keep / f"{number}.txt").write_text(shown, errors="replace")
    seconds = time.monotonic() - began
    print(f"commands {dict(sorted(commands.items()))}; {named} of {len(NAMED)} faults with names")
    print(
        f"{options.count} cases, seed {options.seed}: {wrong} wrong; "
        f"exit codes {dict(codes)}; {seconds:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
