"""Numbers and words of promotions of other shapes: compared, refused by gates, staged, over two sizes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import ConfigError, UserError
from ablations.mixture.specs import LearningRateSpec
from ablations.record.run_record import list_runs
from sweeps.nanotron_files import load_yaml, parse
from sweeps.nanotron_files.import_published import import_file
from sweeps.nanotron_files.learning_rates import rate_config
from sweeps.nanotron_files.write_back import Specs, write_back
from sweeps.promotion.calibration import calibration
from sweeps.promotion.compare import after_run, compare, write_comparison
from sweeps.promotion.full_schedule import freeze
from sweeps.promotion.gates import audit_gaps, judge_gates, require_open
from sweeps.promotion.promote import promote
from sweeps.promotion.promotion_inputs import Contamination, Evidence
from sweeps.promotion.scale_transfer import Gap, Measured, carry, transfer_factor
from sweeps.promotion.specs import FullSpec, FullStage, LimitSpec
from sweeps.verdict.transfer import Transfer
from tests.pinned import require_pinned
from tests.sweeps.promotion.conftest import FULL, GOOD, PLAIN, TASKS, MadeStudy, composed, weights
from tests.sweeps.promotion.test_promotion_compare import GAINS, edited, full_run, without_junk
from tests.sweeps.promotion.test_promotion_gates import evidence as evidence
from tests.sweeps.promotion.test_promotion_prediction import predicted

PUBLISHED = Path(__file__).parents[2] / "golden" / "promotion" / "published"


@pytest.fixture(scope="session")
def gained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the runs of a study whose winner gains more on some tasks than on others."""
    made = MadeStudy(tmp_path_factory.mktemp("gained"), run_sd=0.002)
    for seed in (0, 1):
        made.run("trial-0000", seed, PLAIN)
        made.run("trial-0001", seed, GOOD, effect=GAINS)
        made.run("trial-0002", seed, weights(0.3, 0.3, 0.4), effect=0.05)
    made.judge()
    return made.runs_dir


@pytest.fixture
def promoted(workspace: Path, gained: Path) -> Path:
    """Promote that study, in the workspace of the test."""
    import shutil

    shutil.copytree(gained, workspace / "runs")
    values = composed(*FULL, config="promote")
    values.pop("compare")
    return promote(values).folder


def change_tasks(record: dict[str, Any]) -> None:
    """Take the interval of one sealed task away, and name another that was never scored."""
    tasks = record["prediction"]["tasks"]
    tasks[1].update(low=None, high=None)
    tasks[2].update(task="renamed")


def told(folder: Path) -> dict[str, Any]:
    """Return a comparison in plain values, with its text."""
    found = compare(folder, Path("runs"))
    return {**found.plain(), "text": found.text().splitlines()}


def test_comparisons_of_a_full_run_are_those_before(promoted: Path) -> None:
    full = full_run(promoted, "full", {**GAINS, "arc": 0.9, "code": -0.2})
    alone = told(promoted)
    full_run(promoted, "baseline", 0.02)
    both = told(promoted)
    full.event("spike", step=3, loss=9.0)
    edited(promoted, change_tasks)
    lacking = told(promoted)
    without_junk(list_runs(Path("runs"), "proxies"))
    unseen = told(promoted)
    found = {"alone": alone, "both": both, "lacking": lacking, "unseen": unseen}
    require_pinned("comparisons", found, relative=1e-4, absolute=1e-6)


def test_a_comparison_is_written_beside_its_runs_and_counted(promoted: Path) -> None:
    full_run(promoted, "full", GAINS)
    other = full_run(promoted, "baseline", 0.0)
    after_run({"after": {"kind": "comparison", "promotion": str(promoted)}}, other)
    found = compare(promoted, Path("runs"))
    path = write_comparison(promoted, found)
    stored = [
        json.loads((folder / "comparison.json").read_text())
        for folder in (promoted, other.path.parent)
    ]
    assert stored[0]["outcomes"] == stored[1]["outcomes"]
    assert path.read_text() == found.text()
    count = calibration(Path("runs"), found.plain())
    assert (count.promotions, count.scores, count.tasks) == (1, 1, len(found.outcomes) - 1)


