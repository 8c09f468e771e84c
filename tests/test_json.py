"""``json=true``: one document on standard output that its schema accepts, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ablations.command_table import COMMANDS
from ablations.document_schemas import SCHEMAS, document_schema, stored_schema
from ablations.documents import Answer, document_text
from ablations.errors import ConfigError, Problem, WorkError
from tests.conftest import SHORT_SOURCES, TINY, Ablate
from tests.conftest import Answer as Answered

RECORDED = Path(__file__).parent / "analysis/fixtures/runs"
HAVING = [name for name, command in COMMANDS.items() if command.document is not None]


def read(answer: Answered, command: str) -> dict[str, Any]:
    """Return the document that a command printed, after its schema has accepted it."""
    document: dict[str, Any] = json.loads(answer.out)
    jsonschema.validate(document, stored_schema(command))
    assert document["command"] == command
    assert document["exit_code"] == answer.code
    assert document["ok"] == (answer.code == 0)
    return document


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runs folder with a recorded study, in the working folder."""
    shutil.copytree(RECORDED, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.mark.parametrize("command", HAVING)
def test_the_schema_in_the_package_is_what_the_code_makes(command: str) -> None:
    assert stored_schema(command) == document_schema(command)
    jsonschema.Draft202012Validator.check_schema(stored_schema(command))


def test_no_schema_is_left_over() -> None:
    assert sorted(path.stem for path in SCHEMAS.glob("*.json")) == sorted(HAVING)


def test_ls_lists_what_its_table_lists(recorded: Path, ablate: Ablate) -> None:
    table = ablate("ls").out.splitlines()[1:]
    document = read(ablate("ls", "json=true"), "ls")
    runs = document["result"]["runs"]
    assert [run["run"] for run in runs] == [line.split()[0] for line in table]
    assert [f"{run['score']:.4f}" for run in runs] == [line.split()[4] for line in table]
    assert document["result"]["hidden"] == 0


def test_the_verdict_is_the_stored_one(recorded: Path, ablate: Ablate) -> None:
    document = read(ablate("verdict", "study=demo_ratio", "json=true"), "verdict")
    assert document["result"]["file"] == "runs/demo_ratio/verdict.json"
    stored = json.loads((recorded / "demo_ratio/verdict.json").read_text())
    stored.pop("content_sha256")
    assert (
        document["result"]["verdict"].pop("pictures") == []
    )  # stored of studies with pictures alone
    assert document["result"]["verdict"] == stored


def test_a_published_table_has_a_verdict_without_a_file(ablate: Ablate) -> None:
    document = read(ablate("verdict", "table=smollm2_web_ratio", "json=true"), "verdict")
    assert document["result"]["file"] is None


def test_fit_names_the_files_that_it_wrote(recorded: Path, ablate: Ablate) -> None:
    words = ("study=demo_ratio", "families=[linear]", "resamples=2", "json=true")
    document = read(ablate("fit", *words), "fit")
    assert document["result"]["surrogate"] == "linear"
    assert all(Path(file).is_file() for file in document["result"]["files"])


def test_doctor_lists_what_it_found(ablate: Ablate) -> None:
    document = read(ablate("doctor", "json=true"), "doctor")
    assert {"python", "torch", "machine"} <= {one["what"] for one in document["result"]["findings"]}


def test_a_plan_that_breaks_a_rule_has_a_result_and_an_error(ablate: Ablate) -> None:
    words = (*TINY, *SHORT_SOURCES, "json=true")
    sound = read(ablate("plan", *words), "plan")
    assert sound["result"]["total_tokens"] == 2048
    assert sound["error"] is None
    answer = ablate("plan", *words, "schedule.total_tokens=1e9")
    broken = read(answer, "plan")
    assert answer.code == 2
    assert broken["result"]["total_tokens"] > 1e8
    assert all("epoch" in problem["what"] for problem in broken["error"]["problems"])
    assert answer.err.startswith("error: ")


@pytest.mark.parametrize(
    ("command", "words", "where"),
    [
        ("ls", ["study=nothing"], "study"),
        ("ls", ["sort=nothing"], "sort"),
        ("verdict", [], "study"),
        ("fit", ["folds=0"], "folds"),
        ("plan", ["training.peak_lr=-1"], "training.peak_lr"),
        ("plan", ["model=demi"], "model"),
        ("plan", ["--study", "x"], "--study"),
        ("score", ["checkpoint=nowhere"], "checkpoint"),
        ("score", [], "checkpoint"),
        ("doctor", ["+nothing=1"], "nothing"),
        ("promote", ["study=nothing"], "study"),
        ("promote", ["compare=nowhere"], "compare"),
    ],
)
def test_what_is_wrong_is_a_document_too(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ablate: Ablate,
    command: str,
    words: list[str],
    where: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ablate(command, *words, "json=true")
    document = read(answer, command)
    assert answer.code == 2
    assert document["error"]["kind"] == "request"
    assert where in {problem["where"] for problem in document["error"]["problems"]}, document
    assert answer.err.startswith("error: 1 problem")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "json=true"], "ablate run prints no document; allowed: plan, score, ls"),
        (["plan", "-m", "json=true"], "a search prints no document"),
        (["plan", "json=maybe"], "json: not a switch; found: maybe; allowed: true, false"),
        (["watch", "study=x", "json=true"], "ablate watch prints no document"),
    ],
)
def test_a_document_that_there_is_not_is_refused(
    ablate: Ablate, words: list[str], said: str
) -> None:
    answer = ablate(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err


def test_a_config_file_cannot_ask_for_a_document(tmp_path: Path, ablate: Ablate) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/x.yaml").write_text("# @package _global_\njson: true\n")
    answer = ablate("plan", "--config-dir", str(tmp_path), "experiment=x")
    assert answer.code == 2
    assert "json: not given on the command line" in answer.err


def test_what_children_print_is_not_on_standard_output() -> None:
    code = (
        "import os, sys\n"
        "from ablations.documents import only_document\n"
        "with only_document():\n"
        "    print('library')\n"
        "    os.system('echo child')\n"
        "print('document')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout == "document\n"
    assert set(done.stderr.split()) == {"library", "child"}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(), {"ok": True, "error": None, "result": None}),
        (
            Answer(error=WorkError("it broke"), exit_code=1),
            {"ok": False, "error": {"kind": "work", "message": "it broke", "problems": []}},
        ),
        (
            Answer(error=ConfigError(Problem("a", "wrong", found=3)), exit_code=2),
            {
                "error": {
                    "kind": "request",
                    "message": "a: wrong; found: 3",
                    "problems": [
                        {"where": "a", "what": "wrong", "found": "3", "allowed": None, "do": None}
                    ],
                }
            },
        ),
        (Answer(result={"a": float("nan"), "b": (1, 2.5)}), {"result": {"a": None, "b": [1, 2.5]}}),
    ],
)
def test_a_document_says_how_it_ended(answer: Answer, expected: dict[str, Any]) -> None:
    document = json.loads(document_text("ls", 1, answer))
    assert {key: document[key] for key in expected} == expected


@pytest.mark.slow
def test_a_checkpoint_is_scored_into_a_document(workspace: Path, ablate: Ablate) -> None:
    assert ablate("run", *TINY, *SHORT_SOURCES).code == 0
    (checkpoint,) = workspace.glob("runs/*/*/checkpoints/8")
    words = (f"checkpoint={checkpoint}", "out=by_hand", *TINY, *SHORT_SOURCES, "json=true")
    document = read(ablate("score", *words), "score")
    stored = json.loads((workspace / "by_hand/scores.json").read_text())
    assert document["result"]["score"] == stored["score"]
    for metric in (one for task in document["result"]["metrics"].values() for one in task.values()):
        assert metric.pop("groups") is None  # stored with answers about pictures alone
    assert document["result"]["metrics"] == stored["metrics"]
