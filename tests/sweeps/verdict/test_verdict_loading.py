"""Check the runs that a verdict loads: what leaves one out, what is read of it, what cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import UserError
from ablations.files import write_json
from ablations.record.paused import write_paused
from ablations.record.run_record import RunRecord
from sweeps.study.objective import Objective
from sweeps.study.run_results import write_failure
from sweeps.verdict.loading import LoadedRun, load_run, refuse_mixed, score_terms
from sweeps.verdict.question import Question

Make = Callable[..., Any]
PLAIN = Question()


def loaded(record: RunRecord, question: Question = PLAIN) -> tuple[LoadedRun | None, str | None]:
    """The run, and the reason for which it is left out."""
    left_out: dict[str, str] = {}
    run = load_run(record, question, left_out)
    assert set(left_out) <= {record.path.name}
    return run, left_out.get(record.path.name)


def one(make_study: Make, **given: Any) -> RunRecord:
    made = make_study(items=4).run("base", 3, details=False, **given)
    assert isinstance(made, RunRecord)
    return made


def test_a_run_is_loaded_with_what_defines_its_result(make_study: Make) -> None:
    places = {
        "runs_dir": "runs",
        "data_dir": "data",
        "labels": {"name": "x"},
        "progress": True,
        "evaluation": {"tasks": {"arc": {}}, "batch_tokens": 8, "mirror": "x", "score": {}},
        "model": {"hidden_size": 8},
    }
    record = one(make_study, config=places, phase="design", asked_seeds=(3,))
    run, reason = loaded(record)
    assert reason is None
    assert run is not None
    assert (run.name, run.trial, run.seed, run.direction) == ("base-3", "base", 3, "maximize")
    assert run.score == record.result()["score"]  # type: ignore[index]
    assert set(run.config) == {"tokenizer", "mixture", "schedule", "model", "evaluation"}
    assert run.config["evaluation"] == {"tasks": {"arc": {}}, "score": {}}
    assert run.keys == ("arc/acc", "wiki/bpb")
    assert (run.spec["phase"], run.confirms) == ("design", False)
    assert run.tokens.tolist() == [100e3, 200e3, 300e3, 400e3, 500e3]


def test_rows_up_to_the_step_of_the_result_count(make_study: Make) -> None:
    run, _ = loaded(one(make_study, result={"step": 300}))
    assert run is not None
    assert [row["step"] for row in run.rows] == [100, 200, 300]
    run, _ = loaded(one(make_study, result={"step": None}))
    assert run is not None
    assert len(run.rows) == 5


def test_the_items_that_a_run_was_scored_on_are_kept(tmp_path: Path) -> None:
    record = RunRecord.create(
        tmp_path, study="s", trial="a", seed=0, config={"seed": 0}, items={"arc.parquet": "abc"}
    )
    record.set_status("done")
    record.write_result(
        {"status": "done", "score": 1.0, "direction": "minimize", "metrics": {}, "step": 1}
    )
    run, reason = loaded(record)
    assert reason is None
    assert run is not None
    assert run.items == {"arc.parquet": "abc"}
    assert (run.keys, run.rows, run.direction) == ((), (), "minimize")


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"status": "failed", "reason": "step 3: NaN\nmore"}, "failed: step 3: NaN"),
        ({"status": "failed", "reason": None}, "failed: done"),
        ({"score": None}, "its score is missing"),
        ({"direction": None}, "its score is missing"),
        ({"direction": "upwards"}, "its score is missing"),
        ({"audit_ok": False}, "it did not read the mixture that it was asked to (audit)"),
        ({"audit_ok": None}, None),
        ({"direction": "minimize"}, None),
    ],
)
def test_a_result_that_does_not_count_is_left_out_with_the_reason(
    make_study: Make, result: Mapping[str, Any], reason: str | None
) -> None:
    run, found = loaded(one(make_study, result=result))
    assert found == reason
    assert (run is None) == (reason is not None)


def test_the_study_s_direction_stands_before_that_of_the_result(make_study: Make) -> None:
    asked = Question(objective=Objective(name="text", metrics=("wiki/*",), direction="minimize"))
    record = one(make_study, result={"direction": "maximize"})
    run, _ = loaded(record, asked)
    assert run is not None
    assert (run.direction, run.score) == (
        "minimize",
        record.result()["metrics"]["wiki/bpb"],  # type: ignore[index]
    )


@pytest.mark.parametrize(
    ("status", "why", "reason"),
    [
        ("pending", None, "not finished: pending"),
        ("failed", "no room\nat all", "not finished: no room"),
    ],
)
def test_a_run_without_a_result_is_not_finished(
    make_study: Make, status: Any, why: str | None, reason: str
) -> None:
    record = one(make_study)
    (record.path / "result.json").unlink()
    record.set_status(status, why)
    assert loaded(record) == (None, reason)


def test_a_failed_run_without_a_reason_has_that_of_its_record(make_study: Make) -> None:
    record = one(make_study, result={"status": "failed", "reason": None})
    record.set_status("failed", "killed")
    assert loaded(record) == (None, "failed: killed")


def test_a_paused_run_ranks_mixtures_and_is_not_judged(make_study: Make) -> None:
    record = one(make_study)
    write_paused(record, {"step": 200, "share": 0.4})
    run, reason = loaded(record)
    assert run is not None, reason  # the result is the end, whatever lies beside it
    (record.path / "result.json").unlink()
    run, reason = loaded(record)
    assert run is None
    assert reason == ("paused at 40% of its tokens: used for the ranking of mixtures, not judged")


def test_a_run_that_was_refused_before_it_began_failed_and_others_are_damaged(
    tmp_path: Path,
) -> None:
    def folder(name: str) -> RunRecord:
        path = tmp_path / "s" / name
        path.mkdir(parents=True)
        return RunRecord(path)

    refused, silent, done, bare, broken = map(folder, ("a-0", "b-0", "c-0", "d-0", "e-0"))
    write_failure(refused.path, "no such source\nand more")
    write_json(silent.path / "result.json", {"status": "failed", "reason": None})
    write_json(done.path / "result.json", {"status": "done", "reason": "x"})
    (broken.path / "result.json").write_text("{")
    assert loaded(refused) == (None, "failed: no such source")
    assert loaded(silent) == (None, "failed: no reason is recorded")
    for record in (done, bare, broken):
        run, reason = loaded(record)
        assert run is None
        assert str(reason).startswith("damaged: ")


def test_a_damaged_file_is_named_though_the_run_failed(make_study: Make) -> None:
    record = one(make_study, result={"status": "failed", "reason": "step 3"})
    (record.path / "manifest.json").write_text("{")
    assert str(loaded(record)[1]).startswith("damaged: ")
    scored = make_study(items=4, study="other").run("base", 0, details=False)
    (scored.path / "scores.jsonl").write_text("{\n{}\n")
    run, reason = loaded(scored)
    assert run is None
    assert "scores.jsonl" in str(reason)


def made(name: str, **given: Any) -> LoadedRun:
    """One run in memory; its trial is the name up to the dash."""
    settings: dict[str, Any] = {
        "trial": name.rpartition("-")[0],
        "seed": 0,
        "config": {"tokenizer": {"name": "bpe"}, "evaluation": evaluation("*/acc"), "size": 1},
        "result": {"metrics": {"arc/acc": 0.5, "wiki/bpb": 1.0}},
        "score": 0.5,
        "direction": "maximize",
        "rows": (),
        "spec": {},
    }
    return LoadedRun(record=RunRecord(Path(name)), name=name, **{**settings, **given})


def evaluation(*patterns: str) -> dict[str, Any]:
    terms = {f"t{n}": {"metrics": pattern} for n, pattern in enumerate(patterns)}
    return {"score": {"terms": terms}, "tasks": {"arc": {"shots": 3}}}


@pytest.mark.parametrize(
    ("spec", "confirms"),
    [
        ({}, False),
        ({"phase": "confirm"}, True),
        ({"phase": "confirm", "seeds": [4]}, True),
        ({"phase": "design", "seeds": [0, 4]}, False),
        ({"phase": "design", "seeds": [0, 1]}, True),
        ({"phase": "design"}, False),
        ({"seeds": []}, True),
    ],
)
def test_a_run_confirms_if_its_phase_or_its_seed_says_so(
    spec: Mapping[str, Any], confirms: bool
) -> None:
    assert made("a-4", seed=4, spec=spec).confirms == confirms


def test_a_row_without_tokens_has_its_step() -> None:
    rows = ({"tokens": None, "step": 3}, {"tokens": 0, "step": 5}, {"tokens": 2000, "step": 7})
    assert made("a-0", rows=rows).tokens.tolist() == [3.0, 5.0, 2000.0]
    assert made("a-0", result={}).keys == ()
    assert made("a-0", result={"metrics": None}).keys == ()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"evaluation": None},
        {"evaluation": {}},
        {"evaluation": {"score": None}},
        {"evaluation": {"score": {"terms": None}}},
    ],
)
def test_a_config_without_a_score_has_no_terms(config: Mapping[str, Any]) -> None:
    assert score_terms(config) == {}
    assert list(score_terms({"evaluation": evaluation("a", "b")})) == ["t0", "t1"]


def refusals(*runs: LoadedRun, question: Question = PLAIN) -> list[str]:
    with pytest.raises(UserError) as caught:
        refuse_mixed(runs, question)
    return [" ".join(str(problem).split()) for problem in caught.value.problems]


def test_runs_alike_are_not_refused() -> None:
    refuse_mixed([made("a-0"), made("a-1", seed=1), made("b-0")], PLAIN)


@pytest.mark.parametrize("part", ["tokenizer", "evaluation"])
def test_the_run_that_differs_from_most_is_named_with_the_first_key(part: str) -> None:
    config = dict(made("x-0").config)
    other = {
        "tokenizer": {"name": "other", **{f"also{n}": 1 for n in range(9)}},
        "evaluation": {**evaluation("*/acc"), "tasks": {"arc": {"shots": 5}}},
    }[part]
    odd = made("a-0", config={**config, part: other})
    (text,) = refusals(odd, made("b-0"), made("c-0"))
    key = {
        "tokenizer": "tokenizer.also0 = 1, not None",
        "evaluation": "evaluation.tasks.arc.shots = 5, not 3",
    }[part]
    assert text.startswith(f"a-0: was run with another {part} than b-0; found: {key};")


def test_a_value_in_the_place_of_a_group_is_shown_whole() -> None:
    config = dict(made("x-0").config)
    for odd, shown in (("bpe", "'bpe', not {'name': 'bpe'}"), (None, "None, not {'name': 'bpe'}")):
        (text,) = refusals(
            made("a-0", config={**config, "tokenizer": odd}), made("b-0"), made("c-0")
        )
        assert f"found: tokenizer = {shown};" in text
    turned = [made(name, config={**config, "tokenizer": "bpe"}) for name in ("a-0", "c-0")]
    (text,) = refusals(turned[0], made("b-0"), turned[1])
    assert "found: tokenizer = {'name': 'bpe'}, not 'bpe';" in text


def test_replicates_differ_in_nothing_but_the_seed() -> None:
    config = {**made("x-0").config, "size": 2, **{f"key{n}": 1 for n in range(9)}}
    (text,) = refusals(made("a-0"), made("a-1", config=config), made("b-0", config=config))
    assert text.startswith("a-1: is not a replicate of a-0: ")
    assert "found: key0 = 1, not None;" in text


def test_runs_scored_on_other_items_are_named_for_each_file_in_order() -> None:
    files = [f"f{n}" for n in range(6)]
    runs = [
        made("a-0", items={**dict.fromkeys(files, "1" * 20), "z": "same"}),
        made("b-0", items={**dict.fromkeys(files, "2" * 20), "z": "same"}),
        made("c-0"),
        made("d-0", items=dict.fromkeys(files, "2" * 20)),
    ]
    assert refusals(*runs) == [
        f"a-0: was scored on other items of {file} than b-0; found: sha256 111111111111; allowed: sha256 "
        "222222222222; score them alike, or keep them in two studies"
        for file in files
    ]


def test_scores_of_another_direction_or_of_other_metrics_are_named() -> None:
    (text,) = refusals(made("a-0", direction="minimize"), made("b-0"), made("c-0"))
    assert text.startswith(
        "a-0: its score goes another way than that of b-0; found: minimize; allowed: max"
    )
    more = {"metrics": {"arc/acc": 0.5, "code/acc": 1.0, "wiki/bpb": 1.0, "web/bpb": 1.0}}
    (text,) = refusals(made("a-0", result=more), made("b-0"), made("c-0"))
    assert text.startswith(
        "a-0: its score is made of other metrics than that of b-0; found: code/acc;"
    )
    beside = {"metrics": {"arc/acc": 0.5, "other/bpb": 1.0}}
    refuse_mixed([made("a-0", result=beside), made("b-0")], PLAIN)
    asked = Question(objective=Objective(name="t", metrics=("*/bpb",), direction="maximize"))
    texts = refusals(made("a-0", result=beside), made("b-0"), made("c-0"), question=asked)
    assert len(texts) == 1
    assert "found: other/bpb, wiki/bpb;" in texts[0]


def test_every_term_of_the_score_names_its_metrics() -> None:
    config = {**made("x-0").config, "evaluation": evaluation("arc/*", "code/*")}
    more = {"metrics": {"arc/acc": 0.5, "code/acc": 1.0}}
    runs = [made(name, config=config) for name in ("b-0", "c-0")]
    (text,) = refusals(made("a-0", config=config, result=more), *runs)
    assert "found: code/acc;" in text


def test_directions_are_compared_only_among_runs_that_are_alike() -> None:
    odd = made("a-0", direction="minimize", config={**made("x-0").config, "tokenizer": None})
    (text,) = refusals(odd, made("b-0"), made("c-0"))
    assert "another tokenizer" in text
