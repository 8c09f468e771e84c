"""Every gate, passed and failed; two documented failures of published runs are provoked and stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ablations.data.manifest import StoreManifest
from ablations.errors import AuditError, UserError
from ablations.files import read_json, write_sealed
from ablations.mixture.audit import audit
from sweeps.promotion.gates import GateResult, audit_gaps, judge_gates, require_open
from sweeps.promotion.promotion_inputs import Contamination, Evidence, choose, gather
from sweeps.promotion.specs import LimitSpec, PromotionSpec
from sweeps.verdict.verdict_record import Verdict, read_verdict
from tests.sweeps.promotion.conftest import GOOD, PLAIN, MadeStudy, weights

LIMITS = LimitSpec()


@pytest.fixture
def evidence(study: MadeStudy) -> Evidence:
    """Return the evidence for promoting the winner to a run of its own size."""
    from ablations.config.schema import validate
    from tests.sweeps.promotion.conftest import FULL, composed

    values = composed(*FULL, config="promote")
    spec = validate(PromotionSpec, values["promotion"])
    verdict = read_verdict(study.runs_dir / study.study)
    return gather(
        spec,
        study.config("full", 0, GOOD),
        study=study.study,
        verdict=verdict,
        candidate=choose(verdict, None),
    )


def judged(
    evidence: Evidence, limits: LimitSpec = LIMITS, overrides: Mapping[str, str] | None = None
) -> dict[str, GateResult]:
    return {gate.name: gate for gate in judge_gates(evidence, limits, overrides or {})}


def test_no_gate_stops_a_sound_study(evidence: Evidence) -> None:
    gates = judge_gates(evidence, LIMITS, {})
    require_open(gates)
    assert {gate.state for gate in gates} == {"passed", "not run"}
    assert all(gate.sentence for gate in gates)


def test_a_tie_does_not_beat_the_baseline(evidence: Evidence) -> None:
    tied = replace(evidence.verdict, outcome="tie", tie_kind="undecided")
    gate = judged(replace(evidence, verdict=tied))["beats_baseline"]
    assert gate.state == "failed"
    assert gate.evidence["outcome"] == "tie"


def test_another_candidate_than_the_pick_does_not_beat_the_baseline(evidence: Evidence) -> None:
    other = replace(evidence.candidate, name="somebody", trial="trial-0009")
    assert judged(replace(evidence, candidate=other))["beats_baseline"].state == "failed"


def test_the_baseline_itself_may_be_promoted(evidence: Evidence) -> None:
    verdict = replace(evidence.verdict, outcome="keep-baseline")
    row = choose(verdict, None)
    assert row.name == verdict.baseline
    gate = judged(replace(evidence, verdict=verdict, candidate=row))["beats_baseline"]
    assert gate.state == "passed"


def test_epochs_count_the_full_budget(evidence: Evidence) -> None:
    config = evidence.config
    store = evidence.stores["synthetic_facts"]
    assert store is not None
    short = {**evidence.stores, "synthetic_facts": replace(store, tokens=100)}
    gate = judged(replace(evidence, stores=short))["epoch_caps"]
    assert gate.state == "failed"
    asked = GOOD["synthetic_facts"] * config.build_schedule().total_tokens
    assert gate.evidence["epochs"]["synthetic_facts"] == pytest.approx(asked / 100, rel=0.01)


# Two published runs, as documented in a paper and in a report: a mixture that was meant to be half
# Wikipedia had 0.6% of it, and one that was meant to be half and half had 94 to 6.
DOCUMENTED = {
    "half of it Wikipedia, 0.6% realised": (0.006, 0.994),
    "half and half, 94 to 6 realised": (0.94, 0.06),
}


def _by_documents(shares: tuple[float, float], windows: int) -> np.ndarray:
    """Return windows by source of a run that drew documents, not tokens, half and half.

    This makes a mixture wrong without an error: documents of one source are longer by the realised ratio,
    and each drawn document is packed into the windows.
    """
    lengths = np.array(shares) * 1000.0
    drawn = np.random.default_rng(0).integers(0, 2, size=200_000)
    tokens = np.bincount(drawn, weights=lengths[drawn], minlength=2)
    counts: np.ndarray = np.floor(windows * tokens / tokens.sum()).astype(np.int64)
    counts[0] += windows - counts.sum()
    return counts


@pytest.mark.parametrize("shares", DOCUMENTED.values(), ids=DOCUMENTED.keys())
def test_a_mixture_that_was_not_read_as_asked_fails_run_and_gate(
    study: MadeStudy, evidence: Evidence, shares: tuple[float, float]
) -> None:
    half = weights(0.5, 0.5, 0.0)
    overrides = study.overrides
    study.overrides = ("schedule.total_tokens=2560000",)  # 80,000 windows of 32 tokens
    config = study.config("trial-0005", 0, half)
    schedule = config.build_schedule()
    counts = np.array([[*_by_documents(shares, schedule.total_samples), 0]])
    realised = counts[0, :2] / counts.sum()
    assert realised == pytest.approx(shares, abs=0.01)

    # The run's own audit fails ...
    found = audit(schedule, counts, dict.fromkeys(schedule.sources, 10**6), tolerance=1e-3)
    with pytest.raises(AuditError, match="asked was 50"):
        found.require()

    # ... and the gate stops it even if that audit was turned off or used the wrong mixture.
    record = study.run("trial-0005", 0, half, counts=counts)
    study.overrides = overrides
    stored = record.audit()
    assert stored is not None
    forged = {**stored, "ok": True}
    forged["stages"] = [{**row, "asked": row["realised"]} for row in stored["stages"]]
    record.write_audit(forged)
    gate = judged(replace(evidence, runs=(*evidence.runs, record)))["audit"]
    assert gate.state == "failed"
    assert "asked 50.00%" in gate.sentence
    with pytest.raises(UserError, match="gate audit"):
        require_open((gate,))


def test_a_tenth_of_a_percent_is_within_the_audits_tolerance(study: MadeStudy) -> None:
    study.overrides = ("schedule.total_tokens=2560000",)
    config = study.config("trial-0006", 0, PLAIN)
    total = config.build_schedule().total_samples
    shares = np.array([PLAIN[name] for name in config.build_schedule().sources])
    exact = np.round(total * shares).astype(np.int64)
    off = exact + np.array([int(0.0009 * total), -int(0.0009 * total), 0])
    assert audit_gaps(study.run("trial-0006", 0, PLAIN, counts=[off]), 1e-3) == []
    too_far = exact + np.array([int(0.002 * total), -int(0.002 * total), 0])
    assert audit_gaps(study.run("trial-0007", 0, PLAIN, counts=[too_far]), 1e-3)


def test_a_run_without_an_audit_fails_the_gate(evidence: Evidence) -> None:
    (evidence.runs[0].path / "audit.json").unlink()
    assert judged(evidence)["audit"].state == "failed"


@pytest.mark.parametrize(
    ("stage", "warm", "state"),
    [
        ("first", False, "failed"),
        ("last", False, "failed"),
        ("first", True, "passed"),
        ("last", True, "failed"),
    ],
)
def test_every_stage_that_was_trained_needs_an_audit(
    study: MadeStudy, evidence: Evidence, stage: str, warm: bool, state: str
) -> None:
    study.overrides = (
        "~schedule.stages.main",
        "++schedule.stages.first={share: 0.5, weights: null}",
        "++schedule.stages.last={share: 0.5, weights: null}",
    )
    record = study.run("trial-0008", 0, GOOD)
    audit = record.audit()
    assert audit is not None
    assert judged(replace(evidence, runs=(record,)))["audit"].state == "passed"
    record.write_audit(
        {**audit, "stages": [row for row in audit["stages"] if row["stage"] != stage]}
    )
    if warm:
        manifest = read_json(record.path / "manifest.json")
        manifest["config"]["warm_start"] = {"checkpoint": "runs/trunk/checkpoints/4"}
        write_sealed(record.path / "manifest.json", manifest)
    gate = judged(replace(evidence, runs=(record,)))["audit"]
    assert gate.state == state
    assert (f"stages without an audit: {stage}" in gate.sentence) == (state == "failed")


@pytest.mark.parametrize(
    ("cut", "tokens"),
    [({}, 100.0), ({"max_documents": 5}, 1e9), ({"max_bytes": 5000}, 1e9)],
    ids=["whole", "cut by documents", "cut by bytes"],
)
def test_the_prepared_part_of_a_cut_source_is_not_all_of_it(
    evidence: Evidence, cut: dict[str, int], tokens: float
) -> None:
    config, name = evidence.config, "synthetic_facts"
    store = evidence.stores[name]
    assert store is not None
    spec = replace(config.source[name], tokens_available=1e9, **cut)  # type: ignore[arg-type]
    changed = replace(
        evidence,
        config=replace(config, source={**config.source, name: spec}),
        stores={**evidence.stores, name: replace(store, tokens=100)},
    )
    gates = judged(changed)
    assert gates["token_counts"].evidence["sources"][name]["tokens"] == tokens
    asked = GOOD[name] * config.build_schedule().total_tokens
    assert gates["epoch_caps"].evidence["epochs"][name] == pytest.approx(asked / tokens, abs=1e-3)


def test_contamination_over_the_limit_fails(evidence: Evidence) -> None:
    row = Contamination(source="synthetic_facts", task="arc", items=100, found=2)
    gate = judged(replace(evidence, contamination=(row,)))["contamination"]
    assert gate.state == "failed"
    assert "2 of 100" in gate.sentence
    loose = LimitSpec(contamination_share=0.02)
    gate = judged(replace(evidence, contamination=(row,)), loose)["contamination"]
    assert gate.state == "passed"
    assert gate.evidence["found"]


def test_a_source_that_was_not_searched_is_unknown_not_clean(evidence: Evidence) -> None:
    unchecked = replace(evidence, unchecked={"web": "not prepared here"})
    assert judged(unchecked)["contamination"].state == "unknown"
    without_tasks = replace(evidence, contamination=(), unchecked={})
    assert judged(without_tasks)["contamination"].state == "not run"


def test_items_in_the_text_are_found(evidence: Evidence) -> None:
    searched = {row.task for row in evidence.contamination}
    assert searched == {"synthetic_facts", "synthetic_arithmetic"}
    assert not evidence.unchecked


def second(verdict: Verdict, **means: float) -> Verdict:
    rows = tuple(replace(row, mean=means[row.name.replace("-", "_")]) for row in verdict.candidates)
    return replace(verdict, study="larger", candidates=rows)


def test_the_ranking_must_hold_at_a_second_proxy_size(evidence: Evidence) -> None:
    assert judged(evidence)["second_proxy"].state == "not run"
    holds = second(evidence.verdict, trial_0000=2.0, trial_0001=1.0)
    assert judged(replace(evidence, second=holds))["second_proxy"].state == "passed"
    turns = second(evidence.verdict, trial_0000=1.0, trial_0001=2.0)
    gate = judged(replace(evidence, second=turns))["second_proxy"]
    assert gate.state == "failed"
    assert "0% of 1 pairs" in gate.sentence


def test_a_second_study_without_a_shared_candidate_is_unknown(evidence: Evidence) -> None:
    other = replace(evidence.verdict, candidates=(evidence.verdict.candidates[0],))
    assert judged(replace(evidence, second=other))["second_proxy"].state == "unknown"


def test_an_assumed_token_count_is_no_count(evidence: Evidence) -> None:
    config = evidence.config
    spec = replace(config.source["synthetic_junk"], note="tokens_available is assumed")
    assumed = replace(config, source={**config.source, "synthetic_junk": spec})
    stores = {**evidence.stores, "synthetic_junk": None}
    gate = judged(replace(evidence, config=assumed, stores=stores))["token_counts"]
    assert gate.state == "unknown"
    assert "synthetic_junk" in gate.sentence


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"tokenizer_hash": "another"}, "failed"),
        ({"vocab_size": 100_000}, "failed"),
        (None, "unknown"),
    ],
    ids=["another tokenizer", "a larger vocabulary", "not prepared"],
)
def test_sources_need_one_tokenizer(
    evidence: Evidence, change: dict[str, object] | None, state: str
) -> None:
    store = evidence.stores["synthetic_junk"]
    assert store is not None
    other: StoreManifest | None = None if change is None else replace(store, **change)  # type: ignore[arg-type]
    stores = {**evidence.stores, "synthetic_junk": other}
    gate = judged(replace(evidence, stores=stores))["one_tokenizer"]
    assert gate.state == state
    assert ("synthetic_junk" in gate.evidence["prepared"]) == (change is not None)
    assert len(gate.evidence["hashes"]) == (2 if change and "tokenizer_hash" in change else 1)


def test_each_gate_that_was_judged_has_its_evidence(evidence: Evidence) -> None:
    for name, gate in judged(evidence).items():
        assert gate.evidence or gate.state == "not run", name


def test_an_override_never_changes_the_state(evidence: Evidence) -> None:
    unknown = replace(evidence, unchecked={"web": "not prepared here"})
    overrides = {"contamination": "searched on the cluster, clean", "audit": "not needed at all"}
    gates = judged(unknown, overrides=overrides)
    assert gates["contamination"].state == "unknown"
    assert gates["contamination"].override == "searched on the cluster, clean"
    assert gates["audit"].override is None  # it was passed: nothing was overridden
    require_open(tuple(gates.values()))


def test_all_failed_gates_are_reported_at_once(evidence: Evidence, tmp_path: Path) -> None:
    tied = replace(evidence.verdict, outcome="tie", tie_kind="undecided")
    shut = replace(evidence, verdict=tied, unchecked={"web": "not prepared here"})
    with pytest.raises(UserError) as caught:
        require_open(judge_gates(shut, LIMITS, {}))
    assert [problem.where for problem in caught.value.problems] == [
        "gate beats_baseline",
        "gate contamination",
    ]


@pytest.mark.parametrize(
    ("enough", "fresh", "outcome", "state"),
    [
        (True, False, "winner", "passed"),
        (False, True, "winner", "passed"),
        (False, False, "winner", "failed"),
        (False, True, "tie", "failed"),
    ],
)
def test_a_surrogates_optimum_needs_evidence_or_a_win_on_fresh_seeds(
    evidence: Evidence, enough: bool, fresh: bool, outcome: str, state: str
) -> None:
    trust = {"enough": enough, "reasons": [] if enough else ["knows nothing"], "more_runs": 30}
    path = Path(evidence.config.runs_dir) / evidence.study / "pick.json"
    path.write_text(json.dumps({"trial": evidence.candidate.trial, "evidence": trust}))
    verdict = replace(evidence.verdict, outcome=outcome, confirmed=fresh)  # type: ignore[arg-type]
    gate = judged(replace(evidence, verdict=verdict))["surrogate_evidence"]
    assert gate.state == state
    if state == "failed":
        assert "knows nothing; about 30 runs more may settle it" in gate.sentence
        with pytest.raises(UserError, match="gate surrogate_evidence"):
            require_open((gate,))


@pytest.mark.parametrize("picked", [{}, {"trial": "another", "evidence": {"enough": False}}])
def test_a_candidate_that_is_no_surrogates_optimum_needs_none(
    evidence: Evidence, picked: dict[str, object]
) -> None:
    path = Path(evidence.config.runs_dir) / evidence.study / "pick.json"
    path.write_text(json.dumps(picked))
    assert judged(evidence)["surrogate_evidence"].state == "not run"


def test_a_pick_recorded_before_evidence_was_is_no_refusal(evidence: Evidence) -> None:
    path = Path(evidence.config.runs_dir) / evidence.study / "pick.json"
    path.write_text(json.dumps({"trial": evidence.candidate.trial, "loss": 1.0}))
    assert judged(evidence)["surrogate_evidence"].state == "not run"


def test_an_audit_must_cover_every_stage_unless_the_run_began_from_a_checkpoint(
    study: MadeStudy,
) -> None:
    record = study.run("trial-0008", 0, PLAIN)
    stored = record.audit()
    assert stored is not None
    assert audit_gaps(record, 1e-3) == []
    record.write_audit({**stored, "stages": []})
    (gap,) = audit_gaps(record, 1e-3)
    assert "stages without an audit: " in gap
