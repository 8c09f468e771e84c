"""Words and rows that describe a promoted schedule, for every card of a promotion.

The decision card goes to the team that decides, the model card goes with the weights. Both show the same
schedule, so both take it from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ablations.markdown import escaped
from ablations.mixture.schedule import decay_words
from ablations.quantities import count

__all__ = ["cost_words", "hours_words", "learning_rate_sentence", "schedule_rows"]


def schedule_rows(
    record: Mapping[str, Any],
    *,
    about: Sequence[str] = (),
    describe: Callable[[str], Sequence[str]] = lambda _: (),
) -> Iterator[str]:
    """Yield a Markdown table: each source's share of every stage, its tokens and its epochs.

    Args:
        record: Content of ``promotion.json``.
        about: Headings of further columns after the source.
        describe: Source → the cells of those columns, as plain text.
    """
    stages = record["stages"]
    heads = ["source", *about, *(stage["name"] for stage in stages), "tokens", "epochs"]
    yield _row(heads)
    yield "|---" * (1 + len(about)) + "|" + "--:|" * (len(stages) + 2)
    for source, row in record["sources"].items():
        shares = [stage["weights"].get(source, 0.0) for stage in stages]
        epochs = "unknown" if row["epochs"] is None else f"{row['epochs']:.2f}"
        cells = [f"{share:.2%}" if share else "–" for share in shares]
        tokens = count(round(row["tokens"]), digits=3)
        yield _row([source, *describe(source), *cells, tokens, epochs])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(str(cell)) for cell in cells)} |"


def learning_rate_sentence(record: Mapping[str, Any]) -> str:
    """Return the learning rate over the full run and the size of a step, in sentences."""
    rate = record["learning_rate"]
    return (
        f"Learning rate {rate['peak']:g}: {rate['warmup_steps']:,} steps of warm-up, "
        f"{rate['shape']} decay to {rate['peak'] * rate['min_ratio']:g} "
        f"{decay_words(**rate)} of {rate['total_steps']:,} steps. A step is "
        f"{record['tokens_per_step']:,} tokens."
    )


def cost_words(cost: Mapping[str, Any]) -> str:
    """Return the estimated cost of a full run: hours of one device, and dollars if these have a price."""
    text = f"{hours_words(cost['device_hours'])} of one device"
    return f"{text}, {cost['usd']:,.0f} dollars" if cost["usd"] else text


def hours_words(hours: float) -> str:
    """Return hours for people: minutes below one hour, days beside them from two days on.

    >>> hours_words(0.5), hours_words(5.0), hours_words(480.0)
    ('30.0 minutes', '5 hours', '480 hours (20.0 days)')
    """
    if hours >= 1.0:
        days = f" ({hours / 24.0:,.1f} days)" if hours >= 48.0 else ""
        return f"{hours:,.0f} hours{days}"
    return f"{60.0 * hours:,.1f} minutes"
