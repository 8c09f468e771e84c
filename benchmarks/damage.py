"""Damages one file of small real runs at a time: tracebacks, and results that changed silently.

    python benchmarks/damage.py [--cases 300] [--seed 0] [--workers 2] [--scene done]

For each kind of file that a run, a verdict or a report reads, one file of that kind is damaged in one
of eight ways, in a fresh copy of the runs, and the commands that read it are given. A case fails

    by a traceback     stderr shows one, or the exit code is none of 0, 1 and 2
    by a silent change every command ends with 0, the result is another than that of the undamaged
                       copy, and neither the output nor the record says a word about it

The commands run in forks of this process, which has imported what they need. Started by root, the forks
give up its right to read anything, so that an unreadable file is one. Exits 1 unless both counts
are 0.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.files import read_json

TINY = (
    "experiment=synthetic",
    "schedule.total_tokens=2048",
    "model.hidden_size=32",
    "model.intermediate_size=64",
    "training.sequence_length=32",
    "training.checkpoints=2",
    "execution.threads=1",
    "evaluation.max_items=8",
    "evaluation.heldout_max_items=4",
    "progress=false",
    "study=damage",
    *(
        f"+source.synthetic_{skill}={{origin:{{kind:synthetic,skill:{skill},documents:400,seed:0}}}}"
        for skill in ("facts", "arithmetic", "junk")
    ),
)
"""A run of 8 steps that trains in a second."""

ARMS = {"a": "mixture.weights.synthetic_facts=0.5", "b": "mixture.weights.synthetic_facts=0.2"}
RUN = "runs/damage/a-0"
LIMIT_SECONDS = 120.0
_ESCAPED = 70
_CAPABILITY_VERSION = 0x20080522
_READS_ANYTHING = (1 << 1) | (1 << 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
SAID = (
    *("damaged", "missing", "not what", "changed", "cannot be read", "no such", "incomplete"),
    *("left out", "truncated", "not the", "not a ", "not prepared", "longer than", "unreadable"),
)
"""Words of a message about a file."""


def run_of(arm: str, seed: int) -> list[str]:
    """The command of one run."""
    return ["run", *TINY, f"trial={arm}", f"seed={seed}", "mixture.normalize=true", ARMS[arm]]


JUDGE = (
    ["ls"],
    ["verdict", "study=damage"],
    ["report", "study=damage", "surrogates=none", "markdown=report.md"],
)


@dataclass(frozen=True)
class Scene:
    """A state of the folder, the kinds of file that are read in it, and the commands that read them."""

    base: str
    commands: Sequence[Sequence[str]]
    kinds: Sequence[str]
    """Patterns below the folder."""


SCENES = (
    Scene(
        "fresh",
        [run_of("a", 0)],
        (
            *(f"data/tokenizers/*/{n}.json" for n in ("tokenizer", "tokenizer_config", "spec")),
            *(f"data/*/synthetic_facts/{n}" for n in ("manifest.json", "heldout.jsonl")),
            *(f"data/*/synthetic_facts/train/*.{n}" for n in ("ds", "index", "metadata")),
            "data/*/.synthetic_facts.verified.json",
            "data/.benchmarks.verified.json",
            "data/benchmarks/synthetic_facts.jsonl",
            "data/benchmarks/checksums.json",
        ),
    ),
    Scene(
        "resumed",
        [run_of("a", 0)],
        (
            *(f"{RUN}/{n}" for n in ("manifest.json", "metrics.jsonl", "events.jsonl")),
            f"{RUN}/config.yaml",
            f"{RUN}/checkpoints/4/model/**/model_weight*.safetensors",
            *(f"{RUN}/checkpoints/4/{n}/*" for n in ("optimizer", "lr_scheduler", "random")),
            *(f"{RUN}/checkpoints/4/{n}.json" for n in ("checkpoint_metadata", "model_config")),
            *(f"{RUN}/checkpoints/4/{n}" for n in ("state.json", "checksums.json", "config.yaml")),
        ),
    ),
    Scene(
        "unscored",
        [run_of("a", 0)],
        (
            *(f"{RUN}/exports/8/{n}.json" for n in ("config", "tokenizer", "tokenizer_config")),
            *(f"{RUN}/exports/8/{n}" for n in ("model.safetensors", "checksums.json")),
            f"{RUN}/checkpoints/8/model/**/model_weight*.safetensors",
            f"{RUN}/checkpoints/8/state.json",
        ),
    ),
    Scene(
        "done",
        JUDGE,
        (
            *(f"{RUN}/{n}.json" for n in ("manifest", "result", "audit")),
            *(f"{RUN}/{n}.jsonl" for n in ("scores", "metrics", "events")),
            f"{RUN}/details/8/synthetic_facts.parquet",
            f"{RUN}/details/8/checksums.json",
            f"{RUN}/config.yaml",
        ),
    ),
)


# ------------------------------------------------------------------------------------- the damages


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, max(2, len(content)))])


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def wrong_json(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(['{"some": "other"}\n', "[1, 2, 3]\n", "null\n", '"text"\n']))


def missing(path: Path, _: random.Random) -> None:
    path.unlink()


def unreadable(path: Path, _: random.Random) -> None:
    path.chmod(0)


def folder(path: Path, _: random.Random) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, _: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (
    *(flip, cut, empty, wrong_json, missing, unreadable, folder, loop),
)


# ------------------------------------------------------------------------------------ the commands


@dataclass
class Answer:
    """What the commands of a case left."""

    codes: list[int]
    text: str
    """Output of all of them, and what the record says of itself."""
    outcome: dict[str, Any]


def give(where: Path, commands: Sequence[Sequence[str]]) -> Answer:
    """Give the commands in a fork of this process."""
    pid = os.fork()
    if pid == 0:
        _child(where, commands)
    deadline = time.monotonic() + LIMIT_SECONDS * len(commands)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.02)
    codes = where / "codes.txt"
    found = [int(code) for code in codes.read_text().split()] if codes.exists() else []
    text = (where / "out.txt").read_text(errors="replace")
    found += [-9] * (len(commands) - len(found))
    return Answer(found, text + _noted(where), _outcome(where))


def _child(where: Path, commands: Sequence[Sequence[str]]) -> None:
    try:
        os.setsid()
        os.chdir(where)
        out = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(out, stream)
        if os.geteuid() == 0:
            _give_up_rights()
        os.environ.update(ABLATIONS_SLOT="damage", HOME=str(where))
        from hydra.core.global_hydra import GlobalHydra

        from ablations.cli import main

        for command in commands:
            GlobalHydra.instance().clear()
            try:
                code = main(list(command))
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except Exception:
                code = _ESCAPED
                traceback.print_exc()
            sys.stdout.flush()
            with Path("codes.txt").open("a") as stream:
                print(code, file=stream)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _give_up_rights() -> None:
    """Let permissions hold for root too: without two of its capabilities it reads as others do."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    for part in (0, 1):  # effective and permitted, of the first 32
        sets[part] &= ~_READS_ANYTHING
    if libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")


