"""Figure of a report with its title and caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["Chart"]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Figure of a report."""

    key: str
    """Identifier in the page."""
    section: str
    """Section that it belongs to; ``lead`` is the one beside the answer."""
    title: str
    caption: str
    """One or two sentences that explain the figure."""
    figure: go.Figure
    phone_height: int | None = None
    """Height in pixels on a phone, if it can be lower there."""
    small: bool = False
    """Small figures are shown side by side."""