def test_the_record_of_a_promotion_is_that_before(promoted: Path) -> None:
    """All but its provenance: the schedule, stages, cost, evidence, gates and prediction."""
    record = json.loads((promoted / "promotion.json").read_text())
    kept = {
        key: value for key, value in record.items() if key not in ("provenance", "content_sha256")
    }
    files = sorted(path.relative_to(promoted).as_posix() for path in promoted.rglob("*"))
    # The label of the prediction is its digest, which changes with the last digit of a number.
    conf = {
        path.relative_to(promoted).as_posix(): [
            line.replace(str(promoted.resolve()), "PROMOTION")
            for line in path.read_text().splitlines()
            if "prediction: " not in line
        ]
        for path in sorted((promoted / "conf").glob("*/*.yaml"))
    }
    found = {"record": kept, "files": files, "conf": conf}
    require_pinned("promotion_record", found, relative=1e-4)


def test_gates_of_bad_evidence_are_those_before(evidence: Evidence) -> None:
    """One change of the evidence at a time; the state, the sentence and the facts of each gate."""
    config, verdict = evidence.config, evidence.verdict
    store = evidence.stores["synthetic_facts"]
    assert store is not None
    capped = replace(config, mixture=replace(config.mixture, epoch_cap=0.02))
    exempt = replace(
        config,
        mixture=replace(
            config.mixture, epoch_cap=0.02, epoch_cap_exempt={"synthetic_facts": "published"}
        ),
    )
    small = replace(config, model=replace(config.model, vocab_size=100))
    shares = [("synthetic_facts", "arc", 1000, found) for found in (0, 5, 10, 11)]
    rows = tuple(Contamination(source=s, task=t, items=n, found=k) for s, t, n, k in shares)
    pair: dict[str, Any] = {
        "pairs": 10,
        "mixtures": 5,
        "rank_correlation": 0.5,
        "rank_interval": None,
    }
    sizes = [
        Transfer(
            small="a", large=f"b{share}", decision_accuracy=share, decision_interval=None, **pair
        )
        for share in (0.9, 0.7, 0.71)
    ]
    other = replace(verdict, candidates=tuple(reversed(verdict.candidates)), study="second")
    alone = replace(verdict, candidates=verdict.candidates[:1], study="second")
    cases: dict[str, Evidence] = {
        "as it is": evidence,
        "tie": replace(evidence, verdict=replace(verdict, outcome="tie")),
        "another": replace(evidence, candidate=replace(evidence.candidate, name="x", trial="t")),
        "capped": replace(evidence, config=capped),
        "exempt": replace(evidence, config=exempt),
        "contaminated": replace(evidence, contamination=rows),
        "clean": replace(evidence, contamination=rows[:2]),
        "unchecked": replace(
            evidence, contamination=(), unchecked={f"s{n}": "not prepared" for n in range(8)}
        ),
        "nothing to search": replace(evidence, contamination=(), unchecked={}),
        "sizes": replace(evidence, verdict=replace(verdict, transfer=tuple(sizes))),
        "one size": replace(evidence, verdict=replace(verdict, transfer=tuple(sizes[:1]))),
        "second": replace(evidence, second=other),
        "second alone": replace(evidence, second=alone),
        "hashes": replace(
            evidence,
            stores={**evidence.stores, "synthetic_junk": replace(store, tokenizer_hash="1" * 64)},
        ),
        "vocabulary": replace(evidence, config=small),
        "not prepared": replace(evidence, stores={**evidence.stores, "synthetic_facts": None}),
    }
    overrides = {"beats_baseline": "it is for a test", "second_proxy": "one size is enough"}
    found = {
        name: [gate.plain() for gate in judge_gates(one, LimitSpec(), overrides)]
        for name, one in cases.items()
    }
    with pytest.raises(UserError) as caught:
        require_open(judge_gates(cases["contaminated"], LimitSpec(), {}))
    require_pinned("gates", {"cases": found, "refused": str(caught.value).splitlines()})


