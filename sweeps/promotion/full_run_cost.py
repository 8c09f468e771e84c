"""Cost of a full run in FLOPs, device-hours, days and dollars, with every assumption.

    FLOPs          tokens x FLOPs per token (PaLM's count, arXiv 2204.02311, appendix B)
    device-hours   FLOPs / (peak x MFU), and the overhead

>>> from ablations.training.specs import ModelSpec
>>> smollm2 = ModelSpec(vocab_size=49152, hidden_size=2048, intermediate_size=8192,
...                     num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=32)
>>> found = estimate(smollm2, tokens=11e12, sequence_length=2048, price=PriceSpec(), devices=256)
>>> round(found.device_hours, -3), round(found.usd, -4)
(124000.0, 250000.0)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ablations.mixture.schedule import Schedule
from ablations.price import Cost, PriceSpec, cost_of
from ablations.training.specs import ModelSpec

__all__ = ["Estimate", "estimate", "stage_hours"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of a training."""

    flops: float
    """Training FLOPs."""
    device_hours: float
    """Hours of one device, including the overhead."""
    wall_days: float
    """Days on all devices."""
    usd: float
    """Price of the device-hours in dollars."""
    devices: int
    price: PriceSpec
    """Assumptions of the estimate."""

    @property
    def cost(self) -> Cost:
        """Return time and price alone."""
        return Cost(
            device=self.price.device,
            devices=self.devices,
            device_hours=self.device_hours,
            usd=self.usd,
        )

    def plain(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def estimate(
    model: ModelSpec, *, tokens: float, sequence_length: int, price: PriceSpec, devices: int
) -> Estimate:
    """Estimate the cost of training ``model`` on ``tokens`` with ``devices``."""
    flops = model.flops_per_token(sequence_length) * tokens
    cost = cost_of(flops, price, devices)
    return Estimate(
        flops=flops,
        device_hours=cost.device_hours,
        wall_days=cost.seconds / 86400.0,
        usd=cost.usd or 0.0,
        devices=devices,
        price=price,
    )


def stage_hours(total: Estimate, schedule: Schedule) -> dict[str, float]:
    """Return stage → device-hours; a step costs the same in every stage of a run."""
    return {
        stage.name: total.device_hours * stage.steps / schedule.total_steps
        for stage in schedule.stages
    }
