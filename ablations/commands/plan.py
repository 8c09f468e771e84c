"""``ablate plan``: the cost of a run, and the rules that it would break. Touches nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ablations.commands.plan_prepare import preparation
from ablations.config.options import CarryOut, PrepareOptions
from ablations.config.program_names import program_module
from ablations.config.schema import RunConfig, carry_out, load
from ablations.documents import Answer
from ablations.errors import ConfigError
from ablations.files import free_bytes
from ablations.mixture.repeats import PUBLISHED
from ablations.mixture.schedule import decay_words
from ablations.plan import Plan, PlannedMemory, make_plan
from ablations.price import Cost
from ablations.quantities import byte_size, count, device_time, duration, memory_size
from ablations.terminal import table_console

__all__ = ["answer", "check_search", "main", "show"]


def main(config: Mapping[str, Any]) -> int:
    """Print the plan; exit 2 with every problem where the run would be refused.

    With ``full=…`` it is the plan of that full run, and its bill.
    """
    config, full = _full(config)
    run, plan, options = _planned(config)
    show(run, plan, prepare=options.prepare)
    if full is not None:
        _bills().print_bill(run, full)
    if program := config.get("program"):
        program_module(program).show_plan(config, run)
    plan.require()
    return 0


def answer(config: Mapping[str, Any]) -> Answer:
    """Return the plan for a program, with every rule that the run would break."""
    from ablations.commands.plan_document import plan_result

    config, full = _full(config)
    run, plan, _ = _planned(config)
    bill = None if full is None else _bills().bill_of(run, full).cost
    error = ConfigError(plan.problems) if plan.problems else None
    code = 0 if error is None else error.exit_code
    return Answer(result=plan_result(run, plan, bill), error=error, exit_code=code)


def _planned(config: Mapping[str, Any]) -> tuple[RunConfig, Plan, CarryOut]:
    """Return the run of a composed config, its plan, and how it is carried out."""
    run = load(config, config.get("config_dirs", ()))
    options = carry_out(config)
    check_search(config)
    return run, make_plan(run, mirror=options.prepare.mirror, price=options.price), options


def _full(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Return the config of the full run that ``full=…`` names, and where it is trained; else None."""
    return _bills().full_config(config) if "promotion" in config else (config, None)


def _bills() -> Any:
    # Named, not imported: this package stays below the one that promotes.
    return importlib.import_module("sweeps.promotion.full_bill")


def check_search(config: Mapping[str, Any]) -> None:
    """Check the search that stands beside a single run: the same config with -m would begin it.

    Raises:
        ConfigError: the search could not be asked so.
    """
    # Named, not imported: this package stays below the one that searches.
    importlib.import_module("sweeps.study.preflight").check_search(config)


def show(
    run: RunConfig,
    plan: Plan,
    console: Console | None = None,
    prepare: PrepareOptions | None = None,
) -> None:
    """Print ``plan`` as tables.

    Args:
        run: The run.
        plan: Its plan.
        console: Where to; None = standard output.
        prepare: Options of the preparation; None = the defaults.
    """
    out = console or table_console()
    out.print(_stages(plan, counted_in(run)))
    out.print(_sources(run, plan))
    if plan.to_prepare:
        # Imported here: the plan of prepared sources reads no text.
        from ablations.data.expected import whole_stores

        stores = whole_stores(run.source, plan.to_prepare)
        out.print(preparation(stores, prepare or PrepareOptions(), Path(run.data_dir)))
    out.print(_totals(run, plan))


def counted_in(run: RunConfig) -> str:
    """Return what the schedule of a run counts."""
    return {"sft": "conversations", "dpo": "pairs", "vlm": "rows"}.get(run.method.kind, "tokens")


def _stages(plan: Plan, counted: str) -> Table:
    table = Table(title=f"{counted} per stage", title_justify="left")
    table.add_column("source", no_wrap=True)
    for stage in plan.schedule.stages:
        tokens = stage.steps * plan.schedule.tokens_per_step
        first = plan.schedule.first_step(plan.schedule.stages.index(stage)) + 1
        table.add_column(
            f"{stage.name}\n{count(tokens)} {counted}\nsteps {first:,} to {first + stage.steps - 1:,}",
            justify="right",
        )
    table.add_column("all stages", justify="right")
    total = plan.schedule.tokens()
    for name in plan.schedule.sources:
        shares = [stage.mixture.get(name, 0.0) for stage in plan.schedule.stages]
        cells = [
            f"{share:.2%} {count(share * stage.steps * plan.schedule.tokens_per_step)}"
            if share
            else "–"
            for share, stage in zip(shares, plan.schedule.stages, strict=True)
        ]
        table.add_row(name, *cells, count(total[name]))
    return table


