"""Price of training: a device's peak, how much of it a training uses, and dollars for an hour of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from ablations.ranges import Interval

__all__ = ["Cost", "PriceSpec", "cost_of"]

_FORBID: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class PriceSpec:
    """Assumptions of the estimate of time and cost."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _FORBID

    device: str = "H100 SXM, bfloat16"
    """Device that the figures below describe."""
    peak_tflops: Annotated[float, Interval(gt=0)] = 989.0
    """Dense peak of one device in 1e12 FLOP/s (NVIDIA's data sheet for the H100 SXM in bfloat16)."""
    mfu: Annotated[float, Interval(gt=0)] = 0.30
    """Model FLOP utilisation: assumed. Published runs of this size report 0.25 to 0.45."""
    usd_per_device_hour: Annotated[float, Interval(ge=0)] = 2.0
    """Price of one device-hour in dollars: assumed."""
    overhead: Annotated[float, Interval(ge=0)] = 0.05
    """Share of time added for restarts, checkpoints and evaluation: assumed."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Time and price of a training on devices."""

    device: str
    """Name of one device."""
    devices: int
    """Number of devices."""
    device_hours: float
    """Hours of one device; of all devices together the time is shorter by their number."""
    usd: float | None
    """Price in dollars; None for the cores of this machine, which have no price."""

    @property
    def seconds(self) -> float:
        """Return the time on all devices."""
        return self.device_hours * 3600.0 / self.devices


def cost_of(flops: float, price: PriceSpec, devices: int) -> Cost:
    """Return time and price of ``flops`` on ``devices``, the overhead included.

    >>> cost_of(989e12 * 0.4 * 3600, PriceSpec(mfu=0.4, overhead=0.0), 8).usd
    2.0
    """
    hours = flops / (price.peak_tflops * 1e12 * price.mfu) * (1.0 + price.overhead) / 3600.0
    return Cost(
        device=price.device,
        devices=devices,
        device_hours=hours,
        usd=hours * price.usd_per_device_hour,
    )
