"""OLMo-core: raw token files named .npy, and a source mixture for each stage.

OLMo-core maps token files without a header, which is the format of the stores. A mixture is the
content of ``olmo_core.data.source_mixture.SourceMixtureDatasetConfig``. OLMo-core counts the tokens
of the files, takes each source's share of the requested tokens, and repeats a source if
``max_repetition_ratio`` allows it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from ablations.files import write_text
from sweeps.exporters.export_plan import Export, ExportStage
from sweeps.exporters.tokens import place_file

__all__ = ["usage", "write"]


def write(export: Export, folder: Path) -> None:
    """Write the token files and the stages' mixtures."""
    if export.tokens != "none":
        for source in export.sources.values():
            (folder / "tokens" / source.slug).mkdir()
            for number, file in enumerate(source.files):
                target = folder / "tokens" / source.slug / f"{number:05d}.npy"
                place_file(source, file, target, export.tokens)
    for stage in export.plan.stages:
        text = yaml.safe_dump(_mixture(export, stage), sort_keys=False, width=100)
        write_text(folder / "stages" / f"{stage.stem}.yaml", text)


def _mixture(export: Export, stage: ExportStage) -> dict[str, Any]:
    return {
        "source_list": {"sources": [_source(export, stage, name) for name in stage.weights]},
        "requested_tokens": stage.tokens,
        "global_batch_size": export.plan.schedule.tokens_per_step,
        "seed": export.plan.config.seed,
    }


def _source(export: Export, stage: ExportStage, name: str) -> dict[str, Any]:
    source = export.sources[name]
    files = [f"{number:05d}.npy" for number, _ in enumerate(source.files)] or ["*.npy"]
    epochs = export.epochs(stage, name)
    return {
        "source_name": name,
        "target_ratio": stage.weights[name],
        "paths": [export.path("tokens", source.slug, file) for file in files],
        # The tokens of an unprepared source are an estimate; the source may be smaller.
        "max_repetition_ratio": float(max(1, math.ceil(epochs))) + (source.manifest is None),
    }


def usage(export: Export) -> str:
    """Return instructions for building the dataset of a stage with OLMo-core."""
    first = export.plan.stages[0].stem
    dtype = "uint16" if export.token_bytes == 2 else "uint32"
    return f"""
    config = SourceMixtureDatasetConfig.from_dict(yaml.safe_load(open("stages/{first}.yaml")))
    dataset = NumpyFSLDatasetConfig(
        source_mixture_config=config, tokenizer=…, dtype="{dtype}",
        sequence_length={export.plan.schedule.sequence_length}, work_dir=…,
    ).build()

Say the type of the tokens: OLMo-core derives one from the vocabulary's size otherwise. Every document
ends with token {export.eos_id}. An instance lies within one file, and each file's tail is not read. Each
stage is a training of its own that starts from the checkpoint before. The learning rate is yours to set;
`export.json` holds it.
"""