def _sources(run: RunConfig, plan: Plan) -> Table:
    cap = run.mixture.most_epochs
    table = Table(title=f"epochs per source (cap {cap:.3g})", title_justify="left")
    headings = ("source", "domain", f"{counted_in(run)} available", "prepared", "worth", "epochs")
    for heading in headings:
        left = heading in ("source", "domain")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for name in plan.schedule.sources:
        over = plan.epochs[name] > cap
        exempt = name in run.mixture.epoch_cap_exempt
        remark = "  over the cap" + (", exempt" if exempt else "") if over else ""
        table.add_row(
            name,
            run.source[name].domain,
            count(plan.available_tokens[name]),
            "yes" if plan.prepared[name] else "no",
            count(plan.effective_tokens[name]) if name in plan.effective_tokens else "–",
            f"{plan.epochs[name]:.3f}{remark}",
            style=("yellow" if exempt else "red") if over else None,
        )
    return table


def _totals(run: RunConfig, plan: Plan) -> Table:
    table = Table(show_header=False, title="the run", title_justify="left")
    schedule = plan.schedule
    rate = plan.learning_rate
    each = f" ({schedule.batch_size} × {schedule.sequence_length})"
    rows = {
        counted_in(run): f"{count(schedule.total_tokens)} in {schedule.total_steps:,} steps of "
        f"{count(schedule.tokens_per_step)}{'' if run.method.of_rows else each}",
        "learning rate": f"peak {rate.peak:g}, warm-up {rate.warmup_steps:,} steps, "
        f"{rate.shape} decay {decay_words(**asdict(rate))}",
        "parameters": f"{count(plan.parameters)}, {count(plan.embedding_parameters)} of them embedding",
        **_vision(plan),
        "training FLOPs": f"{plan.flops:.3g}",
        "time, estimated": "; ".join(f"{duration(s)} on {d}" for d, s in plan.seconds.items()),
        "cost, as configured": _cost(plan.cost),
        "checkpoints": f"{len(plan.checkpoint_steps)}, the last at step {plan.checkpoint_steps[-1]:,}",
        "disk": f"{byte_size(plan.disk_bytes)} at most; "
        f"{byte_size(free_bytes(Path(run.runs_dir)))} free here",
        "tasks": ", ".join([*plan.tasks, *_heldout(run)]) or "none",
    }
    for name, why in run.mixture.epoch_cap_exempt.items():
        if plan.epochs.get(name, 0.0) > run.mixture.most_epochs:
            rows[f"exempt: {name}"] = f"{plan.epochs[name]:.2f} epochs; {why}"
    rows |= _repeats(run, plan)
    if plan.slices is not None and run.schedule.full_tokens is not None:
        rows["simulated epoching"] = (
            f"epochs of a full run of {count(run.schedule.full_tokens)} tokens"
        )
    rows |= {f"memory, {device}": _memory(planned) for device, planned in plan.memory.items()}
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def _vision(plan: Plan) -> dict[str, str]:
    """Return what a vision part adds to a model; nothing for a language model."""
    if plan.vision is None:
        return {}
    spec = plan.vision.vision
    return {
        "vision part": f"{count(plan.vision.parameters)} of the parameters; a picture of "
        f"{spec.image_size} × {spec.image_size} becomes {spec.block_tokens} tokens"
    }


def _repeats(run: RunConfig, plan: Plan) -> dict[str, str]:
    """Return when sources run out and what their repeats cost; nothing if each is read at most once."""
    law = run.mixture.repeats or PUBLISHED
    rows = {}
    read = plan.schedule.tokens()
    for name, step in plan.runs_out.items():
        lost = read[name] - plan.effective_tokens[name]
        rows[f"runs out: {name}"] = (
            f"after step {step:,}; {count(read[name])} tokens are worth "
            f"{count(plan.effective_tokens[name])}, {count(lost)} are lost; the last epoch is worth "
            f"{law.value(plan.epochs[name]):.2f} of a fresh one"
        )
    if rows:
        interval = "" if law is PUBLISHED else f" (90%: {law.low:.3g} to {law.high:.3g})"
        rows["law of repeats"] = f"R* {law.constant:.3g}{interval}, of {law.study}"
    return rows


def _cost(cost: Cost) -> str:
    """Return time, device-hours and dollars of the training on the configured devices."""
    on = f"{cost.devices} × {cost.device}" if cost.usd is not None else cost.device
    words = f"{duration(cost.seconds)} on {on}, training alone"
    if cost.usd is None:
        return words
    return f"{words}: {device_time(cost.device_hours)}, {cost.usd:,.2f} dollars (price.*)"


def _memory(planned: PlannedMemory | str) -> str:
    """Return a rank's memory on a GPU, part by part."""
    if isinstance(planned, str):
        return planned
    bill, cut = planned.memory, planned.cut
    parts = ("weights", "gradients", "optimizer", "activations", "loss")
    split = ", ".join(f"{name} {memory_size(getattr(bill, name))}" for name in parts)
    return (
        f"{memory_size(bill.total)} a rank at micro-batches of {cut.micro_batch_size} × "
        f"{cut.micro_batches} ({split})"
    )


def _heldout(run: RunConfig) -> list[str]:
    if not run.evaluation.heldout:
        return []
    kind = {"sft": "answers", "dpo": "pairs", "vlm": "answers and text"}.get(
        run.method.kind, "text"
    )
    guards = run.evaluation.guards
    held = [f"held-out {kind} of every source"]
    return [*held, f"held-out text of {', '.join(guards)}"] if guards else held
