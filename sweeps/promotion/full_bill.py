"""Bill of a full run before any study exists, for ``ablate plan full=…``. Nothing is written.

The schedule is the one that a promotion would freeze, with the mixture of the config in place of the one
that a study has yet to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ablations.config.schema import RunConfig, validate
from ablations.errors import ConfigError, Problem
from ablations.mixture.schedule import Schedule
from ablations.quantities import count, duration
from ablations.terminal import table_console
from sweeps.promotion.full_run_cost import Estimate, estimate, stage_hours
from sweeps.promotion.full_schedule import freeze
from sweeps.promotion.specs import FullSpec, PromotionSpec

__all__ = ["bill_of", "full_config", "print_bill"]


def full_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], FullSpec]:
    """Return the full run's config, its mixture that of ``config``, and where it is trained.

    Args:
        config: A composed config with the groups of a full run.

    Raises:
        ConfigError: it describes no full run, or one that breaks a rule.
    """
    found = config.get("promotion")
    if not isinstance(found, Mapping) or "full" not in found:
        raise ConfigError(
            Problem("promotion.full", "the config describes no full run", do="name one: full=…")
        )
    full = validate(PromotionSpec, found).full
    kept = {key: value for key, value in config.items() if key not in ("promotion", "compare")}
    return {**kept, "schedule": freeze(config, full)}, full


def bill_of(run: RunConfig, full: FullSpec) -> Estimate:
    """Return the cost of a full run on its cluster."""
    schedule = run.build_schedule()
    return estimate(
        run.model,
        tokens=schedule.total_tokens,
        sequence_length=schedule.sequence_length,
        price=full.price,
        devices=full.cluster.gpus,
    )


def print_bill(run: RunConfig, full: FullSpec, console: Console | None = None) -> None:
    """Print what the full run costs, stage by stage, with its assumptions."""
    out = console or table_console()
    out.print(_stages(bill_of(run, full), run.build_schedule(), full))


def _stages(bill: Estimate, schedule: Schedule, full: FullSpec) -> Table:
    price = bill.price
    table = Table(title=f"bill of {full.name}", title_justify="left")
    table.add_column("stage")
    for heading in ("tokens", "device-hours", "time", "dollars"):
        table.add_column(heading, justify="right")
    hours = stage_hours(bill, schedule)
    for stage in schedule.stages:
        table.add_row(
            *_row(stage.name, stage.steps * schedule.tokens_per_step, hours[stage.name], bill)
        )
    table.add_row(*_row("all", schedule.total_tokens, bill.device_hours, bill), style="bold")
    table.caption = (
        f"{bill.flops:.3g} FLOPs on {bill.devices} × {price.device}; assumed: {price.peak_tflops:g} TFLOP/s "
        f"at {price.mfu:.0%}, {price.overhead:.0%} overhead, {price.usd_per_device_hour:g} dollars per "
        "device-hour (promotion.full.price.*). The mixture is that of this config: a study replaces it."
    )
    table.caption_justify = "left"
    return table


def _row(name: str, tokens: float, hours: float, bill: Estimate) -> tuple[str, ...]:
    usd = hours * bill.price.usd_per_device_hour
    return (
        name,
        count(tokens),
        f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}",
        duration(hours * 3600.0 / bill.devices),
        f"{usd:,.2f}",
    )
