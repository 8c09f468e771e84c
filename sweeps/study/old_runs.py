"""Runs of earlier studies that a search uses as evidence: which fit, on which face, plane or rung.

    search.evidence=[study, …] ──▶ read_evidence ──▶ evidence.json (once) ──▶ surrogate

An old run is a point of the space of this study. A source that was added has weight zero there. A source
that was dropped is a column that new points have at zero. A source that was split is divided by the
tokens of its parts. Another model size, number of tokens or version of a source's text is a rung of its
own. Runs that differ in anything else are refused by name: they measure something else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ablations.config.schema import RunConfig, dump
from ablations.errors import ConfigError, DataError, Problem, UserError, unknown_name
from ablations.files import write_sealed
from ablations.record.identity import changed_keys
from ablations.record.run_record import Manifest, RunRecord, list_runs
from ablations.record.stored import stored_as, stored_object
from ablations.training.specs import ModelSpec
from sweeps.search.space.specs import SearchSpaceSpec

__all__ = [
    "EVIDENCE_FILE",
    "Evidence",
    "OldRun",
    "kept_evidence",
    "read_evidence",
    "settle_evidence",
    "write_check",
]

EVIDENCE_FILE = "evidence.json"

_EARLY_SHARE = 0.3
_NO_EFFECT = ("mirror", "batch_tokens", "origin", "score")
"""Keys of the evaluation that do not change what a metric measures."""

_RETENTION = (
    *("checkpoints", "keep_checkpoints", "recovery_interval_steps"),
    *("diverged_ratio", "diverged_patience_steps", "spike_sigmas", "spike_window_steps"),
)
"""Keys of the training that do not change its losses."""


@dataclass(frozen=True, kw_only=True)
class OldRun:
    """Run of an earlier study."""

    study: str
    run: str
    point: dict[str, Any]
    """Searched path → value, or source → weight; sources of this study alone."""
    dropped: Mapping[str, float]
    """``<path>.<source>`` → weight of sources that this study does not search."""
    score: float | None
    metrics: Mapping[str, float | None]
    rung: Sequence[float]
    """Distance from this study's runs: size, tokens, version of a source's text."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Runs of earlier studies, as read when this study began."""

    studies: Sequence[str]
    split: Mapping[str, Sequence[str]]
    runs: Sequence[OldRun]
    added: Mapping[str, Sequence[str]]
    """Searched path → sources that no old run has read."""
    notes: Sequence[str]
    check: Mapping[str, Any] | None = None
    """Worth of the old runs, measured on the design of this study; None before it has ended."""

    @property
    def used(self) -> bool:
        """Return whether the old runs are part of the fit."""
        return self.check is None or bool(self.check["used"])

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the names of the columns of dropped sources."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run.dropped))


def read_evidence(
    runs_dir: Path,
    studies: Sequence[str],
    split: Mapping[str, Sequence[str]],
    run: RunConfig,
    space: SearchSpaceSpec,
    tokens: Mapping[str, float],
) -> Evidence:
    """Read the finished runs of earlier studies.

    Args:
        runs_dir: Folder of all studies.
        studies: Names of the studies.
        split: Source of an earlier study → the sources that it was split into.
        run: A run of this study with all of its sources.
        space: Search space of this study.
        tokens: Tokens available per source, for the parts of a split one.

    Raises:
        ConfigError: no such study, or runs that measure something else.
        DataError: a study without a finished run.
    """
    _require_split(split, space, tokens)
    new = _described(run)
    found: list[OldRun] = []
    problems: dict[str, Problem] = {}
    for study in studies:
        for record, result in _finished(runs_dir, study):
            manifest = record.manifest
            rung = _rung(manifest, new, run, space, split)
            if isinstance(rung, str):
                problems.setdefault(study, _refusal(study, record.path.name, rung))
                continue
            point, dropped = _point(manifest.config, space, split, tokens)
            found.append(
                OldRun(
                    study=study,
                    run=record.path.name,
                    point=point,
                    dropped=dropped,
                    score=result.get("score") if _same_rule(manifest, new) else None,
                    metrics=result.get("metrics") or {},
                    rung=rung,
                )
            )
    if problems:
        raise ConfigError(list(problems.values()))
    return Evidence(
        studies=tuple(studies),
        split={name: tuple(parts) for name, parts in split.items()},
        runs=tuple(found),
        added=_added(found, space),
        notes=tuple(_notes(found, space)),
    )


