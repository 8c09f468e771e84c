"""Damages one file of small real runs at a time: tracebacks, and results that changed silently.

    PYTHONPATH=. python benchmarks/damage.py [--cases 300] [--seed 0] [--workers 2] [--scene done …]

For each kind of file that the platform reads (``damage_scenes.py`` lists them), one file of that kind is
damaged in one of eight ways, in a fresh copy of the runs, and the commands that read it are given. A case
fails

    by a traceback     stderr shows one, or the exit code is none of 0, 1 and 2
    by a silent change every command ends with 0, the result is another than that of the undamaged
                       copy, and neither the output nor the record says a word about it

The commands run in forks of this process, which has imported what they need. Started by root, the forks
give up its right to read anything, so that an unreadable file is one. A user's own text has no
checksum: where it still reads well, a damaged one counts as another input. Exits 1 unless both counts of
failures are 0.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.damage_forks import Answer, give
from benchmarks.damage_scenes import RUN, SCENES, Scene, build

SAID = (
    *("damaged", "missing", "not what", "changed", "cannot be read", "no such", "incomplete"),
    *("left out", "truncated", "not the", "not a ", "not prepared", "longer than", "unreadable"),
)
"""Words of a message about a file."""


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


def main() -> int:
    """Damage, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=None, help="at most so many, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    names = [scene.base for scene in SCENES]
    parser.add_argument("--scene", choices=names, nargs="*", default=names)
    arguments = parser.parse_args()
    import ablations.preload  # noqa: F401 - once, for all forks

    with tempfile.TemporaryDirectory(prefix="damage-") as name:
        root = Path(name)
        root.chmod(0o755)
        scenes = [scene for scene in SCENES if scene.base in arguments.scene]
        bases = build(root, arguments.scene)
        calm = {s.base: _given(s, _copied(bases[s.base], root)) for s in scenes}
        if any(any(answer.codes) for answer in calm.values()):
            raise SystemExit("\n".join(f"{b}: {a.codes}\n{a.text}" for b, a in calm.items()))
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


def _given(scene: Scene, where: Path) -> Answer:
    return give(where, scene.commands, scene.results, RUN)


def judge(
    scene: Scene,
    kind: str,
    damage: Callable[[Path, random.Random], None],
    seed: int,
    bases: dict[str, Path],
    calm: dict[str, Answer],
    root: Path,
) -> str:
    """Return what became of one case: same, told, another input, traceback or silent."""
    where = _copied(bases[scene.base], root)
    rng = random.Random(seed)
    path = rng.choice(sorted(where.glob(kind)))
    damage(path, rng)
    answer = _given(scene, where)
    verdict = _verdict(answer, calm[scene.base], path.name)
    if verdict == "silent" and scene.foreign and damage in (flip, cut, empty, wrong_json):
        verdict = "another input"
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
