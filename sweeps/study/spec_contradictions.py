"""Contradictions between the parts of a search's specification."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ablations.errors import Problem

if TYPE_CHECKING:
    from sweeps.study.specs import SearchSpec

__all__ = ["contradictions"]


def contradictions(spec: SearchSpec) -> list[Problem]:
    """Return a problem for each part of a search that another part rules out."""
    return [*_quality_problems(spec), *_fidelity_problems(spec), *_evidence_problems(spec)]


def _evidence_problems(spec: SearchSpec) -> list[Problem]:
    if not spec.evidence:
        split = (bool(spec.evidence_split), "no earlier study is named", "search.evidence=[…]")
        return _impossible("search.evidence_split", [split])
    pairs = (
        (spec.space is None, "a plain sweep fits nothing", "a search.space"),
        (
            spec.strategy.proposer != "surrogate",
            f"the proposer {spec.strategy.proposer} cannot use old runs",
            "search.strategy.proposer=surrogate",
        ),
        (
            spec.task_quality.apply,
            "the score is decided from the new runs",
            "search.task_quality.apply=false",
        ),
        (len(set(spec.evidence)) < len(spec.evidence), "a study twice", "each study once"),
    )
    return _impossible("search.evidence", pairs)


def _fidelity_problems(spec: SearchSpec) -> list[Problem]:
    if spec.fidelity.share is None:
        return []
    pairs = (
        (spec.space is None, "a plain sweep has no design", "a search.space"),
        (
            spec.strategy.proposer != "surrogate",
            f"the proposer {spec.strategy.proposer} cannot use paused runs",
            "search.strategy.proposer=surrogate",
        ),
        (len(spec.objectives) > 1, "several objectives", "one objective"),
        (bool(spec.constraints), "constraints are judged on full runs", "no constraint"),
        (
            spec.task_quality.apply,
            "the score is decided from full runs of the design",
            "search.task_quality.apply=false",
        ),
        (len(spec.seeds) > 1, "several seeds while exploring", "one seed"),
        (spec.trunks, "runs that start from a trunk do not pause", "search.trunks=false"),
    )
    return _impossible("search.fidelity.share", pairs)


def _quality_problems(spec: SearchSpec) -> list[Problem]:
    if not spec.task_quality.apply:
        return []
    where = "search.task_quality.apply"
    if spec.space is None:
        return [Problem(where, "a plain sweep has no design to decide from", allowed="false")]
    if all(objective.metrics != ("score",) for objective in spec.objectives.values()):
        return [Problem(where, "no objective is made of the score", allowed="false")]
    return []


def _impossible(where: str, pairs: Iterable[tuple[bool, str, str]]) -> list[Problem]:
    """Return a problem for each contradiction that is found, with what is allowed."""
    return [Problem(where, f"not possible here: {w}", allowed=a) for found, w, a in pairs if found]
