"""The config files of a promotion: a group file and an experiment for each run that it freezes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ablations.config.literal import literal
from ablations.files import write_text
from ablations.record.checksums import write_checksums
from ablations.record.identity import run_name
from sweeps.promotion.post_stages import PostStage
from sweeps.promotion.sealed_prediction import digest

__all__ = ["CHAIN", "GROUPS", "fill_conf"]

GROUPS = ("tokenizer", "mixture", "schedule", "model", "training", "evaluation")
"""Config groups of a full run."""

CHAIN = "chain"
"""Experiment that runs the full run and the stages after it, one after the other."""


def fill_conf(
    conf: Path,
    folder: Path,
    record: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any] | None],
    after: Sequence[PostStage],
) -> None:
    """Write config groups and an experiment for each run, and for each stage after the full run.

    Args:
        conf: The promotion's config folder, which is not published yet.
        folder: The promotion's final path.
        record: Content of ``promotion.json``.
        runs: Experiment → plain config of a full run, or None.
        after: Stages of post-training, in order.
    """
    heading = f"# Frozen by the promotion {record['name']}; a change is a new promotion.\n"
    for experiment, values in runs.items():
        if values is not None:
            _write_groups(conf, experiment, values, GROUPS, heading)
            _write_experiment(
                conf, experiment, _experiment(experiment, folder, record, values), heading
            )
    full = runs["promoted"]
    if after and full is not None:
        names = ["promoted"]
        runs_dir = Path(str(full["runs_dir"])) / str(record["name"])
        begin = runs_dir / run_name("full", int(full.get("seed", 0)))
        step = record["stages"][-1]["last_step"]
        for stage in after:
            _write_groups(conf, stage.name, stage.values, (*GROUPS, "method"), heading)
            plain = _stage_experiment(stage, record, f"{begin}/checkpoints/{step}")
            _write_experiment(conf, stage.name, plain, heading)
            begin = runs_dir / run_name(stage.name, stage.config.seed)
            step = stage.config.build_schedule().total_steps
            names.append(stage.name)
        chain = _experiment("promoted", folder, record, full)
        chain["program"] = {"kind": "chain", "experiments": names}
        _write_experiment(conf, CHAIN, chain, heading)
    write_checksums(conf)


def _write_groups(
    conf: Path, name: str, values: Mapping[str, Any], groups: Sequence[str], heading: str
) -> None:
    for group in groups:
        (conf / group).mkdir(exist_ok=True)
        text = yaml.safe_dump(literal(values[group]), sort_keys=False, width=100)
        write_text(conf / group / f"{name}.yaml", heading + text)


def _write_experiment(conf: Path, name: str, plain: Mapping[str, Any], heading: str) -> None:
    text = yaml.safe_dump(literal(plain), sort_keys=False, width=100)
    write_text(conf / "experiment" / f"{name}.yaml", "# @package _global_\n" + heading + text)


def _stage_experiment(stage: PostStage, record: Mapping[str, Any], start: str) -> dict[str, Any]:
    groups = (*GROUPS, "method")
    return {
        "defaults": [
            *({f"override /{group}": stage.name} for group in groups),
            {"override /search": "none"},
        ],
        "study": record["name"],
        "trial": stage.name,
        "seed": stage.config.seed,
        "source": dict(stage.values["source"]),
        "warm_start": {"checkpoint": start},
        "labels": {
            "role": stage.name,
            "promotion": record["name"],
            "from_study": stage.study,
            "candidate": stage.candidate.name,
        },
    }


def _experiment(
    name: str, folder: Path, record: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "defaults": [
            *({f"override /{group}": name} for group in GROUPS),
            {"override /search": "none"},
        ],
        "study": record["name"],
        "trial": values["trial"],
        "seed": values.get("seed", 0),
        "source": dict(values.get("source") or {}),
        "labels": {
            "role": values["trial"],
            "promotion": record["name"],
            "from_study": record["study"],
            "candidate": record["candidate"]["name"],
            # A run records it when it starts, so a prediction that is changed later no longer matches.
            **({"prediction": digest(record["prediction"])} if "prediction" in record else {}),
        },
        "after": {"kind": "comparison", "promotion": str(folder.absolute())},
    }
