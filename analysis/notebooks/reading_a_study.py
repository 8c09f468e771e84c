# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Reading a study, from first look to promotion
#
# A study of the demo asked for the ratio of encyclopedic text to conversations. This notebook reads
# its record folders the way a sceptical colleague would: what was run, what the noise is, what the
# verdict says, what it rests on, and whether a promotion would pass.
#
# Point `ABLATIONS_RUNS` and `ABLATIONS_STUDY` at a study of yours, or run the demo's first:
# `ablate run -m experiment=demo_ratio`, then `ablate verdict study=demo_ratio`.

# %%
import os
from pathlib import Path

from analysis import figures
from analysis.frames import Frames, describe, task_values, weights
from analysis.frames.views import main_metric
from analysis.score_fit import fit_score
from analysis.study_files import definition_of, judged, question_of

runs_dir = Path(os.environ.get("ABLATIONS_RUNS", "runs"))
study = os.environ.get("ABLATIONS_STUDY", "demo_ratio")
frames = Frames.read(runs_dir, study)
question_of(definition_of(runs_dir / study), study)

# %% [markdown]
# ## What was run
#
# One row a trial. A trial is one mixture; its runs differ in the seed alone.

# %%
frames.trials[["trial", "name", "phase", "status", "runs", "score", "score_sd", "tokens"]]

# %% [markdown]
# Every frame documents its columns and their units:

# %%
describe("scores")

# %% [markdown]
# ## The score against the ratio, with its noise
#
# The small marks are single runs: look at how far two seeds of the same mixture are apart before
# believing any slope. The band is where the surrogate expects nine of ten new runs; grey is what it
# cannot tell from its own optimum.

# %%
mixtures, sources = figures.mixture_frame(frames.trials, frames.sources)
fit = fit_score(mixtures, sources, families=("linear", "scheffe", "ridge-sqrt", "gp"))
found = judged(runs_dir, study, frames.files, "auto")
score = f"score ({mixtures['direction'].iloc[0]})"
if len(sources) == 2:
    picture = figures.ratio_curve(
        mixtures,
        sources,
        seeds=figures.ratio_seeds_frame(frames.runs, frames.sources, sources[0]),
        prediction=fit.prediction if fit else None,
        verdict=found.verdict.sentence if found.verdict else found.note,
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
# Paired over items, hierarchical over seeds, corrected for every candidate looked at. "Tie" is a
# normal answer, and it comes with what would settle it.

# %%
verdict = found.verdict
print(verdict.sentence if verdict else found.note)
if verdict:
    print("What would settle it:", verdict.settle_text or "it is settled")
    for caveat in verdict.caveats:
        print("-", caveat)

# %% [markdown]
# Who gains and who pays, task by task; and which tasks carry signal at this size at all:

# %%
if verdict:
    for row in verdict.tasks:
        if row.effect in ("gains", "pays"):
            print(f"{row.task} ({row.metric}) {row.effect}: {row.reference:.4g} -> {row.pick:.4g}")
figures.task_signal(figures.signal_frame(verdict.signal if verdict else ()))

# %% [markdown]
# ## What moving tokens does
#
# One linear fit a task over all mixtures. Numbers in brackets are not clear of the noise.

# %%
values = task_values(frames.scores)
better = {task: metric != "bpb" for task, metric in main_metric(frames.scores).items()}
figures.effect_matrix(figures.effects_frame(values, weights(frames.sources), better))

# %% [markdown]
# ## Is it what was asked for?
#
# The audit recounts the tokens that were really read. A run outside the grey band has failed, and
# does not count.

# %%
realised = figures.realised_frame(frames.audits)
figures.realised_against_asked(realised)

# %% [markdown]
# ## From here to a promotion
#
# `ablate promote` asks the gates; three of them can be read off these frames: the pick beats the
# baseline by more than noise, every audit is clean, and no source is read more often than the cap.

# %%
epochs = figures.epochs_frame(frames.sources, frames.audits)
gates = {
    "beats the baseline": verdict is not None and verdict.outcome == "winner",
    "audit clean": not realised["fails"].any(),
    "epochs under the cap": not epochs["over"].any(),
}
gates

# %% [markdown]
# Where the first gate is closed, the honest next step is not to promote but to do what would settle
# it: more seeds of the finalists, as the verdict counted them above. What the study has cost so far:

# %%
figures.cost_ledger(figures.cost_ledger_frame(frames.cost))