def _finished(runs_dir: Path, study: str) -> list[tuple[RunRecord, dict[str, Any]]]:
    """Return the finished runs of a study with their results."""
    records = list_runs(runs_dir, study)
    if not records:
        known = {record.path.parent.name for record in list_runs(runs_dir)}
        raise ConfigError(unknown_name("search.evidence", "study", study, known))
    found = [
        (record, result)
        for record in records
        if (result := record.result()) is not None and result.get("status") == "done"
    ]
    if not found:
        raise DataError(Problem(f"study {study!r}", "no finished run", do="name another study"))
    return found


def _refusal(study: str, run: str, difference: str) -> Problem:
    return Problem(
        f"search.evidence: study {study!r}",
        "its runs measure something else",
        found=f"{run} differs in {difference}",
        allowed="the same tokenizer, tasks and items, training and stages; another model, number of "
        "tokens or text of a source is a rung",
        do="leave the study out",
    )


def _described(run: RunConfig) -> dict[str, Any]:
    """Return the plain config of a run, with digests of its stores as far as they are prepared."""
    from ablations.execute import identity

    try:
        return identity(run)
    except UserError:
        return {**dump(run), "stores": {}}


def _require_split(
    split: Mapping[str, Sequence[str]], space: SearchSpaceSpec, tokens: Mapping[str, float]
) -> None:
    known = {name for mixture in space.mixtures.values() for name in mixture.sources}
    for old, parts in split.items():
        where = f"search.evidence_split.{old}"
        if len(set(parts)) < 2 or len(set(parts)) < len(parts):
            raise ConfigError(
                Problem(where, "not split", found=list(parts), allowed="two or more sources")
            )
        for part in parts:
            if part not in known:
                raise ConfigError(unknown_name(where, "source", part, known))
            if not tokens.get(part, 0.0) > 0.0:
                raise ConfigError(
                    Problem(where, f"the tokens of {part!r} are not known", do="prepare the source")
                )


def _rung(
    manifest: Manifest,
    new: Mapping[str, Any],
    run: RunConfig,
    space: SearchSpaceSpec,
    split: Mapping[str, Sequence[str]],
) -> tuple[float, float, float] | str:
    """Return the rung of an old run, or the first difference that makes it measure something else."""
    old = manifest.config
    size = 0.0
    if list(changed_keys(old.get("model"), new["model"])):
        former = ModelSpec(**old["model"]).parameters
        if former == run.model.parameters:
            return "model, of the same size"
        size = math.log10(run.model.parameters / former)
    for difference in _other_differences(manifest, new, space, other_model=size != 0.0):
        return difference
    asked, before = new["schedule"]["total_tokens"], old["schedule"].get("total_tokens")
    if not before or not asked:
        return "schedule.total_tokens"
    tokens = math.log(asked / before) / math.log(1.0 / _EARLY_SHARE)
    return size, tokens, float(_other_text(old, new, split))


def _other_differences(
    manifest: Manifest, new: Mapping[str, Any], space: SearchSpaceSpec, *, other_model: bool
) -> Iterator[str]:
    old = manifest.config
    yield from _changed("tokenizer", old, new)
    yield from _changed("evaluation", old, new, _NO_EFFECT)
    if not other_model:
        yield from _changed("training", old, new, _RETENTION)
    yield from _changed("schedule", old, new, ("total_tokens", "full_tokens", "stages"))
    if (old.get("warm_start") or {}).get("checkpoint"):
        yield "warm_start.checkpoint"
    stages, asked = old["schedule"].get("stages") or {}, new["schedule"]["stages"]
    if list(stages) != list(asked):
        yield "schedule.stages"
        return
    for name, stage in asked.items():
        path = f"schedule.stages.{name}.weights"
        left_out = ("weights",) if path in space.mixtures or stage["weights"] is None else ()
        yield from _changed(name, stages, asked, left_out)


def _changed(
    key: str, old: Mapping[str, Any], new: Mapping[str, Any], left_out: Sequence[str] = ()
) -> Iterator[str]:
    """Yield the keys below ``key`` that differ; a key that a record lacks had no effect."""
    former, now = old.get(key) or {}, new.get(key) or {}
    shared = [name for name in now if name in former and name not in left_out]
    for name in shared:
        yield from changed_keys({name: former[name]}, {name: now[name]}, key)


