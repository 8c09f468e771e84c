"""Chain of nanotron files for the full run of a promotion.

A :class:`RunConfig` describes what is trained, a :class:`FullSpec` on which cluster.
"""

from __future__ import annotations

from ablations.config.schema import RunConfig
from ablations.precision import on_gpus
from sweeps.nanotron_files.chain import ChainRun, chain, checkpoint_folder, slug
from sweeps.nanotron_files.recorded_schema import Branch
from sweeps.nanotron_files.run_sections import Parallelism
from sweeps.nanotron_files.sections import NanotronFile
from sweeps.promotion.launch import StageLaunch
from sweeps.promotion.specs import FullSpec

__all__ = ["chain_files", "chain_run", "stage_launches"]


def chain_run(config: RunConfig, full: FullSpec, name: str, nanotron: Branch = "main") -> ChainRun:
    """Return the values of the files for ``config`` on the cluster of ``full``."""
    schedule, cluster = config.build_schedule(), full.cluster
    warm = config.warm_start
    return ChainRun(
        project="ablations",
        name=name,
        seed=config.seed,
        model=config.model,
        training=on_gpus(config.training),
        schedule=schedule,
        learning_rate=config.build_learning_rate(schedule),
        tokenizer=full.tokenizer,
        folders={
            source: cluster.folders.format(
                tokenizer=config.tokenizer.name, source=config.store_name(source)
            )
            for source in schedule.sources
        },
        parallelism=Parallelism(
            dp=cluster.dp,
            tp=cluster.tp,
            pp=cluster.pp,
            pp_engine="1f1b",
            tp_mode="REDUCE_SCATTER" if cluster.tp > 1 else "ALL_REDUCE",
            tp_linear_async_communication=cluster.tp > 1,
        ),
        micro_batch_size=cluster.micro_batch_size,
        zero_stage=cluster.zero_stage,
        checkpoints_path=f"{cluster.checkpoints}/{name}",
        checkpoint_interval_steps=cluster.checkpoint_interval_steps,
        resume_from=warm.checkpoint,
        load_optimizer=warm.load_optimizer,
        nanotron=nanotron,
    )


def chain_files(run: ChainRun) -> dict[str, NanotronFile]:
    """Return file name → file, in the order of training."""
    return {
        f"{number}_{slug(stage.name)}.yaml": file
        for number, (stage, file) in enumerate(
            zip(run.schedule.stages, chain(run), strict=True), start=1
        )
    }


def stage_launches(run: ChainRun) -> list[StageLaunch]:
    """Return the values of each stage for the launch scripts."""
    return [
        StageLaunch(
            file=f"{number + 1}_{slug(stage.name)}.yaml",
            checkpoints=checkpoint_folder(run, number),
            last_step=run.schedule.first_step(number + 1),
        )
        for number, stage in enumerate(run.schedule.stages)
    ]
