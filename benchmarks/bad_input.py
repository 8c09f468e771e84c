"""Random bad configs and command lines over all commands: what ends in a traceback, or in another exit code.

    python benchmarks/bad_input.py [--count 1000] [--seed 0] [--only COMMAND] [--keep FOLDER]

Each case is one command line with one to four faults: a wrong value, an unknown or misspelt key, a broken
override, a damaged config file, a wrong folder. It runs in a child that this process forks with its imports
warm, in a workspace with a recorded study, tables of a swarm, a file of nanotron's and no prepared data.
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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "tests" / "analysis" / "fixtures" / "runs"
SECONDS = 90
"""Longest a case may take."""

NO_TEST = 70
"""Exit code of a child whose command raised."""

VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "1e3", "1e400", "99999999999999999999", "-0.5", "3.7"),
    *(
        "true",
        "false",
        "maybe",
        "null",
        "''",
        "' '",
        "abc",
        "auto",
        "?",
        "???",
        "[]",
        "{}",
        "[1,2]",
    ),
    *("{a:1}", "{1:2}", "{true:1}", "[[]]", "[null]", "{a:{b:{c:1}}}", "[abc,1,null]", "'a b'"),
    *("'..'", "'../x'", "/", "/dev/null", "/proc/self/mem", "'~'", "'a/b'", "'$(id)'", "'`id`'"),
    *("'é'", "'\U0001f600'", "'<!--'", "'a\tb'", "'#'", "'%s'", "'{}'", "'*'", "'demo_*'"),
    *("${oc.env:HOME}", "${nothing}", "${study}", "${oc.env:NOTHING}", "${a", "${}", "${seed}"),
    "x" * 300,
    "'" + "y" * 5000 + "'",
    "[" * 80 + "]" * 80,
    "{a:" * 80 + "1" + "}" * 80,
)
"""Values that some field, somewhere, does not expect."""

BROKEN_WORDS = (
    *("", "=", "==", "a", "a=", "=a", "+", "~", "++", "+a=", "a==b", "a=b=c", "a.b.c", ".a=1"),
    *("a.=1", "a..b=1", "+a..b=1", "[a]=1", "a[0]=1", "a=[1", "a={1", "a='", 'a="', "a=(", "a=${"),
    *("--nope", "--cfg", "--cfg=nope", "-m", "--info", "--package", "--config-dir", "--run", "-c"),
    *("--config-dir=/nowhere", "--config-dir=/dev/null", "--config-name=nope", "--config-path=/x"),
    *("hydra.run.dir=/dev/null/x", "hydra/launcher=nope", "hydra.searchpath=[3]", "hydra=3"),
    *("--multirun=1", "\x01", "a=\x01", "é=1", "experiment", "~study", "~mixture", "~schedule.lr"),
    *(
        "~mixture.weights.wiki",
        "+seed=1",
        "seed+=1",
        "seed=1,2",
        "seed=range(3)",
        "seed=choice(1,2)",
    ),
    *(
        "model=demo,demo",
        "experiment=[demo]",
        "mixture=[demo,smollm2]",
        "training@x=demo",
        "+x@y=z",
    ),
    *("study=a,b", "source=3", "+source.x=true", "promotion=0", "mixture=1e3", "search=null"),
    *(
        "+program.kind=os",
        "program={module: os}",
        "after={module: os}",
        "program={kind: annealing}",
    ),
    *(
        "program={kind: stagewise}",
        "after=3",
        "program=[1]",
        "program={kind: [1]}",
        "+cluster.tp=0",
    ),
)

BASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "prepare": (("mirror=empty", "progress=false", "mixture=good", "tokenizer=synthetic_bpe"),),
    "plan": ((), ("experiment=synthetic",), ("experiment=demo_ratio", "-m"), ("mixture=good",)),
    "run": (
        ("progress=false",),
        ("experiment=synthetic", "progress=false"),
        ("experiment=demo_arms", "progress=false"),
        ("experiment=demo_stages", "progress=false"),
        ("experiment=demo_ratio", "progress=false", "-m"),
    ),
    "score": (("checkpoint=empty",), ("checkpoint=files",)),
    "ls": ((), ("study=demo_ratio",)),
    "verdict": (("study=demo_ratio",), ("table=smollm2_web_ratio",), ()),
    "fit": (
        ("study=demo_ratio", "families=[linear]", "resamples=2"),
        ("ratios=ratios.csv", "metrics=metrics.csv", "families=[linear,ridge-sqrt]", "resamples=2"),
    ),
    "promote": (
        ("study=demo_ratio", "full=demo_full"),
        ("study=demo_ratio", "full=smollm2_135m", "promotion.pick=trial-0001"),
        ("compare=empty",),
    ),
    "import": (("file=nanotron.yaml",), ("file=nanotron.yaml", "name=x")),
    "report": (("study=demo_ratio", "surrogates=none"),),
    "watch": (("study=demo_ratio", "once=true"),),
    "doctor": ((),),
    "export": (
        ("format=weights", "experiment=demo_ratio"),
        ("format=nanotron", "promotion=empty"),
    ),
}
"""Command → words that it can be called with; for one that is not here, no word."""


OF_RUNS = ("prepare", "plan", "run", "score", "promote", "export")
"""Commands that compose the config of a run."""


@dataclass(frozen=True)
class Case:
    """One command line, and the files that it reads."""

    words: tuple[str, ...]
    file: tuple[str, bytes] | None
    """Path under the config folder and content of a config file of its own."""


class Cases:
    """Makes bad command lines."""

    def __init__(self, seed: int, only: str | None) -> None:
        from ablations.cli import COMMANDS

        self._random = random.Random(seed)
        self._commands = [only] if only else list(COMMANDS)
        self._keys = {name: composed_keys(COMMANDS[name].config) for name in COMMANDS}
        self._configs = sorted((ROOT / "conf").glob("*/*.yaml"))

    def next(self) -> Case:
        """Return a command line with one to four faults."""
        command = self._random.choice(self._commands)
        words = [*self._random.choice(BASES.get(command, ((),)))]
        file = None
        for _ in range(self._random.choice((1, 1, 1, 1, 1, 2, 2, 3, 4))):
            kind = self._random.random()
            if kind < 0.62:
                words.append(self._wrong_value(command))
            elif kind < 0.84:
                words.append(self._random.choice(BROKEN_WORDS))
            elif kind < 0.92 and words:
                words[self._random.randrange(len(words))] = self._scrambled(words)
            elif file is None and command in OF_RUNS:
                file, extra = self._bad_file()
                words += extra
        if command == "watch":  # it would watch until it is interrupted
            words.append("once=true")
        return Case((command, *words), file)

    def _wrong_value(self, command: str) -> str:
        section = self._random.choice(
            sorted({key.partition(".")[0] for key in self._keys[command]})
        )
        inside = [key for key in self._keys[command] if key.partition(".")[0] == section]
        key = self._random.choice(inside)
        if self._random.random() < 0.1:  # one level higher or deeper, or misspelt
            key = self._random.choice(
                (key.rpartition(".")[0] or key, f"{key}.x", key[:-1], key + "s", key.upper())
            )
        sign = self._random.choice(("", "", "", "", "", "", "+", "++", "++", "~"))
        return f"{sign}{key}={self._value()}"

    def _value(self) -> str:
        if self._random.random() < 0.5:  # what a field may well take, where the next step does not
            return self._random.choice(
                ("1", "2", "3", "7", "64", "1e-9", "1e9", "0.1", "true", "false", "null", "[0,1]")
            )
        return self._random.choice(VALUES)

    def _scrambled(self, words: list[str]) -> str:
        letters = list(self._random.choice(words) or "x")
        place = self._random.randrange(len(letters))
        letters[place] = self._random.choice("=[]{}'\"\\,.:$#é \n\x00"[:-1])
        return "".join(letters)

    def _bad_file(self) -> tuple[tuple[str, bytes], list[str]]:
        """A config file of one of the platform's own, damaged, and the words that choose it."""
        path = self._random.choice(self._configs)
        content = bytearray(path.read_bytes())
        kind = self._random.randrange(7)
        place = self._random.randrange(len(content))
        if kind == 0:
            content[place] ^= 1 << self._random.randrange(8)
        elif kind == 1:
            del content[place:]
        elif kind == 2:
            content[place:place] = self._random.choice(
                (b"\t", b"{", b"[", b": ", b"\xff", b"\x00", b"&a *a")
            )
        elif kind == 3:
            lines = content.splitlines(keepends=True)
            self._random.shuffle(lines)
            content = bytearray(b"".join(lines))
        elif kind == 4:
            content = bytearray(
                self._random.choice((b"", b"3", b"[1, 2]", b"a", b"{1: 2}", b"null"))
            )
        elif kind == 5:
            key = self._random.choice(self._keys["run"]).rpartition(".")[2]
            content += f"\n{key}: {self._value()}\n".encode()
        else:
            content = content.replace(b"@package _global_", b"@package").replace(b": 0", b": yes")
        group = path.parent.name
        name = "fuzz"
        words = ["--config-dir", "conf", f"{group}={name}"]
        if group == "source":
            words = ["--config-dir", "conf", "mixture=fuzz_alone"]
        return (f"{group}/{name}.yaml", bytes(content)), words


