"""Gates of a promotion: each returns its evidence and whether it is passed.

    passed    the evidence supports the promotion
    not run   the gate checks something optional that was not done; it stops nothing
    unknown   the evidence is missing: stops, unless overridden with a reason
    failed    the evidence is against it: stops, unless overridden with a reason

An override never changes a gate's state. The record keeps the state, the evidence and the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.config.schema import validate
from ablations.errors import Problem, UserError
from ablations.files import finite_or_none
from ablations.mixture.constraints import beyond_cap
from ablations.mixture.mixture import Mixture
from ablations.mixture.specs import MixtureSpec, ScheduleSpec
from ablations.record.run_record import RunRecord
from ablations.record.stored import stored_object
from sweeps.promotion.promotion_inputs import Evidence
from sweeps.promotion.specs import GATES, LimitSpec
from sweeps.study.specs import loss_sign
from sweeps.verdict.transfer import transfer

__all__ = ["GateResult", "GateState", "audit_gaps", "judge_gates", "require_open"]

GateState = Literal["passed", "not run", "unknown", "failed"]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Result of one gate."""

    name: str
    state: GateState
    sentence: str
    """For people."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Plain values behind the sentence."""
    override: str | None = None
    """Reason for promoting although the gate is not passed."""

    @property
    def stops(self) -> bool:
        """True if the gate stops the promotion."""
        return self.state in ("failed", "unknown") and self.override is None

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def judge_gates(
    evidence: Evidence, limits: LimitSpec, overrides: Mapping[str, str]
) -> tuple[GateResult, ...]:
    """Return the result of every gate, with its override if the gate would stop the promotion."""
    judges: Mapping[str, Callable[[Evidence, LimitSpec], GateResult]] = {
        "beats_baseline": _beats_baseline,
        "epoch_caps": _epoch_caps,
        "audit": _audit,
        "contamination": _contamination,
        "second_proxy": _second_proxy,
        "token_counts": _token_counts,
        "one_tokenizer": _one_tokenizer,
        "surrogate_evidence": _surrogate_evidence,
    }
    found = [judges[name](evidence, limits) for name in GATES]
    return tuple(
        GateResult(**{**asdict(gate), "override": overrides.get(gate.name)}) if gate.stops else gate
        for gate in found
    )


def require_open(gates: tuple[GateResult, ...]) -> None:
    """Raise :class:`UserError` with every gate that stops the promotion."""
    problems = [
        Problem(
            f"gate {gate.name}",
            gate.state,
            found=gate.sentence,
            do=f"fix it, or record why it may be passed over: '+promotion.override.{gate.name}=\"…\"'",
        )
        for gate in gates
        if gate.stops
    ]
    if problems:
        raise UserError(problems)


def _beats_baseline(evidence: Evidence, limits: LimitSpec) -> GateResult:
    verdict, candidate = evidence.verdict, evidence.candidate
    facts: dict[str, Any] = {
        "outcome": verdict.outcome,
        "pick": verdict.pick,
        "baseline": verdict.baseline,
        "promoted": candidate.name,
        "confirmed_on_fresh_seeds": verdict.confirmed,
        "sentence": verdict.sentence,
    }
    if candidate.advantage is not None:
        facts["advantage"] = _plain(asdict(candidate.advantage))
    if candidate.name == verdict.baseline:
        sentence = f"{candidate.name!r} is the baseline itself: nothing has to be beaten"
        return GateResult(name="beats_baseline", state="passed", sentence=sentence, evidence=facts)
    won = verdict.outcome == "winner" and candidate.name == verdict.pick
    if won or candidate.name == verdict.pick:
        sentence = verdict.sentence
    else:
        sentence = f"{candidate.name!r} is not the verdict's pick, {verdict.pick!r}"
    state: GateState = "passed" if won else "failed"
    return GateResult(name="beats_baseline", state=state, sentence=sentence, evidence=facts)


def _available(evidence: Evidence, source: str) -> tuple[float | None, str]:
    """Return the tokens that a source has, and the origin of the figure; None if it is assumed."""
    spec, store = evidence.config.source[source], evidence.stores[source]
    cut = spec.max_documents is not None or spec.max_bytes is not None
    if store is not None and not cut:
        return float(store.tokens), "counted in the prepared store"
    if "assumed" in spec.note.lower():
        return None, spec.note
    return float(spec.tokens_available), "stated by the source's config"


