"""Monitor of the loss: divergence ends the training, a spike is recorded.

* NaN or infinity in the loss or in the gradient norm: diverged, at once.
* A loss above ``diverged_ratio`` · ln(vocabulary) for ``diverged_patience_steps`` steps in a row:
  diverged. ln(vocabulary) is the loss of a uniform guess, so the rule needs no history of good
  losses. The patience allows for high losses in the first steps of a large learning rate.
* A loss ``spike_sigmas`` deviations above the mean of the window before it: a spike. The window takes it
  as that threshold, so that one spike does not hide the next, and a loss that stays high (another stage,
  another mixture) becomes the new normal.

Each step is judged once, in order. A resumed run passes the losses of the steps before to ``recall``, so
that its verdicts are those of an uninterrupted run.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from ablations.training.specs import TrainingSpec

__all__ = ["Diverged", "Health", "Spike"]

_LEAST_WINDOW = 16
"""Losses needed before their deviation is used."""

_LEAST_DEVIATION = 0.01
"""Smallest deviation used, in nats, so that the noise of a flat loss is not recorded as spikes."""


class Diverged(str):
    """Reason to end the run."""


class Spike(str):
    """Description of a spike, for the events."""


class Health:
    """Monitor of a training's losses, one after another."""

    def __init__(self, rules: TrainingSpec, vocab_size: int) -> None:
        self._rules = rules
        self._limit = rules.diverged_ratio * math.log(vocab_size)
        self._window: deque[float] = deque(maxlen=rules.spike_window_steps)
        self._bad_steps = 0

    def recall(self, losses: Iterable[float]) -> None:
        """Judge the losses of the steps before, oldest first, without a verdict."""
        for loss in losses:
            self.judge(loss, 0.0)

    def judge(self, loss: float, grad_norm: float) -> Diverged | Spike | None:
        """Return the verdict on one step; ``grad_norm`` is 0 if gradients are not clipped."""
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
