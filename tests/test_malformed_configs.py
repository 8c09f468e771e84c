"""Config files of a user's that are wrong: one message with file, line and column, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablations.config.file_places import placed
from ablations.data.catalogue import FilesOrigin, SourceSpec
from ablations.errors import ConfigError, Problem
from ablations.mixture.specs import ScheduleSpec
from ablations.validation import validate
from ablations.yaml_files import ConfigFile
from benchmarks.malformed_configs import CASES, Malformed, fault_of
from tests.conftest import Ablate

ROOT = Path(__file__).resolve().parent.parent

SOURCE = {"domain": "english", "tokens_available": 1, "licence": "none"}


@pytest.mark.parametrize(
    "names",
    [
        ("a tab", "latin-1", "a comment before the header", "an unknown group", "no licence"),
        pytest.param(tuple(case.name for case in CASES), marks=pytest.mark.slow),
    ],
    ids=["a few", "all"],
)
def test_malformed_configs_end_with_one_message(names: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/malformed_configs.py"), "--only", *names],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(names)} of {len(names)} malformed configs" in done.stdout


def test_there_are_forty_cases() -> None:
    assert len({case.name for case in CASES}) == 40


@pytest.mark.parametrize(
    ("code", "output", "fault"),
    [
        (2, "error: 1 problem\n  - conf/a.yaml:3:1: it is wrong\n", None),
        (1, "error: 1 problem\n  - conf/a.yaml:3:1: it is wrong\n", "exit code 1"),
        (2, "error: 2 problems\n  - conf/a.yaml:3:1: it is wrong\n", "not one problem"),
        (2, "error: 1 problem\n  - conf/a.yaml:4:1: it is wrong\n", "is not named"),
        (2, "error: 1 problem\n  - conf/a.yaml:3:1: it is odd\n", "is not told"),
    ],
)
def test_what_does_not_count_is_found(code: int, output: str, fault: str | None) -> None:
    found = fault_of(Malformed("x", "a.yaml", b"", 3, "wrong"), code, output)
    assert (found is None) if fault is None else fault in str(found)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("/mixture: wiki_code", "x.yaml:3:5: Multiple values for mixture."),
        ("../x", "x.yaml:2:1: In experiment/x: Parent traversal"),
        ("mine", "x.yaml:3:5: no such config"),
    ],
)
def test_a_wrong_entry_of_a_defaults_list_has_a_place(
    tmp_path: Path, ablate: Ablate, entry: str, said: str
) -> None:
    (tmp_path / "experiment").mkdir()
    text = f"# @package _global_\ndefaults:\n  - {entry}\nstudy: x\n"
    (tmp_path / "experiment/x.yaml").write_text(text)
    answer = ablate("plan", "--config-dir", str(tmp_path), "experiment=x")
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.startswith("error: 1 problem")


# ------------------------------------------------------------------------------ places of problems


@pytest.mark.parametrize(
    ("where", "words", "shown"),
    [
        ("training.batch_size", [], "own/experiment/x.yaml:3:3: training.batch_size"),
        ("training.batch_size", ["experiment=x"], "own/experiment/x.yaml:3:3: "),
        ("training.batch_size", ["training.batch_size=3"], "training.batch_size"),
        ("training.batch_size", ["training.peak_lr=3"], "own/experiment/x.yaml:3:3: "),
        ("mixture.weights", ["mixture.weights.wiki=3"], "mixture.weights"),
        ("mixture.weights.wiki", [], "own/mixture/x.yaml:1:11: mixture.weights.wiki"),
        ("labels.0", [], "own/experiment/x.yaml:4:10: labels.0"),
        ("model.hidden_size", [], "model.hidden_size"),
    ],
)
def test_a_problem_gets_the_place_of_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, words: list[str], shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    head = "# @package _global_\ntraining:\n  batch_size: 7\nlabels: [a]\n"
    files = [
        ConfigFile(tmp_path / "own/mixture/x.yaml", "mixture/x", "mixture", "weights: {wiki: 1}"),
        ConfigFile(tmp_path / "own/experiment/x.yaml", "experiment/x", "", head),
    ]
    (problem,) = placed(ConfigError(Problem(where, "wrong")), files, words).problems
    assert problem.where.startswith(shown)
    assert problem.where.endswith(where)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "model=a,b"], "add -m: ablate plan -m model=a,b"),
        (["verdict", "study=a,b"], "for one value with a comma in it write \"study='a,b'\""),
        (["plan", "study=a=b"], "a value that needs quotes"),
        (["ls", "runs_dir=a=b"], "write \"runs_dir='a=b'\""),
        (["plan", "mixture=[1"], "not an override"),
    ],
)
def test_a_value_that_needs_quotes_is_written_with_them(
    ablate: Ablate, words: list[str], said: str
) -> None:
    answer = ablate(*words)
    assert answer.code == 2
    assert said in answer.err, answer.err


# --------------------------------------------------------------------------- one problem for a fault


@pytest.mark.parametrize(
    ("origin", "where", "said"),
    [
        ({"kind": "files", "path": ["a"]}, "origin.path", "did you mean 'paths'?"),
        ({"kind": "file", "paths": ["a"]}, "origin.kind", "did you mean 'files'?"),
        ({"paths": ["a"]}, "origin.kind", "missing"),
        ({"kind": "hub"}, "origin.repo", "missing"),
        ({"kind": "files", "paths": [3]}, "origin.paths.0", "valid string"),
        ({"kind": "files", "paths": []}, "origin.paths", "names no file"),
        (3, "origin", "not a section"),
    ],
)
def test_a_fault_of_an_origin_is_one_problem(origin: Any, where: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(SourceSpec, {**SOURCE, "origin": origin}, "source.own")
    (problem,) = caught.value.problems
    assert problem.where == f"source.own.{where}"
    assert said in str(problem)


def test_one_path_may_stand_without_a_list() -> None:
    origin = {"kind": "files", "paths": "corpora/manuals"}
    spec = validate(SourceSpec, {**SOURCE, "origin": origin})
    assert spec.origin == FilesOrigin(kind="files", paths=("corpora/manuals",))
    listed = validate(SourceSpec, {**SOURCE, "origin": {**origin, "paths": ["corpora/manuals"]}})
    assert spec.fingerprint() == listed.fingerprint()


def test_a_value_that_no_member_of_a_union_takes_is_one_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(ScheduleSpec, {"stages": {"main": {"share": "all"}}})
    (problem,) = caught.value.problems
    assert str(problem).startswith("stages.main.share: not a value that it takes; found: 'all'")
    assert "a valid number or 'rest'" in str(problem)