def _epoch_caps(evidence: Evidence, limits: LimitSpec) -> GateResult:
    del limits
    config = evidence.config
    schedule, cap = config.build_schedule(), config.mixture.most_epochs
    available = {
        name: _available(evidence, name)[0] or config.source[name].tokens_available
        for name in schedule.sources
    }
    epochs = {name: round(value, 4) for name, value in schedule.epochs(available).items()}
    beyond = {name: value for name, value in epochs.items() if beyond_cap(value, cap)}
    exempt = {k: why for k, why in config.mixture.epoch_cap_exempt.items() if k in beyond}
    over = {name: value for name, value in beyond.items() if name not in exempt}
    within = {name: value for name, value in epochs.items() if name not in exempt} or epochs
    most = max(within, key=lambda name: within[name])
    if over:
        listed = ", ".join(f"{name} {value:.2f}" for name, value in over.items())
        sentence = f"read more often than {cap:.3g} epochs at the full budget: {listed}"
    else:
        sentence = f"at most {epochs[most]:.2f} epochs ({most}) at the full budget, cap {cap:.3g}"
    if law := config.mixture.repeats:
        sentence += (
            f" by the law of repeats of {law.study!r} (R* {law.constant:.3g}, 90%: {law.low:.3g} to "
            f"{law.high:.3g}; the last epoch worth {law.least_value:g} or more)"
        )
    if exempt:
        listed = "; ".join(f"{name} {beyond[name]:.2f} ({why})" for name, why in exempt.items())
        sentence += f"; exempt: {listed}"
    return GateResult(
        name="epoch_caps",
        state="failed" if over else "passed",
        sentence=sentence,
        evidence={
            "epochs": epochs,
            "cap": cap,
            "tokens": schedule.total_tokens,
            **({"exempt": exempt} if exempt else {}),
            **({"repeats": asdict(law)} if law else {}),
        },
    )


def audit_gaps(record: RunRecord, tolerance: float) -> list[str]:
    """Return the problems in a run's audit, measured against the run's own config.

    The asked shares are taken from the config and not from the audit. This also detects an audit that
    compared the run with the wrong mixture.
    """
    audit = record.audit()
    if audit is None:
        return [f"{record.name}: no audit"]
    config = record.manifest.config
    mixture = validate(MixtureSpec, config["mixture"])
    schedule = validate(ScheduleSpec, config["schedule"])
    gaps, seen = [], set()
    for row in audit["stages"]:
        stage = schedule.stages.get(row["stage"])
        if stage is None:
            gaps.append(f"{record.name}: audits a stage {row['stage']!r} that was not asked for")
            continue
        seen.add(row["stage"])
        weights = mixture.weights if stage.weights is None else stage.weights
        asked = Mixture(weights, normalize=mixture.normalize).get(row["source"], 0.0)
        # The sampler can be a few windows off, so a stage of n windows cannot be nearer to a share.
        windows = max(1.0, row["windows"] / max(row["realised"], 1e-12))
        allowed = tolerance + (math.log2(max(windows, 2.0)) / 2.0 + 2.0) / windows
        if abs(row["realised"] - asked) > allowed:
            gaps.append(
                f"{record.name}, stage {row['stage']!r}: {row['source']} asked {asked:.2%}, "
                f"realised {row['realised']:.2%}"
            )
    # A run that started from a checkpoint did not read the earlier stages itself.
    warm = (config.get("warm_start") or {}).get("checkpoint")
    expected = list(schedule.stages)[-1:] if warm else list(schedule.stages)
    missing = [name for name in expected if name not in seen]
    if missing:
        gaps.append(f"{record.name}: stages without an audit: {', '.join(missing)}")
    if not audit["ok"] and not gaps:
        gaps.append(f"{record.name}: its own audit failed (tolerance {audit['tolerance']:g})")
    return gaps


def _audit(evidence: Evidence, limits: LimitSpec) -> GateResult:
    gaps = [gap for run in evidence.runs for gap in audit_gaps(run, limits.audit_tolerance)]
    count = len(evidence.runs)
    sentence = (
        "; ".join(gaps[:4]) + (f"; … ({len(gaps)} in all)" if len(gaps) > 4 else "")
        if gaps
        else f"{count} runs read what was asked, within {limits.audit_tolerance:.2%} of tokens"
    )
    return GateResult(
        name="audit",
        state="failed" if gaps else "passed",
        sentence=sentence,
        evidence={"runs": [run.name for run in evidence.runs], "gaps": gaps},
    )


def _contamination(evidence: Evidence, limits: LimitSpec) -> GateResult:
    limit = limits.contamination_share
    over = [row for row in evidence.contamination if row.share > limit]
    rows = [
        {"source": row.source, "task": row.task, "items": row.items, "found": row.found}
        for row in evidence.contamination
        if row.found
    ]
    facts = {"limit": limit, "found": rows, "unchecked": dict(evidence.unchecked)}
    state: GateState = "passed"
    searched = len({row.source for row in evidence.contamination})
    sentence = f"{searched} sources searched; no task has over {limit:.1%} of its items in one"
    if over:
        state = "failed"
        sentence = "; ".join(
            f"{row.source} contains {row.found} of {row.items} items of {row.task}"
            for row in over[:6]
        )
    elif evidence.unchecked:
        state = "unknown"
        sources = ", ".join(list(evidence.unchecked)[:6])
        why = next(iter(evidence.unchecked.values()))
        sentence = f"{len(evidence.unchecked)} sources not searched ({sources}): {why}"
    elif not searched:
        state, sentence = "not run", "the evaluation names no task whose items could be in the text"
    return GateResult(name="contamination", state=state, sentence=sentence, evidence=facts)


