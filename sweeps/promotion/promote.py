"""Promotion: the recorded act of freezing a schedule that passed its gates into a full run.

promotions/<study>-<full>-001/        written completely or not at all, never changed; the next is -002
    card.md                           for people
    promotion.json                    the same for programs: schedule, evidence, prediction, provenance
    conf/                             ablate run --config-dir …/conf experiment=promoted; with checksums
    nanotron/1_….yaml 2_….yaml        the chain for nanotron's main branch
    launch/                           torchrun and Slurm scripts
    trl/, handbook/                   stages after the full run, for TRL's scripts and alignment-handbook's
    evidence/verdict.json             copy of the verdict
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablations.config.schema import RunConfig, dump, load, validate
from ablations.errors import ConfigError, Problem
from ablations.files import sync_folder, write_sealed, write_text
from ablations.record.identity import folder_problem
from ablations.record.run_record import RunRecord
from ablations.temporary import making_folder
from sweeps.nanotron_files.document import text_of
from sweeps.nanotron_files.sections import NanotronFile
from sweeps.promotion.by_method import require_text
from sweeps.promotion.decision_card import card, watch_list
from sweeps.promotion.frozen_conf import GROUPS, fill_conf
from sweeps.promotion.full_run import chain_files, chain_run, stage_launches
from sweeps.promotion.full_run_cost import estimate, stage_hours
from sweeps.promotion.full_schedule import freeze
from sweeps.promotion.gates import GateResult, judge_gates, require_open
from sweeps.promotion.launch import scripts
from sweeps.promotion.post_stages import PostStage, read_post_stages
from sweeps.promotion.prediction import predict
from sweeps.promotion.promotion_inputs import Evidence, choose, gather, picked_runs
from sweeps.promotion.same_promotion import same_promotion
from sweeps.promotion.sealed_prediction import Prediction
from sweeps.promotion.specs import PromotionSpec
from sweeps.promotion.trl_files import write_stage_files
from sweeps.repeats.study_runs import with_law
from sweeps.verdict.verdict_record import VERDICT_FILE, CandidateRow, read_verdict

__all__ = ["FORMAT", "Promoted", "promote"]

FORMAT = 1
"""Version of promotion.json."""

_MOST_PROMOTIONS = 999


@dataclass(frozen=True)
class Promoted:
    """A promotion on disk."""

    folder: Path
    record: Mapping[str, Any]
    """The content of ``promotion.json``."""
    gates: tuple[GateResult, ...]
    stood: bool = False
    """True if the same promotion existed already, so that nothing was written."""


def promote(plain: Mapping[str, Any], config_dirs: tuple[Path, ...] = ()) -> Promoted:
    """Promote the winner of a study, or return the same promotion if it exists already.

    Args:
        plain: A composed config: ``study``, ``runs_dir``, ``promotion`` and the full run's groups
            (its ``schedule`` and ``mixture`` are taken from the study instead).
        config_dirs: Config folders searched for sources.

    Raises:
        UserError: The verdict or a finished run is missing, or gates stop the promotion (all are listed).
    """
    spec = validate(PromotionSpec, plain["promotion"])
    study, runs_dir = str(plain["study"]), Path(plain["runs_dir"])
    _require_names(study, spec)
    verdict = read_verdict(runs_dir / study)
    candidate = choose(verdict, spec.pick)
    runs = picked_runs(runs_dir, study, candidate)
    require_text(study, runs[0].manifest.config)
    values = _full_values(plain, spec, runs[0])
    config = load(values, config_dirs)
    evidence = gather(spec, config, study=study, verdict=verdict, candidate=candidate)
    gates = judge_gates(evidence, spec.limits, spec.override)
    require_open(gates)
    baseline = _baseline(plain, spec, evidence, config_dirs)
    after = read_post_stages(spec.after, plain, config, config_dirs)
    return _write(spec, _frozen(values, config), baseline, evidence, gates, after)


def _frozen(values: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return ``values`` with every default written out, so that later defaults change nothing."""
    whole = dump(config)
    return {**values, **{key: whole[key] for key in (*GROUPS, "source")}}


def _require_names(study: str, spec: PromotionSpec) -> None:
    """Refuse names that are not valid folder names: they are used for folders, jobs and commands."""
    whole = f"{_stem(study, spec)}-{_MOST_PROMOTIONS}"
    named = (("study", study), ("promotion.full.name", spec.full.name), ("promotion", whole))
    problems = [problem for where, name in named if (problem := folder_problem(where, name))]
    if problems:
        raise ConfigError(problems)