def _noted(where: Path) -> str:
    """What the record says: events of damage, reasons, notes on scores."""
    parts = []
    for name in ("events.jsonl", "scores.jsonl", "result.json"):
        path = where / RUN / name
        if path.is_file():
            rows = path.read_text(errors="replace").splitlines()
            parts += [row for row in rows if '"damaged"' in row or '"missing"' in row]
    return "\n".join(["", *parts])


def _outcome(where: Path) -> dict[str, Any]:
    """What must not change silently."""
    found: dict[str, Any] = {}
    for name, path in (
        ("result", where / RUN / "result.json"),
        ("verdict", where / "runs/damage/verdict.json"),
    ):
        try:
            content = read_json(path)
            found[name] = {k: v for k, v in content.items() if k not in ("cost", "created", "at")}
        except (OSError, ValueError, AttributeError):
            found[name] = None
    report = where / "report.md"
    found["report"] = report.read_text() if report.is_file() else None
    return found


# ------------------------------------------------------------------------------------- the folders


def build(root: Path) -> dict[str, Path]:
    """The folders that the cases begin from."""
    done = root / "done"
    done.mkdir()
    prepare = [o for o in TINY if not o.startswith("study=")]
    runs = [run_of(arm, seed) for arm in ARMS for seed in (0, 1)]
    answer = give(done, [["prepare", *_of_prepare(prepare)], *runs])
    if any(answer.codes):
        raise SystemExit(f"the runs to damage failed: {answer.codes}\n{answer.text}")
    for name in ("out.txt", "codes.txt"):
        (done / name).unlink()
    bases = {"done": done}
    for name in ("fresh", "resumed", "unscored"):
        bases[name] = root / name
        shutil.copytree(done, bases[name])
    shutil.rmtree(bases["fresh"] / "runs")
    for name in ("resumed", "unscored"):
        _unfinish(bases[name] / RUN, trained=name == "unscored")
    return bases


