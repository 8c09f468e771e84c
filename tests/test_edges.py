"""Names and files of other programs, and damaged records: one message for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablations.config.composed import composed_problems, name_problem
from ablations.config.program_names import program_kind, program_module, require_after
from ablations.data.text import clean, clean_values
from ablations.errors import ConfigError, DamagedError, UserError, WorkError, refused_by_system
from ablations.record.run_record import RunRecord, list_runs
from ablations.record.stored import stored_object
from ablations.yaml_files import read_yaml
from tests.conftest import Ablate

# ---------------------------------------------------------------------------------- YAML of others


@pytest.mark.parametrize(
    ("content", "place", "said"),
    [
        (b"weights:\n\tgood: 1.0\n", ":2:1", "takes no tab"),
        (b"a: {b: 1\nc: 2\n", ":2:2", "not a config in YAML"),
        (b"a: 1\nb: 2\na: 3\n", ":3:1", "duplicate key 'a'"),
        ("a: é\n".encode("latin-1"), ":1:4", "not UTF-8 text"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, ":1:67", "nested too deeply"),
        (b"a: &a [*a]\n", ":1:8", "alias of what it stands in"),
        (b"a: !!python/name:os.system\n", ":1:4", "constructor"),
        (b"a: *x\n", ":1:4", "undefined alias"),
    ],
    ids=["tab", "brace", "duplicate", "latin-1", "deep", "self", "python tag", "no anchor"],
)
def test_a_wrong_file_is_told_with_its_place(
    tmp_path: Path, content: bytes, place: str, said: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    (problem,) = caught.value.problems
    assert problem.where == f"{path}{place}"
    assert said in str(problem)


def test_a_file_of_many_aliases_ends_before_it_is_expanded(tmp_path: Path) -> None:
    """Ten levels of ten aliases stand for 10^10 values."""
    lines = ["a0: &a0 [" + ",".join("1" * 10) + "]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path = tmp_path / "laughs.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="stands for too many values"):
        read_yaml(path)


def test_sound_yaml_is_read_with_merges_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x {b: 1}\nc: {<<: *x, b: 2, d: 3}\n")
    assert read_yaml(path) == {"a": {"b": 1}, "c": {"b": 2, "d": 3}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config folder of the user's own, in the working folder."""
    monkeypatch.chdir(tmp_path)
    for group in ("mixture", "experiment", "source"):
        (tmp_path / "own" / group).mkdir(parents=True)
    return tmp_path / "own"


@pytest.mark.parametrize(
    ("group", "content", "said"),
    [
        ("mixture", "weights: {wiki: 0.5, no: 0.5}", "quote the key"),
        ("mixture", "weights: {wiki: 0.5, 2024_10: 0.5}", "quote the key: '202410'"),
        ("mixture", "weights: {wiki: 0.5, fw2.nob: 0.5}", "not a name that an override can reach"),
        ("mixture", "weights: {wiki: 0.5, c++: 0.5}", "not a name that an override can reach"),
        ("mixture", "weights:\n\twiki: 1.0\n", "own/mixture/x.yaml:2:1: not a config in YAML"),
        ("experiment", "study: x\nseed: 3\n", "make that the first line"),
    ],
    ids=["bool", "int", "dot", "plus", "tab", "no header"],
)
@pytest.mark.parametrize("many", [False, True], ids=["one run", "a study"])
def test_names_and_files_are_checked_when_they_are_composed(
    folder: Path, ablate: Ablate, group: str, content: str, said: str, many: bool
) -> None:
    (folder / group / "x.yaml").write_text(content)
    words = ["--config-dir", str(folder), f"{group}=x"]
    answer = ablate("run", *words, *(["-m", "search=none", "seed=0,1"] if many else []))
    assert answer.code == 2, answer.err
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not Path("runs").exists()


def test_the_sources_of_the_users_own_mixture_are_named(folder: Path, ablate: Ablate) -> None:
    (folder / "mixture/m.yaml").write_text("weights: {first: 0.5, second: 0.5}\n")
    answer = ablate("plan", "--config-dir", str(folder), "mixture=m", "mixture.weights.x=0.3")
    assert answer.code == 2
    assert "mixture.weights.x: unknown key; allowed: first, second" in answer.err


# ------------------------------------------------------------------------------ composed configs