def _stem(study: str, spec: PromotionSpec) -> str:
    return f"{study}-{spec.full.name}"


@dataclass(frozen=True, kw_only=True)
class _Baseline:
    """The same full run on the baseline's mixture, which the prediction compares with."""

    row: CandidateRow
    values: Mapping[str, Any]
    """Its plain config."""
    prediction: Prediction


def _baseline(
    plain: Mapping[str, Any],
    spec: PromotionSpec,
    evidence: Evidence,
    config_dirs: tuple[Path, ...],
) -> _Baseline | None:
    """Freeze the baseline's full run and predict the difference; None if the pick is the baseline."""
    rows = {row.name: row for row in evidence.verdict.candidates}
    row = rows.get(evidence.verdict.baseline or "")
    if row is None or row.name == evidence.candidate.name:
        return None
    runs = picked_runs(Path(evidence.config.runs_dir), evidence.study, row)
    values = {**_full_values(plain, spec, runs[0]), "trial": "baseline"}
    return _Baseline(
        row=row,
        values=_frozen(values, load(values, config_dirs)),
        prediction=predict(evidence, spec.full, row, runs),
    )


def _full_values(plain: Mapping[str, Any], spec: PromotionSpec, run: RunRecord) -> dict[str, Any]:
    """Return the full run's plain config: the target's groups with the study's schedule."""
    proxy = run.manifest.config
    score = (plain.get("evaluation") or {}).get("score") or {}
    terms = (score.get("terms") or {}).values()
    schedule = freeze(proxy, spec.full, [term["metrics"] for term in terms])
    first = next(iter(schedule["stages"].values()))
    mixture = {**proxy["mixture"], "weights": first["weights"], "normalize": False}
    mixture = with_law(mixture, run.path.parent)
    dropped = ("promotion", "search", "labels", "experiment", "warm_start")
    kept = {key: value for key, value in plain.items() if key not in dropped}
    return {**kept, "schedule": schedule, "mixture": mixture, "trial": "full"}


def _write(
    spec: PromotionSpec,
    values: Mapping[str, Any],
    baseline: _Baseline | None,
    evidence: Evidence,
    gates: tuple[GateResult, ...],
    after: tuple[PostStage, ...],
) -> Promoted:
    parent = Path(spec.out)
    parent.mkdir(parents=True, exist_ok=True)
    stem = _stem(evidence.study, spec)

    def build(building: Path, folder: Path, made: Mapping[str, Any]) -> dict[str, Any]:
        record = _record(folder.name, spec, evidence, gates)
        record["provenance"] |= made
        if baseline is not None:
            record["baseline"] = {"name": baseline.row.name, "trial": baseline.row.trial}
            record["prediction"] = baseline.prediction.plain()
        if after:
            record["after"] = [stage.plain() for stage in after]
        _fill(building, record, spec, evidence)
        write_stage_files(building, record, after, spec.full.cluster)
        other = None if baseline is None else baseline.values
        fill_conf(building / "conf", folder, record, {"promoted": values, "baseline": other}, after)
        return record

    last = parent / stem
    # If another process takes the number between the check and the rename, take the next one.
    for number in range(1, _MOST_PROMOTIONS + 1):
        folder = parent / f"{stem}-{number:03d}"
        if folder.exists():
            last = folder
            continue
        if (record := same_promotion(parent / stem, last, build)) is not None:
            return Promoted(folder=last, record=record, gates=gates, stood=True)
        with making_folder(parent / stem) as building:
            try:
                record = build(building, folder, {})
                building.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
                last = folder
                continue
        sync_folder(parent)
        return Promoted(folder=folder, record=record, gates=gates)
    full = f"contains {_MOST_PROMOTIONS} promotions of {stem} already"
    raise ConfigError(Problem(str(parent), full, do="change promotion.out"))


def _record(
    name: str, spec: PromotionSpec, evidence: Evidence, gates: tuple[GateResult, ...]
) -> dict[str, Any]:
    config = evidence.config
    schedule = config.build_schedule()
    rate = config.build_learning_rate(schedule)
    run = chain_run(config, spec.full, name, spec.nanotron)
    cost = estimate(
        config.model,
        tokens=schedule.total_tokens,
        sequence_length=schedule.sequence_length,
        price=spec.full.price,
        devices=spec.full.cluster.gpus,
    )
    record: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "study": evidence.study,
        "candidate": {
            "name": evidence.candidate.name,
            "trial": evidence.candidate.trial,
            "weights": dict(evidence.candidate.weights),
        },
        "full": dump(spec.full),
        "parameters": config.model.parameters,
        "tokens_per_step": schedule.tokens_per_step,
        "schedule": dump(config.schedule),
        "stages": _stages(config),
        "sources": _sources(config, gates),
        "epoch_cap": config.mixture.epoch_cap,
        "learning_rate": asdict(rate),
        "chain": _links(chain_files(run)),
        "gates": [gate.plain() for gate in gates],
        "cost": cost.plain(),
        "stage_hours": stage_hours(cost, schedule),
        "verdict": _verdict(evidence),
        "provenance": _provenance(spec, evidence),
    }
    record["watch"] = watch_list(record)
    return record