def _of_prepare(overrides: Sequence[str]) -> list[str]:
    """What ``prepare`` knows of a run's overrides."""
    return [o for o in overrides if o.startswith(("experiment=", "+source.", "progress="))]


def _unfinish(run: Path, *, trained: bool) -> None:
    """Take a record back to where it was not scored, or was trained by half."""
    from ablations.runs import RunRecord

    for name in ("result.json", "audit.json", "scores.jsonl"):
        (run / name).unlink()
    shutil.rmtree(run / "details")
    if not trained:
        shutil.rmtree(run / "exports")
        shutil.rmtree(run / "checkpoints" / "8")
    RunRecord(run).set_status("scoring" if trained else "training")


def main() -> int:
    """Damage, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=None, help="at most so many, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scene", choices=[scene.base for scene in SCENES], default=None)
    arguments = parser.parse_args()
    import ablations.preload  # noqa: F401 - once, for all forks

    with tempfile.TemporaryDirectory(prefix="damage-") as name:
        root = Path(name)
        root.chmod(0o755)
        bases = build(root)
        calm = {s.base: give(_copied(bases[s.base], root), s.commands) for s in SCENES}
        if any(any(answer.codes) for answer in calm.values()):
            raise SystemExit("\n".join(f"{b}: {a.codes}\n{a.text}" for b, a in calm.items()))
        scenes = [scene for scene in SCENES if arguments.scene in (None, scene.base)]
        cases = [(s, k, d) for s in scenes for k in s.kinds for d in DAMAGES]
        rng = random.Random(arguments.seed)
        rng.shuffle(cases)
        jobs = [(*case, rng.randrange(2**32)) for case in cases[: arguments.cases]]
        verdicts = []
        with ThreadPoolExecutor(arguments.workers) as pool:
            for verdict in pool.map(lambda job: judge(*job, bases, calm, root), jobs):
                verdicts.append(verdict)
                if len(verdicts) % 20 == 0:
                    print(f"{len(verdicts)} of {len(jobs)}", file=sys.stderr, flush=True)
    counts = Counter(verdict.partition(":")[0] for verdict in verdicts)
    print(f"{len(verdicts)} damaged files: {dict(counts)}")
    return 1 if counts["traceback"] or counts["silent"] else 0


def _copied(base: Path, root: Path) -> Path:
    where = Path(tempfile.mkdtemp(dir=root))
    where.chmod(0o755)
    shutil.copytree(base, where, symlinks=True, dirs_exist_ok=True)
    return where


def judge(
    scene: Scene,
    kind: str,
    damage: Callable[[Path, random.Random], None],
    seed: int,
    bases: dict[str, Path],
    calm: dict[str, Answer],
    root: Path,
) -> str:
    """What became of one case: same, told, traceback or silent."""
    where = _copied(bases[scene.base], root)
    rng = random.Random(seed)
    path = rng.choice(sorted(where.glob(kind)))
    damage(path, rng)
    answer = give(where, scene.commands)
    verdict = _verdict(answer, calm[scene.base], path.name)
    if verdict in ("traceback", "silent"):
        last = " / ".join(line for line in answer.text.splitlines()[-3:])[:200]
        print(
            f"{verdict}: {scene.base} {kind} {damage.__name__}: {answer.codes} {last}", flush=True
        )
    shutil.rmtree(where, ignore_errors=True)
    return verdict


def _verdict(answer: Answer, calm: Answer, name: str) -> str:
    if "Traceback (most recent call last)" in answer.text or set(answer.codes) - {0, 1, 2}:
        return "traceback"
    if answer.outcome == calm.outcome:
        return "same"
    before = set(calm.text.splitlines())
    new = [line for line in answer.text.splitlines() if line not in before]
    told = any(name in line or any(word in line for word in SAID) for line in new)
    return "told" if told or any(answer.codes) else "silent"


if __name__ == "__main__":
    sys.exit(main())
