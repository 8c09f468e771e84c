# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Reading a study, from its trials to a promotion
#
# A study of the demo searched the ratio of encyclopedic text to conversations. This notebook reads
# its record folders like a sceptical colleague: the trials, the noise, the verdict, its evidence, and
# the gates of a promotion.
#
# Point `ABLATIONS_RUNS` and `ABLATIONS_STUDY` at a study of yours, or run the demo's first:
# `ablate run -m experiment=demo_ratio`, then `ablate verdict study=demo_ratio`.

# %%
import os

import ablations
from ablations.evaluation.specs import HIGHER_IS_BETTER
from analysis import figures
from analysis.frames import describe, task_values, weights
from analysis.frames.views import main_metric
from analysis.report.summaries import EFFECTS
from analysis.score_fit import fit_score
from sweeps.verdict.messages import gains

study = ablations.load_study(
    os.environ.get("ABLATIONS_STUDY", "demo_ratio"), os.environ.get("ABLATIONS_RUNS", "runs")
)
frames = study.frames
study.question

# %% [markdown]
# ## The trials
#
# One row per trial. A trial is one mixture; its runs differ only in the seed.

# %%
frames.trials[["trial", "name", "phase", "status", "runs", "score", "score_sd", "tokens"]]

# %% [markdown]
# Every frame documents its columns and their units:

# %%
describe("scores")

# %% [markdown]
# ## The score against the ratio, with its noise
#
# The small marks are single runs: compare the distance of two seeds of the same mixture with any
# slope. The surrogate expects nine of ten new runs in the band; mixtures in the grey range are within
# noise of its optimum.

# %%
mixtures, sources = figures.mixture_frame(frames.trials, frames.sources)
fit = fit_score(mixtures, sources, families=("linear", "scheffe", "ridge-sqrt", "gp"))
verdict = study.verdict
score = f"score ({mixtures['direction'].iloc[0]})"
if len(sources) == 2:
    picture = figures.ratio_curve(
        mixtures,
        sources,
        seeds=figures.ratio_seeds_frame(frames.runs, frames.sources, sources[0]),
        prediction=fit.prediction if fit else None,
        verdict=verdict.sentence if verdict else study.found_verdict.note,
        score=score,
    )
else:
    picture = figures.parallel_coordinates(mixtures, sources, score=score)
picture

# %%
fit.leaderboard if fit else "too few trials for a surrogate"

# %% [markdown]
# ## The verdict
#
# The comparison is paired over items, hierarchical over seeds, and corrected for the number of
# candidates. A tie is a normal result, and the verdict states what would settle it.

# %%
print(verdict.sentence if verdict else study.found_verdict.note)
if verdict:
    print("What would settle it:", verdict.settle_text or "it is settled")
    for caveat in verdict.caveats:
        print("-", caveat)

# %% [markdown]
# Better and worse tasks, and the quality of every task at this model size:

# %%
if verdict:
    for row in verdict.tasks:
        if row.effect in ("gains", "pays"):
            change = f"{row.reference:.4g} -> {row.pick:.4g}"
            print(f"{row.task} ({row.metric}) {EFFECTS[row.effect]}: {change}")
    for use in verdict.pictures:  # of a study with pictures: a lead counts only where they are used
        used = "used" if use.used else "not used"
        print(f"pictures of {use.task} in {use.candidate}: {used}, {gains(use)}")
figures.task_signal(figures.signal_frame(verdict.signal if verdict else ()))

# %% [markdown]
# ## Effect of each source on each task
#
# One linear fit per task over all mixtures. Numbers in brackets are within the noise.

# %%
values = task_values(frames.scores)
main = main_metric(frames.scores)
better = {task: HIGHER_IS_BETTER.get(metric, True) for task, metric in main.items()}
figures.effect_matrix(figures.effects_frame(values, weights(frames.sources), better))

# %% [markdown]
# ## Was the requested mixture read?
#
# The audit counts the tokens that were read. A run outside the grey band has failed and does not
# count.

# %%
realised = figures.realised_frame(frames.audits)
figures.realised_against_asked(realised)

# %% [markdown]
# ## The gates of a promotion
#
# `ablate promote` checks its gates. Three of them follow from these frames: the pick beats the
# baseline by more than noise, every run passes its audit, and no source exceeds the cap on epochs
# unless it is exempt.

# %%
epochs = figures.epochs_frame(frames.sources, frames.audits)
gates = {
    "beats the baseline": verdict is not None and verdict.outcome == "winner",
    "audit clean": not realised["fails"].any(),
    "epochs under the cap": not epochs["over"].any(),
}
gates

# %% [markdown]
# If the first gate fails, the next step is not a promotion but the runs that would settle the
# comparison: more seeds of the finalists, as the verdict states above. The cost of the study so far:

# %%
figures.cost_ledger(figures.cost_ledger_frame(frames.cost))
