"""nanotron: the chain of files for main or for the branch smollm3, and their token folders.

The files are those that a promotion writes (``sweeps.nanotron_files.chain``). If tokens are exported,
the files name the token folders of the export. nanotron reads datatrove's token files, which is the
format of the stores.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from ablations.data.manifest import TRAIN
from ablations.files import write_text
from ablations.precision import on_gpus
from sweeps.exporters.export_plan import Export
from sweeps.exporters.tokens import place_file, place_index, store_file
from sweeps.nanotron_files.chain import ChainRun, chain
from sweeps.nanotron_files.document import text_of
from sweeps.nanotron_files.run_sections import Parallelism

__all__ = ["usage", "write"]


def write(export: Export, folder: Path) -> None:
    """Write one file for each stage, and the token folders."""
    if export.tokens != "none":
        for source in export.sources.values():
            target = folder / "tokens" / source.slug
            target.mkdir()
            for file in source.files:
                place_file(source, file, target / file.name, export.tokens)
                place_index(source, file, target / f"{file.name}.index")
                metadata = store_file(source, file).with_name(f"{file.name}.metadata")
                if metadata.is_file():
                    (target / metadata.name).write_bytes(metadata.read_bytes())
    run = replace(_run(export), nanotron="smollm3" if export.format == "smollm3" else "main")
    for stage, link in zip(export.plan.stages, chain(run), strict=True):
        place = f"file {stage.number} of {len(export.plan.stages)}"
        heading = f"{run.name}: {place}, for nanotron's {run.nanotron}."
        write_text(
            folder / "stages" / f"{stage.stem}.yaml", text_of(link, heading, branch=run.nanotron)
        )


def _run(export: Export) -> ChainRun:
    plan = export.plan
    config = plan.config
    if plan.full is not None:
        from sweeps.promotion.full_run import chain_run

        run = chain_run(config, plan.full, plan.name)
    else:
        run = _run_of_config(export)
    if export.tokens == "none" and not export.root_given:
        return run  # with the folders of the promotion's cluster or of the stores
    return replace(
        run,
        folders={n: export.path("tokens", source.slug) for n, source in export.sources.items()}
        | {n: path for n, path in run.folders.items() if n not in export.sources},
    )


def _run_of_config(export: Export) -> ChainRun:
    """Return the chain of a run that was not promoted, with the ranks and stores of its config."""
    plan = export.plan
    config, schedule = plan.config, plan.schedule
    execution = config.execution
    micro = execution.micro_batch_size or schedule.batch_size // execution.dp
    return ChainRun(
        project="ablations",
        name=plan.name,
        seed=config.seed,
        model=config.model,
        training=on_gpus(config.training),
        schedule=schedule,
        learning_rate=plan.learning_rate,
        tokenizer=str((Path(config.data_dir) / "tokenizers" / config.tokenizer.name).absolute()),
        folders={
            name: str(config.store_folder(name).absolute() / TRAIN) for name in schedule.sources
        },
        parallelism=Parallelism(
            dp=execution.dp, tp=execution.tp, pp=execution.pp, pp_engine=execution.pp_engine
        ),
        micro_batch_size=micro,
        zero_stage=execution.zero_stage,
    )


def usage(export: Export) -> str:
    """Return instructions for starting nanotron with the files."""
    first = export.plan.stages[0].stem
    return f"""
One file a stage; each starts from the last checkpoint of the one before:

    torchrun … run_train.py --config-file {shlex.quote(export.path("stages", f"{first}.yaml"))}

The learning rate, the model and the optimiser are in the files. docs/promotion.md
describes what nanotron's main branch expects of a chain.
"""