def test_gaps_of_many_audits_are_listed_up_to_four(evidence: Evidence, study: MadeStudy) -> None:
    record = evidence.runs[0]
    stored = record.audit()
    assert stored is not None
    rows = [{**row, "realised": row["realised"] + 0.05} for row in stored["stages"]]
    strange = [{**stored["stages"][0], "stage": "strange"}]
    found: dict[str, Any] = {}
    for name, changed in {
        "three": {**stored, "stages": rows},
        "strange": {**stored, "stages": strange},
        "failed": {**stored, "ok": False},
    }.items():
        record.write_audit(changed)
        found[name] = audit_gaps(record, 1e-3)
        runs = (record, record) if name == "three" else (record,)
        (gate,) = (
            one
            for one in judge_gates(replace(evidence, runs=runs), LimitSpec(), {})
            if one.name == "audit"
        )
        found[f"{name} gate"] = gate.plain()
    record.write_audit({**stored, "stages": rows[:2]})
    runs = (record, record)
    four = judge_gates(replace(evidence, runs=runs), LimitSpec(), {})
    found["four"] = next(one.plain() for one in four if one.name == "audit")
    require_pinned("audit_gaps", found)


def test_predictions_from_two_sizes_and_with_added_sources_are_those_before(
    study: MadeStudy,
) -> None:
    larger = MadeStudy(study.runs_dir, study="larger", overrides=("schedule.total_tokens=16384",))
    middle = weights(0.4, 0.3, 0.3)
    for seed in (0, 1, 2):
        larger.run("trial-0000", seed, PLAIN)
        larger.run("trial-0001", seed, GOOD, effect=dict.fromkeys(TASKS[:4], 0.1))
        larger.run("trial-0002", seed, middle, effect=0.05)
        study.run("trial-0002", seed, middle, effect=0.2)
    second = larger.judge()
    study.judge()
    staged = (
        "promotion.full.stages={stable:{share:0.7},end:{share:0.3,add:{synthetic_junk:0.5}}}",
        "promotion.full.total_tokens=65536",
        "model.hidden_size=64",
    )
    found = {
        "one": predicted(study).plain(),
        "two": predicted(study, second=second).plain(),
        "staged": predicted(study, *staged).plain(),
        "staged two": predicted(study, *staged, second=second).plain(),
    }
    require_pinned("predictions", found, relative=1e-4, absolute=1e-7)


def test_factors_and_intervals_over_gaps_are_those_before() -> None:
    slopes = [
        Measured(where="a", tokens=4.0, parameters=1.0, slope=0.6, error=0.1),
        Measured(where="b", tokens=1.0, parameters=8.0, slope=0.05, error=0.3),
        Measured(where="c", tokens=1.04, parameters=2.0, slope=1.2, error=0.05),
    ]
    found: dict[str, Any] = {}
    for tokens in (0.5, 1.0, 100.0):
        for parameters in (1.0, 30.0):
            for count in range(4):
                gap = Gap(tokens=tokens, parameters=parameters)
                factor = transfer_factor(gap, slopes[:count])
                given = {"error": 0.02, "df": 4.0, "spread": 0.1, "run_sd": 0.03, "run_df": 6.0}
                whole = carry(0.2, factor=factor, gap=gap, **given)
                part = replace(gap, share=0.6, share_sd=0.2)
                found[f"{tokens} {parameters} {count}"] = [
                    asdict(factor),
                    asdict(whole),
                    asdict(carry(-0.1, factor=factor, gap=part, **given)),
                ]
    require_pinned("carried", found)


def test_frozen_schedules_are_those_before() -> None:
    mixture = {"web": 1 / 3, "code": 1 / 3, "math": 1 / 3, "none": 0.0}
    stages = {
        "a": FullStage(share=0.75),
        "b": FullStage(share=0.25, add={"math": 0.2, "own": 0.3}),
    }
    lr = LearningRateSpec(warmup_steps=3)
    full = FullSpec(name="f", total_tokens=7e9, lr=lr, tokenizer="t", stages=stages)
    plain = {"total_tokens": 1e6, "stages": {"main": {"share": 1.0}}}
    staged = {
        "total_tokens": 1e6,
        "stages": {"x": {"share": 0.3}, "y": {"share": 0.7, "weights": {"web": 2.0, "math": 1.0}}},
    }
    normal = {"weights": mixture, "normalize": True}
    found = {
        "plain": freeze({"mixture": {"weights": mixture}, "schedule": plain}, full),
        "staged": freeze({"mixture": normal, "schedule": staged}, full),
        "without": freeze(
            {"mixture": normal, "schedule": plain}, FullSpec(**{**vars(full), "stages": None})
        ),
    }
    require_pinned("frozen", found)