def _second_proxy(evidence: Evidence, limits: LimitSpec) -> GateResult:
    rows = list(evidence.verdict.transfer)
    if evidence.second is not None:
        small = {
            row.name: _oriented(evidence.verdict, row.mean) for row in evidence.verdict.candidates
        }
        large = {
            row.name: _oriented(evidence.second, row.mean) for row in evidence.second.candidates
        }
        rows.append(transfer(small, large, small=evidence.study, large=evidence.second.study))
    known = [row for row in rows if row.decision_accuracy is not None]
    facts = {"limit": limits.second_proxy_decisions, "transfer": [_plain(asdict(r)) for r in rows]}
    if not known:
        missing = evidence.second is not None
        return GateResult(
            name="second_proxy",
            state="unknown" if missing else "not run",
            sentence="the two studies share fewer than two candidates"
            if missing
            else "no second proxy size was run",
            evidence=facts,
        )
    worst = min(known, key=lambda row: row.decision_accuracy or 0.0)
    accuracy = worst.decision_accuracy or 0.0
    enough = accuracy >= limits.second_proxy_decisions
    return GateResult(
        name="second_proxy",
        state="passed" if enough else "failed",
        sentence=f"{accuracy:.0%} of {worst.pairs} pairs are ranked alike at {worst.small} and "
        f"{worst.large} (asked: {limits.second_proxy_decisions:.0%})",
        evidence=facts,
    )


def _oriented(verdict: Any, mean: float) -> float:
    return -loss_sign(verdict.direction) * mean


def _token_counts(evidence: Evidence, limits: LimitSpec) -> GateResult:
    del limits
    counts, missing = {}, []
    for name in evidence.config.build_schedule().sources:
        tokens, origin = _available(evidence, name)
        counts[name] = {"tokens": tokens, "origin": origin}
        if tokens is None:
            missing.append(name)
    shown = ", ".join(missing[:6]) + ("" if len(missing) <= 6 else f", … ({len(missing)} in all)")
    return GateResult(
        name="token_counts",
        state="unknown" if missing else "passed",
        sentence=f"no token count of {shown}"
        if missing
        else f"token counts of all {len(counts)} sources are known",
        evidence={"sources": counts},
    )


def _one_tokenizer(evidence: Evidence, limits: LimitSpec) -> GateResult:
    del limits
    prepared = {name: store for name, store in evidence.stores.items() if store is not None}
    missing = [name for name, store in evidence.stores.items() if store is None]
    hashes = {store.tokenizer_hash for store in prepared.values()}
    facts: dict[str, Any] = {
        "tokenizer": evidence.config.tokenizer.name,
        "hashes": sorted(hashes),
        "prepared": sorted(prepared),
        "not_prepared": missing,
    }
    rows = evidence.config.model.vocab_size
    too_large = {n: s.vocab_size for n, s in prepared.items() if s.vocab_size > rows}
    state: GateState = "passed"
    sentence = f"all {len(prepared)} sources were prepared with {facts['tokenizer']}"
    if len(hashes) > 1:
        state = "failed"
        sentence = f"sources were prepared with {len(hashes)} different tokenizers"
    elif too_large:
        state = "failed"
        sentence = f"vocabularies beyond the model's {rows} rows: {too_large}"
    elif missing:
        state = "unknown"
        sentence = f"{len(missing)} sources are not prepared here: {', '.join(missing[:6])}"
    return GateResult(name="one_tokenizer", state=state, sentence=sentence, evidence=facts)


def _surrogate_evidence(evidence: Evidence, limits: LimitSpec) -> GateResult:
    """Require evidence for the surrogate's own optimum, or a win on freshly seeded runs."""
    del limits
    name, verdict, candidate = "surrogate_evidence", evidence.verdict, evidence.candidate
    path = Path(evidence.config.runs_dir) / evidence.study / "pick.json"
    picked = stored_object(path) if path.is_file() else {}
    if picked.get("trial") != candidate.trial:
        sentence = f"{candidate.name!r} is not the surrogate's optimum"
        return GateResult(name=name, state="not run", sentence=sentence)
    trust = picked.get("evidence")
    if trust is None:
        sentence = "the study is older than this gate: its pick records no evidence"
        return GateResult(name=name, state="not run", sentence=sentence)
    won = verdict.outcome == "winner" and verdict.confirmed and candidate.name == verdict.pick
    state: GateState = "passed" if trust["enough"] or won else "failed"
    if trust["enough"]:
        sentence = "the surrogate had evidence for its optimum"
    else:
        missing = "; ".join(trust["reasons"])
        sentence = f"the surrogate did not have enough evidence for its optimum: {missing}"
        sentence += (
            "; its own freshly seeded runs have since won"
            if won
            else f"; about {trust['more_runs']} runs more may settle it"
        )
    return GateResult(name=name, state=state, sentence=sentence, evidence=dict(trust))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values; a number that is not finite is unknown and becomes null."""
    return {
        key: finite_or_none(value) if isinstance(value, float) else value
        for key, value in values.items()
    }
