"""Make the plan of an export from a promotion, the record of a run, or a composed config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.config.schema import RunConfig, load, validate
from ablations.errors import ConfigError, Problem, UserError
from ablations.files import read_json
from ablations.record.checksums import require_unchanged
from ablations.record.run_record import RunRecord
from ablations.yaml_files import read_yaml
from sweeps.exporters.export_plan import ExportPlan
from sweeps.nanotron_files.chain import slug

__all__ = ["plan_of", "plan_of_config", "plan_of_promotion", "plan_of_run"]

_GROUPS = ("tokenizer", "mixture", "schedule", "model", "training", "evaluation")
_OWN_KEYS = ("promotion", "run", "format", "out", "tokens", "root")
"""Keys of ``conf/export.yaml`` that do not belong to the run."""


def plan_of(config: Mapping[str, Any]) -> ExportPlan:
    """Return the plan for a composed config of ``ablate export``.

    Raises:
        ConfigError: both a promotion and a run are named, or the one named does not exist.
    """
    promotion, run = config.get("promotion"), config.get("run")
    if promotion is not None and run is not None:
        raise ConfigError(
            Problem("promotion", "name a promotion or a run, not both", found=f"{promotion}, {run}")
        )
    data_dir = str(config.get("data_dir") or "data")
    dirs = tuple(Path(path) for path in config.get("config_dirs", ()))
    if promotion is not None:
        return plan_of_promotion(Path(str(promotion)), data_dir)
    if run is not None:
        return plan_of_run(Path(str(run)), data_dir, dirs)
    return plan_of_config(config, dirs)


def plan_of_promotion(folder: Path, data_dir: str) -> ExportPlan:
    """Return the plan of the full run of a promotion, from the configs frozen in its folder.

    Args:
        folder: The promotion's folder.
        data_dir: Folder of the token stores.

    Raises:
        ConfigError: the folder is not a promotion, or one of its files cannot be read.
    """
    # Imported here, because `--help` and `--cfg` do not need it.
    from sweeps.promotion.specs import FullSpec

    path = folder / "promotion.json"
    if not path.is_file():
        raise ConfigError(Problem("promotion", "not a promotion folder", found=str(folder)))
    try:
        record = read_json(path)
        conf = folder / "conf"
        require_unchanged(conf, "promote again")
        values = {group: read_yaml(conf / group / "promoted.yaml") for group in _GROUPS}
        experiment = read_yaml(conf / "experiment" / "promoted.yaml")
        kept = {key: experiment[key] for key in ("study", "trial", "seed", "source")}
        full = validate(FullSpec, record["full"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise ConfigError(
            Problem(str(folder), "cannot be read", found=error, do="promote again")
        ) from error
    config = load({**values, **kept, "data_dir": data_dir}, [folder / "conf"])
    return ExportPlan(
        name=folder.resolve().name,
        origin={"promotion": str(folder)},
        config=config,
        full=full,
        notes=_notes(config),
    )


def plan_of_run(folder: Path, data_dir: str, config_dirs: tuple[Path, ...] = ()) -> ExportPlan:
    """Return the plan of a run that was recorded in ``folder``.

    Raises:
        ConfigError: the folder contains no record.
    """
    record = RunRecord(folder)
    if not record.exists():
        raise ConfigError(
            Problem("run", "not a run folder", found=str(folder), do="see `ablate ls`")
        )
    # A run adds to its config the stores that it found.
    recorded = {key: value for key, value in record.manifest.config.items() if key != "stores"}
    config = replace(load(recorded, config_dirs), data_dir=data_dir)
    return ExportPlan(
        name=slug(f"{config.study}-{folder.resolve().name}"),
        origin={"run": str(folder)},
        config=config,
        notes=_notes(config),
    )


def plan_of_config(values: Mapping[str, Any], config_dirs: tuple[Path, ...] = ()) -> ExportPlan:
    """Return the plan of a composed config: its mixture and its schedule."""
    config = load({k: v for k, v in values.items() if k not in _OWN_KEYS}, config_dirs)
    return ExportPlan(
        name=slug(config.study),
        origin={"config": config.study},
        config=config,
        notes=_notes(config),
    )


def _notes(config: RunConfig) -> tuple[str, ...]:
    notes = []
    if config.schedule.full_tokens is not None:
        notes.append(
            "The run repeats a slice of each source (schedule.full_tokens, simulated epoching). "
            "The export holds the sources whole, so another trainer repeats them less."
        )
    if config.warm_start.checkpoint is not None:
        notes.append(
            f"The run goes on from a checkpoint ({config.warm_start.checkpoint}); no weights of a "
            "model are exported."
        )
    return tuple(notes)