def test_what_a_stage_adds_may_be_the_whole_stage() -> None:
    stages = {"a": FullStage(share=0.5), "b": FullStage(share=0.5, add={"math": 0.3, "own": 0.7})}
    full = FullSpec(name="f", total_tokens=1e9, lr=LearningRateSpec(), tokenizer="t", stages=stages)
    proxy = {
        "mixture": {"weights": {"web": 1.0}},
        "schedule": {"total_tokens": 1e6, "stages": {"main": {"share": 1.0}}},
    }
    assert freeze(proxy, full)["stages"]["b"]["weights"] == {"math": 0.3, "own": 0.7}


# --------------------------------------------------------------------------------- nanotron's files

RATES: dict[str, dict[str, Any]] = {
    "nulls": {"lr_decay_steps": None, "lr_decay_starting_step": None, "min_decay_lr": None},
    "constant": {"lr_warmup_style": "constant", "lr_warmup_steps": 5},
    "falls to nothing": {"min_decay_lr": 0.0, "lr_decay_steps": 20, "lr_decay_starting_step": 60},
    "falls to a tenth": {"min_decay_lr": 1e-5, "lr_decay_steps": 30, "lr_decay_starting_step": 70},
    "after the end": {"min_decay_lr": 0.0, "lr_decay_steps": 30, "lr_decay_starting_step": 100},
    "one step before": {"min_decay_lr": 0.0, "lr_decay_steps": 1, "lr_decay_starting_step": 99},
    "long warm-up": {"lr_warmup_steps": 101},
    "whole warm-up": {"lr_warmup_steps": 100, "lr_decay_steps": None, "min_decay_lr": None},
    "at once": {"min_decay_lr": 0.0, "lr_decay_steps": 0, "lr_decay_starting_step": 50},
    "in the warm-up": {
        "min_decay_lr": 0.0,
        "lr_warmup_steps": 20,
        "lr_decay_steps": 10,
        "lr_decay_starting_step": 19,
    },
    "at its end": {
        "min_decay_lr": 0.0,
        "lr_warmup_steps": 20,
        "lr_decay_steps": 10,
        "lr_decay_starting_step": 20,
    },
    "by itself": {"lr_warmup_steps": 0, "lr_decay_steps": 0},
}


def test_rates_of_published_files_are_read_as_before() -> None:
    found: dict[str, Any] = {}
    for name, changes in RATES.items():
        made = load_yaml((PUBLISHED / "two_stages.yaml").read_text())
        made["optimizer"]["learning_rate_scheduler"] |= changes
        try:
            found[name] = rate_config(parse(made, "main"))
        except ConfigError as error:
            found[name] = str(error).splitlines()
    require_pinned("nanotron_rates", found)


def test_a_file_is_written_back_with_changed_values_as_before(tmp_path: Path) -> None:
    made = import_file(PUBLISHED / "two_stages.yaml", name="made")
    specs = Specs.of_plain(made.configs, "made")
    batch = specs.training.batch_size
    changed = {
        "as it was": specs,
        "rate": replace(
            specs,
            schedule=replace(
                specs.schedule,
                lr=replace(
                    specs.schedule.lr, warmup_steps=3, decay_steps=11, tail_steps=4, min_ratio=0.1
                ),
            ),
        ),
        "flat": replace(
            specs,
            schedule=replace(specs.schedule, lr=LearningRateSpec(kind="constant", warmup_steps=0)),
        ),
        "batch": replace(specs, training=replace(specs.training, batch_size=2 * batch)),
        "model": replace(specs, model=replace(specs.model, num_key_value_heads=1)),
    }
    found: dict[str, Any] = {}
    for name, one in changed.items():
        found[name] = asdict(write_back(one, made.sidecar))
    with pytest.raises(ConfigError) as caught:
        write_back(
            replace(specs, training=replace(specs.training, batch_size=batch + 1)), made.sidecar
        )
    found["refused"] = str(caught.value).splitlines()
    require_pinned("written_back", found)
