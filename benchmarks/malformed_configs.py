"""Forty malformed config files of a user's: each must end with one message, file and line, and exit code 2.

    python benchmarks/malformed_configs.py [--only NAME …] [--show]

Each case writes a small config folder, with one fault in one file, and calls ``ablate plan`` with it in a
child that this process forks with its imports warm. A case counts if the exit code is 2, standard error
names one problem, with the file and the line of the fault in it and the words that tell what it is, and
nothing was printed as a traceback. The exit code is 1 if a case does not count.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bad_input import run_case
from benchmarks.bad_input_named import Case

__all__ = ["CASES", "Malformed", "fault_of"]

_HEAD = "# @package _global_\n"
_SOURCE = """domain: english
tokens_available: 1_000_000
licence: none
origin: {kind: files, paths: text.jsonl}
"""
_MIXTURE = "weights: {own: 1.0}\n"
_EXPERIMENT = _HEAD + "defaults:\n  - override /mixture: mine\nstudy: mine\n"


@dataclass(frozen=True)
class Malformed:
    """One malformed file beside two sound ones."""

    name: str
    file: str
    """Path below the config folder."""
    content: bytes
    line: int
    """Line of the fault."""
    told: str
    """Words that the message holds."""


def _experiment(name: str, body: str | bytes, line: int, told: str) -> Malformed:
    """Return a case of an experiment: ``body`` follows the header line."""
    content = body if isinstance(body, bytes) else (_HEAD + body).encode()
    return Malformed(name, "experiment/mine.yaml", content, line, told)


def _source(name: str, text: str, line: int, told: str) -> Malformed:
    return Malformed(name, "source/own.yaml", text.encode(), line, told)


def _of_yaml() -> list[Malformed]:
    """Return the cases that are no YAML, or no text."""
    laughs = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    return [
        _experiment("a tab", "study: mine\ntraining:\n\tbatch_size: 8\n", 4, "takes no tab"),
        _experiment("an open brace", "training: {batch_size: 8\nseed: 1\n", 3, "expected"),
        _experiment("an open bracket", "labels: {a: [1, 2}\nseed: 1\n", 2, "expected"),
        _experiment("an open quote", "seed: 1\nstudy: 'mine\nlabels: {}\n", 5, "quoted scalar"),
        _experiment("a key twice", "seed: 1\nstudy: mine\nseed: 2\n", 4, "duplicate key"),
        _experiment("latin-1", f"{_HEAD}study: caf\u00e9\n".encode("latin-1"), 2, "not UTF-8"),
        _experiment("UTF-16", f"{_HEAD}study: mine\n".encode("utf-16"), 1, "not UTF-8"),
        _experiment("a NUL", "study: mine\0\n", 2, "control characters"),
        _experiment("a wrong dedent", "labels:\n    a: 1\n  b: 2\n", 4, "expected"),
        _experiment("no colon", "study: mine\nseed 1\nlabels: {}\n", 4, "expected"),
        _experiment(
            "no space after the colon", "seed:1\nstudy: mine\n", 3, "not allowed in this context"
        ),
        _experiment("an unknown alias", "labels: {a: *nope}\n", 2, "undefined alias"),
        _experiment("an alias of itself", "labels: &a [*a]\n", 2, "alias of what it stands in"),
        _experiment("a bomb of aliases", laughs, 7, "too many values"),
        _experiment("too deep", "labels: " + "[" * 200 + "]" * 200 + "\n", 2, "nested too deeply"),
        _experiment(
            "a tag of Python", "labels: !!python/name:os.system\n", 2, "not a config in YAML"
        ),
        _experiment("two documents", "seed: 1\n---\nseed: 2\n", 3, "another document"),
        _experiment("a list", "- seed: 1\n", 2, "not the keys of a config"),
        _experiment("a sentence", "My first experiment\n", 2, "not the keys of a config"),
        _experiment("an open interpolation", 'labels: {a: "${oc.env:"}\n', 2, "interpolation"),
    ]


def _of_hydra() -> list[Malformed]:
    """Return the cases that Hydra would misread: headers, defaults lists, keys."""
    return [
        _experiment("no header", b"study: mine\nseed: 1\n", 1, "make that the first line"),
        _experiment(
            "a comment before the header",
            f"# mine/experiment/mine.yaml\n{_HEAD}seed: 1\n".encode(),
            1,
            "make that the first line",
        ),
        _experiment(
            "a misspelt header",
            b"# @package _global\nseed: 1\n",
            1,
            "make that the first line",
        ),
        _experiment(
            "an unknown option", "defaults:\n  - override /model: proxy_15n\n", 3, "proxy_15m"
        ),
        _experiment("an unknown group", "defaults:\n  - override /modle: demo\n", 3, "'model'"),
        _experiment("a group without /", "defaults:\n  - override model: demo\n", 3, "/model"),
        _experiment("defaults that are no list", "defaults: demo\n", 2, "must be a list"),
        _experiment("an unknown section", "trainning: {batch_size: 8}\n", 2, "'training'"),
        _experiment("an unknown key", "training:\n  batchsize: 8\n", 3, "'batch_size'"),
        _experiment("an unknown interpolation", 'labels: {a: "${nope}"}\n', 2, "not found"),
    ]


def _of_values() -> list[Malformed]:
    """Return the cases that are sound YAML and no sound config."""
    named = _SOURCE.partition("origin")[0]
    return [
        _experiment("a word for a number", "training: {batch_size: many}\n", 2, "valid integer"),
        _experiment("a section that is a number", "training: 3\n", 2, "training"),
        Malformed(
            "a key that is a bool",
            "mixture/mine.yaml",
            b"weights:\n  own: 0.5\n  no: 0.5\n",
            1,
            "quote the key",
        ),
        Malformed(
            "an unknown source",
            "mixture/mine.yaml",
            b"weights:\n  own: 0.5\n  wikki: 0.5\n",
            3,
            "'wiki'",
        ),
        Malformed("weights of 0.9", "mixture/mine.yaml", b"weights: {own: 0.9}\n", 1, "sum 0.9"),
        _source("a tab in a source", named + "origin:\n\tkind: files\n", 5, "takes no tab"),
        _source("no licence", _SOURCE.replace("licence: none\n", ""), 1, "licence: missing"),
        _source("an unknown kind", _SOURCE.replace("kind: files", "kind: file"), 4, "'files'"),
        _source("a misspelt key of an origin", _SOURCE.replace("paths", "path"), 4, "'paths'"),
        _source("a source that is a list", "- domain: english\n", 1, "not the keys of a source"),
    ]


CASES = (*_of_yaml(), *_of_hydra(), *_of_values())


def write(case: Malformed, workspace: Path) -> None:
    """Write the config folder of a case, and the text that its source names."""
    files = {
        "source/own.yaml": _SOURCE.encode(),
        "mixture/mine.yaml": _MIXTURE.encode(),
        "experiment/mine.yaml": _EXPERIMENT.encode(),
        case.file: case.content,
    }
    for name, content in files.items():
        path = workspace / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (workspace / "text.jsonl").write_text('{"text": "a line"}\n')


def fault_of(case: Malformed, code: int | None, output: str) -> str | None:
    """Return why a case does not count; None if it does."""
    if code != 2:
        return f"exit code {code}"
    if "Traceback (most recent call last)" in output:
        return "a traceback"
    lines = output.strip().splitlines()
    if lines[:1] != ["error: 1 problem"]:
        return f"not one problem: {lines[:1]}"
    if f"conf/{case.file}:{case.line}:" not in output:
        return f"conf/{case.file}:{case.line} is not named"
    return None if case.told in output else f"{case.told!r} is not told"


def run(case: Malformed, folder: Path) -> tuple[int | None, str]:
    """Return the exit code and the output of ``ablate plan`` with a malformed config."""
    folder.mkdir()
    write(case, folder)
    return run_case(Case(("plan", "--config-dir", "conf", "experiment=mine")), folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; 1 where one does not count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=(), help="names of cases")
    parser.add_argument("--show", action="store_true", help="print each output")
    options = parser.parse_args(arguments)
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    sys.argv = ["ablate"]
    import ablations.commands.plan  # noqa: F401
    import sweeps.study.preflight  # noqa: F401

    chosen = [case for case in CASES if not options.only or case.name in options.only]
    good = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(chosen):
            code, output = run(case, Path(folder) / str(number))
            fault = fault_of(case, code, output)
            good += fault is None
            if fault or options.show:
                print(f"{case.name}: {fault or 'good'}\n{output}", flush=True)
    print(f"{good} of {len(chosen)} malformed configs: one message, file and line, exit code 2")
    return 0 if good == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