def composed_keys(config: str) -> list[str]:
    """Return the dotted keys of a command's config, sections included."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf")):
        plain: Any = OmegaConf.to_container(compose(config), resolve=False)
    return list(_flat(plain, ""))


def _flat(values: Mapping[Any, Any], before: str) -> list[str]:
    keys = []
    for key, value in values.items():
        where = f"{before}.{key}" if before else str(key)
        keys.append(where)
        if isinstance(value, Mapping):
            keys += _flat(value, where)
    return keys


def make_workspace(folder: Path) -> None:
    """Make what the commands read: a recorded study, a swarm, a nanotron file, a little text."""
    import yaml

    shutil.copytree(STUDY, folder / "runs")
    for name in ("empty", "files", "conf/mixture", "conf/source"):
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


def run_case(case: Case, workspace: Path) -> tuple[int | None, str]:
    """Run one command line in a child; its exit code (None = it took too long) and its output."""
    if case.file is not None:
        path = workspace / "conf" / case.file[0]
        path.parent.mkdir(parents=True, exist_ok=True)
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
    for name in ("sweeps.promotion.promote", "sweeps.study.sweep", "sweeps.promotion.arms"):
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
            if fault := fault_of(code, output):
                wrong += 1
                print(f"#{number} ablate {shlex.join(case.words)[:300]}\n    {fault}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    shown = f"{shlex.join(case.words)}\n{case.file}\n{output}"
                    (options.keep / f"{number}.txt").write_text(shown, errors="replace")
    seconds = time.monotonic() - began
    print(
        f"{options.count} cases, seed {options.seed}: {wrong} wrong; "
        f"exit codes {dict(codes)}; {seconds:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
