"""``ablate fit``: surrogates of a study or of anyone's swarm, their leaderboard, the optimum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem
from ablations.schema import validate
from sweeps.fit import FitOptions, SwarmFit, fit_swarm, write_fit
from sweeps.swarms import Swarm, read_pair, read_study

__all__ = ["main"]

_OF_COMMAND = ("study", "runs_dir", "ratios", "metrics", "out", "config_dirs")


def main(config: Mapping[str, Any]) -> int:
    """Fit, print, and write ``fit.json`` beside the tables it was made from."""
    own = {key: value for key, value in config.items() if key not in _OF_COMMAND}
    options = validate(FitOptions, own)
    swarm, folder = _swarm(config)
    fit = fit_swarm(swarm, options)
    print(describe(swarm, fit))
    for path in write_fit(folder, swarm, fit):
        print(f"wrote {path}")
    return 0


def describe(swarm: Swarm, fit: SwarmFit) -> str:
    """What a fit says, for a terminal."""
    lines = [*fit.notes, str(fit.leaderboard), ""]
    lines.append(f"optimum of {fit.surrogate}: score {fit.score:.4g}, a run there is expected in")
    lines[-1] += f" [{fit.low:.4g}, {fit.high:.4g}] (90%)"
    lines.append(f"best run so far: {fit.best_run}, score {fit.best_run_score:.4g}")
    width = max(len(name) for name in swarm.sources)
    lines.append(f"{'source':<{width}}  optimum  over resampled runs (5–95%)")
    for name, weight in sorted(fit.optimum.items(), key=lambda item: -item[1]):
        low, high = fit.ranges.get(name, (weight, weight))
        if max(weight, high) >= 0.005:
            lines.append(f"{name:<{width}}  {weight:>7.3f}  {low:.3f} – {high:.3f}")
    return "\n".join(lines)


def _swarm(config: Mapping[str, Any]) -> tuple[Swarm, Path]:
    """The swarm named, and where its fit goes."""
    study, ratios, metrics = (config.get(key) for key in ("study", "ratios", "metrics"))
    if (study is None) == (ratios is None) or (ratios is None) != (metrics is None):
        raise ConfigError(
            Problem(
                "study",
                "name a study, or a pair of tables",
                found=f"study={study}, ratios={ratios}, metrics={metrics}",
                allowed="study=NAME, or ratios=RATIOS.csv metrics=METRICS.csv",
            )
        )
    out = config.get("out")
    if study is not None:
        runs_dir = Path(config.get("runs_dir") or "runs")
        return read_study(runs_dir, str(study)), Path(out or runs_dir / str(study) / "fit")
    return read_pair(Path(str(ratios)), Path(str(metrics))), Path(out or "fit")
