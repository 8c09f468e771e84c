"""``ablate repeats study=…``: fit what a repeat is worth to the runs of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeps.commands.command_options import RepeatsOptions, read_options
from sweeps.repeats.law_fit import FittedRepeats, fit_repeats
from sweeps.repeats.study_runs import runs_of_study, write_law

__all__ = ["describe", "main"]


def main(config: Mapping[str, Any]) -> int:
    """Fit, print and write ``repeats.json``; the promotion of the study judges its epochs with it."""
    options = read_options(RepeatsOptions, config, alone=True)
    runs_dir = Path(options.runs_dir)
    runs = runs_of_study(runs_dir, options.study, options.metric)
    fitted = fit_repeats(runs, f"{runs_dir}/{options.study}")
    print(describe(fitted, options.study))
    print(f"wrote {write_law(runs_dir / options.study, options.study, fitted)}")
    return 0


def describe(fitted: FittedRepeats, study: str) -> str:
    """Return the law for a terminal."""
    law = fitted.law(study)
    lines = [
        f"R* {law.constant:.3g} (90%: {law.low:.3g} to {law.high:.3g}) from {fitted.runs} runs; "
        "published: 15.4 (arXiv 2305.16264)"
    ]
    lines += [
        f"  epoch {epoch:>2} is worth {law.value(epoch):.2f} of the first "
        f"({law.value(epoch, constant=law.low):.2f} to {law.value(epoch, constant=law.high):.2f})"
        for epoch in (2, 4, 8, 16)
    ]
    if fitted.determined:
        lines.append(
            f"up to {law.most_epochs:.3g} epochs pass the gate: the last is worth at least "
            f"{law.least_value:g} at the lower end"
        )
        values = f"constant:{law.constant:g},low:{law.low:g},high:{law.high:g},study:{study}"
        lines.append(f"in a config: 'mixture.repeats={{{values}}}'")
    else:
        lines.append(
            f"the runs do not determine it (spread {fitted.spread:.2f} of the prior's): the gate "
            "keeps mixture.epoch_cap; add runs with more epochs"
        )
    return "\n".join(lines)
