"""Epoch caps at the full budget, as limits on weights.

If a source of 10 B tokens may be read 4 times in a full run of 1 T tokens, at most 4% of all tokens
may come from it. If one mixture is searched, that is an upper bound on its weight. If several stages
are searched, the limit is on the sum of their weights, each times the stage's share of the tokens::

    >>> caps = EpochCaps(tokens={"math": 10e9}, full_tokens=1e12, max_epochs=4.0)
    >>> caps.limit("math")
    0.04
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ablations.errors import ConfigError, Problem

__all__ = ["EpochCaps"]


@dataclass(frozen=True, kw_only=True)
class EpochCaps:
    """Limits on the tokens that the full run may read from each source."""

    tokens: Mapping[str, float]
    """Available tokens per source; a source that is not named has no cap."""
    full_tokens: float
    """Tokens of the full run, all stages together."""
    max_epochs: float = 4.0
    """Number of times that a source may be read over the whole schedule."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Config path of a searched mixture → share of the full run's tokens that it governs; 1 if the
    path is missing."""
    outside: Mapping[str, float] = field(default_factory=dict)
    """Source → share of the full run's tokens that stages which are not searched read from it."""

    def __post_init__(self) -> None:
        values = {"full_tokens": self.full_tokens, "max_epochs": self.max_epochs}
        values |= {f"shares.{path}": share for path, share in self.shares.items()}
        problems = [
            Problem(f"epoch caps: {name}", "not a positive number", found=value)
            for name, value in values.items()
            if not (math.isfinite(value) and value > 0.0)
        ]
        if problems:
            raise ConfigError(problems)

    def share(self, path: str) -> float:
        """Return the share of the full run's tokens that the mixture at ``path`` governs."""
        return self.shares.get(path, 1.0)

    def limit(self, source: str) -> float:
        """Return the largest share of the full run's tokens that mixtures may read from ``source``."""
        if source not in self.tokens:
            return math.inf
        whole = self.max_epochs * self.tokens[source] / self.full_tokens
        return max(0.0, whole - self.outside.get(source, 0.0))
