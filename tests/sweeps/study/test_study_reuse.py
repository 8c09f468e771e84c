"""Runs of earlier studies as evidence: faces, planes and rungs, refusals, the design, and the check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablations.config.schema import RunConfig, dump
from ablations.errors import ConfigError, DamagedError, DataError
from ablations.record.run_record import RunRecord
from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
from sweeps.study.old_runs import (
    EVIDENCE_FILE,
    Evidence,
    OldRun,
    kept_evidence,
    read_evidence,
    settle_evidence,
    write_check,
)
from sweeps.study.proposers import proposals_of
from sweeps.study.reuse import design_for, judge_reuse, reuse_sentence
from sweeps.study.specs import ObjectiveSpec, SearchSpec, StrategySpec, TaskQualitySpec
from sweeps.study.strategy import History
from sweeps.study.surrogate_proposer import evidence_of
from tests.sweeps.study.builders import spec
from tests.sweeps.study.builders import trial as finished
from tests.test_plan import composed

FACTS, ARITHMETIC, JUNK = "synthetic_facts", "synthetic_arithmetic", "synthetic_junk"
PATH = "mixture.weights"
SPACE = SearchSpaceSpec(mixtures={PATH: SimplexSpec(sources=(FACTS, ARITHMETIC, JUNK))})
TOKENS = {FACTS: 3e6, ARITHMETIC: 1e6, JUNK: 1e6}


@pytest.fixture(scope="module")
def run() -> RunConfig:
    return composed("experiment=synthetic", "schedule.total_tokens=4096")


def old_study(
    runs_dir: Path, run: RunConfig, changes: Mapping[str, Any] | None = None, **weights: float
) -> None:
    """Write a study with one finished run whose config differs in ``changes``."""
    config = {**dump(run), "stores": {FACTS: "one text"}}
    for path, value in (changes or {}).items():
        node = config
        *parents, last = path.split(".")
        for key in parents:
            node[key] = dict(node[key])
            node = node[key]
        node[last] = value
    config["mixture"] = {**config["mixture"], "weights": weights or {FACTS: 1.0}}
    record = RunRecord.create(runs_dir, study="old", trial="trial-0000", seed=0, config=config)
    record.write_result(
        {"status": "done", "score": 0.5, "metrics": {"a/acc": 0.5}, "direction": "maximize"}
    )


def read(
    runs_dir: Path,
    run: RunConfig,
    space: SearchSpaceSpec = SPACE,
    split: Mapping[str, tuple[str, ...]] | None = None,
) -> Evidence:
    return read_evidence(runs_dir, ["old"], split or {}, run, space, TOKENS)


def test_a_source_that_was_added_has_weight_zero(tmp_path: Path, run: RunConfig) -> None:
    old_study(tmp_path, run, **{FACTS: 0.75, ARITHMETIC: 0.25})
    found = read(tmp_path, run)
    (old,) = found.runs
    assert old.point[PATH] == {FACTS: 0.75, ARITHMETIC: 0.25, JUNK: 0.0}
    assert old.dropped == {}
    assert tuple(old.rung) == (0.0, 0.0, 0.0)
    assert found.added == {PATH: (JUNK,)}
    assert f"no old run has read {JUNK}" in found.notes


def test_a_source_that_was_dropped_is_a_column_of_its_own(tmp_path: Path, run: RunConfig) -> None:
    old_study(tmp_path, run, **{FACTS: 0.5, ARITHMETIC: 0.3, "wiki": 0.2})
    (old,) = read(tmp_path, run).runs
    assert old.point[PATH] == {FACTS: 0.5, ARITHMETIC: 0.3, JUNK: 0.0}
    assert old.dropped == {f"{PATH}.wiki": 0.2}


def test_a_source_that_was_split_lies_on_the_plane_of_its_parts(
    tmp_path: Path, run: RunConfig
) -> None:
    old_study(tmp_path, run, **{"skills": 0.8, JUNK: 0.2})
    (old,) = read(tmp_path, run, split={"skills": (FACTS, ARITHMETIC)}).runs
    assert old.point[PATH] == pytest.approx({FACTS: 0.6, ARITHMETIC: 0.2, JUNK: 0.2})


def test_another_size_and_another_length_are_rungs(tmp_path: Path, run: RunConfig) -> None:
    half = replace(run.model, num_hidden_layers=run.model.num_hidden_layers // 2)
    old_study(
        tmp_path,
        run,
        {
            "model": {**dump(run)["model"], "num_hidden_layers": half.num_hidden_layers},
            "schedule.total_tokens": 2048.0,
            "training.peak_lr": 1.0,
        },
    )
    (old,) = read(tmp_path, run).runs
    size, tokens, version = old.rung
    assert size == pytest.approx(math.log10(run.model.parameters / half.parameters))
    assert tokens == pytest.approx(math.log(2.0) / math.log(1.0 / 0.3))
    assert version == 0.0


def test_another_text_of_a_source_is_a_rung(
    tmp_path: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ablations.execute

    def identity(run: RunConfig) -> dict[str, Any]:
        return {**dump(run), "stores": {FACTS: "another text"}}

    monkeypatch.setattr(ablations.execute, "identity", identity)
    old_study(tmp_path, run)
    found = read(tmp_path, run)
    assert tuple(found.runs[0].rung) == (0.0, 0.0, 1.0)
    assert "a rung of their own (another text of a source)" in found.notes[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tokenizer.vocab_size", 256),
        ("evaluation.max_items", 7),
        ("training.batch_size", 2),
        ("schedule.lr", {"kind": "wsd", "decay_share": 0.5}),
        ("model.rope_theta", 5.0),
        ("schedule.stages", {"a": {}, "b": {}}),
        ("warm_start", {"checkpoint": "x"}),
    ],
)
def test_runs_that_measure_something_else_are_refused(
    tmp_path: Path, run: RunConfig, path: str, value: object
) -> None:
    old_study(tmp_path, run, {path: value})
    with pytest.raises(ConfigError, match="measure something else") as caught:
        read(tmp_path, run)
    assert path.partition(".")[0] in str(caught.value)


def test_checkpoints_and_another_score_rule_are_no_difference(
    tmp_path: Path, run: RunConfig
) -> None:
    old_study(tmp_path, run, {"training.checkpoints": 7, "evaluation.score": None})
    (old,) = read(tmp_path, run).runs
    assert old.score is None, "the score of another rule does not count; its metrics do"
    assert old.metrics == {"a/acc": 0.5}


def test_unknown_and_unfinished_studies_are_named(tmp_path: Path, run: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"search\.evidence"):
        read(tmp_path, run)
    RunRecord.create(tmp_path, study="old", trial="trial-0000", seed=0, config=dump(run))
    with pytest.raises(DataError, match="no finished run"):
        read(tmp_path, run)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"skills": (FACTS,)}, "not split"),
        ({"skills": (FACTS, "wiki")}, "unknown source 'wiki'"),
    ],
)
def test_a_split_names_two_known_sources(
    tmp_path: Path, run: RunConfig, split: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, run, split=split)


def truth(weights: Mapping[str, float], turned: bool = False) -> dict[str, float | None]:
    gap = abs(weights["web"] - 0.5) + 0.5 * abs(weights["math"] - 0.3)
    return {"web/bpb": 1.0 - gap if turned else 1.0 + gap, "math/bpb": 2.0 + 0.3 * gap}


def old_runs(count: int, *, turned: bool = False) -> tuple[OldRun, ...]:
    rows = np.random.default_rng(0).dirichlet(np.ones(2), count)
    made = []
    for number, (web, math_share) in enumerate(rows):
        weights = {"web": float(web), "math": float(math_share), "code": 0.0}
        made.append(
            OldRun(
                study="old",
                run=f"trial-{number:04d}-0",
                point={PATH: weights},
                dropped={},
                score=None,
                metrics=truth(weights, turned),
                rung=(0.0, 0.0, 0.0),
            )
        )
    return tuple(made)


def history(new: int, old: tuple[OldRun, ...]) -> History:
    trials = []
    rows = np.random.default_rng(1).dirichlet(np.ones(3), new)
    for number, row in enumerate(rows):
        weights = dict(zip(("web", "math", "code"), map(float, row), strict=True))
        made = finished(number, point={PATH: weights})
        metrics = truth(weights)
        outcome = replace(made.outcomes[0], metrics=metrics, score=metrics["web/bpb"])
        trials.append(replace(made, outcomes={0: outcome}))
    objective = ObjectiveSpec(metrics=("web/bpb",), direction="minimize")
    return History(trials=tuple(trials), objectives={"loss": objective}, old=old)


def space() -> SearchSpace:
    return SearchSpace.build(
        SearchSpaceSpec(mixtures={PATH: SimplexSpec(sources=("web", "math", "code"))})
    )


def test_old_runs_are_rows_of_the_fit_and_points_of_no_trial() -> None:
    known = evidence_of(space(), history(8, old_runs(20)), {})
    assert known.values.shape == (28, 1)
    assert (known.coordinates[8:, 2] == 0.0).all()
    assert known.rungs is None
    assert known.columns == 0


def test_dropped_sources_and_rungs_are_columns_that_new_points_have_at_zero() -> None:
    one, *others = old_runs(12)
    far = replace(one, dropped={f"{PATH}.wiki": 0.4}, rung=(0.0, 0.0, 1.0))
    known = evidence_of(space(), history(8, (far, *others)), {})
    assert known.columns == 2
    assert known.rung_columns == 1
    assert known.inputs(space())[8].tolist()[-2:] == [0.4, 1.0]
    assert not known.inputs(space())[:8, -2:].any()
    assert known.first(8).columns == 0


def test_agreeing_old_runs_are_kept_and_contradicting_ones_start_over() -> None:
    for turned, used in ((False, True), (True, False)):
        known = evidence_of(space(), history(10, old_runs(60, turned=turned)), {})
        check = judge_reuse(space(), known, 10, seed=0)
        assert check["used"] is used, check
        assert (check["new_runs"], check["old_runs"]) == (10, 60)


def test_proposals_use_the_old_runs() -> None:
    wanted = SearchSpec(
        space=SearchSpaceSpec(mixtures={PATH: SimplexSpec(sources=("web", "math", "code"))}),
        budget=spec().budget,
    )
    made = proposals_of(wanted, space(), {})
    alone = made.propose(history(8, ()), 2)
    both = made.propose(history(8, old_runs(30)), 2)
    assert alone != both
    best = both[0][PATH]
    assert isinstance(best, dict)
    assert best["web"] == pytest.approx(0.5, abs=0.15)


def test_the_design_spreads_the_new_source() -> None:
    points = space().points(space().sample(8, np.random.default_rng(0)))
    made = design_for(space(), points, {PATH: ("code",)})
    weights = sorted(point[PATH]["code"] for point in made)  # type: ignore[index]
    assert weights == pytest.approx([(number + 0.5) / 8 for number in range(8)])
    for before, after in zip(points, made, strict=True):
        a, b = before[PATH], after[PATH]
        assert isinstance(a, dict)
        assert isinstance(b, dict)
        assert math.fsum(b.values()) == pytest.approx(1.0)
        assert a["web"] * b["math"] == pytest.approx(b["web"] * a["math"])
    assert design_for(space(), points, {PATH: ()}) == points


def evidence() -> Evidence:
    return Evidence(studies=["old"], split={}, runs=old_runs(3), added={PATH: ["code"]}, notes=[])


def test_evidence_is_kept_as_the_study_was_begun(tmp_path: Path) -> None:
    settle_evidence(tmp_path, ["old"], evidence(), begun=False)
    kept = kept_evidence(tmp_path)
    assert kept is not None
    assert [run.point for run in kept.runs] == [run.point for run in evidence().runs]
    settle_evidence(tmp_path, ["old"], evidence(), begun=True)
    for names in ([], ["old", "older"]):
        with pytest.raises(ConfigError, match="not what the study was begun with"):
            settle_evidence(tmp_path, names, evidence(), begun=True)


def test_a_check_is_written_once_and_stated(tmp_path: Path) -> None:
    settle_evidence(tmp_path, ["old"], evidence(), begun=False)
    check = {"new_runs": 9, "old_runs": 3, "with_old": 0.4, "without_old": 0.7, "used": False}
    judged = write_check(tmp_path, check)
    assert not judged.used
    assert "the search starts over" in reuse_sentence(judged)
    assert write_check(tmp_path, {**check, "used": True}).used is False
    assert "0.40 with the 3 old runs, 0.70 without" in reuse_sentence(judged)
    assert "the design will show" in reuse_sentence(evidence())


def test_damaged_evidence_is_named(tmp_path: Path) -> None:
    (tmp_path / EVIDENCE_FILE).write_text("{")
    with pytest.raises(DamagedError, match=r"evidence\.json"):
        kept_evidence(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": None}, "plain sweep"),
        ({"strategy": StrategySpec(proposer="random")}, "cannot use old runs"),
        ({"task_quality": TaskQualitySpec(apply=True)}, "decided from the new runs"),
        ({"evidence": ("a", "a")}, "a study twice"),
        ({"evidence": (), "evidence_split": {"a": ("b", "c")}}, "no earlier study is named"),
    ],
)
def test_searches_that_cannot_use_old_runs_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    values: dict[str, Any] = {"evidence": ("old",), "strategy": StrategySpec(), **changes}
    with pytest.raises(ConfigError, match=message):
        spec(**values)
