"""Check what is gathered from the run folders of a study: candidates, baseline, proxies, runs left out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.errors import UserError
from ablations.files import write_json
from ablations.record.run_record import RunRecord
from sweeps.study.objective import Objective
from sweeps.study.run_results import write_failure
from sweeps.study.specs import TaskQualitySpec
from sweeps.verdict.observations import Observations
from sweeps.verdict.question import Question
from sweeps.verdict.study_observations import gather, gather_records
from sweeps.verdict.task_quality import decide_task_quality

Make = Callable[..., Any]
RULE = {"direction": "maximize", "terms": {"acc": {"metrics": "*/acc"}}}


def run(
    runs_dir: Path,
    trial: str,
    seed: int,
    score: float | None,
    *,
    mark: str = "",
    weights: Mapping[str, float] | None = None,
    width: int = 64,
    value: float = 0.5,
    spec: Mapping[str, Any] | None = None,
    status: str = "done",
) -> RunRecord:
    """Write a run of two checkpoints with one metric; ``mark`` tells candidates of one mixture apart."""
    config = {
        "mark": mark,
        "tokenizer": {"name": "bpe"},
        "mixture": {"weights": dict(weights or {})},
        "schedule": {"total_tokens": 100},
        "model": {"hidden_size": width, "num_hidden_layers": 1},
        "evaluation": {"tasks": {}, "score": RULE},
    }
    record = RunRecord.create(runs_dir, study="web", trial=trial, seed=seed, config=config)
    for step, share in ((1, 0.5), (2, 1.0)):
        own = None if score is None else share * score
        metrics = {"arc": {"acc": {"value": share * value, "higher_is_better": True}}}
        record.add_scores({"step": step, "tokens": 10 * step, "score": own, "metrics": metrics})
    if spec is not None:
        write_json(record.path / "trial.json", {"seeds": [0], **spec})
    if status == "done":
        record.set_status("done")
        metrics_now = {"arc/acc": value}
        record.write_result(
            {"status": "done", "score": score, "direction": "maximize", "metrics": metrics_now}
        )
    return record


def test_no_records_are_a_study_of_nothing() -> None:
    assert gather_records("web", []) == Observations(
        study="web",
        direction="maximize",
        score="",
        rule={},
        candidates=(),
        runs=(),
        tasks=(),
        left_out={},
    )


def test_runs_of_one_config_are_a_candidate_whatever_their_trial(tmp_path: Path) -> None:
    run(tmp_path, "t1", 0, 1.0, mark="x", weights={"edu": 1.0}, value=0.25, spec={"name": "first"})
    run(tmp_path, "t2", 0, 2.0, mark="y", value=0.5, spec={"name": "second", "phase": "confirm"})
    run(tmp_path, "t3", 1, 3.0, mark="x", weights={"edu": 1.0}, value=0.75)
    found = gather(tmp_path, "web")
    assert [(one.name, one.trial, dict(one.weights)) for one in found.candidates] == [
        ("first", "t1", {"edu": 1.0}),
        ("second", "t2", {}),
    ]
    assert [(r.name, r.candidate, r.seed, r.score) for r in found.runs] == [
        ("t1-0", 0, 0, 1.0),
        ("t2-0", 1, 0, 2.0),
        ("t3-1", 0, 1, 3.0),
    ]
    assert [r.confirms for r in found.runs] == [False, True, False]
    (task,) = found.tasks
    assert task.values.tolist() == [0.25, 0.5, 0.75]
    assert [path[1].tolist() for path in found.score_trajectories] == [[0.5, 1], [1, 2], [1.5, 3]]
    assert found.score_trajectories[0][0].tolist() == [10.0, 20.0]
    assert (found.study, found.direction, found.score) == ("web", "maximize", "*/acc")
    assert (found.form, found.left_out_metrics, found.transfer) == (None, {}, ())


def test_a_name_that_two_candidates_have_is_followed_by_the_trial(tmp_path: Path) -> None:
    for trial, name in (("t1", "mix"), ("t2", "mix"), ("t3", "own"), ("t4", "")):
        run(tmp_path, trial, 0, 1.0, mark=trial, spec={"name": name})
    found = gather(tmp_path, "web")
    assert [one.name for one in found.candidates] == ["mix (t1)", "mix (t2)", "own", "t4"]


@pytest.mark.parametrize(
    ("stated", "named", "phases", "baseline"),
    [
        ("b", ("a", "b", "baseline"), ("baseline",) * 3, "b"),
        ("gone", ("a", "b", "baseline"), ("baseline",) * 3, "baseline"),
        (None, ("baseline", "b", "c"), ("design", "baseline", "design"), "baseline"),
        (None, ("z", "b", "a"), ("design", "baseline", "baseline"), "b"),
        (None, ("a", "b", "c"), ("design", "search", "confirm"), None),
    ],
)
def test_the_baseline_is_the_stated_one_then_that_of_the_name_then_the_first_enqueued(
    tmp_path: Path,
    stated: str | None,
    named: tuple[str, ...],
    phases: tuple[str, ...],
    baseline: str | None,
) -> None:
    made = [
        run(tmp_path, f"t{k}", 0, 1.0, mark=str(k), spec={"name": name, "phase": phase})
        for k, (name, phase) in enumerate(zip(named, phases, strict=True))
    ]
    found = gather_records("web", made, Question(baseline=stated))
    assert found.first_baseline == baseline


def test_an_objective_of_metrics_is_followed_over_the_checkpoints(tmp_path: Path) -> None:
    made = [run(tmp_path, "t1", 0, 8.0, value=0.5)]
    objective = Objective(
        name="arc", metrics=("arc/acc",), direction="minimize", left_out={"x": ""}
    )
    found = gather_records("web", made, Question(objective=objective, text="Why?"))
    assert [path[1].tolist() for path in found.score_trajectories] == [[0.25, 0.5]]
    assert (found.direction, found.objective, found.question) == ("minimize", "arc", "Why?")
    assert (found.score, found.form, found.left_out_metrics) == ("arc/acc", None, {})
    assert found.runs[0].score == 0.5


def test_the_larger_proxy_decides_and_the_means_of_the_seeds_show_the_transfer(
    tmp_path: Path,
) -> None:
    """At the small size a has 0.1 and 0.9, b twice 0.4; at the large one 0.5 and 0.4: one order."""
    for mixture, scores in (("a", (0.1, 0.9)), ("b", (0.4, 0.4))):
        for seed, score in enumerate(scores):
            run(tmp_path, f"s{mixture}", seed, score, weights={mixture: 1.0}, width=8)
    for mixture, score in (("a", 0.5), ("b", 0.4)):
        run(tmp_path, f"l{mixture}", 0, score, weights={mixture: 1.0})
    found = gather(tmp_path, "web")
    assert [one.name for one in found.candidates] == ["la", "lb"]
    (transfer,) = found.transfer
    assert (transfer.mixtures, transfer.pairs, transfer.decision_accuracy) == (2, 1, 1.0)
    assert (transfer.small[:8], transfer.large[:8]) == ("width 8,", "width 64")
    why = "of another proxy (width 8, depth 1, 100 tokens); used for transfer"
    assert found.left_out == dict.fromkeys(("sa-0", "sa-1", "sb-0", "sb-1"), why)
    assert [one.score for one in found.runs] == [0.5, 0.4]


def test_runs_that_do_not_count_are_told_and_unfinished_ones_may_change_the_verdict(
    tmp_path: Path,
) -> None:
    run(tmp_path, "t1", 0, 1.0, mark="1")
    run(tmp_path, "t2", 0, 1.0, mark="2", status="running")
    run(tmp_path, "t3", 0, 1.0, mark="3", status="running")
    run(tmp_path, "t4", 0, None, mark="4")
    refused = tmp_path / "web/trial-0009-0"
    refused.mkdir()
    write_json(refused / "trial.json", {})
    write_failure(refused, "no such source\nand more")
    found = gather(tmp_path, "web")
    assert set(found.left_out) == {"t2-0", "t3-0", "t4-0", "trial-0009-0"}
    assert found.left_out["t4-0"] == "its score is missing"
    assert found.left_out["trial-0009-0"] == "failed: no such source"
    assert found.caveats == (
        "2 run(s) of the study have not finished: the verdict may change.",
        "Details of some runs are missing, so item noise is not counted.",
    )


def test_a_study_without_a_finished_run_tells_what_it_waits_for(tmp_path: Path) -> None:
    run(tmp_path, "t1", 0, 1.0, status="running")
    found = gather(tmp_path, "web")
    assert (found.runs, list(found.left_out)) == ((), ["t1-0"])
    assert found.left_out["t1-0"].startswith("not finished: ")


def test_details_of_every_task_leave_no_caveat(make_study: Make) -> None:
    study = make_study(items=4)
    study.run("t1", 0)
    assert gather(study.runs_dir, "web").caveats == ()
    study.run("t2", 0, weights={"edu": 1.0}, details=False)
    assert [c[:7] for c in gather(study.runs_dir, "web").caveats] == ["Details"]


@pytest.mark.parametrize("on", [True, False])
def test_the_collection_of_garbage_is_left_as_it_was(tmp_path: Path, on: bool) -> None:
    made = [run(tmp_path, "t1", 0, 1.0), run(tmp_path, "t2", 0, 1.0, mark="2")]
    was_on = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        gather_records("web", made)
        assert gc.isenabled() == on
        (made[0].path / "scores.jsonl").write_text('{"step": 1, "tokens": 1}\n' * 2)
        with pytest.raises((UserError, KeyError)):
            gather_records("web", made)
        assert gc.isenabled() == on
    finally:
        (gc.enable if was_on else gc.disable)()


def planned(study: Any, effects: Mapping[str, float], flat: tuple[str, ...] = ()) -> None:
    terms = {"own": {"metrics": "*/acc"}}
    config = {"evaluation": {"tasks": {}, "score": {"direction": "maximize", "terms": terms}}}
    for k in range(4):
        study.run(
            f"trial-{k:04d}",
            0,
            weights={"edu": 0.1 * k, "dclm": 1.0 - 0.1 * k},
            phase="baseline" if k == 0 else "design",
            name="natural" if k == 0 else "",
            effect={task: k * effect for task, effect in effects.items()},
            config=config,
            flat=flat,
        )


def test_an_earlier_study_decides_what_leaves_the_score_of_a_later_one(make_study: Make) -> None:
    tasks = {"easy": "acc", "dice": "acc"}
    earlier = make_study(study="earlier", tasks=tasks, items=8)
    planned(earlier, {"easy": 0.1, "dice": 0.0}, flat=("dice",))
    later = make_study(study="later", tasks=tasks, items=8)
    planned(later, {"easy": 0.0, "dice": 0.1}, flat=("easy",))
    by_itself = decide_task_quality(later.runs_dir, "later", TaskQualitySpec(apply=True))
    assert (by_itself["from"], list(by_itself["left_out"])) == ("later", ["easy/acc"])
    assert by_itself["weights"] == {"dice/acc": 1.0}
    spec = TaskQualitySpec(apply=True, study="earlier")
    found = decide_task_quality(later.runs_dir, "later", spec)
    assert (found["from"], list(found["left_out"])) == ("earlier", ["dice/acc"])
    assert found["weights"] == {"easy/acc": 1.0}
    assert found["runs"] == [f"trial-{k:04d}-0" for k in range(4)]
    assert found["measured"]["easy/acc"]["variance_ratio"] > 1.0
    assert np.isclose(found["measured"]["easy/acc"]["monotonicity"], 1.0)
    assert found["measured"] != by_itself["measured"]


@pytest.mark.parametrize(
    ("wanted", "left_out"),
    [
        (
            {},
            {"dice/acc": "mixtures differ by less than the noise of a run, not monotone in tokens"},
        ),
        ({"min_variance_ratio": 0.0}, {"dice/acc": "not monotone in tokens"}),
        (
            {"min_monotonicity": -1.0},
            {"dice/acc": "mixtures differ by less than the noise of a run"},
        ),
        ({"min_variance_ratio": 0.0, "min_monotonicity": -1.0}, {}),
        # All fail: a score needs a metric, so that none leaves.
        ({"min_above_chance": 1e9}, {}),
    ],
)
def test_the_least_values_that_a_study_states_decide(
    make_study: Make, wanted: Mapping[str, Any], left_out: Mapping[str, str]
) -> None:
    study = make_study(study="web", tasks={"easy": "acc", "dice": "acc"}, items=8)
    planned(study, {"easy": 0.1, "dice": 0.0}, flat=("dice",))
    found = decide_task_quality(study.runs_dir, "web", TaskQualitySpec(apply=True, **wanted))
    assert found["left_out"] == left_out
    assert set(found["weights"]) == {"easy/acc", "dice/acc"} - set(left_out)
