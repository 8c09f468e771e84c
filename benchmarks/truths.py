"""Synthetic truths: what a mixture does to the losses of several domains, with a known optimum.

    law      loss_j = c_j + k_j exp(sum_i t_ij w_i)
    power    loss_j = c_j + k_j prod_i (w_i + 0.02) ** -a_ij
    mixed    half of each, plus a smooth wiggle that no surrogate family contains

Each domain has a source that is its home. The objective is a weighted mean of the domains; the
noise of a run is half shared by its domains and half their own.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["KINDS", "Truth"]

Floats = NDArray[np.float64]
Kind = Literal["law", "power", "mixed"]
KINDS: tuple[Kind, ...] = ("law", "power", "mixed")

_DOMAINS = 6
_OFFSET = 0.02


class Truth:
    """One truth; ``noise`` is the standard deviation of the objective's noise over that of the
    objective on even mixtures."""

    def __init__(self, sources: int, seed: int, kind: Kind, noise: float) -> None:
        rng = np.random.default_rng((sources, seed, KINDS.index(kind)))
        self.sources, self.kind = sources, kind
        self.floor = rng.uniform(1.5, 2.5, _DOMAINS)
        self.gain = rng.uniform(0.5, 1.5, _DOMAINS)
        self.weights = rng.dirichlet(np.full(_DOMAINS, 3.0))
        home = rng.integers(0, sources, _DOMAINS)
        rows = np.arange(_DOMAINS)
        self.exponents = -rng.gamma(1.0, 0.4, (_DOMAINS, sources))
        self.exponents += rng.normal(0, 0.15, (_DOMAINS, sources))
        self.exponents[rows, home] -= rng.uniform(1, 3, _DOMAINS)
        self.powers = rng.gamma(1.0, 0.05, (_DOMAINS, sources))
        self.powers[rows, home] += rng.uniform(0.1, 0.3, _DOMAINS)
        even = rng.dirichlet(np.ones(sources), 20_000)
        self.waves = rng.normal(0, 4.0, (12, sources))
        self.phases = rng.uniform(0, 2 * np.pi, 12)
        self.heights = rng.normal(size=(12, _DOMAINS))
        wiggle = np.cos(even[:4000] @ self.waves.T + self.phases) @ self.heights
        self.heights *= 0.25 * self._laws(even[:4000]).std(axis=0) / wiggle.std(axis=0)
        losses = self.loss(even)
        self.mean, self.spread = float(losses.mean()), float(losses.std())
        self.noise = noise * self.spread
        self._starts = even[np.argsort(losses)[:12]]

    @cached_property
    def best(self) -> float:
        """The true objective's smallest value, found when it is first asked for."""
        return self._best(self._starts)

    def domains(self, mixtures: Floats) -> Floats:
        """True loss of every domain, ``[n, domains]``."""
        losses = self._laws(mixtures)
        if self.kind == "mixed":
            losses = losses + np.cos(mixtures @ self.waves.T + self.phases) @ self.heights
        return losses

    def loss(self, mixtures: Floats) -> Floats:
        """True objective, ``[n]``."""
        return self.domains(mixtures) @ self.weights

    def observe(self, mixtures: Floats, rng: np.random.Generator) -> Floats:
        """Noisy domain losses of one run a mixture; their weighted mean has the stated noise."""
        n = len(mixtures)
        half = self.noise * np.sqrt(0.5)
        own = rng.normal(size=(n, _DOMAINS)) * half / np.sqrt((self.weights**2).sum())
        return self.domains(mixtures) + rng.normal(size=(n, 1)) * half + own

    def regret(self, mixtures: Floats) -> Floats:
        """0 at the optimum, 1 at an average even mixture."""
        return (self.loss(mixtures) - self.best) / (self.mean - self.best)

    def _laws(self, mixtures: Floats) -> Floats:
        law = self.floor + self.gain * np.exp(mixtures @ self.exponents.T)
        power = self.floor + self.gain * np.exp(-np.log(mixtures + _OFFSET) @ self.powers.T)
        if self.kind == "law":
            return law
        return power if self.kind == "power" else np.where(np.arange(_DOMAINS) % 2, power, law)

    def _best(self, starts: Floats) -> float:
        from scipy.optimize import minimize

        found = [
            minimize(
                lambda w: float(self.loss(np.clip(w, 0, 1)[None] / np.clip(w, 0, 1).sum())[0]),
                start,
                bounds=[(0, 1)] * self.sources,
                constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 500},
            ).fun
            for start in np.r_[starts, np.full((1, self.sources), 1 / self.sources)]
        ]
        return float(min(*found, self.loss(starts).min()))