@pytest.mark.parametrize("name", ["wiki", "fw2-nob", "2024_10", "_x", "a" * 100])
def test_names_that_overrides_reach(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert name_problem("mixture.weights", name) is None
    parsed = OverridesParser.create().parse_override(f"mixture.weights.{name}=0.5")
    assert parsed.key_or_group == f"mixture.weights.{name}"


@pytest.mark.parametrize("name", ["a.b", "c++", "a b", "é", "1e3", "-a", "", "a/b", "a" * 101])
def test_names_that_are_refused(name: str) -> None:
    assert name_problem("mixture.weights", name) is not None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"margin": float("inf")}, "margin: not a finite number"),
        ({"labels": {"a": [1.0, float("nan")]}}, "labels.a.1: not a finite number"),
        ({"seed": 2**64}, "seed: too large a number"),
        ({"study": "a\0b"}, "study: holds a NUL character"),
        ({"study": "a\ud83d"}, "study: holds half of a surrogate pair"),
        ({"source": {"x": True}}, "source.x: not a section; found: True"),
        ({"mixture": 1000.0}, "mixture: not a section"),
        ({"promotion": 0}, "promotion: not a section"),
        ({"labels": {1: 2}}, "labels: a key that YAML reads as a number"),
        ({"schedule": {"stages": {"a.b": {}}}}, "schedule.stages: not a name"),
        ({"evaluation": {"tasks": {"a b": {}}}}, "evaluation.tasks: not a name"),
    ],
)
def test_what_no_field_sees_is_told(config: dict[str, Any], said: str) -> None:
    (problem,) = composed_problems(config)
    assert str(problem).startswith(said)


def test_sections_of_numbers_keep_their_keys() -> None:
    assert composed_problems({"source": {"x": {"score_shares": {1: 0.5, 2: 0.1}}}}) == []


def test_a_secret_of_the_environment_enters_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    answer = ablate("run", "+labels.note=${oc.env:HF_TOKEN}")
    assert answer.code == 2
    assert "the value of the environment variable HF_TOKEN" in answer.err
    assert "hf_0123456789abcdef" not in answer.err
    assert not list(tmp_path.rglob("*manifest*"))


def test_a_folder_of_keys_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_KEY_DIR", "/home/someone")
    monkeypatch.setenv("API_KEY", "short")
    assert composed_problems({"runs_dir": "/home/someone/runs", "note": "a short note"}) == []


# ------------------------------------------------------------------------------------- programs


def test_programs_are_words_and_the_modules_that_were_written_before() -> None:
    assert program_kind({"kind": "annealing"}) == "annealing"
    assert program_kind({"module": "sweeps.programs.stagewise"}) == "stagewise"
    assert (
        program_module({"module": "sweeps.programs.annealing"}).__name__
        == "sweeps.programs.annealing"
    )
    require_after({"module": "sweeps.promotion.compare", "promotion": "promotions/x"})


@pytest.mark.parametrize(
    "values", [{"module": "os"}, {"kind": "os"}, {"kind": ["annealing"]}, {}, 3, [1]]
)
def test_no_config_names_code(values: Any) -> None:
    with pytest.raises(ConfigError):
        program_module(values)
    with pytest.raises(ConfigError):
        require_after(values)


def test_a_module_of_a_strangers_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate
) -> None:
    (tmp_path / "stranger.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for key in ("program", "after"):
        answer = ablate("run", f"{key}={{module: stranger}}")
        assert answer.code == 2
        assert "no config names code to be imported" in answer.err
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------ command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "mixture=1e3"], "cannot be composed"),
        (["plan", "seed=-1"], "seed: Input should be greater than or equal to 0"),
        (["plan", "execution.threads=0"], "execution.threads"),
        (["plan", "execution.tp=0"], "execution.tp"),
        (["plan", "warm_start.first_step=5"], "there is no checkpoint to go on from"),
        (["plan", "evaluation.window_tokens=1"], "evaluation.window_tokens: too small"),
        (["plan", "prepare.force=maybe"], "prepare.force: Input should be a valid boolean"),
        (
            ["plan", "prepare.workers=-1"],
            "prepare.workers: Input should be greater than or equal to 1",
        ),
        (["plan", "schedule.lr.min_ratio=5"], "schedule.lr.min_ratio"),
        (["plan", "source.wiki.max_bytes=4"], "write +source.wiki.max_bytes="),
        (["plan", "labels.x=1"], "write +labels.x="),
        (["promote", "promotion=0"], "promotion: not a section"),
        (["verdict", "study="], "study: unknown study ''"),
        (["verdict", "study='demo_*'"], "study: unknown study 'demo_*'"),
        (["verdict", "table=smollm2_web_ratio", "margin=inf"], "margin: not a finite number"),
        (["verdict", "table=smollm2_web_ratio", "verbose=maybe"], "verbose: Input should be"),
        (["ls", "study='demo_*'"], "study: unknown study 'demo_*'"),
        (["ls", "study=3.7"], "quote it: study"),
        (["ls", "+nothing=1"], "nothing: unknown key"),
        (["doctor", "runs_dir=[1]"], "runs_dir: Input should be a valid string"),
        (["import", "file={a: 1}"], "file: Input should be a valid string"),
        (["ls", "runs_dir={a: 1}"], "runs_dir: Input should be a valid string"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nonsense_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Ablate, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ablate(*words)
    assert answer.code == 2, answer.out
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_a_key_that_another_command_has_gets_no_hint_to_add_it(ablate: Ablate) -> None:
    answer = ablate("ls", "source.wiki.max_bytes=3")
    assert answer.code == 2
    assert "source: unknown key; allowed: json, limit" in answer.err
    assert "+source" not in answer.err


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [("EACCES", UserError, 2), ("EROFS", UserError, 2), ("ENOSPC", WorkError, 1)],
)
def test_what_the_system_refuses_has_a_path_and_a_remedy(
    number: str, kind: type[Exception], code: int
) -> None:
    import errno

    value = getattr(errno, number)
    error = refused_by_system(OSError(value, os.strerror(value), "some/file"))
    assert isinstance(error, kind)
    assert error.exit_code == code
    assert "some/file" in str(error)
    assert os.strerror(value) in str(error)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads_ends_silently(tmp_path: Path, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "ablations.cli", "ls"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        check=False,
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 0


# ------------------------------------------------------------------------------------------ text


def test_lone_surrogates_are_replaced_and_counted() -> None:
    assert clean("a\ud83d and \udc00.") == ("a\ufffd and \ufffd.", 2)
    assert clean("whole \U0001f600") == ("whole \U0001f600", 0)
    assert clean_values({"a\ud83d": ["b\ud83d", 1]}) == {"a\ufffd": ["b\ufffd", 1]}


def test_an_item_with_half_a_pair_is_read(tmp_path: Path) -> None:
    from ablations.evaluation.item_lines import json_lines

    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"query": "a \\ud83d b"}\n{"query": "a \xed\xa0\xbd b"}\n')
    assert [row["query"] for row in json_lines(path)] == ["a \ufffd b"] * 2


