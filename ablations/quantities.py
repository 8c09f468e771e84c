"""Quantities as people read them: tokens, bytes, memory, times. The one home of their format.

>>> count(76_800), byte_size(13_100_000), duration(93_600)
('76.8k', '13.1 MB', '26 hours')
"""

from __future__ import annotations

__all__ = ["byte_size", "clock", "count", "device_time", "duration", "memory_size"]

_DAY = 86_400.0
_YEAR = 365 * _DAY


def count(number: float, *, digits: int = 4) -> str:
    """Return a number with a metric suffix and ``digits`` significant digits: ``1.049M``."""
    # Round first: 999,999 is 1M and not 1000k.
    number = float(f"{number:.{digits}g}")
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{_digits(number / size, digits)}{suffix}"
    return _digits(number, digits)


def byte_size(size: float) -> str:
    """Return bytes of a disk in decimal units with three digits: ``13.1 MB``."""
    return _sized(size, 1000.0, ("bytes", "kB", "MB", "GB", "TB", "PB"))


def memory_size(size: float) -> str:
    """Return bytes of a memory in binary units with three digits: ``6.25 GiB``."""
    return _sized(size, 1024.0, ("bytes", "KiB", "MiB", "GiB", "TiB"))


def _sized(size: float, base: float, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        # What would round up to the next unit is written in it.
        if abs(size) < base and float(f"{size:.3g}") < base:
            return f"{_digits(size, 3)} {unit}"
        size /= base
    return f"{_digits(size, 3)} {units[-1]}"


def duration(seconds: float) -> str:
    """Return a time in the unit that a person would use, with three digits: ``2,130 years``."""
    units = ((_YEAR, "years"), (_DAY, "days"), (3600.0, "hours"), (60.0, "minutes"))
    for size, unit in units:
        if seconds >= 2 * size:
            return f"{_digits(seconds / size, 3)} {unit}"
    return f"{_digits(seconds, 3)} seconds"


def device_time(hours: float) -> str:
    """Return the time of one device: ``26,880 device-hours``, below one hour in a smaller unit."""
    if hours >= 1.0:
        return f"{hours:,.0f} device-hours" if hours >= 100 else f"{hours:.3g} device-hours"
    return f"{duration(hours * 3600)} of one device"


def clock(seconds: float) -> str:
    """Return seconds as on a clock: ``1:02:03``, or ``2:03`` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _digits(value: float, digits: int) -> str:
    """Return a number with significant digits and no exponent; one with more digits is whole."""
    if value == 0.0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:.{digits}g}"
