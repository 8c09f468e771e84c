"""Check the limits and the sentences of each gate on evidence that holds nothing but what the gate reads."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations.errors import UserError
from ablations.record.run_record import RunRecord
from sweeps.promotion.gates import (
    GateResult,
    _audit,
    _available,
    _contamination,
    _one_tokenizer,
    _oriented,
    _plain,
    _second_proxy,
    _token_counts,
    audit_gaps,
    require_open,
)
from sweeps.promotion.promotion_inputs import Contamination
from sweeps.promotion.specs import LimitSpec

LIMITS = LimitSpec()


@pytest.mark.parametrize(
    ("state", "override", "stops"),
    [
        ("passed", None, False),
        ("not run", None, False),
        ("unknown", None, True),
        ("failed", None, True),
        ("unknown", "a reason", False),
        ("failed", "", False),
        ("passed", "a reason", False),
    ],
)
def test_a_gate_stops_unless_it_is_passed_over(
    state: Any, override: str | None, stops: bool
) -> None:
    gate = GateResult(name="audit", state=state, sentence="three gaps", override=override)
    assert gate.stops is stops
    if not stops:
        require_open((gate,))
        return
    with pytest.raises(UserError) as raised:
        require_open((GateResult(name="x", state="passed", sentence=""), gate))
    (problem,) = raised.value.problems
    assert (problem.where, problem.what, problem.found) == ("gate audit", state, "three gaps")
    assert "+promotion.override.audit=" in str(problem)


# --------------------------------------------------------------------------------------- token counts


def source(note: str = "", **cut: int) -> Any:
    values = {"max_documents": None, "max_bytes": None, "tokens_available": 500, "note": note}
    return SimpleNamespace(**{**values, **cut})


def with_sources(stores: dict[str, Any], **sources: Any) -> Any:
    schedule = SimpleNamespace(sources=tuple(sources))
    config = SimpleNamespace(source=sources, build_schedule=lambda: schedule)
    return SimpleNamespace(config=config, stores=stores)


STORE = SimpleNamespace(tokens=100)


@pytest.mark.parametrize(
    ("store", "spec", "expected"),
    [
        (STORE, source(), (100.0, "counted in the prepared store")),
        (STORE, source("Assumed"), (100.0, "counted in the prepared store")),
        (STORE, source(max_documents=5), (500.0, "stated by the source's config")),
        (STORE, source(max_bytes=5), (500.0, "stated by the source's config")),
        (STORE, source("it is Assumed", max_bytes=5), (None, "it is Assumed")),
        (None, source(), (500.0, "stated by the source's config")),
        (None, source("assumed by us"), (None, "assumed by us")),
    ],
)
def test_tokens_are_counted_in_whole_stores_or_stated_and_never_assumed(
    store: Any, spec: Any, expected: tuple[float | None, str]
) -> None:
    assert _available(with_sources({"web": store}, web=spec), "web") == expected


@pytest.mark.parametrize(
    ("unknown", "sentence"),
    [
        (0, "token counts of all 2 sources are known"),
        (1, "no token count of s0"),
        (6, "no token count of s0, s1, s2, s3, s4, s5"),
        (7, "no token count of s0, s1, s2, s3, s4, s5, … (7 in all)"),
    ],
)
def test_up_to_six_sources_without_a_count_are_named(unknown: int, sentence: str) -> None:
    assumed = {f"s{place}": source("assumed") for place in range(unknown)}
    known = {"web": source(), "math": source()}
    evidence = with_sources(dict.fromkeys((*assumed, *known)), **assumed, **known)
    gate = _token_counts(evidence, LIMITS)
    assert gate.sentence == sentence
    assert gate.state == ("unknown" if unknown else "passed")
    counts = gate.evidence["sources"]
    assert list(counts) == [*assumed, *known]
    assert counts["web"] == {"tokens": 500.0, "origin": "stated by the source's config"}


# ------------------------------------------------------------------------------------------ tokenizer


def prepared(tokenizer: str, vocabulary: int = 100) -> Any:
    return SimpleNamespace(tokenizer_hash=tokenizer, vocab_size=vocabulary)


def tokenized(**stores: Any) -> GateResult:
    tokenizer, model = SimpleNamespace(name="bpe"), SimpleNamespace(vocab_size=100)
    config = SimpleNamespace(tokenizer=tokenizer, model=model)
    evidence: Any = SimpleNamespace(stores=stores, config=config)
    return _one_tokenizer(evidence, LIMITS)


def test_sources_share_a_tokenizer_that_fits_the_model() -> None:
    same = tokenized(web=prepared("x"), math=prepared("x"))
    assert (same.state, same.sentence) == ("passed", "all 2 sources were prepared with bpe")
    assert same.evidence["prepared"] == ["math", "web"]
    larger = tokenized(web=prepared("x", 101), math=prepared("x"))
    assert larger.state == "failed"
    assert larger.sentence == "vocabularies beyond the model's 100 rows: {'web': 101}"
    names = [f"h{place}" for place in (3, 11, 0, 7, 5, 9, 1, 8, 2, 10, 4, 6)]
    other = tokenized(**{f"s{name}": prepared(name) for name in names})
    assert other.sentence == "sources were prepared with 12 different tokenizers"
    assert other.evidence["hashes"] == sorted(names)
    assert other.evidence["prepared"] == sorted(f"s{name}" for name in names)
    two = tokenized(web=prepared("x", 101), math=prepared("y"), code=None)
    assert two.sentence == "sources were prepared with 2 different tokenizers"
    assert two.state == "failed"


@pytest.mark.parametrize(("missing", "named"), [(1, 1), (6, 6), (7, 6)])
def test_up_to_six_sources_that_are_not_prepared_are_named(missing: int, named: int) -> None:
    lacking = [f"s{place}" for place in range(missing)]
    gate = tokenized(web=prepared("x"), **dict.fromkeys(lacking))
    listed = ", ".join(lacking[:named])
    assert gate.state == "unknown"
    assert gate.sentence == f"{missing} sources are not prepared here: {listed}"
    assert gate.evidence["not_prepared"] == lacking


# -------------------------------------------------------------------------------------- contamination


def contaminated(*found: int, unchecked: dict[str, str] | None = None) -> GateResult:
    rows = [
        Contamination(source=f"s{place % 2}", task=f"t{place}", items=1000, found=count)
        for place, count in enumerate(found)
    ]
    evidence: Any = SimpleNamespace(contamination=rows, unchecked=unchecked or {})
    return _contamination(evidence, LimitSpec(contamination_share=0.01))


def test_items_up_to_the_limit_are_allowed() -> None:
    gate = contaminated(10, 0, 3)
    assert gate.state == "passed"
    assert gate.sentence == "2 sources searched; no task has over 1.0% of its items in one"
    assert [row["found"] for row in gate.evidence["found"]] == [10, 3]
    assert contaminated(11).sentence == "s0 contains 11 of 1000 items of t0"
    assert contaminated(11, unchecked={"web": "lost"}).state == "failed"


def test_up_to_six_findings_and_unsearched_sources_are_named() -> None:
    many = contaminated(*range(11, 18))
    assert many.state == "failed"
    assert many.sentence == "; ".join(
        f"s{place % 2} contains {place + 11} of 1000 items of t{place}" for place in range(6)
    )
    lacking = {f"u{place}": f"why {place}" for place in range(7)}
    unknown = contaminated(1, unchecked=lacking)
    assert unknown.state == "unknown"
    assert unknown.sentence == "7 sources not searched (u0, u1, u2, u3, u4, u5): why 0"
    assert unknown.evidence["unchecked"] == lacking
    assert contaminated().state == "not run"


# ------------------------------------------------------------------------------------------- second size


def test_scores_are_turned_so_that_more_is_better() -> None:
    assert _oriented(SimpleNamespace(direction="minimize"), 2.0) == -2.0
    assert _oriented(SimpleNamespace(direction="maximize"), 2.0) == 2.0
    assert _plain({"a": float("inf"), "b": 1.5, "c": "x"}) == {"a": None, "b": 1.5, "c": "x"}


def sizes(*accuracies: float | None) -> GateResult:
    from sweeps.verdict.transfer import Transfer

    rows = [
        Transfer(
            small="a",
            large=f"b{place}",
            mixtures=5,
            pairs=10 + place,
            decision_accuracy=accuracy,
            decision_interval=None,
            rank_correlation=None,
            rank_interval=None,
        )
        for place, accuracy in enumerate(accuracies)
    ]
    evidence: Any = SimpleNamespace(verdict=SimpleNamespace(transfer=rows), second=None)
    return _second_proxy(evidence, LimitSpec(second_proxy_decisions=0.75))


@pytest.mark.parametrize(
    ("accuracies", "state", "pairs"),
    [
        ((0.75,), "passed", "75% of 10 pairs"),
        ((0.9, 0.76, 0.8), "passed", "76% of 11 pairs"),
        ((0.9, None, 0.74), "failed", "74% of 12 pairs"),
        ((0.0, 0.9), "failed", "0% of 10 pairs"),
    ],
)
def test_the_worst_of_the_other_sizes_decides(
    accuracies: tuple[float | None, ...], state: str, pairs: str
) -> None:
    gate = sizes(*accuracies)
    assert gate.state == state
    assert gate.sentence.startswith(f"{pairs} are ranked alike at a and b")
    assert gate.sentence.endswith("(asked: 75%)")
    assert len(gate.evidence["transfer"]) == len(accuracies)
    assert gate.evidence["limit"] == 0.75


def test_no_other_size_is_no_failure() -> None:
    for gate in (sizes(), sizes(None)):
        assert (gate.state, gate.sentence) == ("not run", "no second proxy size was run")


# --------------------------------------------------------------------------------------------- audits


def audited(
    folder: Path,
    *rows: tuple[str, str, float, float],
    stages: dict[str, Any] | None = None,
    ok: bool = True,
    **config: Any,
) -> RunRecord:
    """Return a run of even weights whose audit has rows of stage, source, windows and realised share."""
    schedule = {"total_tokens": 1000, "stages": stages or {"main": {"share": 1.0}}}
    mixture = {"weights": {"web": 0.5, "math": 0.5}}
    plain = {"mixture": mixture, "schedule": schedule, **config}
    record = RunRecord.create(folder, study="s", trial="t", seed=0, config=plain)
    named = ("stage", "source", "windows", "realised")
    table = [dict(zip(named, row, strict=True)) for row in rows]
    record.write_audit({"stages": table, "ok": ok, "tolerance": 0.001})
    return record


@pytest.mark.parametrize(
    ("windows", "total", "tolerance", "gap"),
    [
        # 16 windows: (4/2 + 2)/16 = 0.25 on either side of a half.
        (12, 16, 0.0, False),
        (13, 16, 0.0, True),
        (13, 16, 0.0625, False),
        (4, 16, 0.0, False),
        (3, 16, 0.0, True),
        # 64 windows: (6/2 + 2)/64.
        (37, 64, 0.0, False),
        (38, 64, 0.0, True),
        # One or two windows are never far enough from any share.
        (0, 1, 0.0, False),
        (1, 1, 0.0, False),
        (2, 2, 0.0, False),
    ],
)
def test_a_share_may_be_off_by_a_few_windows_and_the_tolerance(
    tmp_path: Path, windows: int, total: int, tolerance: float, gap: bool
) -> None:
    record = audited(tmp_path, ("main", "web", windows, windows / total))
    found = audit_gaps(record, tolerance)
    said = f"s/t-0, stage 'main': web asked 50.00%, realised {windows / total:.2%}"
    assert found == ([said] if gap else [])


@pytest.mark.parametrize(("asked", "gap"), [(0.05, True), (0.125, False)])
def test_three_windows_of_a_rare_source_are_too_many(
    tmp_path: Path, asked: float, gap: bool
) -> None:
    """Three windows allow (log2(3)/2 + 2)/3 = 0.93."""
    stages = {"main": {"share": 1.0, "weights": {"web": asked, "math": 1.0 - asked}}}
    record = audited(tmp_path, ("main", "web", 3, 1.0), stages=stages)
    assert bool(audit_gaps(record, 0.0)) is gap


def test_gaps_are_named_and_the_run_s_own_verdict_counts_where_there_are_none(
    tmp_path: Path,
) -> None:
    fine = ("main", "web", 500, 0.5)
    assert audit_gaps(audited(tmp_path / "a", fine), 0.0) == []
    assert audit_gaps(audited(tmp_path / "b", fine, ok=False), 0.0) == [
        "s/t-0: its own audit failed (tolerance 0.001)"
    ]
    strange = audited(tmp_path / "c", fine, ("odd", "web", 5, 0.5), ok=False)
    assert audit_gaps(strange, 0.0) == ["s/t-0: audits a stage 'odd' that was not asked for"]
    unknown = audited(tmp_path / "d", fine, ("main", "other", 250, 0.25))
    assert audit_gaps(unknown, 0.0) == ["s/t-0, stage 'main': other asked 0.00%, realised 25.00%"]
    bare = RunRecord.create(tmp_path / "e", study="s", trial="t", seed=0, config={})
    assert audit_gaps(bare, 0.0) == ["s/t-0: no audit"]


def test_stages_need_an_audit_unless_the_run_began_behind_them(tmp_path: Path) -> None:
    stages = {"a": {"share": 0.25}, "b": {"share": 0.25}, "c": {"share": 0.5}}
    row = ("c", "web", 500, 0.5)
    cold = audited(tmp_path / "cold", row, stages=stages, warm_start=None)
    assert audit_gaps(cold, 0.0) == ["s/t-0: stages without an audit: a, b"]
    start = {"checkpoint": "runs/trunk/4"}
    assert audit_gaps(audited(tmp_path / "warm", row, stages=stages, warm_start=start), 0.0) == []
    other = audited(
        tmp_path / "b", ("b", "web", 500, 0.5), stages=stages, warm_start=start, ok=False
    )
    assert audit_gaps(other, 0.0) == ["s/t-0: stages without an audit: c"]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ((0, 0), "2 runs read what was asked, within 1.00% of tokens"),
        ((1, 3), "gap; gap; gap; gap"),
        ((5,), "gap; gap; gap; gap; … (5 in all)"),
        ((4, 4), "gap; gap; gap; gap; … (8 in all)"),
    ],
)
def test_up_to_four_gaps_are_told(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...], sentence: str
) -> None:
    monkeypatch.setattr("sweeps.promotion.gates.audit_gaps", lambda run, limit: ["gap"] * run.gaps)
    runs = [SimpleNamespace(name=f"run-{n}", gaps=count) for n, count in enumerate(counts)]
    evidence: Any = SimpleNamespace(runs=runs)
    gate = _audit(evidence, LimitSpec(audit_tolerance=0.01))
    assert gate.sentence == sentence
    assert gate.state == ("failed" if sum(counts) else "passed")
    assert gate.evidence == {
        "runs": [run.name for run in runs],
        "gaps": ["gap"] * sum(counts),
    }