def _stages(config: RunConfig) -> list[dict[str, Any]]:
    schedule = config.build_schedule()
    return [
        {
            "name": stage.name,
            "first_step": schedule.first_step(index) + 1,
            "last_step": schedule.first_step(index + 1),
            "tokens": stage.steps * schedule.tokens_per_step,
            "weights": {n: w for n, w in stage.mixture.items() if w > 0.0},
        }
        for index, stage in enumerate(schedule.stages)
    ]


def _sources(config: RunConfig, gates: tuple[GateResult, ...]) -> dict[str, Any]:
    caps = next(gate for gate in gates if gate.name == "epoch_caps")
    read = config.build_schedule().tokens()
    return {
        name: {"tokens": tokens, "epochs": caps.evidence["epochs"].get(name)}
        for name, tokens in read.items()
    }


def _links(files: Mapping[str, NanotronFile]) -> list[dict[str, Any]]:
    return [
        {
            "file": name,
            "first_step": file.data_stages[-1].start_training_step,
            "last_step": file.tokens.train_steps,
            "resume": file.checkpoints.resume_checkpoint_path,
        }
        for name, file in files.items()
    ]


def _verdict(evidence: Evidence) -> dict[str, Any]:
    """Return the main fields of the verdict; ``evidence/`` contains all of it."""
    verdict = evidence.verdict
    tasks = [
        {
            "task": row.task,
            "metric": row.metric,
            "reference": row.reference,
            "pick": row.pick,
            "effect": row.effect,
        }
        for row in verdict.tasks
    ]
    return {
        "outcome": verdict.outcome,
        "sentence": verdict.sentence,
        "pick": verdict.pick,
        "baseline": verdict.baseline,
        "direction": verdict.direction,
        "caveats": list(verdict.caveats),
        "tasks": tasks,
        **({"pictures": [asdict(row) for row in verdict.pictures]} if verdict.pictures else {}),
    }


def _provenance(spec: PromotionSpec, evidence: Evidence) -> dict[str, Any]:
    manifests = [run.manifest for run in evidence.runs]
    return {
        "by": spec.by or _user(),
        "host": socket.gethostname(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": list(sys.argv),
        "git_commit": manifests[0].git_commit,
        "versions": dict(manifests[0].versions),
        "runs": [
            {"name": run.name, "fingerprint": manifest.fingerprint, "seed": manifest.seed}
            for run, manifest in zip(evidence.runs, manifests, strict=True)
        ],
        "counted_runs": list(evidence.verdict.runs),
        "runs_dir": str(Path(evidence.config.runs_dir).absolute()),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no account behind the user id, as in some containers
        return f"uid {os.getuid()}"


def _fill(
    folder: Path,
    record: Mapping[str, Any],
    spec: PromotionSpec,
    evidence: Evidence,
) -> None:
    """Write card, record, chain, scripts and evidence into ``folder``, which is not published yet."""
    for name in ("conf/experiment", "nanotron", "launch", "evidence"):
        (folder / name).mkdir(parents=True)
    write_text(folder / "card.md", card(record))
    write_sealed(folder / "promotion.json", record)
    run = chain_run(evidence.config, spec.full, str(record["name"]), spec.nanotron)
    for number, (name, file) in enumerate(chain_files(run).items(), start=1):
        heading = (
            f"{record['name']}: file {number} of {len(run.schedule.stages)}, for nanotron's branch "
            f"{run.nanotron}.\nIt trains the last stage listed; the earlier ones list what was read before."
        )
        write_text(folder / "nanotron" / name, text_of(file, heading, branch=run.nanotron))
    for name, text in scripts(run.name, stage_launches(run), spec.full.cluster).items():
        write_text(folder / "launch" / name, text)
        (folder / "launch" / name).chmod(0o755)
    study = Path(evidence.config.runs_dir) / evidence.study
    shutil.copyfile(study / VERDICT_FILE, folder / "evidence" / VERDICT_FILE)
