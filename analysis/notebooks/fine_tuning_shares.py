# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # How much chat to fine-tune on
#
# The demo's full run is fine-tuned on conversations of two people and on exercises in 17 languages, in
# three ratios with two seeds each. This notebook reads the study: what each ratio is worth for each
# source, what it costs in text of the pretraining, and whether the shares were read as they were asked
# for, in conversations and in tokens.
#
# Point `ABLATIONS_RUNS` and `ABLATIONS_STUDY` at a study of yours, or run the demo's:
# `make demo`, `ablate prepare experiment=demo_sft_ratio`, `ablate run -m experiment=demo_sft_ratio`,
# `ablate verdict study=demo_sft_ratio`.

# %%
import os

import pandas as pd

import ablations
from analysis import figures
from analysis.score_fit import fit_score

study = ablations.load_study(
    os.environ.get("ABLATIONS_STUDY", "demo_sft_ratio"), os.environ.get("ABLATIONS_RUNS", "runs")
)
frames = study.frames
print(study.question)

# %% [markdown]
# ## The runs
#
# A sample is a conversation, so `tokens` counts conversations here. Two seeds of a ratio read other
# conversations in another order, and their models begin with other rows for the markers of turns.

# %%
runs = frames.runs[["trial", "seed", "status", "score", "tokens"]]
scores = frames.runs.groupby("trial", observed=True)["score"]
between = scores.mean().max() - scores.mean().min()
within = (scores.max() - scores.min()).max()
print(f"ratios differ by {between:.3f}, seeds of a ratio by at most {within:.3f}")
runs

# %% [markdown]
# ## The score against the ratio
#
# Bits per byte of held-out answers, the mean of both sources. The small marks are single runs.

# %%
mixtures, sources = figures.mixture_frame(frames.trials, frames.sources)
fit = fit_score(mixtures, sources, families=("scheffe", "gp"))
verdict = study.verdict
figures.ratio_curve(
    mixtures,
    sources,
    seeds=figures.ratio_seeds_frame(frames.runs, frames.sources, sources[0]),
    prediction=fit.prediction if fit else None,
    verdict=verdict.sentence if verdict else study.found_verdict.note,
    score="bits per byte of answers (lower is better)",
)

# %% [markdown]
# ## What each source gains, and what is forgotten
#
# Each source helps its own answers most by its first tenth, which is why the best ratio lies between
# the ends. `heldout_wiki` and `heldout_code` are text of the pretraining: what a ratio forgets.

# %%
last = frames.scores[frames.scores["metric"] == "bpb"].merge(
    frames.sources[["run", "source", "weight"]]
)
table = (
    last[last["source"] == sources[0]]
    .pivot_table(index="task", columns="weight", values="value", aggfunc="mean", observed=True)
    .round(3)
)
table.columns = [f"{share:.0%} {sources[0]}" for share in table.columns]
table

# %% [markdown]
# ## Were the shares read?
#
# Shares of conversations are exact to one conversation. The same conversations in tokens that the loss
# counts are other shares, because sources differ in length: `method.unit=tokens` asks for those instead.

# %%
read = frames.audits[["run", "source", "asked", "realised"]].copy()
conversations = frames.runs["tokens"].iloc[0]
read["off by, conversations"] = (read["realised"] - read["asked"]).abs() * conversations
counted = frames.audits["tokens"]
read["share of tokens"] = (counted / counted.groupby(frames.audits["run"]).transform("sum")).round(
    3
)
print(f"at most {read['off by, conversations'].max():.0f} of {conversations} conversations off")
read

# %% [markdown]
# ## The verdict
#
# Paired over held-out conversations, hierarchical over seeds.

# %%
print(verdict.sentence if verdict else study.found_verdict.note)
if verdict:
    print(verdict.settle_text or "it is settled")
    rows = [
        {
            "candidate": row.name,
            "score": row.mean,
            "better by": row.advantage.value if row.advantage else None,
        }
        for row in verdict.candidates
    ]
pd.DataFrame(rows if verdict else [])