def _other_text(
    old: Mapping[str, Any], new: Mapping[str, Any], split: Mapping[str, Sequence[str]]
) -> bool:
    """Return whether a source of both has another text."""
    former, now = old.get("stores") or {}, new.get("stores") or {}
    return any(now[name] != former[name] for name in now if name in former and name not in split)


def _same_rule(manifest: Manifest, new: Mapping[str, Any]) -> bool:
    rule = (manifest.config.get("evaluation") or {}).get("score")
    return not list(changed_keys(rule, (new.get("evaluation") or {}).get("score"), "score"))


def _at(config: Mapping[str, Any], path: str) -> Any:
    node: Any = config
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _point(
    config: Mapping[str, Any],
    space: SearchSpaceSpec,
    split: Mapping[str, Sequence[str]],
    tokens: Mapping[str, float],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return an old run as a point of the space, and the weights of sources that the space lacks."""
    point: dict[str, Any] = {path: _at(config, path) for path in space.parameters}
    dropped: dict[str, float] = {}
    for path, mixture in space.mixtures.items():
        weights = _at(config, path) or _at(config, "mixture.weights") or {}
        total = math.fsum(weights.values()) or 1.0
        own = dict.fromkeys(mixture.sources, 0.0)
        for name, weight in weights.items():
            share = float(weight) / total
            if name in split:
                whole = math.fsum(tokens[part] for part in split[name])
                for part in split[name]:
                    own[part] = own.get(part, 0.0) + share * tokens[part] / whole
            elif name in own:
                own[name] += share
            else:
                dropped[f"{path}.{name}"] = share
        point[path] = own
    return point, dropped


def _added(runs: Sequence[OldRun], space: SearchSpaceSpec) -> dict[str, tuple[str, ...]]:
    return {
        path: tuple(
            name for name in mixture.sources if all(run.point[path][name] == 0.0 for run in runs)
        )
        for path, mixture in space.mixtures.items()
    }


def _notes(runs: Sequence[OldRun], space: SearchSpaceSpec) -> Iterator[str]:
    """Yield sentences on what the old runs are."""
    for study in dict.fromkeys(run.study for run in runs):
        own = [run for run in runs if run.study == study]
        far = [run for run in own if any(run.rung)]
        names = ("another model size", "another number of tokens", "another text of a source")
        kinds = [name for i, name in enumerate(names) if any(run.rung[i] for run in far)]
        rung = f"; {len(far)} of them are a rung of their own ({', '.join(kinds)})" if far else ""
        yield f"{len(own)} runs of study {study!r}{rung}"
    for sources in _added(runs, space).values():
        if sources:
            yield f"no old run has read {', '.join(sources)}"
    if dropped := sorted({name.rpartition(".")[2] for run in runs for name in run.dropped}):
        yield f"old runs have read {', '.join(dropped)}, which this study does not search"


def kept_evidence(folder: Path) -> Evidence | None:
    """Return the evidence that the study in ``folder`` was begun with; None if it has none.

    Raises:
        DamagedError: ``evidence.json`` is not what was written.
    """
    path = folder / EVIDENCE_FILE
    if not os.path.lexists(path):
        return None
    stored = stored_as(Evidence, stored_object(path), path)
    runs: Sequence[Any] = stored.runs  # plain values until here
    return replace(stored, runs=tuple(stored_as(OldRun, run, path) for run in runs))


def settle_evidence(
    folder: Path, studies: Sequence[str], given: Evidence | None, *, begun: bool
) -> None:
    """Write the evidence of a study before its first trial; later commands keep it as it is.

    Raises:
        ConfigError: the study was begun with other evidence.
    """
    if not begun:
        if given is not None:
            write_sealed(folder / EVIDENCE_FILE, asdict(given))
        else:
            (folder / EVIDENCE_FILE).unlink(missing_ok=True)
        return
    stored = kept_evidence(folder)
    before = [] if stored is None else list(stored.studies)
    if before != list(studies):
        raise ConfigError(
            Problem(
                f"study {folder.name!r}: search.evidence",
                "not what the study was begun with",
                found=list(studies),
                allowed=before,
                do="restore it, or name a new study=",
            )
        )


def write_check(folder: Path, check: Mapping[str, Any]) -> Evidence:
    """Add what the old runs are worth to ``evidence.json``, once; return the evidence."""
    stored = kept_evidence(folder)
    assert stored is not None, "evidence is settled before it is judged"
    if stored.check is not None:
        return stored
    judged = replace(stored, check=dict(check))
    write_sealed(folder / EVIDENCE_FILE, asdict(judged))
    return judged
