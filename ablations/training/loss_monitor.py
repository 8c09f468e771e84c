"""Is the training well? Divergence ends it, a spike is noted.

* NaN or infinity, in the loss or in the gradient's norm: diverged, at once.
* A loss above ``diverged_ratio`` · ln(vocabulary), for ``diverged_patience_steps`` steps in a row:
  diverged. ln(vocabulary) is the loss of a uniform guess, so the rule needs no history of good
  losses; the patience lets the first steps of a hot learning rate through.
* A loss ``spike_sigmas`` deviations above the mean of the window before it: a spike. It enters
  the window cut down to that threshold: one spike does not hide the next, and a loss that stays up
  (another stage, another mixture) becomes the new normal.

The judge sees each step once, in order. A resumed run shows it the steps before (``recall``), so
that it says what it would have said undisturbed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from ablations.training.specs import TrainingSpec

__all__ = ["Diverged", "Health", "Spike"]

_LEAST_WINDOW = 16
"""Losses needed before a deviation means something."""

_LEAST_DEVIATION = 0.01
"""Floor of the deviation, nats: a flat loss must not turn noise into spikes."""


class Diverged(str):
    """The reason to end the run."""


class Spike(str):
    """What to note of the step."""


class Health:
    """Judges losses one after another."""

    def __init__(self, rules: TrainingSpec, vocab_size: int) -> None:
        self._rules = rules
        self._limit = rules.diverged_ratio * math.log(vocab_size)
        self._window: deque[float] = deque(maxlen=rules.spike_window_steps)
        self._bad_steps = 0

    def recall(self, losses: Iterable[float]) -> None:
        """Show it the losses of the steps before, oldest first."""
        for loss in losses:
            self.judge(loss, 0.0)

    def judge(self, loss: float, grad_norm: float) -> Diverged | Spike | None:
        """The verdict on one step; the gradient's norm is 0 where nothing is clipped."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return Diverged(f"loss {loss:.4g}, gradient norm {grad_norm:.4g}")
        self._bad_steps = self._bad_steps + 1 if loss > self._limit else 0
        if self._bad_steps >= self._rules.diverged_patience_steps:
            return Diverged(
                f"loss {loss:.4g}, above {self._limit:.4g} for {self._bad_steps} steps in a row"
            )
        return self._spike(loss)

    def _spike(self, loss: float) -> Spike | None:
        window = self._window
        if len(window) >= min(_LEAST_WINDOW, self._rules.spike_window_steps):
            mean = math.fsum(window) / len(window)
            variance = math.fsum((value - mean) ** 2 for value in window) / len(window)
            deviation = max(math.sqrt(variance), _LEAST_DEVIATION)
            threshold = mean + self._rules.spike_sigmas * deviation
            if loss > threshold:
                window.append(threshold)
                return Spike(f"loss {loss:.4g}, {(loss - mean) / deviation:.1f} deviations up")
        window.append(loss)
        return None
