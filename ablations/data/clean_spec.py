"""Cleaning of a source's documents before anything else: addresses, languages, private data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ablations.errors import ConfigError, Problem

__all__ = ["CleanSpec"]


@dataclass(frozen=True, kw_only=True)
class CleanSpec:
    """datatrove's filters and formatters, each counted by the preparation."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    url_column: str | None = None
    """Column of the document's address: those on datatrove's block lists are dropped (adult sites, spam)."""
    blocked_domains: tuple[str, ...] = ()
    """Further domains whose documents are dropped."""
    url_lists: bool = True
    """Use datatrove's own lists too."""
    languages: tuple[str, ...] = ()
    """Codes of the languages that are kept (``en``); empty = all."""
    language_threshold: float = 0.65
    """Probability that a kept language has to exceed."""
    language_model: str | None = None
    """File of a fastText model with labels such as ``__label__en``; null = lid.176, which is fetched."""
    pii: bool = False
    """Replace e-mail addresses and public IP addresses by ones that belong to nobody."""

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 <= self.language_threshold < 1.0:
            problems.append(
                Problem(
                    "source.clean.language_threshold",
                    "not a probability",
                    found=self.language_threshold,
                    allowed="0 to below 1",
                )
            )
        if self.blocked_domains and self.url_column is None:
            problems.append(
                Problem("source.clean.blocked_domains", "there is no address", do="give url_column")
            )
        if self.language_model is not None and not self.languages:
            problems.append(
                Problem("source.clean.language_model", "no language is kept", do="give languages")
            )
        if problems:
            raise ConfigError(problems)