def test_a_document_with_half_a_pair_is_prepared(tmp_path: Path) -> None:
    from ablations.data.catalogue import FilesOrigin, SourceSpec
    from ablations.data.prepare import prepare
    from ablations.data.tokenizer import TokenizerSpec

    path = tmp_path / "text.jsonl"
    rows = [
        f'{{"id": "{i}\\udc00", "text": "Line {i}: a tail \\ud83d, and on."}}' for i in range(40)
    ]
    path.write_text("\n".join(rows) + "\n")
    spec = SourceSpec(
        domain="english",
        tokens_available=1000,
        origin=FilesOrigin(kind="files", paths=(str(path),)),
        licence="none",
        heldout_share=0.3,
    )
    tokenizer = TokenizerSpec(name="t", vocab_size=300)
    (store,) = prepare({"talk": spec}, tokenizer, tmp_path / "data")
    assert store.manifest is not None
    assert store.manifest.documents + store.manifest.heldout.documents == 40
    assert store.manifest.replaced_characters == 40


# ---------------------------------------------------------------------------------------- records


def recorded(runs_dir: Path, trial: str) -> RunRecord:
    record = RunRecord.create(runs_dir, study="s", trial=trial, seed=0, config={"seed": 0})
    record.write_result({"status": "done", "score": 1.0, "step": 1, "tokens": 8, "metrics": {}})
    return record


@pytest.mark.parametrize("name", ["manifest.json", "result.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"{}", b'{"status": 3, "study": 1}', b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "list", "object", "kinds", "bytes", "deep"],
)
def test_a_damaged_run_is_shown_and_the_others_too(
    tmp_path: Path, ablate: Ablate, name: str, content: bytes
) -> None:
    runs = tmp_path / "runs"
    (recorded(runs, "bad").path / name).write_bytes(content)
    recorded(runs, "good")
    answer = ablate("ls", f"runs_dir={runs}")
    assert answer.code == 0, answer.err
    lines = {line.split()[0]: line.split()[1] for line in answer.out.splitlines()}
    assert lines == {"run": "status", "s/bad-0": "damaged", "s/good-0": "pending"}


def test_a_record_of_other_kinds_names_its_file(tmp_path: Path) -> None:
    record = recorded(tmp_path, "x")
    path = record.path / "result.json"
    path.write_text(json.dumps({"status": "done", "score": "high"}))
    with pytest.raises(DamagedError, match=r"score = 'high'.*move it away") as caught:
        record.result()
    assert str(path) in str(caught.value)
    path.write_text("[]")
    with pytest.raises(DamagedError, match="list in the place of an object"):
        stored_object(path)


def test_a_name_is_no_pattern(tmp_path: Path) -> None:
    recorded(tmp_path, "x")
    assert len(list_runs(tmp_path, "s")) == 1
    assert [list_runs(tmp_path, name) for name in ("", "*", "s*", ".", "../s")] == [[]] * 5
