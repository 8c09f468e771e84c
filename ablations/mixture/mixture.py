"""Mixtures: points on the simplex over sources, and the standing baselines.

A weight is the share of TOKENS drawn from a source. A mixture is checked when it is made; weights
that do not sum to one are refused unless normalising was asked for by name::

    >>> Mixture({"fineweb_edu": 0.6, "dclm": 0.4})["dclm"]
    0.4
    >>> round(unimax({"web": 1e12, "math": 1e10}, budget_tokens=2e11, max_epochs=4)["math"], 3)
    0.2
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ablations.errors import ConfigError, Problem

__all__ = ["SUM_TOLERANCE", "Mixture", "natural", "uniform", "unimax"]

SUM_TOLERANCE = 1e-6
"""Largest distance of the sum of weights from one that is put down to rounding."""


class Mixture(Mapping[str, float]):
    """Source → weight: immutable, hashable, non-negative and summing to exactly one after rounding.

    Raises:
        ConfigError: weights that are negative, not finite or do not sum to one within
            :data:`SUM_TOLERANCE`; every problem at once.
    """

    __slots__ = ("_weights",)

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        normalize: bool = False,
        where: str = "mixture.weights",
    ) -> None:
        values = {name: float(weight) for name, weight in weights.items()}
        problems = _problems(values, normalize, where)
        if problems:
            raise ConfigError(problems)
        total = math.fsum(values.values())
        # Dividing by a sum within the tolerance of one makes the thresholds of the sampler exact.
        self._weights = MappingProxyType({name: value / total for name, value in values.items()})

    def __getitem__(self, source: str) -> float:
        return self._weights[source]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._weights.items())))

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}: {weight:.4g}" for name, weight in self._weights.items())
        return f"Mixture({{{inside}}})"

    def __reduce__(self) -> tuple[type[Mixture], tuple[dict[str, float]]]:
        return type(self), (dict(self._weights),)

    @property
    def support(self) -> tuple[str, ...]:
        """The sources with a weight above zero, in the order given."""
        return tuple(name for name, weight in self._weights.items() if weight > 0.0)

    def blend(self, other: Mapping[str, float], share: float) -> Mixture:
        """``share`` of ``other`` and the rest of this mixture, e.g. the 60/40 of an annealing arm."""
        names = dict.fromkeys([*self, *other])
        return Mixture(
            {n: (1.0 - share) * self.get(n, 0.0) + share * other.get(n, 0.0) for n in names},
            normalize=True,
        )


def _problems(values: Mapping[str, float], normalize: bool, where: str) -> list[Problem]:
    if not values:
        return [Problem(where, "a mixture needs at least one source")]
    problems = [
        Problem(f"{where}.{name}", "not a weight", found=value, allowed="a finite number >= 0")
        for name, value in values.items()
        if not math.isfinite(value) or value < 0.0
    ]
    if problems:
        return problems
    total = math.fsum(values.values())
    if total <= 0.0:
        return [Problem(where, "all weights are zero", found=dict(values))]
    if not normalize and abs(total - 1.0) > SUM_TOLERANCE:
        return [
            Problem(
                where,
                "weights do not sum to 1",
                found=f"sum {total:.8g}",
                allowed=f"1 within {SUM_TOLERANCE:g}",
                do="correct them, or say mixture.normalize=true",
            )
        ]
    return []


def natural(tokens: Mapping[str, float]) -> Mixture:
    """Weights in proportion to the tokens available."""
    return Mixture(tokens, normalize=True)


def uniform(sources: Mapping[str, float] | tuple[str, ...]) -> Mixture:
    """Return the same weight for every source."""
    return Mixture(dict.fromkeys(sources, 1.0), normalize=True)


def unimax(
    tokens: Mapping[str, float], *, budget_tokens: float, max_epochs: float = 4.0
) -> Mixture:
    """As even as the epoch cap allows (UniMax, Chung et al. 2023, arXiv 2304.09151, algorithm 1).

    Small sources are filled first, each up to ``max_epochs`` of its tokens; what is left of the
    budget is shared evenly by the others.

    Args:
        tokens: Tokens available per source.
        budget_tokens: Tokens of the whole schedule.
        max_epochs: The epoch cap.

    Raises:
        ConfigError: the sources hold fewer than ``budget_tokens / max_epochs`` tokens together.
    """
    if sum(tokens.values()) * max_epochs < budget_tokens * (1.0 - SUM_TOLERANCE):
        raise ConfigError(
            Problem(
                "schedule.total_tokens",
                "more than all sources give under the epoch cap",
                found=f"{budget_tokens:.4g}",
                allowed=f"at most {sum(tokens.values()) * max_epochs:.4g} ({max_epochs:g} epochs)",
            )
        )
    left, given = float(budget_tokens), {}
    by_size = sorted(tokens, key=lambda name: (tokens[name], name))
    for position, name in enumerate(by_size):
        share = left / (len(by_size) - position)
        given[name] = min(share, max_epochs * tokens[name])
        left -= given[name]
    return Mixture({name: given[name] for name in tokens}, normalize=True)
