"""Check the reading of records, line files and studies' own files on hand-made folders, value by value."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.errors import DataError
from ablations.files import append_json_line, write_json, write_sealed
from analysis.records import (
    RunFiles,
    collector_paused,
    read_json_or_none,
    read_lines,
    scan,
    studies,
    study_objective,
)
from analysis.study_files import (
    _since,
    ailments,
    definition_of,
    load_verdict,
    question_of,
    rerun_command,
)


def write_run(study: Path, run: str, manifest: Mapping[str, Any], **files: Any) -> Path:
    """Write a run's folder: its manifest, and other JSON files by name."""
    folder = study / run
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", dict(manifest))
    for name, content in files.items():
        write_json(folder / f"{name}.json", content)
    return folder


def write_definition(study: Path, **changes: Any) -> None:
    """Write the definition of a study."""
    study.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {key: {} for key in ("strategy", "objectives", "constraints", "config")}
    made = {"study": study.name, "question": "", "space": None, "seeds": [0], "arguments": []}
    write_sealed(study / "study.json", {**plain, **made, "created": 1.0, "format": 3, **changes})


def rows_of(folder: Path, name: str = "metrics.jsonl") -> list[list[tuple[Any, int]]]:
    """Return the steps and owners of the rows of each table."""
    return [
        list(zip(table["step"].to_pylist(), owner.tolist(), strict=True))
        for table, owner in read_lines(scan(folder, "s"), name)
    ]


# ----------------------------------------------------------------------------------------- small files


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_paused_and_left_as_it_was(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with collector_paused():
            assert not gc.isenabled()
        assert gc.isenabled() is enabled
        with pytest.raises(KeyError), collector_paused():
            raise KeyError
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_studies_and_runs_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    assert studies(tmp_path / "nothing") == []
    names = ["m", "b", "z", "a", "k", "c", "y"]
    for name in names:
        (tmp_path / name).mkdir()
        write_run(tmp_path / "s", f"{name}-0", {"seed": 0})
    (tmp_path / "file").write_text("no study")
    (tmp_path / "s/file").write_text("no run")
    assert studies(tmp_path) == sorted([*names, "s"])
    assert [run.run for run in scan(tmp_path, "s")] == [f"{name}-0" for name in sorted(names)]
    assert [run.study for run in scan(tmp_path)] == ["s"] * 7
    with pytest.raises(DataError, match="no study is recorded there"):
        scan(tmp_path / "nothing", "s")


def test_what_a_run_reached_is_its_result_else_its_pause(tmp_path: Path) -> None:
    paused = {"step": 3, "tokens": 5, "cost": {"flops": 1.0}, "score": 2.0, "share": 0.5}
    result = {"status": "done", "step": 9, "score": 1.5}
    waits = {"status": "paused"}
    write_run(tmp_path / "s", "a", waits, paused=paused)
    write_run(tmp_path / "s", "b", waits, paused=paused, result=result)
    write_run(tmp_path / "s", "c", {"status": "training"}, paused=paused)
    write_run(tmp_path / "s", "d", {}, result={})
    write_run(tmp_path / "s", "e", {}, result={"score": "high"})
    write_run(tmp_path / "s", "f", {}, result=[1], audit=[2])
    found = {run.run: run for run in scan(tmp_path, "s")}
    reached = {"step": 3, "tokens": 5, "cost": {"flops": 1.0}, "audit_ok": None}
    assert found["a"].reached == reached
    assert found["b"].reached == result
    assert found["b"].paused is None
    assert [found[name].reached for name in "cdef"] == [{}] * 4
    assert [found[name].result for name in "acdef"] == [None] * 5
    assert [found[name].paused for name in "cdef"] == [None] * 4
    assert found["f"].audit is None


def test_equal_sections_are_shared_and_single_values_are_kept_as_they_are(tmp_path: Path) -> None:
    first = {"seed": 1, "labels": {"x": 1}, "config": {"model": {"a": [1]}, "seed": 1, "list": [1]}}
    second = {**first, "seed": True, "config": {**first["config"], "seed": 1.0}}  # type: ignore[dict-item]
    for name, manifest in (("a", first), ("b", second)):
        write_run(tmp_path / "s", name, manifest)
    one, two = (run.manifest for run in scan(tmp_path, "s"))
    assert (repr(one), repr(two)) == (repr(first), repr(second))
    assert one["labels"] is two["labels"]
    assert one["config"]["model"] is two["config"]["model"]
    assert one["config"]["list"] is two["config"]["list"]


def test_json_that_was_changed_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert read_json_or_none(path) is None
    write_sealed(path, {"a": 1})
    assert read_json_or_none(path) == {"a": 1}
    path.write_text(path.read_text().replace("1,", "2,"))
    assert read_json_or_none(path) is None


DECLARED = {"quality": {"metrics": ["quiz/acc"], "direction": "maximize"}}


def test_a_declared_objective_stands_in_for_the_recorded_score(tmp_path: Path) -> None:
    result = {"score": 7.0, "direction": "minimize", "metrics": {"quiz/acc": 0.25}}
    for study, objectives in (
        ("declared", DECLARED),
        ("plain", {}),
        ("open", {"q": {"metrics": ["quiz/acc"]}}),
        ("recorded", {"q": {"metrics": ["score"], "direction": "maximize"}}),
    ):
        write_definition(tmp_path / study, objectives=objectives)
        write_run(tmp_path / study, "a", {}, result=result)
        write_run(tmp_path / study, "b", {})
    found = {(run.study, run.run): run.result for run in scan(tmp_path)}
    names = ("declared", "plain", "open", "recorded")
    assert [found[study, "b"] for study in names] == [None] * 4
    rows = {study: found[study, "a"] or {} for study in names}
    assert [(row["score"], row["direction"]) for row in rows.values()] == [
        (0.25, "maximize"),
        (7.0, "minimize"),
        (0.25, "minimize"),
        (7.0, "minimize"),
    ]
    assert study_objective(tmp_path / "declared").name == "quality"
    (tmp_path / "declared/study.json").write_text("{")
    assert study_objective(tmp_path / "declared").is_recorded


# ----------------------------------------------------------------------------------------- line files


@pytest.mark.parametrize(("spare", "tables"), [(0, 2), (-1, 3)])
def test_line_files_share_a_table_as_long_as_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: int, tables: int
) -> None:
    for name in "abc":
        folder = write_run(tmp_path / "s", name, {})
        (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    whole = [(step, owner) for owner in range(3) for step in (1, 2)]
    assert rows_of(tmp_path) == [whole]
    monkeypatch.setattr("analysis.records.CHUNK_BYTES", 2 * 24 + spare)
    found = rows_of(tmp_path)
    assert len(found) == tables
    assert [row for table in found for row in table] == whole


def test_a_file_larger_than_a_table_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in (("a", 1), ("b", 40), ("c", 2)):
        folder = write_run(tmp_path / "s", name, {})
        (folder / "metrics.jsonl").write_text("".join(f'{{"step": {n}}}\n' for n in range(rows)))
    monkeypatch.setattr("analysis.records.CHUNK_BYTES", 30)
    found = [row for table in rows_of(tmp_path) for row in table]
    assert found == [(0, 0), *((n, 1) for n in range(40)), (0, 2), (1, 2)]


def test_a_file_of_a_torn_line_alone_takes_nothing_from_the_others(tmp_path: Path) -> None:
    contents = ('{"step": 1}\n', '{"step": 9', "", '{"step": 2}\n{"step"', "\n\n", None)
    for number, content in enumerate(contents):
        folder = write_run(tmp_path / "s", f"r{number}", {})
        if content is not None:
            (folder / "metrics.jsonl").write_text(content)
    assert rows_of(tmp_path) == [[(1, 0), (2, 3)]]
    for number in (0, 3, 4):
        (tmp_path / f"s/r{number}/metrics.jsonl").unlink()
    assert rows_of(tmp_path) == []


@pytest.mark.parametrize("damaged", [0, 1, 2, None])
def test_a_row_of_scores_that_was_changed_is_empty(tmp_path: Path, damaged: int | None) -> None:
    for name in "ab":
        folder = write_run(tmp_path / "s", name, {})
        for file in ("scores.jsonl", "metrics.jsonl"):
            for step in (10, 20, 30):
                append_json_line(folder / file, {"step": step}, seal=True)
            lines = (folder / file).read_text().splitlines(keepends=True)
            if damaged is not None and name == "b":
                lines[damaged] = lines[damaged].replace("0", "5", 1)
            (folder / file).write_text("".join(lines))
    steps: list[int | None] = [10, 20, 30]
    changed = [*steps]
    if damaged is not None:
        changed[damaged] = None
    expected = [(step, 0) for step in steps] + [(step, 1) for step in changed]
    assert rows_of(tmp_path, "scores.jsonl") == [expected]
    kept = [{10: 15, 20: 25, 30: 35}[s] if n == damaged else s for n, s in enumerate([10, 20, 30])]
    assert rows_of(tmp_path) == [[(step, 0) for step in steps] + [(step, 1) for step in kept]]


# ------------------------------------------------------------------------------- a study's own files


def test_a_question_is_the_study_s_own_unless_it_is_empty(tmp_path: Path) -> None:
    general = "How do the runs of s compare?"
    assert question_of(None, "s") == general
    for stated in ("", "Which is best?"):
        write_definition(tmp_path / "s", question=stated)
        assert question_of(definition_of(tmp_path / "s"), "s") == (stated or general)
    (tmp_path / "s/study.json").write_text("{")
    assert definition_of(tmp_path / "s") is None


def test_each_file_of_a_study_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    assert ailments(folder) == []
    (folder / "verdict.json").write_text("{")
    (one,) = ailments(folder)
    assert "verdict.json" in one
    (folder / "study.json").write_text("{")
    found = ailments(folder)
    assert ["study.json" in found[0], "verdict.json" in found[1]] == [True, True]
    assert len(found) == 2
    loaded = load_verdict(tmp_path, "s", [], "stored")
    assert loaded.note.startswith("The stored verdict cannot be read. `ablate verdict study=s`")


def test_a_study_without_runs_has_the_reason_why_it_has_no_verdict(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    found = load_verdict(tmp_path, "s", [], "auto")
    assert (found.verdict, found.origin) == (None, "none")
    assert found.note.startswith("No verdict can be made yet: ")
    (tmp_path / "s/verdict.json").write_text("{")
    again = load_verdict(tmp_path, "s", [], "auto")
    assert again.note == f"The stored verdict cannot be read. {found.note}"


@pytest.mark.parametrize(
    ("manifest", "own", "words"),
    [
        ({"command": ["ablate run", "a b"]}, False, ["ablate", "run", "a b"]),
        ({}, False, []),
        ({"config": {"stores": {}}}, True, ["~stores"]),
        ({"config": {"model": {}}}, True, []),
        ({"config": None}, True, []),
        ({}, True, []),
    ],
)
def test_a_run_is_repeated_without_the_stores_that_it_added(
    tmp_path: Path, manifest: dict[str, Any], own: bool, words: list[str]
) -> None:
    run = RunFiles(
        folder=str(tmp_path), study="s", run="a", manifest=manifest, result=None, audit=None
    )
    if own:
        (tmp_path / "config.yaml").touch()
        config = ["--config-dir", str(tmp_path), "--config-name", "config"]
        last = ["study=s_again", "hydra.run.dir=.", "hydra.output_subdir=null"]
        last += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
        words = ["ablate", "run", *config, *words, *last]
    assert shlex.split(rerun_command(run)) == words


def test_runs_that_never_ended_do_not_make_a_verdict_old() -> None:
    times = (None, 0.0, 4.5, 5.0, 5.5, 6.0)
    runs: Any = [SimpleNamespace(manifest={"finished": time}) for time in times]
    runs.append(SimpleNamespace(manifest={}))
    assert _since(5.0, runs) == 2
